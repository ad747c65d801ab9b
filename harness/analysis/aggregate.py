"""Aggregate the records of a run into `Results`: score the answers and compare each variant with the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.analysis import differences, losses, selection, settings_search, timeline
from harness.analysis.confirmation import confirmation
from harness.analysis.contamination import leaks as contamination
from harness.analysis.score_table import ScoreTable, graded, pair, score_table
from harness.core.answers import Answer
from harness.core.costs import comparable, mean, pool
from harness.core.formats import RESULTS_FORMAT
from harness.core.measurement import Phase, PhaseCost
from harness.core.names import BASE, names_a_base
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Change, Choice, Outcome, Results, Timeline
from harness.core.scores import Rate, Sample, Score
from harness.core.settings import Quantization, Settings, Variant
from harness.core.suite import Case, Leak, LeakLabel, Role, Split, Suite
from harness.core.training_outcome import Status

MEANINGLESS = "The weights are random, so answers mean nothing. Only memory and training time are meaningful."

Scorer = Callable[[Case, Answer], Score]


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Return all results of a run for the report. `finished` is the time at which the run ended."""
    return confirm(choose(manifest, records, score, finished), records, score, finished)


def choose(manifest: RunManifest, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Score the answers to the main cases, compare each variant with the base model, and choose a variant."""
    suite, score = manifest.suite, _meaningful(manifest, score)
    bases = {each: _scored(_base(manifest, records, each), suite, score) for each in manifest.plan.bases}
    variants = [_scored(entry, suite, score) for entry in _entries(manifest, records)]
    found = contamination(suite)
    untrained, *others = (
        _labelled(suite, outcome(suite, Split.MAIN, base, base), base.table, found) for base in bases.values()
    )
    outcomes = with_adjusted_p_values(
        [_labelled(suite, outcome(suite, Split.MAIN, own, _base_of(own, bases)), own.table, found) for own in variants]
    )
    outcomes = _with_losses_by_base(suite, bases, variants, outcomes)
    objective = selection.objective_of(suite, untrained)
    tables = objective_tables(suite, objective, {own.entry.name: own.table for own in variants})
    other_bases = dict(zip(list(bases)[1:], others, strict=True))
    choice = selection.choose(suite, untrained, outcomes, tables, bases=other_bases)
    if manifest.model.shape_only:
        choice = Choice(None, (MEANINGLESS,), choice.objective)
    return Results(
        format=RESULTS_FORMAT,
        run=manifest,
        base=untrained,
        variants=outcomes,
        bases=other_bases,
        samples=tuple(sample for own in (*bases.values(), *variants) for sample in own.samples),
        choice=choice,
        finished=finished,
        timelines=tuple(
            timeline
            for own in variants
            if (timeline := _timeline(suite, own.entry, score, _base_of(own, bases), objective))
        ),
        leaks=found,
    )


def confirm(results: Results, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Add the confirmation: the chosen variant under fresh seeds on held-out cases. `results` comes from `choose`."""
    manifest, suite = results.run, results.run.suite
    score = _meaningful(manifest, score)
    chosen = next((v for v in results.variants if v.name == results.choice.variant), None)
    base = _scored(_confirmed_base(manifest, records, chosen), suite, score)
    entry = _confirmation(manifest, records, chosen)
    again = _scored(entry, suite, score) if entry else None
    confirmed_base = outcome(suite, Split.CONFIRM, base, base) if base.entry.records else None
    confirmed, choice = None, results.choice
    if again:
        [confirmed] = with_losses(
            suite, Split.CONFIRM, base.table, [again.table], [outcome(suite, Split.CONFIRM, again, base)]
        )
    if again and confirmed and confirmed_base:
        choice = replace(choice, confirmation=confirmation(suite, choice.objective, base.table, again.table, confirmed))
    return replace(
        results,
        choice=choice,
        confirmed_base=confirmed_base,
        confirmed=confirmed,
        importance=_importance(results),
        confirmed_samples=(*base.samples, *(again.samples if again else ())),
        finished=finished,
    )


def _importance(results: Results) -> dict[str, float]:
    """Return how much each setting of a search mattered, by name."""
    search, objective = results.run.plan.search, results.choice.objective
    if search is None:
        return {}
    told = [settings_search.told(results.run.suite, objective, variant) for variant in results.variants]
    return settings_search.importance(search, [each for each in told if each])


def table_of(suite: Suite, records: Sequence[TrialRecord], score: Scorer) -> ScoreTable:
    """Return the scores of one variant or base model, whose records these are."""
    return score_table(_samples(_Entry("", tuple(records), {}), suite, score), suite.reducer)


def _meaningful(manifest: RunManifest, score: Scorer) -> Scorer:
    """Return the scorer, or for a model with random weights, a scorer that gives no answer a score."""
    return _without_score if manifest.model.shape_only else score


def _without_score(case: Case, _: Answer) -> Score:
    return Score(case.id, False, None, error=MEANINGLESS)


@dataclass(frozen=True)
class _Entry:
    """The records of one variant (or the base model) on one split of the cases.

    There is one record per seed, with a placeholder for each trial that did not run.
    """

    name: str
    records: tuple[TrialRecord, ...]
    differs: dict[str, Any]

    @property
    def settings(self) -> Settings | None:
        return next((record.settings for record in self.records), None)


@dataclass(frozen=True)
class _ScoredEntry:
    """One variant (or the base model) on one split of the cases, with its scored answers."""

    entry: _Entry
    samples: tuple[Sample, ...]
    table: ScoreTable


def _scored(entry: _Entry, suite: Suite, score: Scorer) -> _ScoredEntry:
    samples = _samples(entry, suite, score)
    return _ScoredEntry(entry, samples, score_table(samples, suite.reducer))


def _base(manifest: RunManifest, records: Sequence[TrialRecord], quantization: Quantization) -> _Entry:
    """Return the base model's answers in a quantisation to the main cases, if there are any.

    Earlier versions ran one base and did not record its quantisation: it counts as the first one of the plan.
    """
    name = manifest.plan.bases[quantization]
    known = (quantization, None) if name == BASE else (quantization,)
    own = [r for r in records if r.variant == BASE and r.split is Split.MAIN and r.quantization in known]
    # An earlier record of the same base, under the id that it had in an earlier version, is superseded.
    differs = {"quantization": quantization} if len(manifest.plan.bases) > 1 else {}
    return _Entry(name, tuple([r for r in own if r.quantization] or own), differs)


def _confirmed_base(manifest: RunManifest, records: Sequence[TrialRecord], chosen: Outcome | None) -> _Entry:
    """Return the answers to the held-out cases of the base model in the chosen variant's quantisation."""
    bases = manifest.plan.bases
    quantization = chosen.settings.quantization if chosen and chosen.settings else next(iter(bases))
    own = [r for r in records if r.variant == BASE and r.split is Split.CONFIRM]
    mine = [r for r in own if r.quantization is quantization] or [r for r in own if r.quantization is None]
    return _Entry(bases[quantization], tuple(mine), {})


def _base_of(own: _ScoredEntry, bases: Mapping[Quantization, _ScoredEntry]) -> _ScoredEntry:
    """Return the base model that a variant is compared with: in its quantisation, for other adapters in the first."""
    settings = own.entry.settings
    return bases[settings.quantization] if settings else next(iter(bases.values()))


def _entries(manifest: RunManifest, records: Sequence[TrialRecord]) -> list[_Entry]:
    """Return the variants in the plan's order, then the adapters that were trained elsewhere, without a plan."""
    records = [r for r in records if r.variant != BASE and r.split is Split.MAIN]
    known = {key: v for v in manifest.plan.variants for key in (v.id, v.name)}
    found: dict[str, list[TrialRecord]] = {v.name: [] for v in manifest.plan.variants}
    for record in records:
        found.setdefault(known[record.variant].name if record.variant in known else record.variant, []).append(record)
    settings = {name: own[0].settings for name, own in found.items() if own}
    settings |= {v.name: v.settings for v in manifest.plan.variants}
    axes = _axes([s for s in settings.values() if s])
    entries = []
    for name, own in found.items():
        variant = known.get(name)
        full = _without_answers(_complete(variant, manifest.plan.seeds, own) if variant else tuple(own))
        values = settings[name]
        entries.append(_Entry(name, full, {axis: getattr(values, axis) for axis in axes} if values else {}))
    return entries


def _axes(rows: Sequence[Settings]) -> list[str]:
    """Return the names of the settings that differ between `rows`, in the order of the fields of `Settings`."""
    return [f.name for f in fields(Settings) if len({getattr(row, f.name) for row in rows}) > 1]


def _complete(
    variant: Variant, seeds: Sequence[int], records: Sequence[TrialRecord], split: Split = Split.MAIN
) -> tuple[TrialRecord, ...]:
    """Return one record per seed, with a placeholder for each trial that did not run."""
    by_seed = {record.seed: record for record in records}
    order = [*seeds, *(seed for seed in by_seed if seed not in seeds)]
    return tuple(by_seed.get(seed) or _not_run(variant, seed, split) for seed in order)


def _without_answers(records: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
    """Return the records of a variant that left a race without answers, which would be compared with those of others.

    Under the seeds that were trained before it left, it has answered all cases.
    """
    if not any(record.status is Status.STOPPED for record in records):
        return records
    return tuple(replace(record, answers={}, timeline=()) for record in records)


def _not_run(variant: Variant, seed: int, split: Split) -> TrialRecord:
    return TrialRecord(
        trial="",
        variant=variant.id,
        seed=seed,
        settings=variant.settings,
        split=split,
        status=Status.CANCELLED,
        message="not run: the run ended before this trial",
        training=None,
        costs=(),
        answers={},
    )


def _confirmation(manifest: RunManifest, records: Sequence[TrialRecord], chosen: Outcome | None) -> _Entry | None:
    """Return the trials that confirm the chosen variant. Trials that confirmed another variant are left out."""
    if chosen is None:
        return None
    variant = next((v for v in manifest.plan.variants if v.name == chosen.name), None)
    names = {chosen.name} | ({variant.id} if variant else set())
    own = [r for r in records if r.variant != BASE and r.split is Split.CONFIRM and r.variant in names]
    if not own:
        return None
    full = _complete(variant, manifest.confirm_seeds, own, Split.CONFIRM) if variant else tuple(own)
    return _Entry(chosen.name, full, chosen.differs)


# --- outcomes ----------------------------------------------------------------------------------------------------


def outcome(suite: Suite, split: Split, own: _ScoredEntry, base: _ScoredEntry) -> Outcome:
    """Summarise one variant (or the base model) over all its seeds, without its losses (`with_losses`).

    Rates exclude answers without a score. Costs cover the seeds that succeeded, or all seeds if none succeeded.
    """
    entry, records = own.entry, own.entry.records
    fixed, broken = _flips(base.table, own.table)
    trainings = tuple(r.training for r in records if r.training)
    finished = [r for r in records if r.status is Status.SUCCEEDED] or list(records)
    return Outcome(
        name=entry.name,
        settings=entry.settings,
        differs=entry.differs,
        statuses=tuple(r.status for r in records),
        seeds=tuple(r.seed for r in records),
        messages=tuple(r.message for r in records),
        rates=_rates(suite, split, own.table) if own.samples else {},
        fixed=fixed,
        broken=broken,
        truncated=sum(s.answer.truncated for s in own.samples),
        costs=_costs(finished),
        trainable_parameters=max((t.trainable_parameters for t in trainings), default=0),
        supervised_tokens=_mean([r.training.supervised_tokens for r in finished if r.training]),
        training=trainings,
        reused=any(r.reused for r in records),
        logs=tuple(r.log for r in records),
        shortages=tuple(r.shortage for r in records),
        bases=tuple(r.basis for r in records),
        elsewhere=entry.settings is None and not names_a_base(entry.name),
        changes={} if own is base else _changes(suite, own.table, base.table),
    )


def _with_losses_by_base(
    suite: Suite,
    bases: Mapping[Quantization, _ScoredEntry],
    variants: Sequence[_ScoredEntry],
    outcomes: Sequence[Outcome],
) -> tuple[Outcome, ...]:
    """Add the net losses of all variants, each compared with the base model in its own quantisation."""
    found: dict[str, Outcome] = {}
    for base in bases.values():
        own = [(v.table, o) for v, o in zip(variants, outcomes, strict=True) if _base_of(v, bases) is base]
        tables, some = [table for table, _ in own], [each for _, each in own]
        found |= {each.name: each for each in with_losses(suite, Split.MAIN, base.table, tables, some)}
    return tuple(found[each.name] for each in outcomes)


def with_losses(
    suite: Suite, split: Split, base: ScoreTable, tables: Sequence[ScoreTable], outcomes: Sequence[Outcome]
) -> tuple[Outcome, ...]:
    """Add the net losses of all variants, whose scores are in `tables` in the same order.

    If no answer of the base model has a score, there are no losses.
    """
    cases = suite.of(split)
    if not base.cells:
        return tuple(outcomes)
    pooled = losses.losses(cases, losses.GUARDED, base, tables, suite.margin)
    apart = losses.by_role(cases, base, tables, suite.margin)
    return tuple(replace(each, loss=loss, losses=own) for each, loss, own in zip(outcomes, pooled, apart, strict=True))


def _flips(base: ScoreTable, own: ScoreTable) -> tuple[int, int]:
    """Count the cases that the base model fails and the variant passes, and the reverse, summed over all seeds."""
    shared = [case for case in own.cells if case in base.cells]
    verdicts = [(base.majority(case), cell.verdict) for case in shared for cell in own.cells[case].values()]
    return sum(not was and now for was, now in verdicts), sum(was and not now for was, now in verdicts)


def _labelled(suite: Suite, of: Outcome, table: ScoreTable, found: Mapping[str, Leak]) -> Outcome:
    """Add pass rates by contamination label, for each role whose cases do not all have the same label."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = {}
    for role in Role:
        cases = [case.id for case in suite.cases if case.role is role]
        rates = {label: table.rate([case for case in cases if found[case].label is label]) for label in LeakLabel}
        known = {label: rate for label, rate in rates.items() if rate.total}
        if len(known) > 1:
            by_label[role] = known
    return replace(of, by_label=by_label)


def with_adjusted_p_values(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Adjust the p-values of all variants' changes by Holm's method, separately for each role."""
    found = [dict(each.changes) for each in outcomes]
    for role in Role:
        having = [own for own in found if role in own]
        for own, change in zip(having, differences.adjusted_for_family([own[role] for own in having]), strict=True):
            own[role] = change
    return tuple(replace(each, changes=own) for each, own in zip(outcomes, found, strict=True))


def objective_tables(suite: Suite, objective: Role, tables: Mapping[str, ScoreTable]) -> dict[str, ScoreTable]:
    """Return each variant's scores on the cases of the role `objective`."""
    cases = [case.id for case in suite.cases if case.role is objective]
    return {name: table.on(cases) for name, table in tables.items()}


def _changes(suite: Suite, own: ScoreTable, base: ScoreTable) -> dict[Role, Change]:
    import numpy as np

    rng, found = np.random.default_rng(0), {}
    for role in Role:
        cases = [case for case in suite.cases if case.role is role]
        shares, grades = pair(cases, base, own), pair(cases, base, own, measure=graded)
        if shares and grades:
            scores = differences.score_change(grades, rng)
            found[role] = replace(differences.change(role, shares, suite.margin, rng), scores=scores)
    return found


def _rates(suite: Suite, split: Split, table: ScoreTable) -> dict[Role, Rate]:
    """Return pass rates by role, in the order of `Role`. A role without any scored answer has the rate 0 of 0."""
    cases = suite.of(split)
    asked = {role: [case.id for case in cases if case.role is role] for role in Role}
    return {role: table.rate(own) for role, own in asked.items() if own}


def _costs(records: Sequence[TrialRecord]) -> tuple[PhaseCost, ...]:
    """Return the mean time and the largest memory peaks of each phase."""
    costs = [cost for record in records for cost in _costs_of(record)]
    by_phase = [[c for c in costs if c.phase is phase] for phase in Phase]
    return tuple(pool(comparable(same), mean) for same in by_phase if same)


def _costs_of(record: TrialRecord) -> tuple[PhaseCost, ...]:
    """Return a trial's costs. The cost of a training that failed may be stored only in the record of that training."""
    if record.status is Status.STOPPED:  # the cost of a part must not stand beside the costs of whole trainings
        return ()
    known = {cost.phase for cost in record.costs}
    training = record.training.cost if record.training else None
    return (*record.costs, training) if training and training.phase not in known else record.costs


def _mean(counts: Sequence[int]) -> int:
    return round(sum(counts) / len(counts)) if counts else 0


# --- timelines ---------------------------------------------------------------------------------------------------


def _timeline(suite: Suite, entry: _Entry, score: Scorer, base: _ScoredEntry, objective: Role) -> Timeline | None:
    """Return a variant's timeline over all seeds that answered after every epoch, or None if no seed did."""
    records = [record for record in entry.records if record.timeline and record.status is Status.SUCCEEDED]
    if not records or entry.settings is None:
        return None
    epochs = [
        _epoch(suite, entry, number, [_at(record, number) for record in records], score)
        for number in sorted({each.epoch for record in records for each in record.timeline})
    ]
    last = _epoch(suite, entry, entry.settings.epochs, records, score)
    return timeline.timeline(suite, entry.name, [*epochs, last], base.table, objective)


def _at(record: TrialRecord, epoch: int) -> TrialRecord:
    answers = next((each.answers for each in record.timeline if each.epoch == epoch), {})
    return replace(record, answers=answers)


def _epoch(suite: Suite, entry: _Entry, number: float, records: Sequence[TrialRecord], score: Scorer) -> timeline.Epoch:
    table = _scored(replace(entry, records=tuple(records)), suite, score).table
    return timeline.Epoch(number, table, _rates(suite, Split.MAIN, table))


# --- records to samples ------------------------------------------------------------------------------------------


def _samples(entry: _Entry, suite: Suite, score: Scorer) -> tuple[Sample, ...]:
    """Score the answers of successful trials, in the suite's order. Skip cases that are no longer in the suite."""
    samples = []
    for record in entry.records:
        asked = suite.of(record.split) if record.status is Status.SUCCEEDED else ()
        for case in asked:
            for repeat, answer in enumerate(record.answers.get(case.id, ())):
                verdict = score(case, answer)
                samples.append(Sample(entry.name, record.seed, case.id, answer, verdict, repeat))
    return tuple(samples)
