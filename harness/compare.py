"""Pairs what the base answered with what each variant answered, case by case, into `Results`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from harness import changes, recommend, reducers, stats, timelines
from harness.leaks import leaks
from harness.records import (
    FORMAT,
    Answer,
    Case,
    Change,
    Choice,
    LeakLabel,
    Measurement,
    Outcome,
    Phase,
    PhaseCost,
    Rate,
    Reducer,
    Results,
    Role,
    RunManifest,
    Safety,
    Sample,
    Score,
    Settings,
    Split,
    Status,
    Suite,
    Timeline,
    TrialRecord,
    Variant,
)

BASE = "base"
"""What the untrained model is called wherever a variant has a name."""

MEANINGLESS = "The weights are random, so no answer means anything: only which trainings fit, and how long they take."

Scorer = Callable[[Case, Answer], Score]


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Everything a report is drawn from; call it again with the confirmation's records once a variant is chosen."""
    suite = manifest.suite
    base = _Entry(BASE, tuple(r for r in records if r.variant == BASE and r.split is Split.MAIN), {})
    late = _Entry(BASE, tuple(r for r in records if r.variant == BASE and r.split is Split.CONFIRM), {})
    entries = _entries(manifest, [r for r in records if r.variant != BASE and r.split is Split.MAIN])
    before, before_late = _samples(base, suite, score), _samples(late, suite, score)
    void = void_cases(suite, {s.case: s.score for s in reducers.reduced((*before, *before_late), suite.reducer)})
    if manifest.model.shape_only:
        void = {case.id: MEANINGLESS for case in suite.cases}

    answers = [_samples(entry, suite, score) for entry in entries]
    untrained = outcome(suite, Split.MAIN, base, before, before, void)
    labels = {id: leak.label for id, leak in leaks(suite).items() if id not in void}
    untrained = _labelled(suite, untrained, before, labels)
    outcomes = as_family(
        [
            _labelled(suite, outcome(suite, Split.MAIN, entry, own, before, void), own, labels)
            for entry, own in zip(entries, answers, strict=True)
        ]
    )
    choice = recommend.choose(suite, untrained, outcomes, objective_marks(suite, untrained, answers, void))
    if manifest.model.shape_only:
        choice = Choice(None, (MEANINGLESS,), choice.objective)
    epochs = tuple(
        found for entry in entries if (found := _timeline(suite, entry, score, before, void, choice.objective))
    )
    again = _confirmation(manifest, records, next((e for e in entries if e.name == choice.variant), None))
    own_late = _samples(again, suite, score) if again else ()
    confirmed_base = outcome(suite, Split.CONFIRM, late, before_late, before_late, void) if late.records else None
    confirmed = outcome(suite, Split.CONFIRM, again, own_late, before_late, void) if again else None
    if confirmed and confirmed_base:
        against = recommend.refuted(suite, choice.objective, confirmed_base, confirmed)
        choice = replace(choice, refuted=against)
    return Results(
        format=FORMAT,
        run=manifest,
        base=untrained,
        variants=outcomes,
        void=void,
        samples=(*before, *(sample for own in answers for sample in own)),
        choice=choice,
        confirmed_base=confirmed_base,
        confirmed=confirmed,
        confirmed_samples=(*before_late, *own_late),
        finished=finished,
        timelines=epochs,
    )


@dataclass(frozen=True)
class _Entry:
    """What is known of one variant (or the base) on one split: a record per seed, missing ones filled in."""

    name: str
    records: tuple[TrialRecord, ...]
    differs: dict[str, Any]

    @property
    def settings(self) -> Settings | None:
        return next((record.settings for record in self.records), None)


def _entries(manifest: RunManifest, records: Sequence[TrialRecord]) -> list[_Entry]:
    """Every variant of the plan in its order, then those that only have records (adapters trained elsewhere)."""
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
        full = _complete(variant, manifest.plan.seeds, own) if variant else tuple(own)
        values = settings[name]
        entries.append(_Entry(name, full, {axis: getattr(values, axis) for axis in axes} if values else {}))
    return entries


def _axes(rows: Sequence[Settings]) -> list[str]:
    """The settings in which these rows differ, in the order in which `Settings` names them."""
    return [f.name for f in fields(Settings) if len({getattr(row, f.name) for row in rows}) > 1]


