"""What a variant's adapters passed, epoch by epoch: when each case was learned, when lost, how many epochs it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import reducers
from harness.changes import Marks, marks, pair, standard_error
from harness.records import EpochRates, Milestone, Rate, Role, Sample, Split, Suite, Timeline

MAJORITY = 0.5


@dataclass(frozen=True)
class Epoch:
    """The samples, over all seeds, of the adapters as they were after so many epochs."""

    number: float
    samples: tuple[Sample, ...]
    rates: dict[Role, Rate]


def timeline(
    suite: Suite,
    variant: str,
    epochs: Sequence[Epoch],
    base: Sequence[Sample],
    void: Mapping[str, str],
    objective: Role,
) -> Timeline:
    """One variant's epochs, the last one last."""
    before = _passed(suite, base)
    after = [_passed(suite, epoch.samples) for epoch in epochs]
    numbers = [epoch.number for epoch in epochs]
    asked = [case for case in suite.of(Split.MAIN) if case.id not in void and case.id in after[-1]]
    found = tuple(
        _milestone(case.id, case.role, before.get(case.id, False), [own.get(case.id, False) for own in after], numbers)
        for case in asked
    )
    cases = [case.id for case in asked if case.role is objective]
    by_epoch = [marks(epoch.samples, suite.reducer, cases) for epoch in epochs]
    rates = tuple(EpochRates(epoch.number, epoch.rates) for epoch in epochs)
    return Timeline(variant, rates, found, _enough(suite, numbers, by_epoch))


def _passed(suite: Suite, samples: Sequence[Sample]) -> dict[str, bool]:
    """By case, whether more than half of the seeds pass it."""
    verdicts: dict[str, list[bool]] = {}
    for sample in reducers.reduced(samples, suite.reducer):
        if sample.score.value is not None:
            verdicts.setdefault(sample.case, []).append(sample.score.passed)
    return {case: sum(own) > MAJORITY * len(own) for case, own in verdicts.items()}


def _milestone(case: str, role: Role, before: bool, passed: Sequence[bool], numbers: Sequence[float]) -> Milestone:
    """`passed` by epoch: it is the last turn that counts, since a case may come and go."""
    turn = next((n for n in range(len(passed) - 1, -1, -1) if passed[n] is not passed[-1]), -1)
    since = numbers[turn + 1]
    if passed[-1]:
        return Milestone(case, role, None if before and turn < 0 else since, None)
    return Milestone(case, role, None, since if before or turn >= 0 else None)


def _enough(suite: Suite, numbers: Sequence[float], by_epoch: Sequence[Marks]) -> float | None:
    """The first epoch within one standard error of the best; None where no epoch passes anything."""
    shares = [_mean(own) for own in by_epoch]
    best = max(range(len(shares)), key=lambda n: shares[n], default=None)
    if best is None or not shares[best]:
        return None
    for n, own in enumerate(by_epoch):
        found = pair(suite, own, by_epoch[best])
        if found and 100 * (shares[best] - shares[n]) <= standard_error(found) + 1e-9:
            return numbers[n]
    return numbers[best]


def _mean(own: Marks) -> float:
    every = [share for seeds in own.values() for share in seeds.values()]
    return sum(every) / len(every) if every else 0.0
