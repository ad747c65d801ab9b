"""Judges of how near an answer is to a reference: equality, edit distance, shared words, ROUGE and BLEU."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from harness.records import Assertion
from harness.scorers.findings import CannotScoreError, Finding, bounded, quote
from harness.scorers.structure import equal, parse

MAX_CELLS = 10**10
"""Product of two texts' lengths beyond which their edit distance is not computed (a third of a second)."""
EDITS = 5
"""promptfoo's default distance."""

Judge = Callable[[str, Assertion], Finding]


def _references(assertion: Assertion) -> list[str]:
    return assertion.value if isinstance(assertion.value, list) else [assertion.value]


def _at_least(name: str, degree: float, threshold: float) -> Finding:
    return Finding(degree >= threshold, f"has {name} {degree:.3f}, where {threshold:g} is asked", degree)


# --- equality ----------------------------------------------------------------------------------------------------


def _equals(answer: str, assertion: Assertion) -> Finding:
    if not isinstance(assertion.value, str):
        return _equals_json(answer, assertion.value)
    # A value written as a YAML block ends with a line feed, which no stripped answer does.
    value = assertion.value.strip()
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


def _exact_match(answer: str, assertion: Assertion) -> Finding:
    bounded(answer, *_references(assertion))
    plain = normalised(answer)
    if any(normalised(reference) == plain for reference in _references(assertion)):
        return Finding(True, f"is {quote(plain)}")
    return Finding(False, f"is {quote(answer)}, not {quote(assertion.value)}")


# --- words -------------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> str:
    """Text as SQuAD compares it: lower case, without punctuation and articles, single spaces (arXiv:1606.05250)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of words, as SQuAD 2.0 has it: two empty texts agree."""
    found, expected = normalised(answer).split(), normalised(reference).split()
    if not found or not expected:
        return float(found == expected)
    return 2 * sum((Counter(found) & Counter(expected)).values()) / (len(found) + len(expected))


def _f1(answer: str, assertion: Assertion) -> Finding:
    bounded(answer, *_references(assertion))
    degree = max(token_f1(answer, reference) for reference in _references(assertion))
    return _at_least("F1", degree, 0.5 if assertion.threshold is None else assertion.threshold)


_READ_BY_ROUGE = re.compile("[a-z0-9]")


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"])


@cache
def _bleu_metric() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)  # as sacrebleu's own sentence_bleu has it, of which making one is the larger part


def _rouge_n(answer: str, assertion: Assertion) -> Finding:
    bounded(answer, *_references(assertion))
    if not any(_READ_BY_ROUGE.search(reference.lower()) for reference in _references(assertion)):
        raise CannotScoreError("ROUGE reads only a to z and 0 to 9, of which the reference has none")
    scorer = _rouge()
    degree = max(float(scorer.score(reference, answer)["rouge1"].recall) for reference in _references(assertion))
    return _at_least("ROUGE-1 recall", degree, 0.75 if assertion.threshold is None else assertion.threshold)


def _bleu(answer: str, assertion: Assertion) -> Finding:
    bounded(answer, *_references(assertion))
    # sacrebleu's 100.00000000000004 is 1.
    degree = min(_bleu_metric().sentence_score(answer, _references(assertion)).score / 100, 1.0)
    return _at_least("BLEU", degree, 0.5 if assertion.threshold is None else assertion.threshold)


# --- characters --------------------------------------------------------------------------------------------------


def _levenshtein(answer: str, assertion: Assertion) -> Finding:
    from rapidfuzz.distance import Levenshtein

    value = assertion.value.strip()
    if len(answer) * len(value) > MAX_CELLS:
        raise CannotScoreError(f"{len(answer):,} times {len(value):,} characters are too many for an edit distance")
    edits = Levenshtein.distance(answer, value)
    most = EDITS if assertion.threshold is None else assertion.threshold
    longest = max(len(answer), len(value))
    degree = 1 - edits / longest if longest else 1.0
    return Finding(edits <= most, f"is {edits} edits from {quote(value)}, where {most:g} are allowed", degree)


JUDGES: dict[str, Judge] = {
    "equals": _equals,
    "exact-match": _exact_match,
    "f1": _f1,
    "rouge-n": _rouge_n,
    "bleu": _bleu,
    "levenshtein": _levenshtein,
}
