"""Compare two runs by variant, case and seed: which prompts and settings differ, and which results differ.

This module only collects differences. `verdict` decides whether they are a regression.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from harness.analysis import statistics
from harness.analysis.reducers import exemplary, scored
from harness.analysis.regression import statistical_tests
from harness.analysis.regression.baseline import samples
from harness.analysis.score_table import Pair, ScoreTable, pair, score_table
from harness.core.answers import Answer
from harness.core.claims import source
from harness.core.conversations import messages_of
from harness.core.machine import Machine
from harness.core.measurement import Measurement, PhaseCost
from harness.core.regression import (
    Baseline,
    BaselineVariant,
    Comparison,
    CostChange,
    Estimate,
    Flip,
    Mismatch,
    Policy,
    RoleChange,
    Side,
    SuiteChange,
    VariantChange,
)
from harness.core.scores import Rate, Sample, Score
from harness.core.suite import Case, Reducer, Role, Suite
from harness.core.training_outcome import Fingerprint, Status
from harness.core.units import DeviceKind
from harness.scoring import Need, needs

Scorer = Callable[[Case, Answer], Score]
ALPHA = Policy(0).alpha
"""The gate's default significance level, for which `RoleChange.detectable` is computed."""
_FAILED_TRAINING = (Status.DIVERGED, Status.OUT_OF_MEMORY)
"""Statuses of trainings that ended without a usable model. Under such a seed, every case counts as failed."""


def compare(before: Baseline, after: Baseline, score: Scorer | None = None) -> Comparison:
    """Compare `after` with `before` on the cases that have the same prompt in both runs.

    If a case's assertions changed, `score`, the later suite's scorer, scores the earlier answers again. Without a
    scorer, such cases are left out.
    """
    shared = _shared_cases(before.suite, after.suite, can_score=score is not None)
    cases = {case.id: case for case in after.suite.cases if case.id in shared.ids}
    again = dict.fromkeys(shared.changes.judged_otherwise, score) if score else {}
    was, now = _ScoredRun(before, cases, again), _ScoredRun(after, cases, {})
    pairs = list(_variant_pairs(before, after))
    tests = max(1, len(pairs) * len({case.role for case in cases.values()}))
    variants = [_variant(_VariantPair(was, now, old, new), tests) for old, new in pairs]
    matched_before, matched_after = {id(old) for old, _ in pairs}, {id(new) for _, new in pairs}
    return Comparison(
        before=_side(before),
        after=_side(after),
        obstacles=tuple(_obstacles(before, after)),
        changed=tuple(_changed(before, after)),
        suite=shared.changes,
        variants=_adjusted(variants),
        missing=tuple(row.name for row in before.variants if id(row) not in matched_before),
        added=tuple(row.name for row in after.variants if id(row) not in matched_after),
        base=tuple(_flips(_VariantPair(was, now, before.base, after.base))),
    )


def _variant_pairs(before: Baseline, after: Baseline) -> Iterator[tuple[BaselineVariant, BaselineVariant]]:
    """Yield each variant of the later run with the matching variant of the earlier run, in the later run's order.

    Variants match by name if both grids name them, else by equal settings.
    """
    by_name = {row.name: row for row in before.variants if row.named}
    by_settings = {row.settings: row for row in before.variants if row.settings}
    taken: set[int] = set()
    for new in after.variants:
        old = by_name.get(new.name) if new.named else None
        old = old or (by_settings.get(new.settings) if new.settings else None)
        if old is not None and id(old) not in taken:
            taken.add(id(old))
            yield old, new


def _side(run: Baseline) -> Side:
    facts = run.provenance
    return Side(run.name, run.suite.name, facts.started, facts.git_commit, facts.git_dirty)


# --- suites and settings -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SharedCases:
    """The ids of the cases that can be compared, and how the two suites differ."""

    ids: frozenset[str]
    changes: SuiteChange


def _shared_cases(before: Suite, after: Suite, *, can_score: bool) -> _SharedCases:
    old, new = ({case.id: case for case in suite.cases} for suite in (before, after))
    both = [id for id in new if id in old]
    asked = [id for id in both if messages_of(before, old[id]) != messages_of(after, new[id])]
    judged = [id for id in both if id not in asked and scoring_rules(old[id]) != scoring_rules(new[id])]
    unjudged = [id for id in judged if not can_score or not _can_be_scored(old[id], new[id])]
    changes = SuiteChange(
        asked_otherwise=tuple(asked),
        gone=tuple(id for id in old if id not in new),
        new=tuple(id for id in new if id not in old),
        judged_otherwise=tuple(id for id in judged if id not in unjudged),
        unjudged=tuple(unjudged),
    )
    return _SharedCases(frozenset(both) - {*asked, *unjudged}, changes)


