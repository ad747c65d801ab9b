"""Tests of the assertion types `evaluate` and `python`, which run external code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.scores import Score
from harness.core.suite import Assertion, Case, Message
from harness.scoring import Scoring, score

METRIC = """
import datasets
import evaluate


class Mine(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, bonus=0.0):
        same = sum(a == b for a, b in zip(predictions, references)) / len(predictions)
        return {"mine": same + bonus, "percent": 100 * same, "each": [same], "nothing": float("nan"), "word": "x"}
"""
CODE = """
from dataclasses import dataclass


@dataclass
class Verdict:
    share: float


def get_assert(output, context):
    return output == context["vars"]["city"]

def is_short(output, context):
    return len(output) < 5

def share(output, context):
    return Verdict(len(output) / 10).share

def graded(output, context):
    return {"pass": output == context["test"]["reference"], "score": 0.25, "reason": f"asked {context['prompt']}"}

def ungraded(output, context):
    return {"score": 1}

def wild(output, context):
    return 7

def fails(output, context):
    print("to be seen on stderr")
    raise RuntimeError("no\\nidea")

def leaves(output, context):
    raise SystemExit(3)

constant = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("suite")
    (made / "mine.py").write_text(METRIC, encoding="utf-8")
    (made / "judges.py").write_text(CODE, encoding="utf-8")
    (made / "broken.py").write_text("import nothing_of_this_name", encoding="utf-8")
    (made.parent / "outside.py").write_text("def f(output, context): return True", encoding="utf-8")
    return made


def scored(assertion: Assertion, answer: str, folder: Path | None, *, allow: bool = True) -> Score:
    case = Case("c", (Message("user", "p?"),), (assertion,), reference="Rome", vars={"city": "Rome"})
    return score(case, answer, Scoring(folder, allow))


def test_code_runs_only_where_it_is_allowed(folder: Path) -> None:
    """Without --allow-code, code in the suite's folder and metrics by users of the Hub do not run and give no score."""
    for assertion in (
        Assertion("python", "judges.py:is_short"),
        Assertion("evaluate", {"metric": "mine.py"}),
        Assertion("evaluate", {"metric": "somebody/metric"}),
    ):
        found = scored(assertion, "x", folder, allow=False)
        assert (found.value, found.passed) == (None, False)
        assert "--allow-code" in found.error
        assert score(Case("c", (), (assertion,)), "x").value is None


@pytest.mark.parametrize(
    ("function", "threshold", "answer", "passed", "value"),
    [
        ("get_assert", None, "Rome", True, 1.0), ("get_assert", None, "Oslo", False, 0.0),
        ("is_short", None, "Oslo", True, 1.0), ("is_short", None, "Copenhagen", False, 0.0),
        ("share", None, "Oslo", True, 0.4), ("share", 0.5, "Oslo", False, 0.4), ("share", 0.4, "Oslo", True, 0.4),
        ("share", None, "", False, 0.0), ("graded", None, "Rome", True, 0.25), ("graded", 0.5, "Rome", False, 0.25),
        ("graded", None, "Oslo", False, 0.25), ("graded", 0.25, "Rome", True, 0.25),
    ],
)  # fmt: skip
def test_results_of_functions(
    folder: Path, function: str, threshold: float | None, answer: str, passed: bool, value: float
) -> None:
    """A function may return a truth value, a share, or a mapping as in promptfoo; `not-` inverts the result."""
    there = scored(Assertion("python", f"judges.py:{function}", threshold=threshold), answer, folder)
    twin = scored(Assertion("python", f"judges.py:{function}", True, threshold=threshold), answer, folder)
    assert (there.passed, there.value) == (passed, pytest.approx(value))
    assert (twin.passed, twin.value) == (not passed, pytest.approx(1 - value))


def test_a_functions_reason_is_shown(folder: Path) -> None:
    """The reason in the result of a function becomes the reason of the check."""
    assert scored(Assertion("python", "judges.py:graded"), "Rome", folder).checks[0].reason == "asked p?"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("judges.py:fails", "failed: RuntimeError: no"), ("judges.py:leaves", "failed: SystemExit: 3"),
        ("judges.py:wild", "returned 7, which is neither"), ("judges.py:ungraded", "without pass"),
        ("judges.py:constant", "there is no function constant"), ("judges.py:none", "there is no function none"),
        ("broken.py:f", "failed: ModuleNotFoundError"), ("absent.py:f", "there is no absent.py"),
        ("../outside.py:f", "leads out of the suite's folder"),
    ],
)  # fmt: skip
def test_broken_functions_have_no_score(folder: Path, value: str, reason: str) -> None:
    """An error in a function of the suite's folder becomes the error of the case's score, not a score of 0."""
    found = scored(Assertion("python", value), "Rome", folder)
    assert (found.value, found.passed) == (None, False)
    assert reason in found.error


def test_printed_output_goes_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Output that a function of the suite's folder prints goes to stderr."""
    scored(Assertion("python", "judges.py:fails"), "Rome", folder)
    assert capsys.readouterr() == ("", "to be seen on stderr\n")


@pytest.mark.parametrize(
    ("asked", "threshold", "answer", "passed", "value"),
    [
        ({}, None, "Rome", True, 1.0), ({}, None, "Oslo", False, 0.0), ({"reference": "Oslo"}, None, "Oslo", True, 1.0),
        ({"key": "percent", "scale": 200}, None, "Rome", True, 0.5),
        ({"key": "percent", "scale": 200}, 0.6, "Rome", False, 0.5),
        ({"key": "percent", "scale": 50}, 1, "Rome", True, 1),
        ({"key": "each"}, None, "Rome", True, 1.0), ({"args": {"bonus": 0.5}}, None, "Oslo", True, 0.5),
        ({"reference": "Oslo"}, None, "Rome", False, 0.0), ({"args": {"bonus": 0.5}}, 0.6, "Oslo", False, 0.5),
        ({}, None, "", False, 0.0), ({"key": "each"}, None, "Oslo", False, 0.0),
    ],
)  # fmt: skip
def test_results_of_metrics(
    folder: Path, asked: dict[str, Any], threshold: float | None, answer: str, passed: bool, value: float
) -> None:
    """The score is the metric's result divided by the scale, at most 1; `not-` inverts the score."""
    assertion = Assertion("evaluate", {"metric": "mine.py", **asked}, threshold=threshold)
    there = scored(assertion, answer, folder)
    twin = scored(Assertion("evaluate", {"metric": "mine.py", **asked}, True, threshold=threshold), answer, folder)
    assert (there.passed, there.value, there.error) == (passed, pytest.approx(value), "")
    assert (twin.passed, twin.value) == (not passed, pytest.approx(1 - value))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"metric": "mine.py", "key": "percent"}, "returned 100, which is not from 0 to 1"),
        ({"metric": "mine.py", "key": "nothing"}, "no finite number"), ({"metric": "mine.py", "key": "x"}, "no x"),
        ({"metric": "mine.py", "key": "word"}, "name one of them as key"),
        ({"metric": "mine.py", "args": {"malus": 1}}, "failed: "), ({"metric": "broken.py"}, "failed: "),
        ({"metric": "accuracy"}, "accuracy failed: "), ({"metric": "absent.py"}, "there is no absent.py"),
    ],
)  # fmt: skip
def test_a_broken_metric_has_no_score(folder: Path, asked: dict[str, Any], reason: str) -> None:
    """A metric that is missing, fails, or does not return a share gives an error and no score."""
    found = scored(Assertion("evaluate", asked), "Rome", folder)
    assert (found.value, found.passed) == (None, False)
    assert reason in found.error
