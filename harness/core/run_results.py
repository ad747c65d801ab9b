"""The results of a run, from which reports are made: outcomes of variants, comparisons, and the chosen variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.judges import Judging
from harness.core.measurement import Basis, Phase, PhaseCost, Shortage
from harness.core.parity import Parity
from harness.core.run import RunManifest
from harness.core.scores import Rate, Sample
from harness.core.settings import Quantization, Settings
from harness.core.suite import Leak, LeakLabel, Role
from harness.core.training_outcome import Status, Training


class Verdict(StrEnum):
    """The conclusion from comparing two sets of answers to the same cases."""

    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    """No difference that is large enough to be detected with these cases; the verdict's reason states that size."""
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    """Too few cases or seeds for a conclusion; the verdict's reason states how many are needed."""
    NOT_COMPARABLE = "not comparable"


class LossVerdict(StrEnum):
    """Whether a variant can still do what the base model can do, as far as the cases show it."""

    KEEPS = "keeps"
    """The one-sided 95% upper bound of the net loss is below the suite's margin."""
    LOSES = "loses"
    """The two-sided 95% interval of the net loss is above the suite's margin."""
    CANNOT_TELL = "cannot tell"
    """Neither is shown, or the base model passes too few cases."""


@dataclass(frozen=True)
class Loss:
    """A variant's net loss on `retain` and `avoid` cases, in points of what the base model passes.

    All cases that the base model has a score for count, whether it passes them or not: a loss of 10 points means that
    the variant passes 90 cases for 100 that the base model passes. An answer of the variant without a score counts as
    failed. The module `analysis/net_loss.py` explains the bounds.
    """

    cases: int
    base_passed: float
    """Number of cases that the base model passes. With repeats, each case counts by the share that passes."""
    broken: float
    """Number of cases that the base model passes and the variant fails: the mean over seeds."""
    fixed: float
    """Number of cases that the base model fails and the variant passes: the mean over seeds."""
    points: float | None
    """100 times the net loss; negative for a net gain; None if the base model passes no case."""
    low: float | None
    """Lower end of the two-sided 95% interval, which decides whether the variant LOSES.

    It is None if the cases do not limit it.
    """
    high: float | None
    """Upper end of the two-sided 95% interval; None if the base model passes no case."""
    lower: float | None
    """One-sided 95% lower bound, which decides whether a confirmation is REFUTED; None if the cases do not limit it."""
    upper: float | None
    """One-sided 95% upper bound, which decides whether the variant KEEPS; None if the base model passes no case."""
    verdict: LossVerdict
    needed: int | None
    """For CANNOT_TELL, the number of cases like these that would show this loss to be below the margin, or None."""
    clusters: int
    """Number of clusters of cases. A group of cases is one cluster, and so is a case without a group."""
    seeds: int
    """Number of training seeds. With one, the bounds hold for this training only."""

    @property
    def grouped(self) -> bool:
        """Whether some cases belong to one group, so that they count as one cluster."""
        return self.clusters < self.cases


class Finding(StrEnum):
    """The verdict of the confirmation on the chosen variant."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Confirmation:
    """What held-out cases and fresh training seeds show about the chosen variant.

    It is CONFIRMED if the one-sided 80% upper bound of the loss is below the margin (the choice has already shown 95%)
    and the 95% interval of the gain is above zero. It is REFUTED if the one-sided 95% lower bound of the loss is above
    the margin, if the interval of the gain is below zero, or if a training failed. Otherwise, it is NOT_CONFIRMED.
    """

    finding: Finding
    reasons: tuple[str, ...]
    """The reasons in sentences. For NOT_CONFIRMED, they also say what would decide."""
    upper: float | None = None
    """One-sided 80% upper bound of the loss on the held-out cases, in points of what the base model passes."""
    needed: int | None = None
    """For NOT_CONFIRMED, the number of held-out `retain` and `avoid` cases like these that would confirm this loss."""


@dataclass(frozen=True)
class ScoreChange:
    """Difference of two mean scores, times 100, with a 95% bootstrap interval over cases and seeds.

    Scores from log-probabilities or similarity can show a change before any case changes from pass to fail.
    """

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """Difference of one pass rate from another on the same cases of one role, in points.

    The 95% interval from `low` to `high`, which decides the verdict, covers the variation over both cases and training
    seeds. Cases without a score under some seed are left out.
    """

    role: Role
    points: float
    """100 times the difference of the pass rates."""
    low: float
    high: float
    case_noise: float
    """Standard error of `points` from the choice of cases."""
    seed_noise: float | None
    """Standard error of `points` from the choice of training seeds; None if there is only one seed."""
    cases: int
    clusters: int
    """Number of clusters of cases. A group of cases is one cluster, and so is a case without a group."""
    seeds: int
    fixed: float
    """Number of cases that the first model fails and the second one passes: the mean over seeds."""
    broken: float
    """Number of cases that the first model passes and the second one fails: the mean over seeds."""
    verdict: Verdict
    reason: str
    """The verdict in words."""
    needed: int | None = None
    """For INCONCLUSIVE, the number of similar cases needed for a conclusion; None if no number is enough."""
    p_worse: float | None = None
    """p-value of the one-sided sign-flip test for a loss, adjusted by Holm's method over the compared variants."""
    scores: ScoreChange | None = None
    """The difference of the mean scores; None if all scores are 0 or 1, so that it equals that of the pass rates."""


