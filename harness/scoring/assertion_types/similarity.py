"""Assertion types that compare an answer with a reference: equality, edit distance, shared words, ROUGE and BLEU."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from typing import Any

from harness.core.suite import Assertion
from harness.scoring.assertion_type import NUMBER, SHARE, AssertionType, Extra, Need, Value
from harness.scoring.assertion_types.structure import equal, parse
from harness.scoring.findings import CannotScoreError, Evidence, Finding, bounded, quote
from harness.scoring.values import filled, plain, text

MAX_CELLS = 10**10
"""Maximum product of the lengths of two texts whose edit distance is computed, which then takes a third of a second."""
EDITS = 5
"""Default threshold of `levenshtein`, as in promptfoo."""


def _references(assertion: Assertion) -> list[str]:
    return assertion.value if isinstance(assertion.value, list) else [assertion.value]


def _at_least(name: str, degree: float, threshold: float) -> Finding:
    return Finding(degree >= threshold, f"has {name} {degree:.3f}, where {threshold:g} is asked", degree)


# --- equality ----------------------------------------------------------------------------------------------------


def _equals(evidence: Evidence, assertion: Assertion) -> Finding:
    if not isinstance(assertion.value, str):
        return _equals_json(evidence.text, assertion.value)
    # A value that is written as a YAML block ends with a line feed, which the stripped answer does not have.
    answer, value = evidence.text, assertion.value.strip()
    if answer == value:
        return Finding(True, f"is {quote(value)}")
    return Finding(False, f"is {quote(answer)}, not {quote(value)}")


def _equals_json(answer: str, value: Any) -> Finding:
    try:
        found = parse(answer)
    except ValueError as problem:
        return Finding(False, str(problem))
    if equal(value, found):
        return Finding(True, f"is {quote(value)}")
    return Finding(False, f"is {quote(answer)}, not {quote(value)}")


def _exact_match(evidence: Evidence, assertion: Assertion) -> Finding:
    answer = evidence.text
    bounded(answer, *_references(assertion))
    found = normalised(answer)
    if any(normalised(reference) == found for reference in _references(assertion)):
        return Finding(True, f"is {quote(found)}")
    return Finding(False, f"is {quote(answer)}, not {quote(assertion.value)}")


# --- words -------------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> str:
    """Normalise a text as SQuAD does: lower case, no punctuation or articles, single spaces (arXiv:1606.05250)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of the precision and recall of words, as in SQuAD 2.0: two empty texts score 1."""
    found, expected = normalised(answer).split(), normalised(reference).split()
    if not found or not expected:
        return float(found == expected)
    return 2 * sum((Counter(found) & Counter(expected)).values()) / (len(found) + len(expected))


def _f1(evidence: Evidence, assertion: Assertion) -> Finding:
    answer = evidence.text
    bounded(answer, *_references(assertion))
    degree = max(token_f1(answer, reference) for reference in _references(assertion))
    return _at_least("F1", degree, 0.5 if assertion.threshold is None else assertion.threshold)


_ROUGE_CHARACTERS = re.compile("[a-z0-9]")


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"])


@cache
def _bleu_metric() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)  # like sacrebleu's sentence_bleu, which is slow: each call creates a BLEU


def _rouge_n(evidence: Evidence, assertion: Assertion) -> Finding:
    answer = evidence.text
    bounded(answer, *_references(assertion))
    if not any(_ROUGE_CHARACTERS.search(reference.lower()) for reference in _references(assertion)):
        raise CannotScoreError("ROUGE reads only a to z and 0 to 9, of which the reference has none")
    scorer = _rouge()
    degree = max(float(scorer.score(reference, answer)["rouge1"].recall) for reference in _references(assertion))
    return _at_least("ROUGE-1 recall", degree, 0.75 if assertion.threshold is None else assertion.threshold)


def _bleu(evidence: Evidence, assertion: Assertion) -> Finding:
    answer = evidence.text
    bounded(answer, *_references(assertion))
    # sacrebleu may return 100.00000000000004.
    degree = min(_bleu_metric().sentence_score(answer, _references(assertion)).score / 100, 1.0)
    return _at_least("BLEU", degree, 0.5 if assertion.threshold is None else assertion.threshold)


# --- characters --------------------------------------------------------------------------------------------------


def _levenshtein(evidence: Evidence, assertion: Assertion) -> Finding:
    from rapidfuzz.distance import Levenshtein

    answer, value = evidence.text, assertion.value.strip()
    if len(answer) * len(value) > MAX_CELLS:
        raise CannotScoreError(
            f"{len(answer):,} and {len(value):,} characters are too many to be compared by edit distance"
        )
    edits = Levenshtein.distance(answer, value)
    most = EDITS if assertion.threshold is None else assertion.threshold
    longest = max(len(answer), len(value))
    degree = 1 - edits / longest if longest else 1.0
    return Finding(edits <= most, f"is {edits} edits from {quote(value)}, where {most:g} are allowed", degree)


# --- meaning -----------------------------------------------------------------------------------------------------


def _similar(evidence: Evidence, assertion: Assertion) -> Finding:
    answer, references = evidence.text, _references(assertion)
    bounded(answer, *references)
    failure, found = None, []
    for reference in references:  # all pairs are noted before the first failure is raised
        try:
            found.append(evidence.scoring.opinions.similarity(reference.strip(), answer))
        except CannotScoreError as problem:
            failure = problem
    if failure:
        raise failure
    return _at_least(
        "similarity", min(max(*found, 0.0), 1.0), 0.75 if assertion.threshold is None else assertion.threshold
    )


# --- values ------------------------------------------------------------------------------------------------------


def _equal(value: Any) -> Any:
    return plain(value) if isinstance(value, dict | list) else text(value)


def _one_or_more(value: Any) -> Any:
    return [filled(item) for item in value] if isinstance(value, list) and value else filled(value)


REFERENCES = Value(_one_or_more, or_reference=True)
EMBEDDER = Extra("sentence_transformers", "similar")
TYPES = (
    AssertionType(
        "equals", Value(_equal, or_reference=True), _equals, "is this text, or JSON equal to this mapping or list"
    ),
    AssertionType(
        "levenshtein",
        Value(text, or_reference=True),
        _levenshtein,
        "is at most `threshold` (5) edits away from this text",
        "1 - edits / longer length",
        NUMBER,
        packages=("rapidfuzz",),
    ),
    AssertionType(
        "rouge-n",
        REFERENCES,
        _rouge_n,
        "contains at least the share `threshold` (0.75) of the reference's words",
        "ROUGE-1 recall, by rouge_score",
        SHARE,
        packages=("rouge-score",),
    ),
    AssertionType(
        "bleu",
        REFERENCES,
        _bleu,
        "has a BLEU score of at least `threshold` (0.5)",
        "sentence BLEU, by sacrebleu",
        SHARE,
        packages=("sacrebleu",),
    ),
    AssertionType(
        "f1", REFERENCES, _f1, "has a token F1 score of at least `threshold` (0.5), as in SQuAD", "F1", SHARE
    ),
    *(
        AssertionType(
            name,
            REFERENCES,
            _similar,
            "has a cosine similarity of at least `threshold` (0.75) to this text, by sentence-transformers",
            "the similarity",
            SHARE,
            frozenset({Need.EMBEDDINGS}),
            extra=EMBEDDER,
        )
        for name in ("similar", "similar:cosine")
    ),
    AssertionType(
        "exact-match",
        REFERENCES,
        _exact_match,
        "is one of these texts, ignoring case, punctuation and articles, as in SQuAD",
    ),
)
