"""Pairs two runs by variant, case and seed into a `Comparison`: which questions differ, then which results differ.

Nothing here decides: `gate` does, and the page of two runs only shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from harness.analysis import statistics
from harness.analysis.aggregate import void_cases
from harness.analysis.reducers import reduced, scored
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
from harness.core.training import Fingerprint, Status
from harness.core.units import DeviceKind
from harness.scoring import Need, needs

Scorer = Callable[[Case, Answer], Score]
ALPHA = Policy(0).alpha
"""What a loss is called detectable by."""
_NO_ANSWERS = (Status.DIVERGED, Status.OUT_OF_MEMORY)
"""Ends that are results without answers: such a seed fails every case."""


def compare(before: Baseline, after: Baseline, score: Scorer | None = None) -> Comparison:
    """Compare `after` with `before` on the cases that both runs asked in the same words.

    Where the later suite has other assertions, the earlier answers are scored again by `score`, the later suite's
    scorer; without a scorer such cases are left out.
    """
    questions = _questions(before.suite, after.suite, can_judge=score is not None)
    cases = {case.id: case for case in after.suite.cases if case.id in questions.shared}
    again = dict.fromkeys(questions.changes.judged_otherwise, score) if score else {}
    was, now = _Judged(before, cases, again), _Judged(after, cases, {})
    void = void_cases(replace(after.suite, cases=tuple(cases.values())), was.base_verdicts())
    couples = list(_couples(before, after))
    tests = max(1, len(couples) * len({case.role for case in cases.values() if case.id not in void}))
    variants = [_variant(_Couple(was, now, old, new), void, tests) for old, new in couples]
    matched_before, matched_after = {id(old) for old, _ in couples}, {id(new) for _, new in couples}
    return Comparison(
        before=_side(before),
        after=_side(after),
        obstacles=tuple(_obstacles(before, after)),
        changed=tuple(_changed(before, after)),
        suite=questions.changes,
        void=void,
        variants=_adjusted(variants),
        missing=tuple(row.name for row in before.variants if id(row) not in matched_before),
        added=tuple(row.name for row in after.variants if id(row) not in matched_after),
        base=tuple(_flips(_Couple(was, now, before.base, after.base), {})),
    )


def _couples(before: Baseline, after: Baseline) -> Iterator[tuple[BaselineVariant, BaselineVariant]]:
    """Match variants by name where both were named in the grid, else by equal settings; in the later run's order."""
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


# --- what was asked ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Questions:
    shared: frozenset[str]
    changes: SuiteChange


def _questions(before: Suite, after: Suite, *, can_judge: bool) -> _Questions:
    old, new = ({case.id: case for case in suite.cases} for suite in (before, after))
    both = [id for id in new if id in old]
    asked = [id for id in both if messages_of(before, old[id]) != messages_of(after, new[id])]
    judged = [id for id in both if id not in asked and scoring_rules(old[id]) != scoring_rules(new[id])]
    unjudged = [id for id in judged if not can_judge or not _kept_enough(old[id], new[id])]
    changes = SuiteChange(
        asked_otherwise=tuple(asked),
        gone=tuple(id for id in old if id not in new),
        new=tuple(id for id in new if id not in old),
        judged_otherwise=tuple(id for id in judged if id not in unjudged),
        unjudged=tuple(unjudged),
    )
    return _Questions(frozenset(both) - {*asked, *unjudged}, changes)


def scoring_rules(case: Case) -> tuple[object, ...]:
    """Return everything that decides how an answer to the case is scored."""
    return case.assertions, case.threshold, case.reference, case.choices, case.vars


