"""`python -P -m harness.models.adapter_pattern_process`: matches the patterns of an adapter, in a limited process."""

from __future__ import annotations

import re
import sys
from typing import Any

from harness.core.limited_process import serve


def match(shared: Any, item: Any) -> list[str]:
    """Match the regular expressions `shared` with the names of modules `item` in both ways in which PEFT matches.

    Return the names that an expression matches as a whole.
    """
    compiled = [re.compile(text) for text in shared]
    for each in compiled:
        for name in item:
            each.match(name)
    found = [{name for name in item if each.fullmatch(name)} for each in compiled]
    return sorted(set().union(*found))


if __name__ == "__main__":
    serve(match, sys.argv[1])
