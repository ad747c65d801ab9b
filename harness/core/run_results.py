"""The results of a run, from which reports are made: outcomes of variants, comparisons, and the chosen variant."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.measurement import Basis, Phase, PhaseCost, Shortage
from harness.core.parity import Parity
from harness.core.run import RunManifest
from harness.core.scores import Rate, Sample
from harness.core.settings import Settings
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


@dataclass(frozen=True)
class Safety:
    """A variant's loss compared with the base model on `retain` and `avoid` cases together, in points of pass rate."""

    lost: float
    upper: float
    """95% upper confidence bound of the loss, over cases and, if there are several, training seeds."""
    cases: int
    needed: int | None
    """Number of similar cases that would suffice to show that the loss is below the margin; None if none would."""


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
    seeds. Void cases, and cases without a score under some seed, are left out.
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
    seeds: int
    detectable: float
    """The smallest drop that is detected with 80% power, given the number of cases and these standard errors."""
    verdict: Verdict
    reason: str
    """The verdict in words."""
    needed: int | None = None
    """For INCONCLUSIVE, the number of similar cases needed for a conclusion; None if no number is enough."""
    p_worse: float | None = None
    """p-value of the one-sided sign-flip test for a loss, adjusted by Holm's method over the compared variants."""
    scores: ScoreChange | None = None
    """The difference of the mean scores; None if all scores are 0 or 1, so that it equals that of the pass rates."""


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
    safety: Safety | None = None
    """The loss on `retain` and `avoid` cases; None if no such case counts, or if no trial finished."""
    changes: dict[Role, Change] = field(default_factory=dict)
    """Differences from the base model, by role; empty for the base model, and if no trial finished."""
    elsewhere: bool = False
    """Whether the variant is an adapter that was trained elsewhere, with unknown settings and training costs."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = field(default_factory=dict)
    """Pass rates by contamination label, for roles whose cases have different labels."""
    bases: tuple[Basis, ...] = ()
    """Basis of each seed's status: PREDICTED if the trial did not run. Empty in files of older versions."""

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
    refuted: tuple[str, ...] = ()
    """Findings of the confirmation that contradict the choice, in words."""
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
    """One variant's pass rates after every epoch, without void cases."""

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
    variants: tuple[Outcome, ...]
    void: dict[str, str]
    """For each void case, by id, the reason why it is not counted: the base model's own answer makes it meaningless."""
    samples: tuple[Sample, ...] = field(repr=False, default=())
    choice: Choice = Choice(None, ())
    confirmed_base: Outcome | None = None
    confirmed: Outcome | None = None
    confirmed_samples: tuple[Sample, ...] = field(repr=False, default=())
    finished: str = ""
    parities: tuple[Parity, ...] = field(repr=False, default=())
    """Parity checks of this run's trainings (`harness parity`)."""
    timelines: tuple[Timeline, ...] = ()
    """Timelines of the variants that were evaluated after every epoch (`harness run --timeline`)."""
    leaks: dict[str, Leak] = field(repr=False, default_factory=dict)
    """The contamination of each case's prompt, by case id. Files of format 1 lack it; it is then computed if needed."""