def check_per_seed(seeds: Sequence[int], **values: Sequence[object]) -> None:
    """Raise ValueError unless each sequence of `values`, by its name, has one value per seed."""
    for name, each in values.items():
        if len(each) != len(seeds):
            raise ValueError(f"{name} has {len(each)} values for {len(seeds)} seeds")


@dataclass(frozen=True)
class Outcome:
    """One variant's outcome over all its seeds, on one split of the cases. `settings` is None for the base model."""

    name: str
    settings: Settings | None
    differs: dict[str, Any]
    """The variant's values of the settings that differ between the variants of the run."""
    statuses: tuple[Status, ...]
    """One per seed, in the order of `seeds`."""
    seeds: tuple[int, ...]
    messages: tuple[str, ...]
    rates: dict[Role, Rate]
    fixed: int
    """Number of cases that the base model fails and this variant passes, summed over seeds."""
    broken: int
    """Number of cases that the base model passes and this variant fails, summed over seeds."""
    truncated: int
    """Number of truncated answers."""
    costs: tuple[PhaseCost, ...]
    """One cost per phase: mean seconds and largest memory peaks over seeds."""
    trainable_parameters: int = 0
    supervised_tokens: int = 0
    training: tuple[Training, ...] = ()
    reused: bool = False
    logs: tuple[str, ...] = ()
    shortages: tuple[Shortage | None, ...] = ()
    """One per seed: how the trial ran out of memory; None if it did not."""
    loss: Loss | None = None
    """The loss on `retain` and `avoid` cases together; None without such cases, and if no trial finished."""
    losses: dict[Role, Loss] = field(default_factory=dict)
    """The loss on the cases of each of these roles apart. It is shown, but decides nothing."""
    changes: dict[Role, Change] = field(default_factory=dict)
    """Differences from the base model, by role; empty for the base model, and if no trial finished."""
    elsewhere: bool = False
    """Whether the variant is an adapter that was trained elsewhere, with unknown settings and training costs."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = field(default_factory=dict)
    """Pass rates by contamination label, for roles whose cases have different labels."""
    bases: tuple[Basis, ...] = ()
    """Basis of each seed's status: PREDICTED if the trial did not run. Empty in files of older versions."""

    @property
    def untrained(self) -> bool:
        """Whether this is the base model, in any quantisation."""
        return self.settings is None and not self.elsewhere

    def cost(self, phase: Phase) -> PhaseCost | None:
        """Return the cost of a phase, or None if the phase did not run."""
        return next((cost for cost in self.costs if cost.phase is phase), None)

    @property
    def predicted(self) -> tuple[bool, ...]:
        """For each seed, whether its status is a prediction."""
        return tuple(basis is Basis.PREDICTED for basis in self.bases) or (False,) * len(self.statuses)


@dataclass(frozen=True)
class Choice:
    """The chosen variant with the reasons in words. If `variant` is None, `reasons` explain why none was chosen."""

    variant: str | None
    reasons: tuple[str, ...]
    objective: Role = Role.GENERALISE
    """The role whose pass rate decided: the suite's objective, or `learn` if no case has that role."""
    eligible: tuple[str, ...] = ()
    """Names of the variants that finished under every seed and were shown to lose less than the suite's margin."""
    confirmation: Confirmation | None = None
    """The verdict of the confirmation; None if there was none."""
    best: str | None = None
    """The eligible variant with the highest pass rate; `variant` is the cheapest within one standard error of it."""