def _kept_enough(old: Case, new: Case) -> bool:
    """Whether the log-probabilities that the new assertions need were stored, for the same reference and choices."""
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
        yield Mismatch(what, _told(old), _told(new))


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _rows(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Which rows, counted from 1, the other side has not; where both have all, the order differs."""
    sides = []
    for own, other in ((before, set(after)), (after, set(before))):
        lone = [number for number, row in enumerate(own, 1) if row not in other]
        few = ", ".join(map(str, lone[:8])) + (f" and {len(lone) - 8} more" if len(lone) > 8 else "")
        sides.append(f"{len(own)}, in an order of its own" if not lone else f"{len(own)}, of which alone here: {few}")
    return sides[0], sides[1]


def _changed(before: Baseline, after: Baseline) -> Iterator[Mismatch]:
    """What may have made the difference: it is allowed, and named."""
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


# --- what was answered -------------------------------------------------------------------------------------------


class _Judged:
    """One side's samples on the shared cases; those in `again` are scored anew by the scorer given there."""

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

    def base_verdicts(self) -> dict[str, Score]:
        return {sample.case: sample.score for sample in reduced(self.samples(self.run.base), self.reducer)}

    def table(self, row: BaselineVariant) -> ScoreTable:
        """Return the variant's scores; a seed that diverged or ran out of memory fails every case."""
        if id(row) not in self._tables:
            lost = [seed for seed, status in zip(row.seeds, row.statuses, strict=True) if status in _NO_ANSWERS]
            table = score_table(self.samples(row), self.reducer)
            self._tables[id(row)] = table.failing(self.cases, lost) if lost else table
        return self._tables[id(row)]

    def answering(self, row: BaselineVariant) -> list[int]:
        """Return the seeds that count: those that succeeded, and those whose failure is a result."""
        statuses = zip(row.seeds, row.statuses, strict=True)
        return [seed for seed, status in statuses if status is Status.SUCCEEDED or status in _NO_ANSWERS]


@dataclass(frozen=True)
class _Couple:
    """One variant (or the base) in the earlier run and in the later one."""

    was: _Judged
    now: _Judged
    old: BaselineVariant
    new: BaselineVariant

    @property
    def tables(self) -> tuple[ScoreTable, ScoreTable]:
        return self.was.table(self.old), self.now.table(self.new)

    @property
    def seeds(self) -> tuple[list[int], list[int]]:
        return self.was.answering(self.old), self.now.answering(self.new)

    def cases(self, void: Mapping[str, str]) -> list[Case]:
        return [case for id, case in self.was.cases.items() if id not in void]


def _variant(couple: _Couple, void: Mapping[str, str], tests: int) -> VariantChange:
    old, new = couple.old, couple.new
    return VariantChange(
        name=new.name,
        settings=tuple(_settings(old, new)),
        drift=tuple(drift(old.fingerprints, new.fingerprints)),
        seeds_after=new.seeds,
        failures_before=tuple(_failures(old)),
        failures_after=tuple(_failures(new)),
        missing=tuple(_failures(new, but=_NO_ANSWERS)),
        unscored=_unscored(couple, void),
        roles=tuple(_roles(couple, void, tests)),
        flips=tuple(_flips(couple, void)),
        costs=tuple(_costs(couple.was.run, couple.now.run, old, new)),
    )


def _settings(old: BaselineVariant, new: BaselineVariant) -> Iterator[Mismatch]:
    if old.settings and new.settings:
        for field in fields(old.settings):
            yield from _different(field.name, old.settings, new.settings, field.name)


def drift(before: Sequence[Fingerprint], after: Sequence[Fingerprint]) -> Iterator[Mismatch]:
    """Fields in which what was really trained differs; nothing where a side has no fingerprint."""
    if before and after:
        for field in fields(Fingerprint):
            old, new = (sorted({str(getattr(one, field.name)) for one in side}) for side in (before, after))
            if old != new:
                yield Mismatch(field.name.replace("_", " "), " or ".join(old), " or ".join(new))


def _unscored(couple: _Couple, void: Mapping[str, str]) -> int:
    """Count the cases that lost their score: the change that is looked for may be the reason."""
    (before, after), (old, new) = couple.tables, couple.seeds
    if not old or not new:
        return 0
    cases = [case.id for case in couple.cases(void)]
    return len(set(before.whole(cases, old)) - set(after.whole(cases, new)))


def _failures(row: BaselineVariant, *, but: Collection[Status] = ()) -> Iterator[str]:
    for seed, status, message in zip(row.seeds, row.statuses, row.messages, strict=True):
        if status is not Status.SUCCEEDED and status not in but:
            yield f"seed {seed}: {status}" + (f": {message}" if message else "")


def _roles(couple: _Couple, void: Mapping[str, str], tests: int) -> Iterator[RoleChange]:
    for role in Role:
        cases = [case for case in couple.cases(void) if case.role is role]
        if found := pair(cases, *couple.tables, seeds=couple.seeds):
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
    """Return the changes with Holm's p-values over all variants and roles."""
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


def _flips(couple: _Couple, void: Mapping[str, str]) -> list[Flip]:
    """Return the cases that one side passes under more seeds, lost ones first, then critical ones, then by size."""
    was, now = couple.was, couple.now
    before, after = _verdicts(was, couple.old), _verdicts(now, couple.new)
    critical = {case.id for run in (was.run, now.run) for case in run.suite.cases if case.critical}
    found = [
        _flip(case, case.id in critical, old, new)
        for case in couple.cases(void)
        if (old := before.get(case.id)) and (new := after.get(case.id)) and _rate(old) != _rate(new)
    ]
    return sorted(found, key=lambda flip: (not flip.lost, not flip.critical, -abs(_moved(flip))))


def _rate(samples: Sequence[Sample]) -> float:
    return sum(sample.score.passed for sample in samples) / len(samples)


def _moved(flip: Flip) -> float:
    return (flip.after.value or 0.0) - (flip.before.value or 0.0)


def _verdicts(side: _Judged, row: BaselineVariant) -> dict[str, list[Sample]]:
    """By case, one sample per seed that has a score."""
    found: dict[str, list[Sample]] = {}
    for sample in scored(reduced(side.samples(row), side.reducer)):
        found.setdefault(sample.case, []).append(sample)
    return found


def _flip(case: Case, critical: bool, before: Sequence[Sample], after: Sequence[Sample]) -> Flip:
    rates = [Rate(sum(s.score.passed for s in own), len(own)) for own in (before, after)]
    lost = (rates[1].value or 0.0) < (rates[0].value or 0.0)
    good, bad = (before, after) if lost else (after, before)
    passing = next((s for s in good if s.score.passed), good[0])
    failing = next((s for s in bad if not s.score.passed), bad[0])
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
        was, now = (tuple(figure(cost) for cost in _whole(row)) for row in (old, new))
        if was and now:
            timed = figure is _seconds
            resident = not timed and not all(cost.on_gpu for cost in new.costs)
            yield CostChange(what, was, now, _hindrance(before, after, was, now, timed=timed), resident)


def _whole(row: BaselineVariant) -> tuple[PhaseCost, ...]:
    """Costs of trainings that were not broken off: what a part of one took is no saving."""
    if len(row.costs) != len(row.statuses):  # of those that were stored, it is not known whose
        return row.costs if all(status is Status.SUCCEEDED for status in row.statuses) else ()
    both = zip(row.costs, row.statuses, strict=True)
    return tuple(cost for cost, status in both if status is Status.SUCCEEDED)


def _seconds(cost: PhaseCost) -> Measurement:
    return cost.seconds


def _hindrance(
    before: Baseline, after: Baseline, old: Iterable[Measurement], new: Iterable[Measurement], *, timed: bool
) -> str:
    sides = [{source(figure) for figure in side} for side in (old, new)]
    if sides[0] != sides[1] or len(sides[0]) > 1:
        told = [" and ".join(sorted(side)) for side in sides]
        return f"{told[0]}, then {told[1]}"
    if before.engine != after.engine:
        return f"engine {before.engine}, then {after.engine}"
    if timed and after.provenance.machine.kind is DeviceKind.CPU:
        return "a CPU's time is also that of what else it does"
    return ""
