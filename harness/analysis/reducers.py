"""Reducers: combine the scores of several repeats of a case under one seed into one score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from harness.core.scores import Sample, Score
from harness.core.suite import Reducer

HALF = 0.5
_VALUE: dict[Reducer, Callable[[Sequence[float]], float]] = {Reducer.MEAN: fmean, Reducer.ALL: min, Reducer.ANY: max}
_PASSED: dict[Reducer, Callable[[Sequence[bool]], bool]] = {
    Reducer.MEAN: lambda marks: fmean(marks) >= HALF,
    Reducer.ALL: all,
    Reducer.ANY: any,
}


def repeats(samples: Iterable[Sample]) -> list[tuple[Sample, ...]]:
    """Return one group of samples for each variant, seed and case. A group has the repeats in their order."""
    found: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.variant, sample.seed, sample.case), []).append(sample)
    return [tuple(sorted(own, key=lambda sample: sample.repeat)) for own in found.values()]


def reduced(samples: Iterable[Sample], reducer: Reducer) -> tuple[Sample, ...]:
    """Return one sample for each variant, seed and case.

    It is the first repeat, with its score replaced by the combined score of all repeats.
    """
    return tuple(
        own[0] if len(own) == 1 else replace(own[0], score=combined([sample.score for sample in own], reducer))
        for own in repeats(samples)
    )


def exemplary(samples: Iterable[Sample], reducer: Reducer) -> tuple[Sample, ...]:
    """Return the same scores as `reduced`, each with the first repeat that has this verdict, and its checks.

    The answer is therefore an example of the verdict: a case that failed is shown with an answer that failed.
    """
    return tuple(_exemplary(own, combined([sample.score for sample in own], reducer)) for own in repeats(samples))


def _exemplary(own: Sequence[Sample], score: Score) -> Sample:
    alike = (sample for sample in scored(own) if sample.score.passed == score.passed)
    shown = own[0] if score.value is None else next(alike, own[0])
    return replace(shown, score=replace(score, checks=shown.score.checks))


def counting(samples: Iterable[Sample], reducer: Reducer) -> tuple[Sample, ...]:
    """Return the samples that count in pass rates. Samples without a score do not count.

    With the reducer `mean`, each repeat counts. With `all` and `any`, one combined verdict per case and seed counts.
    """
    found = tuple(samples) if reducer is Reducer.MEAN else reduced(samples, reducer)
    return scored(found)


def scored(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the samples that have a score."""
    return tuple(sample for sample in samples if sample.score.value is not None)


def combined(scores: Sequence[Score], reducer: Reducer) -> Score:
    """Combine the scores of all repeats into one score. It keeps the checks of the first repeat.

    `mean` leaves out repeats without a score. With `all` and `any`, such a repeat could decide the verdict, so the
    result has no score.
    """
    scored = [score for score in scores if score.value is not None]
    missing = next((score for score in scores if score.value is None), None)
    if missing is not None and (reducer is not Reducer.MEAN or not scored):
        return missing
    if len(scores) == 1:
        return scores[0]
    value = _VALUE[reducer]([score.value for score in scored if score.value is not None])
    # The checks are the first repeat's, because they are shown beside its answer.
    return replace(scores[0], value=value, passed=_PASSED[reducer]([score.passed for score in scored]), error="")
