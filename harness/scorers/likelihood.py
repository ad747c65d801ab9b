"""Judges of how likely the model found texts: its own answer, the case's reference, the case's choices.

They see what pass or fail hides: the same answer given with less certainty, a fact that gains on a rival.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.records import Answer, Assertion, Likelihood
from harness.scorers.findings import CannotScoreError, Context, Finding, quote

Judge = Callable[[str, Assertion, Context], Finding]
AGAIN = "`harness run --fresh` asks the model again"


def _given(context: Context) -> Answer:
    if context.given is None:
        raise CannotScoreError("needs an answer with its log-probabilities, and this is a text alone")
    return context.given


def _sound(found: Likelihood | None, whose: str) -> Likelihood:
    """A likelihood that a model can have given."""
    if found is None:
        raise CannotScoreError(f"no log-probability of {whose} is stored, or it was no finite number; {AGAIN}")
    if found.tokens < 1 or not math.isfinite(found.total) or found.total > 0:
        words = f"{found.total:g} over {found.tokens} tokens"
        raise CannotScoreError(f"the stored log-probability of {whose} is {words}, which none can be; {AGAIN}")
    return found


def _at_most(found: Likelihood | None, whose: str, said: str, assertion: Assertion) -> Finding:
    """The score is the geometric mean of the tokens' probabilities, which is 1 / perplexity."""
    sound = _sound(found, whose)
    if assertion.threshold is None:
        raise CannotScoreError("has no threshold: the most that the perplexity may be")
    holds = sound.perplexity <= assertion.threshold
    words = f"{said} {sound.perplexity:.4g}, where {assertion.threshold:g} is allowed"
    return Finding(holds, words, math.exp(-sound.loss))


def _perplexity(answer: str, assertion: Assertion, context: Context) -> Finding:
    del answer
    return _at_most(_given(context).likelihood, "the answer", "has perplexity", assertion)


def _reference_perplexity(answer: str, assertion: Assertion, context: Context) -> Finding:
    del answer
    return _at_most(_given(context).reference, "the reference", "finds the reference at perplexity", assertion)


def _choice(answer: str, assertion: Assertion, context: Context) -> Finding:
    """The score is the softmax of the choices' mean log-probabilities per token; it holds where that is the largest.

    Per token, because a sum would prefer whatever is short. Two choices that are equally likely: neither is preferred.
    """
    del answer
    texts, found = context.case.choices, _given(context).choices
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


JUDGES: dict[str, Judge] = {
    "perplexity": _perplexity,
    "reference-perplexity": _reference_perplexity,
    "choice": _choice,
}
