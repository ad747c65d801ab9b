"""Compares templates with Nunjucks, as promptfoo configures it.

    python -m tests.studies.promptfoo_templates --promptfoo DIST --node NODE [--number 20000] [--seed 0]
        [--output FILE]

Templates are drawn at random from parts of Nunjucks: values of all kinds, operators, filters, conditions and loops.
Those that the harness evaluates must give the text that Nunjucks gives. Exits with 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.templates import Templates
from tests.studies.promptfoo_oracle import Oracle
from tests.suites.promptfoo.test_templates import RENDERED, VARIABLES

VALUES = [
    *VARIABLES,
    *[
        "missing",
        "true",
        "false",
        "none",
        "0",
        "1",
        "2.50",
        "'a'",
        "''",
        "'3'",
        "[]",
        "map.k",
        "map['2']",
        "rows[0].text",
        "rows[1].role",
        "list[0]",
        "list[9]",
    ],
    *["mixed[3]", "mixed[3][0]", "missing.deep", "t.length", "list.length", "map.in.d", "loop.index"],
    "'B c'",
    "['x', 1]",
]
FILTERS = [
    *[
        "upper",
        "lower",
        "trim",
        "capitalize",
        "title",
        "length",
        "join",
        "first",
        "last",
        "dump",
        "dump(1)",
        "safe",
        "d(1)",
        "sort",
        "reverse",
        "int",
        "round",
    ],
    "join('-')",
    "default('d')",
    "default('d', true)",
    "replace('a', 'b')",
]
OPERATORS = ["==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in", "~", "+", "-", "*", "/", "//", "%"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--promptfoo", type=Path, required=True)
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    numbers = random.Random(given.seed)
    drawn = [template(numbers, 2) for _ in range(given.number)]
    written = list(dict.fromkeys([*(text for text, _ in RENDERED), *drawn]))
    asked = [{"text": text, "variables": VARIABLES} for text in written]
    answers = Oracle(given.promptfoo, given.node).ask("templates", asked)
    record = compared(written, answers)
    record["command"] = f"python -m tests.studies.promptfoo_templates --number {given.number} --seed {given.seed}"
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return int(bool(record["different"]))


def compared(written: list[str], answers: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    different: list[Any] = []
    templates = Templates()
    for text, theirs in zip(written, answers, strict=True):
        try:
            ours = templates.render(text, VARIABLES)
        except UnsupportedError as missing:
            counts["refused"] += 1
            reasons[str(missing)] += 1
            continue
        except ValueError:
            counts["refused: a variable is missing"] += 1
            continue
        if theirs.get("value") == ours:
            counts["equal"] += 1
        else:
            different.append([text, ours, theirs])
    return {
        "templates": len(written),
        **counts,
        "different": different[:50],
        "refused because of": reasons.most_common(15),
    }


# --- random templates --------------------------------------------------------------------------------------------


def template(numbers: random.Random, depth: int) -> str:
    return "".join(part(numbers, depth) for _ in range(numbers.randint(1, 3)))


def part(numbers: random.Random, depth: int) -> str:
    kind = numbers.choice(["text", "output", "output", "output", "if", "for", "set"]) if depth else "output"
    dash = numbers.choice(["", "", "", "-"])
    if kind == "text":
        return numbers.choice(["a ", " \n", "{# note #}", "x{", "{% raw %}{{ t }}{% endraw %}"])
    if kind == "output":
        return f"{{{{{dash} {expression(numbers, depth)} {dash}}}}}"
    if kind == "set":
        return f"{{% set s = {expression(numbers, 1)} %}}{{{{ s }}}}"
    body = template(numbers, depth - 1)
    if kind == "if":
        other = numbers.choice(["", f"{{% else %}}{body}", f"{{% elif {expression(numbers, 1)} %}}e"])
        return f"{{%{dash} if {expression(numbers, depth)} %}}{body}{other}{{% endif {dash}%}}"
    names = numbers.choice(["x", "x", "x, y"])
    inside = numbers.choice(["{{ x }}", "{{ loop.index0 }}{{ loop.last }}", "{{ x.text }}{{ y }}", ""])
    source = numbers.choice(["list", "rows", "map", "empty", "mixed", "missing", "none_", "[1, 'a']"])
    return f"{{% for {names} in {source} {dash}%}}{inside}{body}{{% else %}}-{{% endfor %}}"


def expression(numbers: random.Random, depth: int) -> str:
    if depth == 0 or numbers.random() < 0.4:
        return filtered(numbers, numbers.choice(VALUES))
    kind = numbers.choice(["binary", "binary", "not", "test", "choice", "brackets"])
    left, right = expression(numbers, depth - 1), expression(numbers, depth - 1)
    if kind == "binary":
        return f"{left} {numbers.choice(OPERATORS)} {right}"
    if kind == "not":
        return f"not {left}"
    if kind == "test":
        return f"{left} is {numbers.choice(['', 'not '])}{numbers.choice(['defined', 'undefined', 'string'])}"
    if kind == "choice":
        return f"{left} if {right} else {filtered(numbers, 't')}"
    return filtered(numbers, f"({left})")


def filtered(numbers: random.Random, value: str) -> str:
    return value + "".join(f" | {numbers.choice(FILTERS)}" for _ in range(numbers.choice([0, 0, 0, 1, 1, 2])))


if __name__ == "__main__":
    sys.exit(main())