def _complete(
    variant: Variant, seeds: Sequence[int], records: Sequence[TrialRecord], split: Split = Split.MAIN
) -> tuple[TrialRecord, ...]:
    """One record per seed: a trial that has none was not run, and its row says so instead of vanishing."""
    by_seed = {record.seed: record for record in records}
    order = [*seeds, *(seed for seed in by_seed if seed not in seeds)]
    return tuple(by_seed.get(seed) or _not_run(variant, seed, split) for seed in order)


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


def _confirmation(manifest: RunManifest, records: Sequence[TrialRecord], chosen: _Entry | None) -> _Entry | None:
    """The chosen variant's trials under fresh seeds; what an earlier choice left behind confirms nothing."""
    if chosen is None:
        return None
    variant = next((v for v in manifest.plan.variants if v.name == chosen.name), None)
    names = {chosen.name} | ({variant.id} if variant else set())
    own = [r for r in records if r.variant != BASE and r.split is Split.CONFIRM and r.variant in names]
    if not own:
        return None
    full = _complete(variant, manifest.confirm_seeds, own, Split.CONFIRM) if variant else tuple(own)
    return _Entry(chosen.name, full, chosen.differs)


# --- which cases count -------------------------------------------------------------------------------------------


def void_cases(suite: Suite, base_scores: Mapping[str, Score]) -> dict[str, str]:
    """Case id to the reason why this base makes the case say nothing: it is shown, not counted."""
    drawn = suite.decoding.temperature > 0
    reasons = {case.id: _void(case, base_scores.get(case.id), drawn) for case in suite.cases}
    return {case: reason for case, reason in reasons.items() if reason}


def _void(case: Case, score: Score | None, drawn: bool) -> str:
    if score is None:
        return ""
    if score.value is None:
        return f"the base's answer could not be scored: {score.error}"
    if (
        drawn
    ):  # an answer that was drawn, and is compared with, cannot choose its cases: others would do worse by chance
        return ""
    if case.role in (Role.RETAIN, Role.AVOID) and not score.passed:
        return "the base fails it already, so a tuned model cannot lose it"
    if case.role is Role.LEARN and score.passed:
        return "the base passes it already, so passing it shows no learning"
    return ""


# --- outcomes ----------------------------------------------------------------------------------------------------


def outcome(
    suite: Suite,
    split: Split,
    entry: _Entry,
    samples: Sequence[Sample],
    base_samples: Sequence[Sample],
    void: Mapping[str, str],
) -> Outcome:
    """One variant (or the base) over all its seeds. Void cases and answers without a score are not counted.

    Costs are means over the seeds that succeeded; where none did, over those that tried.
    """
    records = entry.records
    counted = [s for s in reducers.counting(samples, suite.reducer) if s.case not in void]
    verdicts = [s for s in reducers.reduced(samples, suite.reducer) if s.case not in void and s.score.value is not None]
    base_verdicts = reducers.reduced(base_samples, suite.reducer)
    before = {s.case: s.score.passed for s in base_verdicts if s.score.value is not None}
    flips = [(before[s.case], s.score.passed) for s in verdicts if s.case in before]
    trainings = tuple(r.training for r in records if r.training)
    finished = [r for r in records if r.status is Status.SUCCEEDED] or list(records)
    return Outcome(
        name=entry.name,
        settings=entry.settings,
        differs=entry.differs,
        statuses=tuple(r.status for r in records),
        seeds=tuple(r.seed for r in records),
        messages=tuple(r.message for r in records),
        rates=_rates(suite, split, counted) if samples else {},
        fixed=sum(not was and now for was, now in flips),
        broken=sum(was and not now for was, now in flips),
        truncated=sum(s.truncated for s in samples),
        costs=_costs(finished),
        trainable_parameters=max((t.trainable_parameters for t in trainings), default=0),
        supervised_tokens=_mean([r.training.supervised_tokens for r in finished if r.training]),
        training=trainings,
        reused=any(r.reused for r in records),
        logs=tuple(r.log for r in records),
        shortages=tuple(r.shortage for r in records),
        bases=tuple(r.basis for r in records),
        safety=_safety(suite, samples, base_samples, void),
        elsewhere=entry.settings is None and entry.name != BASE,
        changes={} if entry.name == BASE else _changes(suite, samples, base_samples, void),
    )