def scoring_rules(case: Case) -> tuple[object, ...]:
    """Return everything that determines the score of an answer to the case."""
    return case.assertions, case.threshold, case.reference, case.choices, case.vars


def _can_be_scored(old: Case, new: Case) -> bool:
    """Return whether the earlier run stored all log-probabilities that the new assertions need."""
    if not needs(new.assertions, Need.LOG_PROBABILITIES):
        return True
    same = (old.reference, old.choices) == (new.reference, new.choices)
    return same and needs(old.assertions, Need.LOG_PROBABILITIES)


def _obstacles(before: Baseline, after: Baseline) -> Iterator[Mismatch]:
    if before.model.digest != after.model.digest:
        named = before.model.name != after.model.name
        yield Mismatch(
            "model",
            *(m.name if named else f"{m.name} with digest {m.digest[:12]}" for m in (before.model, after.model)),
        )
    if before.training_rows != after.training_rows:
        yield Mismatch("training rows", *_rows(before.training_rows, after.training_rows))
    for field in fields(before.suite.decoding):
        yield from _different(f"decoding {field.name}", before.suite.decoding, after.suite.decoding, field.name)
    for name in ("repeats", "reducer"):
        yield from _different(name, before.suite, after.suite, name)
    yield from _different("compute dtype", before.provenance.machine, after.provenance.machine, "compute_dtype")