@dataclass(frozen=True)
class Recommendation:
    """The recommendation of `harness recommend`. If `variant` is None, `missing` gives the reasons."""

    variant: str | None
    best: str | None
    """The chosen variant, even if it is not recommended."""
    headline: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...] = ()
    sft_config: str = ""
    """Python code of TRL's SFTConfig; empty without a recommendation."""
    lora_config: str = ""
    """Python code of PEFT's LoraConfig; empty without a recommendation."""
    script: str = ""
    """Python code of all configurations, with imports; empty without a recommendation."""


@dataclass(frozen=True)
class EpochRates:
    """Pass rates by role, over all seeds, of one variant's adapters after `epoch` epochs."""

    epoch: float
    """Number of completed epochs; for the end of the training, it may be a fraction."""
    rates: dict[Role, Rate]


@dataclass(frozen=True)
class Milestone:
    """The epochs in which one case was learned or lost, by the majority of seeds."""

    case: str
    role: Role
    learned: float | None
    """The first epoch from which the case passes until the end; None if the case was not learned."""
    lost: float | None
    """The first epoch from which the case fails until the end, although it passed before; None if it was not lost."""


@dataclass(frozen=True)
class Timeline:
    """One variant's pass rates after every epoch."""

    variant: str
    epochs: tuple[EpochRates, ...]
    """Rates from the first epoch to the last. `Results.base` has those of the base model."""
    milestones: tuple[Milestone, ...]
    enough: float | None
    """The first epoch whose pass rate on the objective is within one standard error of the best epoch's."""


@dataclass(frozen=True)
class Results:
    """results.json: all results of a run, from which its report is made."""

    format: int
    run: RunManifest
    base: Outcome
    """The base model, in the quantisation of the plan's first variant."""
    variants: tuple[Outcome, ...]
    samples: tuple[Sample, ...] = field(repr=False, default=())
    choice: Choice = Choice(None, ())
    confirmed_base: Outcome | None = None
    confirmed: Outcome | None = None
    confirmed_samples: tuple[Sample, ...] = field(repr=False, default=())
    finished: str = ""
    """When the run ended."""
    rescored: str = ""
    """When the stored answers were last scored again (`harness score`); empty if they never were."""
    parities: tuple[Parity, ...] = field(repr=False, default=())
    """Parity checks of this run's trainings (`harness parity`)."""
    timelines: tuple[Timeline, ...] = ()
    """Timelines of the variants that were evaluated after every epoch (`harness run --timeline`)."""
    leaks: dict[str, Leak] = field(repr=False, default_factory=dict)
    """The contamination of each case's prompt, by case id. Files of format 1 lack it; it is then computed if needed."""
    judging: Judging | None = None
    """What a judge said about the answers; None if no assertion needs a judge, or none is named."""
    bases: dict[Quantization, Outcome] = field(default_factory=dict)
    """The base model in each other quantisation of the plan. A variant is compared with the base of its own."""
    importance: dict[str, float] = field(default_factory=dict)
    """After a search, how much each setting mattered: name to a share. Empty if it is not known."""

    def check(self) -> None:
        """Raise ValueError unless the parts fit together, which they may not if the file was edited."""
        for row in (*self.every_base, *self.variants, self.confirmed_base, self.confirmed):
            if row:
                check_per_seed(row.seeds, statuses=row.statuses, messages=row.messages)
        known = {case.id for case in self.run.suite.cases}
        if unknown := {sample.case for sample in (*self.samples, *self.confirmed_samples)} - known:
            raise ValueError(f"samples answer a case that the suite does not have: {min(unknown)!r}")

    @property
    def every_base(self) -> tuple[Outcome, ...]:
        """The base model in every quantisation, in the plan's order."""
        return (self.base, *self.bases.values())

    def base_of(self, variant: Outcome | None) -> Outcome:
        """Return the base model that a variant is compared with; without a variant, the first one."""
        return base_of(variant, self.base, self.bases)

    def base_beside(self, name: str | None) -> Outcome:
        """Return the base model that the variant of this name is compared with; if there is none, the first one."""
        return self.base_of(next((variant for variant in self.variants if variant.name == name), None))


def base_of(variant: Outcome | None, first: Outcome, others: Mapping[Quantization, Outcome]) -> Outcome:
    """Return the base model in the quantisation of a variant. Adapters trained elsewhere are attached to the first."""
    return others.get(variant.settings.quantization, first) if variant and variant.settings else first
