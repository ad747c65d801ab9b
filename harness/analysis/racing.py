"""Racing: which variants stop training at a look, because they can no longer be chosen.

Variants with several seeds are looked at once, when they are trained to their ends under the first seed: what stops is
the training under the other seeds. Nothing is asked that would not be asked anyway, and no variant can still catch up.
Variants with one seed are looked at while they are trained, and are asked once more at each look.

At a look, every variant that is still in the race has been trained for the same share of its epochs, and has answered
the same cases. A variant leaves if

1. one of its trainings diverged or ran out of memory,
2. it is shown to lose more than the suite's margin of what the base model passes on `retain` and `avoid` cases, or
3. the leader is shown to be better on the objective. The leader is the variant with the most passes among those that
   are shown to keep what the base model can do, or that pass at least as many `retain` and `avoid` cases as this one.
   Without this condition, a variant that learns fast and forgets much would stop the variants that could be chosen.

A variant that is still training may catch up, and one may have had bad luck with its first seed. Therefore rule 3
compares it as if it already passed a part of what it fails: `CATCH_UP` times the share of its training that is left, or
`SEED_LUCK` times its pass rate. Simulated, the first protects slow starters (a variant with half the speed of another),
and the second equally good variants whose seeds differ.

The best variant is stopped with a probability of at most `ERROR`, if it does not gain more than that. A part of the
error is for rule 2: the best variant is tested once at each look, so each test has an error of LOSS_ERROR / looks. The
rest is for rule 3, an exact sign-flip test over groups of cases. Any of the other variants may lead, so each test has
an error of (ERROR - LOSS_ERROR) / (looks x (variants - 1)); the number of variants is that of those that entered the
race, not of those left. The tests of different looks and leaders may depend on each other, because the errors add up.

With one seed, a variant that overtakes the others very late is not protected. Therefore variants whose schedules differ
in length or shape are looked at once, late. `tests/studies/races.py` simulates all this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.analysis import losses, net_loss
from harness.analysis.losses import GUARDED
from harness.analysis.net_loss import TWO_SIDED
from harness.analysis.score_table import Pair, ScoreTable
from harness.analysis.statistics import LEVEL, Scores, exact_sign_flip
from harness.core.quantities import lower_bound, points
from harness.core.run_results import LossVerdict
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Role, Split, Suite

ERROR = 0.05
"""Largest probability with which a race stops the best variant, over all looks and rules together."""
LOSS_ERROR = 0.01
"""The part of `ERROR` for rule 2. Losses far beyond the margin are shown all the same."""
CATCH_UP = 0.35
"""Share of the failed cases that a variant may still learn to pass, if all of its training is left."""
SEED_LUCK = 0.25
"""Share of the failed cases, times the pass rate, that a variant may fail because of its first seed.

With p the pass rate, the shift is 0.25 p (1 - p), that of all logits by 0.25."""
LOOKS = (0.3, 0.6)
"""Shares of a training after which variants with one seed are looked at. If schedules differ, only the last one is."""


# --- looks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlannedLook:
    """When the variants are looked at, under the first seed."""

    epochs: Mapping[str, int] = field(default_factory=dict)
    """Variant id to a number of epochs. A variant that is not in it has been trained to its end."""


@dataclass(frozen=True)
class Race:
    """The plan of a race: how many variants enter, under how many seeds, and when they are looked at."""

    entered: int
    looks: tuple[PlannedLook, ...]
    seeds: int = 1

    def trained(self, look: PlannedLook, variant: Variant) -> float:
        """Return the share of a variant's training, over all seeds, that is done at a look."""
        first = look.epochs[variant.id] / variant.settings.epochs if variant.id in look.epochs else 1.0
        return first / self.seeds

    @property
    def loss_error(self) -> float:
        """Error of each test of whether a variant loses more than the margin."""
        return LOSS_ERROR / len(self.looks)

    @property
    def lead_error(self) -> float:
        """Error of each test of whether the leader is better."""
        return (ERROR - LOSS_ERROR) / (len(self.looks) * max(1, self.entered - 1))

    @property
    def least_groups(self) -> int:
        """The least number of groups of cases that must differ, all in favour of the leader, to stop a variant."""
        return math.ceil(math.log2(1 / self.lead_error))


def race_of(variants: Sequence[Variant], seeds: int = 1) -> Race:
    """Plan the looks of a race.

    It has none if fewer than two variants enter, or if they have one seed and at most one epoch.
    """
    if len(variants) < 2:
        return Race(len(variants), (), seeds)
    if seeds > 1:
        return Race(len(variants), (PlannedLook(),), seeds)
    alike = len({_schedule(variant.settings) for variant in variants}) == 1
    looks = []
    for share in LOOKS if alike else LOOKS[-1:]:
        epochs = {variant.id: _epoch(variant.settings.epochs, share) for variant in variants}
        found = PlannedLook({name: epoch for name, epoch in epochs.items() if epoch})
        if found.epochs and found not in looks:
            looks.append(found)
    return Race(len(variants), tuple(looks))


def _schedule(settings: Settings) -> tuple[object, ...]:
    return settings.epochs, settings.scheduler, settings.lr_scheduler_kwargs, settings.warmup


