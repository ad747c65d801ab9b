"""Timelines: when each case was learned or lost during training, and how many epochs were enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.differences import standard_error
from harness.analysis.score_table import ScoreTable, pair
from harness.core.run_results import EpochRates, Milestone, Timeline
from harness.core.scores import Rate
from harness.core.suite import Role, Split, Suite


@dataclass(frozen=True)
class Epoch:
    """The scores of a variant after `number` epochs, over all seeds."""

    number: float
    table: ScoreTable
    rates: dict[Role, Rate]


def timeline(
    suite: Suite,
    variant: str,
    epochs: Sequence[Epoch],
    base: ScoreTable,
    objective: Role,
) -> Timeline:
    """Return one variant's timeline. `epochs` must be in ascending order."""
    numbers, tables = [epoch.number for epoch in epochs], [epoch.table for epoch in epochs]
    asked = [case for case in suite.of(Split.MAIN) if case.id in tables[-1].cells]
    found = tuple(
        _milestone(case.id, case.role, base.majority(case.id), [own.majority(case.id) for own in tables], numbers)
        for case in asked
    )
    cases = [case.id for case in asked if case.role is objective]
    by_epoch = [own.on(cases) for own in tables]
    rates = tuple(EpochRates(epoch.number, epoch.rates) for epoch in epochs)
    return Timeline(variant, rates, found, _enough(suite, numbers, by_epoch))


def _milestone(case: str, role: Role, before: bool, passed: Sequence[bool], numbers: Sequence[float]) -> Milestone:
    """Return the epoch since which the case has passed (learned) or failed (lost).

    `before` is the verdict on the base model, and `passed` has the verdict after each epoch. If all of these verdicts
    are the same, there is no such epoch.
    """
    turn = next((n for n in range(len(passed) - 1, -1, -1) if passed[n] is not passed[-1]), -1)
    since = numbers[turn + 1]
    if passed[-1]:
        return Milestone(case, role, None if before and turn < 0 else since, None)
    return Milestone(case, role, None, since if before or turn >= 0 else None)


def _enough(suite: Suite, numbers: Sequence[float], by_epoch: Sequence[ScoreTable]) -> float | None:
    """Return the first epoch whose pass rate is within one standard error of the best epoch's.

    Return None if no case passes after any epoch.
    """
    shares = [_mean(own) for own in by_epoch]
    best = max(range(len(shares)), key=lambda n: shares[n], default=None)
    if best is None or not shares[best]:
        return None
    for n, own in enumerate(by_epoch):
        found = pair(suite.cases, own, by_epoch[best])
        if found and 100 * (shares[best] - shares[n]) <= standard_error(found) + 1e-9:
            return numbers[n]
    return numbers[best]


def _mean(own: ScoreTable) -> float:
    every = [cell.share for seeds in own.cells.values() for cell in seeds.values()]
    return sum(every) / len(every) if every else 0.0
