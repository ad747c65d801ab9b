"""Tests of the modules that notebooks contain: they score without the package and without other libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.suite import Assertion, Case
from harness.export.notebook.own_code import CONVERSION, REHEARSAL, SCORING, SMOLLM2, own_code
from harness.scoring import score
from harness.scoring.self_contained import families, packages

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"pattern": "^x"}}, "uniqueItems": True}
ASSERTIONS = (
    Assertion("contains", "yes"), Assertion("icontains", "YES", negated=True), Assertion("contains-any", ["a", "b"]),
    Assertion("contains-all", ["a", "b"]), Assertion("icontains-any", ["A"]), Assertion("icontains-all", ["A"]),
    Assertion("starts-with", "y"), Assertion("ends-with", "."), Assertion("regex", r"\by\w+"),
    Assertion("word-count", {"min": 2}), Assertion("is-refusal"), Assertion("is-json", SCHEMA),
    Assertion("contains-json", SCHEMA), Assertion("equals", "yes"), Assertion("equals", {"a": "x"}),
    Assertion("levenshtein", "yes", threshold=2), Assertion("rouge-n", "yes it is"), Assertion("bleu", "yes it is so"),
    Assertion("f1", "yes it"), Assertion("exact-match", ["Yes.", "No."]),
    Assertion("equals", "x", transforms=("JSON.parse(output).a",)),
    Assertion("assert-set", threshold=0.5, children=(Assertion("contains", "yes"), Assertion("contains", "no"))),
)  # fmt: skip
ANSWERS = ("yes", "Yes, it is so, a and b.", '{"a": "x"}', 'I am sorry, but I cannot help. {"a": "y"}', "")
PROGRAM = """\
import importlib.abc, json, sys
sys.path.insert(0, sys.argv[1])
given = json.load(sys.stdin)

class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in given["refused"]:
            raise ImportError(f"{name} is not declared")

sys.meta_path.insert(0, Refusing())
from harness.core.suite import Assertion, Case
from harness.scoring.judging import score

def assertion(written):
    children, transforms = map(assertion, written["children"]), written["transforms"]
    return Assertion(**{**written, "children": tuple(children), "transforms": tuple(transforms)})

made = [Case("one", (), (assertion(each),)) for each in given["assertions"]]
found = [score(case, answer) for case in made for answer in given["answers"]]
print(json.dumps([[each.passed, each.value, [check.reason for check in each.checks]] for each in found]))
"""
IMPORTED = {"rouge-score": "rouge_score"}


def run_alone(folder: Path, assertions: tuple[Assertion, ...]) -> list[list[object]]:
    """Score in a process that has only the notebook's files and the declared packages; return the results."""
    for name, text in own_code([SCORING], families(assertions)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    needed = {IMPORTED.get(name, name) for name in packages(assertions)}
    known = {"regex", "jsonschema", "rapidfuzz", "rouge_score", "sacrebleu", "pydantic", "pydantic_core", "evaluate"}
    # sacrebleu and rouge_score import what they need.
    refused = sorted(known - needed) if not needed & {"rouge_score", "sacrebleu"} else ["pydantic", "evaluate"]
    given = {"assertions": [as_json(one) for one in assertions], "answers": ANSWERS, "refused": refused}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(folder)], input=json.dumps(given), text=True, capture_output=True,
        check=False, env={"PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def as_json(assertion: Assertion) -> dict[str, object]:
    return {**vars(assertion), "children": [as_json(child) for child in assertion.children]}


@pytest.mark.parametrize("part", [slice(11), slice(11, 16), slice(13, None)])
def test_the_files_of_a_notebook_score_as_the_package(tmp_path: Path, part: slice) -> None:
    """A process with nothing but the notebook's files and the declared packages gives the package's results."""
    chosen = ASSERTIONS[part]
    wanted = [score(Case("one", (), (assertion,)), answer) for assertion in chosen for answer in ANSWERS]
    expected = [[each.passed, each.value, [check.reason for check in each.checks]] for each in wanted]
    assert run_alone(tmp_path, chosen) == json.loads(json.dumps(expected))


def test_only_what_is_needed_is_contained() -> None:
    """The modules of families that no assertion has are empty, and models and rehearsal come only if asked for."""
    plain = own_code([SCORING], families(ASSERTIONS[:1]))
    assert "TYPES = ()" in plain["harness/scoring/assertion_types/similarity.py"]
    assert "harness/core/rehearsal_answers.py" not in plain
    assert not [name for name in plain if name.startswith(("harness/models", "harness/engine"))]
    more = own_code([SCORING, REHEARSAL, *CONVERSION, SMOLLM2], families(ASSERTIONS))
    assert "rouge" in more["harness/scoring/assertion_types/similarity.py"]
    assert {"harness/core/rehearsal_answers.py", "harness/models/smollm2.py"} <= more.keys()
    assert not [name for name, text in more.items() if "import pydantic" in text or "from pydantic" in text]
