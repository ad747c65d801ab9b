"""`python -P -m harness.models.adapter_pattern_process`: matches the patterns of an adapter, in a limited process."""

from __future__ import annotations

import re
import sys
from typing import Any

from harness.core.limited_process import serve


def match(shared: Any, item: Any) -> int:
    """Match the patterns `shared` with the names of modules `item`. Return how many matches there are.

    The expressions are those of PEFT 0.19 for target modules, for ranks of single modules, and for names of layers.
    """
    forms = (r"{}", r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")
    compiled = [re.compile(form.replace("{}", text)) for text in shared for form in forms]
    return sum(bool(each.fullmatch(name)) + bool(each.match(name)) for each in compiled for name in item)


if __name__ == "__main__":
    serve(match, sys.argv[1])
