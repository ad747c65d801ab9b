"""Tests of the assertion types that compare an answer with references."""

from __future__ import annotations

from functools import cache

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from harness.core.scores import Check
from harness.core.suite import Assertion, Case, Message
from harness.scoring import Evidence, judge
from harness.scoring.assertion_types.similarity import normalised, token_f1

WORDS = ["the", "cat", "sat", "on", "a", "mat,", "dog.", "Ran!", "42", "Ünder"]
sentences = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
worded = sentences.filter(lambda text: any(c.isascii() and c.isalnum() for c in text))


def check(assertion: Assertion, answer: str) -> Check:
    return judge(assertion, Evidence(answer, Case("c", (Message("user", "p"),), (assertion,))))


@settings(deadline=None)
@given(sentences, worded)
def test_rouge_is_rouge_score(answer: str, reference: str) -> None:
    """The score of `rouge-n` equals rouge_score's recall of single words."""
    expected = RougeScorer(["rouge1"]).score(reference, answer)["rouge1"].recall
    found = check(Assertion("rouge-n", reference), answer)
    assert found.score == pytest.approx(expected)
    assert found.passed is (expected >= 0.75)


@settings(deadline=None)
@given(sentences, st.lists(worded, min_size=1, max_size=3))
def test_bleu_is_sacrebleu(answer: str, references: list[str]) -> None:
    """The score of `bleu` equals sacrebleu's sentence BLEU over all references, divided by 100."""
    expected = sacrebleu.sentence_bleu(answer, references).score / 100
    found = check(Assertion("bleu", references), answer)
    assert found.score == pytest.approx(expected)
    assert found.passed is (min(expected, 1.0) >= 0.5)


@settings(deadline=None)
@given(sentences, st.lists(worded, min_size=1, max_size=3))
def test_several_references_count_as_the_best(answer: str, references: list[str]) -> None:
    """Of several references, `rouge-n`, `f1` and `exact-match` use the one that is most similar to the answer."""
    for kind in ("rouge-n", "f1", "exact-match"):
        each = [check(Assertion(kind, reference), answer).score for reference in references]
        assert check(Assertion(kind, references), answer).score == max(score for score in each if score is not None)


@pytest.mark.parametrize("reference", ["Привет мир", "…", "日本"])
def test_rouge_needs_latin_letters_or_digits(reference: str) -> None:
    """A reference without any character that ROUGE reads gives an error, not a score of 0."""
    found = check(Assertion("rouge-n", reference), reference)
    assert found.score is None
    assert "a to z" in found.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,\tsat.", "cat sat"),
        ("A theatre", "theatre"),
        ("an apple-pie", "applepie"),
        ("the", ""),
        ("Éa", "éa"),
        ("it's", "its"),
    ],
)
def test_text_is_normalised_as_squad_does(text: str, expected: str) -> None:
    """Texts are normalised as in SQuAD: lower case, no punctuation or articles, single spaces."""
    assert normalised(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("a b", "b", 1.0), ("x y", "y z", 0.5), ("x x", "x", 2 / 3), ("", "", 1.0), ("the", "a", 1.0), ("", "x", 0.0),
     ("x", "y", 0.0), ("x y z", "z y x", 1.0)],
)  # fmt: skip
def test_f1_by_hand(answer: str, reference: str, expected: float) -> None:
    """F1 is the harmonic mean of the precision and the recall of words."""
    assert token_f1(answer, reference) == pytest.approx(expected)


@cache
def distance(a: str, b: str) -> int:
    """Return the edit distance, computed by its recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


@settings(deadline=None)
@given(st.text("abc", max_size=6), st.text("abc", min_size=1, max_size=6), st.integers(0, 6))
def test_levenshtein_by_definition(answer: str, value: str, most: int) -> None:
    """At most `threshold` edits are allowed, and the score is 1 minus the edits divided by the longer length."""
    found = check(Assertion("levenshtein", value, threshold=most), answer)
    edits = distance(answer, value)
    assert found.passed is (edits <= most)
    assert found.score == pytest.approx(1 - edits / max(len(answer), len(value)))