def _different(what: str, before: object, after: object, name: str) -> Iterator[Mismatch]:
    old, new = getattr(before, name), getattr(after, name)
    if old != new:
        yield Mismatch(what, _value_text(old), _value_text(new))


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _rows(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Return for each run how many training rows it has, and which of them (counted from 1) the other run lacks.

    If only the order of the rows differs, the two texts say so.
    """
    only_before, only_after = _rows_only_in(before, after), _rows_only_in(after, before)
    if not only_before and not only_after:
        return f"{len(before)} in one order", f"{len(after)} in another order"
    return f"{len(before)}{only_before}", f"{len(after)}{only_after}"


def _rows_only_in(own: Sequence[str], other: Sequence[str]) -> str:
    known = set(other)
    numbers = [number for number, row in enumerate(own, 1) if row not in known]
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f", only here: row {', '.join(map(str, numbers[:8]))}{more}" if numbers else ""


def _changed(before: Baseline, after: Baseline) -> Iterator[Mismatch]:
    """Yield changed library versions and machine facts. They are possible causes and do not prevent a comparison."""
    old, new = before.provenance, after.provenance
    for name in dict.fromkeys([*old.versions, *new.versions]):
        versions = old.versions.get(name, ""), new.versions.get(name, "")
        if versions[0] != versions[1]:
            yield Mismatch(name, *versions)
    yield from _different("Python", old, new, "python")
    yield from _different("engine", before, after, "engine")
    for field in fields(Machine):
        if field.name != "compute_dtype":
            yield from _different(field.name.replace("_", " "), old.machine, new.machine, field.name)
    yield from _different("platform", old, new, "platform")


# --- answers and rates -------------------------------------------------------------------------------------------


class _ScoredRun:
    """The samples of one run on the cases that both runs have. `again` has a scorer for each case to score again."""

    def __init__(self, run: Baseline, cases: Mapping[str, Case], again: Mapping[str, Scorer]) -> None:
        self.run, self.cases, self._again = run, cases, again
        self._samples: dict[int, list[Sample]] = {}
        self._tables: dict[int, ScoreTable] = {}

    @property
    def reducer(self) -> Reducer:
        return self.run.suite.reducer

    def samples(self, row: BaselineVariant) -> list[Sample]:
        if id(row) not in self._samples:
            stored = {id: case for id, case in self.cases.items() if id not in self._again}
            found = samples(row, stored)
            for case, score in self._again.items():
                found += samples(row, {case: self.cases[case]}, score)
            self._samples[id(row)] = found
        return self._samples[id(row)]

    def table(self, row: BaselineVariant) -> ScoreTable:
        """Return the variant's scores. A seed that diverged or ran out of memory fails every case."""
        if id(row) not in self._tables:
            failed = [seed for seed, status in zip(row.seeds, row.statuses, strict=True) if status in _FAILED_TRAINING]
            table = score_table(self.samples(row), self.reducer)
            self._tables[id(row)] = table.failing(self.cases, failed) if failed else table
        return self._tables[id(row)]

    def counted_seeds(self, row: BaselineVariant) -> list[int]:
        """Return the seeds that count: they succeeded, diverged or ran out of memory."""
        statuses = zip(row.seeds, row.statuses, strict=True)
        return [seed for seed, status in statuses if status is Status.SUCCEEDED or status in _FAILED_TRAINING]


@dataclass(frozen=True)
class _VariantPair:
    """One variant (or the base model) in the earlier run and in the later one."""

    was: _ScoredRun
    now: _ScoredRun
    old: BaselineVariant
    new: BaselineVariant

    @property
    def tables(self) -> tuple[ScoreTable, ScoreTable]:
        return self.was.table(self.old), self.now.table(self.new)

    @property
    def seeds(self) -> tuple[list[int], list[int]]:
        return self.was.counted_seeds(self.old), self.now.counted_seeds(self.new)

    @property
    def cases(self) -> list[Case]:
        return list(self.was.cases.values())


def _variant(both: _VariantPair, tests: int) -> VariantChange:
    old, new = both.old, both.new
    return VariantChange(
        name=new.name,
        settings=tuple(_settings(old, new)),
        drift=tuple(drift(old.fingerprints, new.fingerprints)),
        seeds_after=new.seeds,
        failures_before=tuple(_failures(old)),
        failures_after=tuple(_failures(new)),
        missing=tuple(_failures(new, but=_FAILED_TRAINING)),
        unscored=_unscored(both),
        roles=tuple(_roles(both, tests)),
        flips=tuple(_flips(both)),
        costs=tuple(_costs(both.was.run, both.now.run, old, new)),
    )


def _settings(old: BaselineVariant, new: BaselineVariant) -> Iterator[Mismatch]:
    if old.settings and new.settings:
        for field in fields(old.settings):
            yield from _different(field.name, old.settings, new.settings, field.name)


def drift(before: Sequence[Fingerprint], after: Sequence[Fingerprint]) -> Iterator[Mismatch]:
    """Yield the fields in which the fingerprints of two runs differ, or nothing if a run has no fingerprint."""
    if before and after:
        for field in fields(Fingerprint):
            old, new = (sorted({str(getattr(one, field.name)) for one in side}) for side in (before, after))
            if old != new:
                yield Mismatch(field.name.replace("_", " "), " or ".join(old), " or ".join(new))


def _unscored(both: _VariantPair) -> int:
    """Count the cases with a score under every seed before, but not now. A regression may be the reason for that."""
    (before, after), (old, new) = both.tables, both.seeds
    if not old or not new:
        return 0
    cases = [case.id for case in both.cases]
    return len(set(before.complete(cases, old)) - set(after.complete(cases, new)))


def _failures(row: BaselineVariant, *, but: Collection[Status] = ()) -> Iterator[str]:
    for seed, status, message in zip(row.seeds, row.statuses, row.messages, strict=True):
        if status is not Status.SUCCEEDED and status not in but:
            yield f"seed {seed}: {status}" + (f": {message}" if message else "")


def _roles(both: _VariantPair, tests: int) -> Iterator[RoleChange]:
    for role in Role:
        cases = [case for case in both.cases if case.role is role]
        if found := pair(cases, *both.tables, seeds=both.seeds):
            yield _role(role, found, tests)


def _role(role: Role, found: Pair, tests: int) -> RoleChange:
    before, after, groups = found.before, found.after, found.groups
    moved = statistics.retrained_difference(before, after)
    worse, better = (
        statistical_tests.decline(*sides, np.random.default_rng(0), groups)
        for sides in ((before, after), (after, before))
    )
    return RoleChange(
        role=role,
        cases=len(groups),
        before=_estimate(statistics.retrained(before)),
        after=_estimate(statistics.retrained(after)),
        difference=_estimate(moved),
        # A one-sided bound at 95% is the end of a two-sided interval at 90%.
        worst=-statistics.retrained_difference(before, after, level=2 * statistics.LEVEL - 1).low,
        detectable=statistical_tests.detectable_loss(before, after, alpha=ALPHA / tests),
        p_worse=worse,
        p_better=better,
        worse_adjusted=worse,
        better_adjusted=better,
    )


def _estimate(found: statistics.Interval) -> Estimate:
    return Estimate(found.value, found.low, found.high)


def _adjusted(variants: Sequence[VariantChange]) -> tuple[VariantChange, ...]:
    """Return the variants with p-values adjusted by Holm's method over all variants and roles."""
    every = [role for variant in variants for role in variant.roles]
    worse, better = (iter(statistics.holm([getattr(role, name) for role in every])) for name in ("p_worse", "p_better"))
    return tuple(
        replace(
            variant,
            roles=tuple(
                replace(role, worse_adjusted=next(worse), better_adjusted=next(better)) for role in variant.roles
            ),
        )
        for variant in variants
    )


# --- single cases ------------------------------------------------------------------------------------------------


def _flips(both: _VariantPair) -> list[Flip]:
    """Return the cases whose pass rate over seeds changed.

    Lost cases come before gained ones, then critical cases before others, then large changes before small ones.
    """
    was, now = both.was, both.now
    before, after = _verdicts(was, both.old), _verdicts(now, both.new)
    critical = {case.id for run in (was.run, now.run) for case in run.suite.cases if case.critical}
    found = [
        _flip(case, case.id in critical, old, new)
        for case in both.cases
        if (old := before.get(case.id)) and (new := after.get(case.id)) and _rate(old) != _rate(new)
    ]
    return sorted(found, key=lambda flip: (not flip.lost, not flip.critical, -abs(_moved(flip))))


def _rate(samples: Sequence[Sample]) -> float:
    return sum(sample.score.passed for sample in samples) / len(samples)


def _moved(flip: Flip) -> float:
    return (flip.after.value or 0.0) - (flip.before.value or 0.0)


def _verdicts(side: _ScoredRun, row: BaselineVariant) -> dict[str, list[Sample]]:
    """Return for each case the samples that have a score, one per seed."""
    found: dict[str, list[Sample]] = {}
    for sample in scored(exemplary(side.samples(row), side.reducer)):
        found.setdefault(sample.case, []).append(sample)
    return found


def _flip(case: Case, critical: bool, before: Sequence[Sample], after: Sequence[Sample]) -> Flip:
    rates = [Rate(sum(s.score.passed for s in own), len(own)) for own in (before, after)]
    lost = (rates[1].value or 0.0) < (rates[0].value or 0.0)
    better, worse = (before, after) if lost else (after, before)
    passing = next((s for s in better if s.score.passed), better[0])
    failing = next((s for s in worse if not s.score.passed), worse[0])
    first, second = (passing, failing) if lost else (failing, passing)
    return Flip(
        case=case.id,
        role=case.role,
        prompt=case.prompt,
        critical=critical,
        before=rates[0],
        after=rates[1],
        answer_before=first.answer.text,
        answer_after=second.answer.text,
        reason=failing.score.error or next((c.reason for c in failing.score.checks if not c.passed), ""),
    )


# --- costs -------------------------------------------------------------------------------------------------------


def _costs(before: Baseline, after: Baseline, old: BaselineVariant, new: BaselineVariant) -> Iterator[CostChange]:
    for what, figure in (("training time", _seconds), ("peak memory while training", PhaseCost.peak)):
        was, now = (tuple(figure(cost) for cost in _finished_costs(row)) for row in (old, new))
        if was or now:  # an adapter that was trained elsewhere has no costs
            timed = figure is _seconds
            resident = not timed and not all(cost.on_gpu for cost in new.costs)
            yield CostChange(what, was, now, _why_not_comparable(before, after, was, now, timed=timed), resident)


def _finished_costs(row: BaselineVariant) -> tuple[PhaseCost, ...]:
    """Return the costs of complete trainings. An aborted training takes less time, but that is no improvement."""
    if len(row.costs) != len(row.statuses):  # costs cannot be assigned to seeds
        return row.costs if all(status is Status.SUCCEEDED for status in row.statuses) else ()
    both = zip(row.costs, row.statuses, strict=True)
    return tuple(cost for cost, status in both if status is Status.SUCCEEDED)


def _seconds(cost: PhaseCost) -> Measurement:
    return cost.seconds


def _why_not_comparable(
    before: Baseline, after: Baseline, old: Sequence[Measurement], new: Sequence[Measurement], *, timed: bool
) -> str:
    if not old or not new:
        return f"the {'later' if old else 'earlier'} run has no finished training with known costs"
    sides = [{source(figure) for figure in side} for side in (old, new)]
    if sides[0] != sides[1] or len(sides[0]) > 1:
        sources = [" and ".join(sorted(side)) for side in sides]
        return f"{sources[0]}, then {sources[1]}"
    if before.engine != after.engine:
        return f"engine {before.engine}, then {after.engine}"
    if timed and after.provenance.machine.kind is DeviceKind.CPU:
        return "CPU time depends on other processes"
    return ""
