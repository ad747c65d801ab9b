"""Tests of the search for cases with the same verdict for the base model and every variant."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.constant_cases import ConstantCases, constant_cases
from harness.core.answers import Answer
from harness.core.names import BASE
from harness.core.run_results import Results
from harness.core.scores import Sample, Score
from harness.core.suite import Split
from tests.support.synthetic_runs import case, results, suite

CASES = [case(id) for id in ("easy", "told", "hard", "shaky", "unasked")]


def run(**passed: str) -> Results:
    """Return a run with the verdicts of the base model and of the variants `a` (two seeds) and `b`, in this order.

    In each text, `1` stands for a passed answer, `0` for a failed one, `?` for one without a score, and a space for no
    answer.
    """
    made = results()
    names = [(BASE, 0), ("a", 0), ("a", 1), ("b", 0)]
    samples = [
        Sample(name, seed, id, Answer("", "", 1, False), Score(id, mark == "1", None if mark == "?" else float(mark)))
        for id, marks in passed.items()
        for (name, seed), mark in zip(names, marks, strict=True)
        if mark != " "
    ]
    held = case("held", split=Split.CONFIRM)
    variants = tuple(replace(made.variants[0], name=name) for name in ("a", "b"))
    manifest = replace(made.run, suite=suite([*CASES, held]))
    return replace(made, run=manifest, variants=variants, samples=tuple(samples))


def test_cases_with_one_verdict() -> None:
    """A case is constant if the base and every variant pass it under every seed, or all fail it."""
    found = constant_cases(run(easy="1111", told="0111", hard="0000", shaky="1101"))
    assert found == ConstantCases(4, ("easy",), ("hard",))


def test_answers_without_a_score_are_ignored() -> None:
    """An answer without a score is ignored; without a scored answer of the base or of any variant, nothing is said."""
    found = constant_cases(run(easy="1?11", told="?111", hard="0???"))
    assert found == ConstantCases(1, ("easy",), ())


def test_only_cases_for_choosing_count() -> None:
    """Held-out cases, and cases that no variant answered, are not counted."""
    assert constant_cases(run(held="1111", unasked="1   ")) == ConstantCases(0, (), ())


def test_the_sentence() -> None:
    """The sentence counts the cases and names up to three of each kind; without any, it is empty."""
    found = ConstantCases(9, ("a", "b", "c", "d"), ("e",))
    assert found.sentence == (
        "Same verdict for the base model and every variant under every seed: 4 cases of 9 passed (a, b, c and 1 more); "
        "1 case of 9 failed (e)."
    )
    assert ConstantCases(9, (), ()).sentence == ""
