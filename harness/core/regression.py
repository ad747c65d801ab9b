"""One run compared with another: baselines, differences, and the gate's decision."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.answers import Likelihood
from harness.core.engines import Engine
from harness.core.machine import Provenance
from harness.core.measurement import Measurement, PhaseCost
from harness.core.model import ModelRef
from harness.core.results import Verdict
from harness.core.scores import Rate
from harness.core.settings import Settings as Settings
from harness.core.suite import Role, Suite
from harness.core.training import Fingerprint, Status


@dataclass(frozen=True)
class StoredAnswer:
    """An answer in a baseline: stored once for all seeds that gave it."""

    text: str
    seeds: tuple[int, ...]
    tokens: int
    passed: bool
    value: float | None
    """The score; None, and `reason` says why, where there is none."""
    reason: str = ""
    """What the first check that failed says."""
    repeat: int = 0
    truncated: bool = False
    likelihood: Likelihood | None = None
    """This and the next two only where the case's assertions judge by them."""
    reference: Likelihood | None = None
    choices: tuple[Likelihood, ...] = ()


@dataclass(frozen=True)
class BaselineVariant:
    """One variant of a baseline (or its base: `settings` None) over all its seeds."""

    name: str
    named: bool
    settings: Settings | None
    seeds: tuple[int, ...]
    statuses: tuple[Status, ...]
    messages: tuple[str, ...]
    fingerprints: tuple[Fingerprint, ...]
    """The different ones among its trainings: one, unless something depends on the seed."""
    costs: tuple[PhaseCost, ...]
    """Of each training."""
    trainable_parameters: int
    answers: dict[str, tuple[StoredAnswer, ...]]
    """By case."""


@dataclass(frozen=True)
class Baseline:
    """A run reduced to what another one is held against: what `harness bless` keeps, and what it makes of either run.

    `suite` has the cases that choose, and no training rows: those are in `training_rows`, a digest each.
    """

    format: int
    name: str
    suite: Suite
    training_rows: tuple[str, ...]
    model: ModelRef
    engine: Engine
    provenance: Provenance
    base: BaselineVariant
    variants: tuple[BaselineVariant, ...]
    digest: str = ""
    """Over all else in the file, so that an edit by hand is noticed."""


@dataclass(frozen=True)
class Mismatch:
    """One thing in which two runs differ, in words; empty on a side that does not have it."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its 95% interval; between -1 and 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RoleChange:
    """The pass rates of one variant on one role's cases, before and after, on those that have a score on both sides.

    A trial that diverged or ran out of memory passes nothing. The intervals are for these very cases and what other
    training seeds would make of them. The p-values are one-sided, from the paired test over the cases' means across
    seeds; the adjusted ones are Holm's, over all variants and roles of the comparison.
    """

    role: Role
    cases: int
    before: Estimate
    after: Estimate
    difference: Estimate
    """After less before."""
    worst: float
    """The loss lies below this with 95% confidence."""
    detectable: float
    """The smallest loss that so many cases and seeds would show with 80% power, with as many tests as there are."""
    p_worse: float
    p_better: float
    worse_adjusted: float
    better_adjusted: float


@dataclass(frozen=True)
class Flip:
    """A case that one side passes under more seeds than the other."""

    case: str
    role: Role
    prompt: str
    critical: bool
    before: Rate
    """Seeds under which it passes, of those that have a score."""
    after: Rate
    answer_before: str
    answer_after: str
    """Of a seed that shows the difference, where there is one."""
    reason: str
    """What the failing side's check says."""

    @property
    def lost(self) -> bool:
        return (self.after.value or 0.0) < (self.before.value or 0.0)

    @property
    def everywhere(self) -> bool:
        """Passed under every seed before, and under none after."""
        return self.before.passed == self.before.total > 0 and self.after.passed == 0 < self.after.total


@dataclass(frozen=True)
class CostChange:
    """What each training took, before and after; a figure of another device or basis is shown and not compared."""

    what: str
    before: tuple[Measurement, ...]
    after: tuple[Measurement, ...]
    hindrance: str = ""
    """Why the two are not compared; empty where they are."""
    resident: bool = False
    """Memory of the whole process, where there is no GPU to ask."""


@dataclass(frozen=True)
class VariantChange:
    """One variant (or the base) before and after."""

    name: str
    settings: tuple[Mismatch, ...]
    drift: tuple[Mismatch, ...]
    """What differs between their fingerprints, beyond what the settings say or because of it."""
    seeds_after: tuple[int, ...]
    failures_before: tuple[str, ...]
    failures_after: tuple[str, ...]
    """How trials ended that did not succeed, one line each."""
    missing: tuple[str, ...]
    """Those of the later run that have no result: failed, timed out, cancelled."""
    unscored: int
    """Cases with a score under every seed before, and not now."""
    roles: tuple[RoleChange, ...]
    flips: tuple[Flip, ...]
    """Lost ones first, those that flip under most seeds first."""
    costs: tuple[CostChange, ...]


@dataclass(frozen=True)
class Side:
    """Which run, in words."""

    name: str
    suite: str
    started: str
    git_commit: str
    git_dirty: bool


@dataclass(frozen=True)
class SuiteChange:
    """Ids of cases that are not in both suites as they were."""

    asked_otherwise: tuple[str, ...]
    """Left out: the prompt is another."""
    gone: tuple[str, ...]
    new: tuple[str, ...]
    judged_otherwise: tuple[str, ...]
    """The stored answers were judged again by the later suite's assertions."""
    unjudged: tuple[str, ...]
    """Left out: the later assertions need what is not kept of the earlier answers."""

    @property
    def empty(self) -> bool:
        return not any((self.asked_otherwise, self.gone, self.new, self.judged_otherwise, self.unjudged))


@dataclass(frozen=True)
class Comparison:
    """Two runs, paired by variant, case and seed: what a gate decides by, and what a page of two runs shows."""

    before: Side
    after: Side
    obstacles: tuple[Mismatch, ...]
    """Why answers cannot be compared: another model, other training rows, another decoding, another compute dtype."""
    changed: tuple[Mismatch, ...]
    """Library versions and machine: the suspects, when something is worse."""
    suite: SuiteChange
    void: dict[str, str]
    """Case id to the reason why it is not counted, by the earlier run's base."""
    variants: tuple[VariantChange, ...]
    missing: tuple[str, ...]
    """Variants of the earlier run that the later one has not."""
    added: tuple[str, ...]
    base: tuple[Flip, ...] = ()
    """Cases that the untrained model answers with another verdict than before."""


@dataclass(frozen=True)
class Policy:
    """What a gate calls worse. Points are of pass rate."""

    margin: float
    """Points that a role may lose and still be called unchanged: the suite's margin."""
    least: float = 5.0
    """Points below which a loss or a gain is not spoken of, however sure it is."""
    alpha: float = 0.01
    """How often chance alone may be called worse, over all variants and roles together."""
    slower: float = 0.10
    """Share of time that may be lost even where the baseline's repeats differ less."""
    larger: float = 0.05
    """Likewise of GPU memory."""
    resident: float = 0.20
    """Likewise of a CPU's resident memory, which other versions of libraries fill otherwise."""


@dataclass(frozen=True)
class Reason:
    """One thing that a verdict rests on, in words."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on one variant."""

    variant: str
    verdict: Verdict
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Decision:
    """The verdict on a run, and on each of its variants."""

    verdict: Verdict
    reasons: tuple[str, ...]
    variants: tuple[Judgement, ...]
    policy: Policy
    comparison: Comparison
