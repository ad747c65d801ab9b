"""Comparisons of two runs: baselines, differences, and the gate's decision."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.answers import Likelihood
from harness.core.engines import Engine
from harness.core.machine import Provenance
from harness.core.measurement import Measurement, PhaseCost
from harness.core.model import ModelRef
from harness.core.run_results import Verdict, check_per_seed
from harness.core.scores import Rate
from harness.core.settings import Settings
from harness.core.suite import Role, Suite
from harness.core.training_outcome import Fingerprint, Status


@dataclass(frozen=True)
class StoredAnswer:
    """An answer in a baseline, stored once for all seeds that gave it."""

    text: str
    seeds: tuple[int, ...]
    tokens: int
    passed: bool
    value: float | None
    """The score; None if it could not be computed, and `reason` then says why."""
    reason: str = ""
    """The reason given by the first check that failed."""
    repeat: int = 0
    truncated: bool = False
    likelihood: Likelihood | None = None
    """Stored, like `reference` and `choices`, only if an assertion of the case needs it."""
    reference: Likelihood | None = None
    choices: tuple[Likelihood, ...] = ()


@dataclass(frozen=True)
class BaselineVariant:
    """One variant of a baseline over all its seeds. `settings` is None for the base model."""

    name: str
    named: bool
    """Whether the grid names the variant. If so, it is compared with another run's variant of that name, even if their
    settings differ."""
    settings: Settings | None
    seeds: tuple[int, ...]
    statuses: tuple[Status, ...]
    messages: tuple[str, ...]
    fingerprints: tuple[Fingerprint, ...]
    """The distinct fingerprints of the variant's trainings. Normally there is one, which all seeds share."""
    costs: tuple[PhaseCost, ...]
    """The cost of each training."""
    trainable_parameters: int
    answers: dict[str, tuple[StoredAnswer, ...]]
    """Answers by case id."""


@dataclass(frozen=True)
class Baseline:
    """The part of a run that comparisons need: `harness bless` stores it, and the gate compares two of them.

    `suite` has only the cases of the split `main`, and no training rows: `training_rows` has a digest of each row.
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
    """Digest of the rest of the file, which detects edits by hand."""

    def check(self) -> None:
        """Raise ValueError unless each variant has one status and one message per seed."""
        for row in (self.base, *self.variants):
            check_per_seed(row.seeds, statuses=row.statuses, messages=row.messages)


@dataclass(frozen=True)
class Mismatch:
    """One difference between two runs, in words. `before` or `after` is empty if that run lacks `what`."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of two shares, with its 95% confidence interval; all numbers are from -1 to 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RoleChange:
    """The pass rates of one variant on the cases of one role, before and after. Only cases scored in both runs count.

    A trial that diverged or ran out of memory passes no case. The intervals take these cases as given and cover the
    variation between training seeds. The p-values are one-sided, from a paired test over each case's mean across seeds;
    the adjusted ones use Holm's method over all variants and roles of the comparison.
    """

    role: Role
    cases: int
    before: Estimate
    after: Estimate
    difference: Estimate
    """`after` minus `before`."""
    worst: float
    """95% upper confidence bound of the loss."""
    detectable: float
    """The smallest loss that the test detects with 80% power, given the numbers of cases, seeds and tests."""
    p_worse: float
    p_better: float
    worse_adjusted: float
    better_adjusted: float


@dataclass(frozen=True)
class Flip:
    """A case that passes under more seeds in one of two runs than in the other."""

    case: str
    role: Role
    prompt: str
    critical: bool
    before: Rate
    """How many seeds the case passes under, of all seeds that have a score."""
    after: Rate
    answer_before: str
    """An answer of the earlier run that shows the difference, if there is one."""
    answer_after: str
    """An answer of the later run that shows the difference, if there is one."""
    reason: str
    """The reason given by the check that fails."""

    @property
    def lost(self) -> bool:
        """Whether the case passes under a smaller share of seeds than before."""
        return (self.after.value or 0.0) < (self.before.value or 0.0)

    @property
    def everywhere(self) -> bool:
        """Whether the case passed under every seed before, and fails under every seed now."""
        return self.before.passed == self.before.total > 0 and self.after.passed == 0 < self.after.total