def _epoch(epochs: float, share: float) -> int:
    """Return the number of whole epochs after which to look: before the end, or 0 if there is no such epoch."""
    return min(math.ceil(share * epochs - 1e-9), math.ceil(epochs) - 1)


# --- the decision at a look ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entrant:
    """A variant at a look, with its scores and those of its base model on the main cases."""

    name: str
    scores: ScoreTable
    base: ScoreTable
    seeds: tuple[int, ...]
    done: float = 1.0
    """Share of its training under these seeds that is done."""
    failed: str = ""
    """How one of its trainings failed; empty if all succeeded up to the look."""
    more_seeds: bool = False
    """Whether it is also to be trained under other seeds."""


def objective_of(suite: Suite) -> Role:
    """Return the role whose pass rate is compared: the suite's objective, or `learn` without such main cases."""
    asked = {case.role for case in suite.of(Split.MAIN)}
    return suite.objective if suite.objective in asked else Role.LEARN


def cases_of(suite: Suite) -> tuple[Case, ...]:
    """Return the cases that are asked at a look: those of the objective, and `retain` and `avoid` cases."""
    wanted = {objective_of(suite), *GUARDED}
    return tuple(case for case in suite.of(Split.MAIN) if case.role in wanted)


def leaving(suite: Suite, race: Race, entrants: Sequence[Entrant]) -> dict[str, str]:
    """Return the variants that stop at a look, each with the reason.

    The result depends on the scores of all `entrants`, the variants that are still in the race, and not on their order.
    An answer without a score counts as failed.
    """
    gone = {each.name: each.failed for each in entrants if each.failed}
    racing = sorted((each for each in entrants if not each.failed), key=lambda each: each.name)
    guarded = _guarded(suite, race, racing)
    gone |= {name: found.loses for name, found in guarded.items() if found.loses}
    objective = objective_of(suite)
    cases = [case for case in suite.of(Split.MAIN) if case.role is objective]
    scores = {each.name: _scores(each, cases) for each in racing if cases and each.name not in gone}
    led = sorted(scores, key=lambda name: -float(scores[name].mean()))
    gains = {each.name: _gain(each, scores[each.name]) for each in racing if each.name in scores}
    for name, own in scores.items():
        fair = (each for each in led if guarded[each].keeps or guarded[each].passed >= guarded[name].passed)
        leader = next(fair, name)
        if _is_behind(own + gains[name] * (1 - own), scores[leader], cases, race):
            passed = " and ".join(points(float(each.mean(axis=0).sum())) for each in (scores[leader], own))
            gone[name] = f"{leader} is better: they pass {passed} of {len(cases)} {objective} cases"
    return gone


def _gain(entrant: Entrant, own: Scores) -> float:
    """Return the share of its failed cases that a variant may still come to pass."""
    luck = SEED_LUCK * float(own.mean()) if entrant.more_seeds else 0.0
    return CATCH_UP * (1 - entrant.done) + luck


def passed(suite: Suite, entrant: Entrant) -> float:
    """Return the share of the objective's cases that a variant passes at a look; 0 if it failed."""
    cases = [case for case in cases_of(suite) if case.role is objective_of(suite)]
    return float(_scores(entrant, cases).mean()) if cases and not entrant.failed else 0.0


@dataclass(frozen=True)
class _Guarded:
    """What a variant keeps of what its base model can do: passes, whether it KEEPS enough, and why it cannot."""

    passed: float
    keeps: bool
    loses: str = ""


def _guarded(suite: Suite, race: Race, entrants: Sequence[Entrant]) -> dict[str, _Guarded]:
    """Judge the `retain` and `avoid` cases of each variant."""
    cases = [case for case in suite.of(Split.MAIN) if case.role in GUARDED]
    pairs = {each.name: losses.guarded_pair(cases, each.base, each.scores) for each in entrants}
    nothing = _Guarded(0.0, keeps=True)
    return {name: _judged(suite.margin, race, found) if found else nothing for name, found in pairs.items()}


def _judged(margin: float, race: Race, found: Pair) -> _Guarded:
    spent, shown, decides = (
        net_loss.net_loss(found.before, found.after, found.groups, level=level)
        for level in (1 - race.loss_error, TWO_SIDED, LEVEL)
    )
    keeps = losses.verdict(found, shown, decides, margin) is LossVerdict.KEEPS
    enough = float(found.before.mean(axis=0).sum()) >= losses.least_passes(found, margin / 100)
    passed = float(found.after.mean())
    if spent is None or margin >= 100 or not enough or spent.low <= margin / 100:
        return _Guarded(passed, keeps)
    return _Guarded(passed, keeps, f"loses more than {lower_bound(100 * spent.low)} points of what the base passes")


def _scores(entrant: Entrant, cases: Sequence[Case]) -> Scores:
    """Return the scores on these cases, `(seeds, cases)`, with missing ones as failed."""
    names = [case.id for case in cases]
    return entrant.scores.failing(names, entrant.seeds).scores(names, entrant.seeds)


def _is_behind(own: Scores, leader: Scores, cases: Sequence[Case], race: Race) -> bool:
    """Whether the leader is shown to be better than these scores."""
    return exact_sign_flip(own, leader, [case.group for case in cases]) <= race.lead_error
