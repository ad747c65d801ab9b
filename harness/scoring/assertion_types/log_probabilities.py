"""Assertion types about log-probabilities: of the model's own answer, and of the case's reference and choices.

Log-probabilities show changes that texts do not show: the same answer with less certainty, or a correct fact that
becomes more likely than a wrong one.
"""

from __future__ import annotations

import math

from harness.core.answers import Answer, Likelihood
from harness.core.suite import Assertion
from harness.scoring.assertion_type import AssertionType, Need, Threshold, Value
from harness.scoring.findings import CannotScoreError, Evidence, Finding, quote
from harness.scoring.values import filled, nothing

AGAIN = "use `harness run --fresh` to ask the model again"


def _answer(evidence: Evidence) -> Answer:
    if evidence.answer is None:
        raise CannotScoreError("needs an answer with its log-probabilities, and this is a text alone")
    return evidence.answer


def _sound(found: Likelihood | None, whose: str) -> Likelihood:
    """Return a stored log-probability; raise `CannotScoreError` if it is missing or impossible."""
    if found is None:
        raise CannotScoreError(f"no log-probability of {whose} is stored, or it was no finite number; {AGAIN}")
    if found.tokens < 1 or not math.isfinite(found.total) or found.total > 0:
        words = f"{found.total:g} over {found.tokens} tokens"
        raise CannotScoreError(f"the stored log-probability of {whose} is {words}, which is impossible; {AGAIN}")
    return found


def _perplexity_at_most(found: Likelihood | None, whose: str, said: str, assertion: Assertion) -> Finding:
    """Compare a perplexity with the threshold. The score is 1 / perplexity: the tokens' geometric mean probability."""
    sound = _sound(found, whose)
    if assertion.threshold is None:
        raise CannotScoreError("has no threshold, the largest perplexity to allow")
    holds = sound.perplexity <= assertion.threshold
    words = f"{said} {sound.perplexity:.4g}, where {assertion.threshold:g} is allowed"
    return Finding(holds, words, math.exp(-sound.loss))


def _perplexity(evidence: Evidence, assertion: Assertion) -> Finding:
    return _perplexity_at_most(_answer(evidence).likelihood, "the answer", "has perplexity", assertion)


def _reference_perplexity(evidence: Evidence, assertion: Assertion) -> Finding:
    return _perplexity_at_most(
        _answer(evidence).reference, "the reference", "finds the reference at perplexity", assertion
    )


def _choice(evidence: Evidence, assertion: Assertion) -> Finding:
    """Check that the model prefers a choice. The score is its softmax share over all choices.

    The softmax is over mean log-probabilities per token, because sums would favour short texts. If two choices are
    equally likely, neither is preferred.
    """
    texts, found = evidence.case.choices, _answer(evidence).choices
    if assertion.value not in texts:
        raise CannotScoreError(f"{quote(assertion.value)} is not among the case's choices")
    if len(found) != len(texts):
        raise CannotScoreError(f"{len(found)} log-probabilities of {len(texts)} choices are stored; {AGAIN}")
    losses = {text: _sound(one, quote(text)).loss for text, one in zip(texts, found, strict=True)}
    mine, rivals = losses.pop(assertion.value), losses
    least = min(mine, *rivals.values())
    share = math.exp(least - mine) / sum(math.exp(least - loss) for loss in (mine, *rivals.values()))
    best = min(rivals, key=lambda text: rivals[text])
    holds = mine < rivals[best]
    words = f"prefers {quote(assertion.value if holds else best)}"
    return Finding(holds, f"{words}; {quote(assertion.value)} has a share of {share:.3f}", share)


PERPLEXITY = Threshold(
    most=1e9, least=1.0, remedy="Write threshold: 5 for a perplexity of 5; no perplexity is below 1."
)
NEEDS = frozenset({Need.LOG_PROBABILITIES})
TYPES = (
    AssertionType(
        "perplexity",
        Value(nothing, optional=True),
        _perplexity,
        "has a perplexity of at most `threshold` under the model that gave it",
        "1 / perplexity",
        PERPLEXITY,
        NEEDS,
    ),
    AssertionType(
        "reference-perplexity",
        Value(nothing, optional=True),
        _reference_perplexity,
        "is ignored, and the model gives the case's `reference` a perplexity of at most `threshold`",
        "1 / perplexity",
        PERPLEXITY,
        NEEDS | {Need.REFERENCE},
    ),
    AssertionType(
        "choice",
        Value(filled, or_reference=True),
        _choice,
        "is ignored, and the model finds this text the most likely of the case's `choices`",
        "softmax share of this choice",
        needs=NEEDS | {Need.CHOICES},
    ),
)
