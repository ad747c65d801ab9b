"""Everything a report is drawn from: outcomes of variants, the choice and its reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.measurement import Basis, Phase, PhaseCost, Shortage
from harness.core.parity import Parity
from harness.core.run import RunManifest
from harness.core.scores import Rate, Sample
from harness.core.settings import Settings as Settings
from harness.core.suite import Leak, LeakLabel, Role
from harness.core.training import Status, Training


class Verdict(StrEnum):
    """What a comparison of two sets of answers to the same cases may claim."""

    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    """Within the difference that these cases could have shown, which is stated beside it."""
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    """Too few cases or seeds to tell; how many would do is stated beside it."""
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Safety:
    """What a variant lost of what the base could do, over `retain` and `avoid` together, in points of pass rate."""

    lost: float
    upper: float
    """The loss lies below this with 95% confidence, over cases; and over training seeds, where there are several."""
    cases: int
    needed: int | None
    """How many cases like these would show that the loss is below the suite's margin; None: no number would."""


@dataclass(frozen=True)
class ScoreChange:
    """How the mean scores differ, in points of 100, with a 95% interval from drawing cases and seeds again.

    Scores of likelihood and similarity move before an answer flips.
    """

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """How one pass rate differs from another on the same cases of one role, in points: this one less the other.

    The interval, at 95%, and so the verdict go beyond both noises: what other cases, and what other training seeds,
    would have made of it. Void cases and those without a score under some seed are left out.
    """

    role: Role
    points: float
    low: float
    high: float
    case_noise: float
    """Standard error of `points` from the choice of cases."""
    seed_noise: float | None
    """Standard error from the choice of training seeds, beyond what the cases explain; None: one seed cannot tell."""
    cases: int
    seeds: int
    detectable: float
    """The smallest drop that so many cases, with these noises, would find with 80% power."""
    verdict: Verdict
    reason: str
    """The verdict in words."""
    needed: int | None = None
    """For INCONCLUSIVE, how many cases like these would do; None where no number of cases would, or it is not that."""
    p_worse: float | None = None
    """One-sided sign-flip test of this one being worse, by Holm's method over the variants that were compared."""
    scores: ScoreChange | None = None
    """None where every score is a pass or a failure, so that it would say the same."""


@dataclass(frozen=True)
class Outcome:
    """A variant (or the base: `settings` None) over all its seeds, on one split of the cases."""

    name: str
    settings: Settings | None
    differs: dict[str, Any]
    """The settings in which the variants of this run differ."""
    statuses: tuple[Status, ...]
    """One per seed, in the order of `seeds`."""
    seeds: tuple[int, ...]
    messages: tuple[str, ...]
    rates: dict[Role, Rate]
    fixed: int
    """Cases that the base fails and this passes, over all seeds."""
    broken: int
    """Cases that the base passes and this fails, over all seeds."""
    truncated: int
    costs: tuple[PhaseCost, ...]
    """Mean seconds and largest peaks over seeds, by phase."""
    trainable_parameters: int = 0
    supervised_tokens: int = 0
    training: tuple[Training, ...] = ()
    reused: bool = False
    logs: tuple[str, ...] = ()
    shortages: tuple[Shortage | None, ...] = ()
    """One per seed: how it ran out of memory, where it did."""
    safety: Safety | None = None
    """None where no `retain` or `avoid` case counts, or nothing finished."""
    changes: dict[Role, Change] = field(default_factory=dict)
    """Against the base, by role; empty for the base, and where nothing finished."""
    elsewhere: bool = False
    """An adapter that was trained elsewhere: its settings and what it cost are not known."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = field(default_factory=dict)
    """The rates of roles whose cases are not all equally near to the training rows, by how near they are."""
    bases: tuple[Basis, ...] = ()
    """Of how it ended, one per seed: PREDICTED where it was not tried. Empty in files from before there were any."""

    def cost(self, phase: Phase) -> PhaseCost | None:
        """What a phase took; None where it did not run."""
        return next((cost for cost in self.costs if cost.phase is phase), None)

    @property
    def predicted(self) -> tuple[bool, ...]:
        """By seed, whether its end is a prediction."""
        return tuple(basis is Basis.PREDICTED for basis in self.bases) or (False,) * len(self.statuses)


@dataclass(frozen=True)
class Choice:
    """The best variant and why, in words; `variant` None when there is none, and then `reasons` say why not."""

    variant: str | None
    reasons: tuple[str, ...]
    objective: Role = Role.GENERALISE
    """The role whose pass rate decided: the suite's objective, or `learn` where it has no such cases."""
    eligible: tuple[str, ...] = ()
    """The variants that finished under every seed and stay within the suite's margin."""
    refuted: tuple[str, ...] = ()
    """What the confirmation says against the choice, in words."""
    best: str | None = None
    """The eligible variant that passes most; `variant` is the cheapest within one standard error of it."""


@dataclass(frozen=True)
class Recommendation:
    """What `harness recommend` says. `variant` is None where nothing is recommended; `missing` then says why not."""

    variant: str | None
    best: str | None
    """The choice that was looked at, recommended or not."""
    headline: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...] = ()
    sft_config: str = ""
    """TRL's and PEFT's arguments as Python; empty where there is no recommendation."""
    lora_config: str = ""
    script: str = ""
    """Both with their imports, and the quantisation's."""


@dataclass(frozen=True)
class EpochRates:
    """Pass rates by role, over all seeds, of one variant's adapters after so many epochs."""

    epoch: float
    """The last one may be a fraction."""
    rates: dict[Role, Rate]


@dataclass(frozen=True)
class Milestone:
    """When one case was learned or lost, in epochs, by the majority of seeds; None: it was not.

    `learned`: the first epoch from which on it passes to the end. `lost`: the first from which on it fails to the end,
    of a case that the base passes or an earlier epoch passed.
    """

    case: str
    role: Role
    learned: float | None
    lost: float | None


@dataclass(frozen=True)
class Timeline:
    """How one variant's behaviour came and went, epoch by epoch. Void cases are not in it."""

    variant: str
    epochs: tuple[EpochRates, ...]
    """From the first epoch to the last; the base is `Results.base`."""
    milestones: tuple[Milestone, ...]
    enough: float | None
    """The first epoch whose pass rate on the objective is within one standard error of the best epoch's."""


@dataclass(frozen=True)
class Results:
    """results.json: everything a report is drawn from."""

    format: int
    run: RunManifest
    base: Outcome
    variants: tuple[Outcome, ...]
    void: dict[str, str]
    """Case id to the reason why it is not counted for this base."""
    samples: tuple[Sample, ...] = field(repr=False, default=())
    choice: Choice = Choice(None, ())
    confirmed_base: Outcome | None = None
    confirmed: Outcome | None = None
    confirmed_samples: tuple[Sample, ...] = field(repr=False, default=())
    finished: str = ""
    parities: tuple[Parity, ...] = field(repr=False, default=())
    """The parity checks of this run's exports (`harness parity`)."""
    timelines: tuple[Timeline, ...] = ()
    """Of the variants that were asked after every epoch (`harness run --timeline`)."""
    leaks: dict[str, Leak] = field(repr=False, default_factory=dict)
    """Case id to whether the training rows hold its prompt; empty in files of format 1, then computed when needed."""
