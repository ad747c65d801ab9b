"""The repeats of one case under one seed to what counts of them: a concept of its own beside scorer and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from harness.records import Reducer, Sample, Score

HALF = 0.5
_VALUE: dict[Reducer, Callable[[Sequence[float]], float]] = {Reducer.MEAN: fmean, Reducer.ALL: min, Reducer.ANY: max}
_PASSED: dict[Reducer, Callable[[Sequence[bool]], bool]] = {
    Reducer.MEAN: lambda marks: fmean(marks) >= HALF,
    Reducer.ALL: all,
    Reducer.ANY: any,
}


def repeats(samples: Iterable[Sample]) -> list[tuple[Sample, ...]]:
    """Samples that differ in their repeat only, together and in its order."""
    found: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.variant, sample.seed, sample.case), []).append(sample)
    return [tuple(sorted(own, key=lambda sample: sample.repeat)) for own in found.values()]


def reduced(samples: Iterable[Sample], reducer: Reducer) -> tuple[Sample, ...]:
    """One sample for each variant, seed and case: its first repeat, with what all of them score together."""
    return tuple(
        own[0] if len(own) == 1 else replace(own[0], score=combined([sample.score for sample in own], reducer))
        for own in repeats(samples)
    )


def counting(samples: Iterable[Sample], reducer: Reducer) -> tuple[Sample, ...]:
    """The samples that pass rates count: every repeat by itself, or their one verdict; none without a score."""
    found = tuple(samples) if reducer is Reducer.MEAN else reduced(samples, reducer)
    return scored(found)


def scored(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples that have a score."""
    return tuple(sample for sample in samples if sample.score.value is not None)


def combined(scores: Sequence[Score], reducer: Reducer) -> Score:
    """The first repeat's score with the value and verdict of all; a single one as it is.

    A repeat without a score is left out of a mean. Of `all` and `any` it could be the one that decides: there is no
    score then.
    """
    scored = [score for score in scores if score.value is not None]
    missing = next((score for score in scores if score.value is None), None)
    if missing is not None and (reducer is not Reducer.MEAN or not scored):
        return missing
    if len(scores) == 1:
        return scores[0]
    value = _VALUE[reducer]([score.value for score in scored if score.value is not None])
    # The first one's checks, whatever became of it: they stand beside its answer.
    return replace(scores[0], value=value, passed=_PASSED[reducer]([score.passed for score in scored]), error="")