@dataclass(frozen=True)
class CostChange:
    """One kind of cost (`what`) of each training, in the earlier and in the later run.

    Figures of different devices or bases are shown but not compared.
    """

    what: str
    before: tuple[Measurement, ...]
    after: tuple[Measurement, ...]
    hindrance: str = ""
    """The reason why the figures are not compared; empty if they are."""
    resident: bool = False
    """Whether the figures are resident memory of the whole process, because the trainings used no GPU."""


@dataclass(frozen=True)
class VariantChange:
    """The differences of one variant, or of the base model, between two runs."""

    name: str
    settings: tuple[Mismatch, ...]
    drift: tuple[Mismatch, ...]
    """Differences between the fingerprints of the trainings in the two runs, whatever their cause."""
    seeds_after: tuple[int, ...]
    failures_before: tuple[str, ...]
    """One line for each trial of the earlier run that did not succeed."""
    failures_after: tuple[str, ...]
    """One line for each trial of the later run that did not succeed."""
    missing: tuple[str, ...]
    """One line for each trial of the later run without a result: failed, timed out or cancelled."""
    unscored: int
    """Number of cases with a score under every seed of the earlier run, but not under every seed of the later run."""
    roles: tuple[RoleChange, ...]
    flips: tuple[Flip, ...]
    """Lost cases first, then critical ones, then those that differ under the most seeds."""
    costs: tuple[CostChange, ...]


@dataclass(frozen=True)
class Side:
    """Name, suite, start and commit of one of the two compared runs, as texts show them."""

    name: str
    suite: str
    started: str
    git_commit: str
    git_dirty: bool


@dataclass(frozen=True)
class SuiteChange:
    """Ids of cases that differ between the suites of two runs."""

    asked_otherwise: tuple[str, ...]
    """Cases whose prompt changed; they are not compared."""
    gone: tuple[str, ...]
    """Cases that only the earlier suite has."""
    new: tuple[str, ...]
    """Cases that only the later suite has."""
    judged_otherwise: tuple[str, ...]
    """Cases whose assertions changed; the earlier answers were scored again with the later assertions."""
    unjudged: tuple[str, ...]
    """Cases that are not compared, because the later assertions need data that the earlier answers lack."""

    @property
    def empty(self) -> bool:
        """Whether both suites have the same cases."""
        return not any((self.asked_otherwise, self.gone, self.new, self.judged_otherwise, self.unjudged))


@dataclass(frozen=True)
class Comparison:
    """All differences between two runs, paired by variant, case and seed. The gate and the report use it."""

    before: Side
    after: Side
    obstacles: tuple[Mismatch, ...]
    """Differences that make answers incomparable: in model, training rows, decoding or compute dtype."""
    changed: tuple[Mismatch, ...]
    """Differences in library versions and machine, which may explain other differences."""
    suite: SuiteChange
    variants: tuple[VariantChange, ...]
    missing: tuple[str, ...]
    """Variants that only the earlier run has."""
    added: tuple[str, ...]
    """Variants that only the later run has."""
    base: tuple[Flip, ...] = ()
    """Cases that the base model passes in one run and fails in the other."""


@dataclass(frozen=True)
class Policy:
    """The thresholds of a gate. Points are percentage points of pass rate."""

    margin: float
    """Points that a role may lose and still count as unchanged: the suite's margin."""
    least: float = 5.0
    """A significant loss counts as a regression, and a significant gain as an improvement, only if it is at least this
    many points."""
    alpha: float = 0.01
    """Probability of a false alarm, over all variants and roles together."""
    slower: float = 0.10
    """Tolerated increase of time, as a share. It grows if the times of the baseline's trainings vary much."""
    larger: float = 0.05
    """Tolerated increase of GPU memory, as a share."""
    resident: float = 0.20
    """Tolerated increase of resident memory, as a share. Library versions also change resident memory."""


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict, in words."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on one variant, with its reasons."""

    variant: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    unjudged: tuple[str, ...] = ()
    """The costs that were not judged, with their figures and the reason, in words."""


@dataclass(frozen=True)
class Decision:
    """The gate's verdict on a run and on each of its variants."""

    verdict: Verdict
    reasons: tuple[str, ...]
    variants: tuple[Judgement, ...]
    policy: Policy
    comparison: Comparison