def _labelled(suite: Suite, found: Outcome, samples: Sequence[Sample], labels: Mapping[str, LeakLabel]) -> Outcome:
    """With its rates by label, of the roles whose counted cases have several."""
    roles = {case.id: case.role for case in suite.cases}
    counted = [s for s in reducers.counting(samples, suite.reducer) if s.case in labels]
    marks: dict[Role, dict[LeakLabel, list[bool]]] = {}
    for sample in counted:
        marks.setdefault(roles[sample.case], {}).setdefault(labels[sample.case], []).append(sample.score.passed)
    rates = {
        role: {label: Rate(sum(own[label]), len(own[label])) for label in LeakLabel if label in own}
        for role in Role
        if len(own := marks.get(role, {})) > 1
    }
    return replace(found, by_label=rates)


def as_family(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The same with the p-values of their changes adjusted for there being so many of them."""
    found = [dict(each.changes) for each in outcomes]
    for role in Role:
        having = [own for own in found if role in own]
        for own, change in zip(having, changes.holm([own[role] for own in having]), strict=True):
            own[role] = change
    return tuple(replace(each, changes=own) for each, own in zip(outcomes, found, strict=True))


def objective_marks(
    suite: Suite, base: Outcome, answers: Iterable[Sequence[Sample]], void: Mapping[str, str]
) -> dict[str, changes.Marks]:
    """By variant, its marks on the cases that choose."""
    cases = _counting(suite, (recommend.objective_of(suite, base),), void)
    return {own[0].variant: changes.marks(own, suite.reducer, cases) for own in answers if own}


def _counting(suite: Suite, roles: Collection[Role], void: Mapping[str, str]) -> list[str]:
    return [case.id for case in suite.cases if case.role in roles and case.id not in void]


def _pair(
    suite: Suite,
    roles: Collection[Role],
    samples: Sequence[Sample],
    base: Sequence[Sample],
    void: Mapping[str, str],
    of: Callable[[Iterable[Sample], Reducer, Iterable[str]], changes.Marks] = changes.marks,
) -> changes.Pair | None:
    """The base's marks and a variant's on the cases of these roles that count."""
    cases = _counting(suite, roles, void)
    before, after = (of(side, suite.reducer, cases) for side in (base, samples))
    return changes.pair(suite, before, after)


def _changes(
    suite: Suite, samples: Sequence[Sample], base: Sequence[Sample], void: Mapping[str, str]
) -> dict[Role, Change]:
    import numpy as np

    rng, found = np.random.default_rng(0), {}
    for role in Role:
        if pair := _pair(suite, (role,), samples, base, void):
            graded = _pair(suite, (role,), samples, base, void, of=changes.values)
            scores = changes.score_change(graded, rng) if graded else None
            found[role] = replace(changes.change(role, pair, suite.margin, rng), scores=scores)
    return found


def _safety(suite: Suite, samples: Sequence[Sample], base: Sequence[Sample], void: Mapping[str, str]) -> Safety | None:
    """What was lost, from the cases that have a score of the base; of repeats, their mean.

    An answer that cannot be scored counts as failed: it may be the training that made it so.
    """
    cases = _counting(suite, recommend.GUARDED, void)
    before, after = (changes.marks(side, suite.reducer, cases) for side in (base, samples))
    seeds = {sample.seed for sample in samples}
    pair = changes.pair(suite, before, {case: {**dict.fromkeys(seeds, 0.0), **after.get(case, {})} for case in before})
    if pair is None:
        return None
    found = stats.non_inferiority(pair.before, pair.after, suite.margin / 100, pair.groups)
    return Safety(100 * found.loss + 0.0, 100 * found.upper, pair.before.shape[1], found.needed)  # no -0.0


def _rates(suite: Suite, split: Split, counted: Iterable[Sample]) -> dict[Role, Rate]:
    """By role, in the order in which `Role` names them; a role of which every case is void keeps its 0 of 0."""
    role_of = {case.id: case.role for case in suite.of(split)}
    passes: dict[Role, list[bool]] = {role: [] for role in Role if role in role_of.values()}
    for sample in counted:
        passes[role_of[sample.case]].append(sample.score.passed)
    return {role: Rate(sum(marks), len(marks)) for role, marks in passes.items()}


def _costs(records: Sequence[TrialRecord]) -> tuple[PhaseCost, ...]:
    """Mean seconds and largest peaks by phase."""
    costs = [cost for record in records for cost in _costs_of(record)]
    by_phase = [[c for c in costs if c.phase is phase] for phase in Phase]
    return tuple(_pooled(same) for same in by_phase if same)


def _costs_of(record: TrialRecord) -> tuple[PhaseCost, ...]:
    """A trial that died in training may have told its cost only there."""
    known = {cost.phase for cost in record.costs}
    inner = record.training.cost if record.training else None
    return (*record.costs, inner) if inner and inner.phase not in known else record.costs


def _pooled(costs: Sequence[PhaseCost]) -> PhaseCost:
    first = costs[0].seconds
    # Seconds of another device or basis (a trial reused from elsewhere) have no place in one mean.
    alike = [c for c in costs if (c.seconds.basis, c.seconds.device) == (first.basis, first.device)]
    seconds = sum(c.seconds.value for c in alike) / len(alike)
    return PhaseCost(
        phase=costs[0].phase,
        seconds=replace(first, value=seconds),
        tokens=_mean([c.tokens for c in alike]),
        peak_resident=max((c.peak_resident for c in alike), key=_value),
        peak_allocated=_largest(c.peak_allocated for c in alike),
        peak_reserved=_largest(c.peak_reserved for c in alike),
        peak_device=_largest(c.peak_device for c in alike),
        left_allocated=_largest(c.left_allocated for c in alike),
        limit=_largest(c.limit for c in alike),
        note=next((c.note for c in alike if c.note), ""),
        models=max(c.models for c in alike),
    )


def _largest(figures: Iterable[Measurement | None]) -> Measurement | None:
    return max((f for f in figures if f is not None), key=_value, default=None)


def _value(figure: Measurement) -> float:
    return figure.value


def _mean(counts: Sequence[int]) -> int:
    return round(sum(counts) / len(counts)) if counts else 0


# --- epoch by epoch ----------------------------------------------------------------------------------------------


def _timeline(
    suite: Suite, entry: _Entry, score: Scorer, base: Sequence[Sample], void: Mapping[str, str], objective: Role
) -> Timeline | None:
    """Of the seeds that were asked after every epoch; None where none was."""
    records = [record for record in entry.records if record.timeline and record.status is Status.SUCCEEDED]
    if not records or entry.settings is None:
        return None
    epochs = [
        _epoch(suite, entry, number, [_at(record, number) for record in records], score, void)
        for number in sorted({each.epoch for record in records for each in record.timeline})
    ]
    last = _epoch(suite, entry, entry.settings.epochs, records, score, void)
    return timelines.timeline(suite, entry.name, [*epochs, last], base, void, objective)


def _at(record: TrialRecord, epoch: int) -> TrialRecord:
    answers = next((each.answers for each in record.timeline if each.epoch == epoch), {})
    return replace(record, answers=answers)


def _epoch(
    suite: Suite, entry: _Entry, number: float, records: Sequence[TrialRecord], score: Scorer, void: Mapping[str, str]
) -> timelines.Epoch:
    samples = _samples(replace(entry, records=tuple(records)), suite, score)
    counted = [s for s in reducers.counting(samples, suite.reducer) if s.case not in void]
    return timelines.Epoch(number, samples, _rates(suite, Split.MAIN, counted))


# --- records to samples ------------------------------------------------------------------------------------------


def _samples(entry: _Entry, suite: Suite, score: Scorer) -> tuple[Sample, ...]:
    """In the suite's order. Only trials that succeeded have answers that count, and only cases the suite still has."""
    samples = []
    for record in entry.records:
        asked = suite.of(record.split) if record.status is Status.SUCCEEDED else ()
        for case in asked:
            for repeat, answer in enumerate(record.answers.get(case.id, ())):
                verdict = score(case, answer)
                samples.append(
                    Sample(
                        entry.name, record.seed, case.id, answer.text, answer.tokens, answer.truncated, verdict, repeat,
                        answer.likelihood, answer.reference, answer.choices,
                    )
                )  # fmt: skip
    return tuple(samples)
