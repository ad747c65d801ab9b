"""Tests of which cases can be scored with nothing but the text of an answer."""

from __future__ import annotations

import pytest

from harness.core.suite import Assertion, Case
from harness.scoring.judging import ONLY_JUDGED, score
from harness.scoring.registry import ASSERTION_TYPES
from harness.scoring.self_contained import families, packages, self_contained

TEXT, RUBRIC = Assertion("contains", "yes"), Assertion("llm-rubric", "is polite")
NOT_IN_A_NOTEBOOK = {
    "perplexity", "reference-perplexity", "choice", "evaluate", "python", "javascript", "similar", "similar:cosine",
    "llm-rubric", "model-graded-closedqa", "factuality", "model-graded-factuality", "answer-relevance",
}  # fmt: skip


def case(*assertions: Assertion) -> Case:
    return Case("one", (), assertions)


def test_every_type_is_self_contained_or_has_a_reason() -> None:
    """Of all assertion types, just those that need another model, log-probabilities or code are not self-contained."""
    found = {name: self_contained(case(Assertion(name)), decides=True).reason for name in ASSERTION_TYPES}
    assert {name for name, reason in found.items() if reason} == NOT_IN_A_NOTEBOOK & set(found)
    assert found["choice"] == "choice needs the log-probabilities of the answer"
    assert found["python"] == "python runs code from outside of the harness"


def test_an_inner_assertion_counts() -> None:
    """A set with an assertion that is not self-contained is not self-contained either."""
    inner = Assertion("assert-set", children=(TEXT, Assertion("similar", "yes")))
    assert self_contained(case(TEXT, inner)).reason == "similar compares texts with another model"
    assert not self_contained(case(TEXT, inner)).assertions


@pytest.mark.parametrize("assertions", [(TEXT, RUBRIC), (RUBRIC, TEXT), (TEXT,), (RUBRIC,), ()])
@pytest.mark.parametrize("answer", ["yes", "no"])
def test_without_a_judge_a_case_has_the_verdict_of_a_run(assertions: tuple[Assertion, ...], answer: str) -> None:
    """If the judge does not decide, the assertions that are left give the verdict that all of them give in a run."""
    whole, found = score(case(*assertions), answer), self_contained(case(*assertions))
    if found.reason:
        assert (whole.value, whole.error) == (None, ONLY_JUDGED)
    else:
        left = score(case(*found.assertions), answer)
        assert (left.value, left.passed) == (whole.value, whole.passed)


def test_a_judge_that_decides_is_needed() -> None:
    """If the judge decides, a case with an assertion for a judge is not self-contained."""
    assert "asks a model to judge" in self_contained(case(TEXT, RUBRIC), decides=True).reason


def test_families_and_packages_are_those_of_the_assertions() -> None:
    """Modules and packages are named for all assertions, also for those within a set."""
    inner = Assertion("assert-set", children=(Assertion("bleu", "a"), Assertion("is-json")))
    assert packages((TEXT,)) == ()
    assert packages((TEXT, inner)) == ("jsonschema", "regex", "sacrebleu")
    assert {name.rpartition(".")[2] for name in families((TEXT, inner))} == {"text", "sets", "similarity", "structure"}
