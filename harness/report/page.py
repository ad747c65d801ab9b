"""From results to what each section of the page shows; the templates only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from harness import reducers
from harness.records import (
    Case,
    Machine,
    Outcome,
    Phase,
    PhaseCost,
    Rate,
    Results,
    Role,
    Sample,
    Settings,
    Split,
    Status,
    Suite,
)
from harness.report import answers, charts, words
from harness.report.answers import CaseView, LedgerRow
from harness.report.charts import Chart


@dataclass(frozen=True)
class Cell:
    """What is read, what it is sorted by (last of all where that is empty), and a smaller second line."""

    text: str
    sort: float | str = ""
    under: str = ""
    share: float | None = None
    """Of a bar behind the text, 0 to 1."""


@dataclass(frozen=True)
class Column:
    title: str
    hint: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True)
class Group:
    """Neighbouring columns under one heading."""

    name: str
    span: int


def groups(columns: Sequence[Column]) -> list[Group]:
    runs = groupby(columns, key=lambda column: column.group)
    return [Group(name, len(list(members))) for name, members in runs]


@dataclass(frozen=True)
class Row:
    number: int
    name: str
    chosen: bool
    base: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class RoleRow:
    """One role's pass rates: while choosing, and confirmed."""

    role: Role
    asks: str
    base: Rate | None
    tuned: Rate | None
    confirmed_base: Rate | None
    confirmed: Rate | None


@dataclass(frozen=True)
class Headline:
    title: str
    name: str
    differs: str
    """The chosen settings in which the variants differ, in words."""
    chosen: bool
    reasons: tuple[str, ...]
    refuted: tuple[str, ...]
    """What the confirmation says against the choice."""
    tuned: str
    """Whose pass rates stand beside the base's: the chosen variant's, else of whoever passes most."""
    confirmation: str
    roles: tuple[RoleRow, ...]
    confirmed: bool
    cost: str
    settings: str
    """As YAML for a grid, to be copied; empty where nothing may be copied."""


@dataclass(frozen=True)
class Excerpt:
    """A case in one line, for a first impression of what the tuned model says now."""

    anchor: str
    prompt: str
    base: str
    base_passed: bool
    tuned: str
    tuned_passed: bool


@dataclass(frozen=True)
class Failure:
    variant: str
    seed: int
    status: str
    message: str
    log: str


@dataclass(frozen=True)
class Compared:
    """An entry of the list of variants that can be shown beside the base."""

    number: int
    name: str


@dataclass(frozen=True)
class Page:
    results: Results
    now: str
    title: str
    banner: str
    waiting: str
    """That trials are still to be run, where some are."""
    claim: str
    headline: Headline
    excerpts: tuple[Excerpt, ...]
    trade_off: Chart
    columns: tuple[Column, ...]
    peak_hint: str
    rows: tuple[Row, ...]
    common: tuple[tuple[str, str], ...]
    curves: tuple[Chart, ...]
    compared: str
    choices: tuple[Compared, ...]
    cases: tuple[CaseView, ...]
    confirm_cases: tuple[CaseView, ...]
    ledger: tuple[LedgerRow, ...]
    void: int
    truncated: int
    failures: tuple[Failure, ...]
    phases: tuple[tuple[Cell, ...], ...]
    cost_columns: tuple[Column, ...]
    costs: tuple[Row, ...]
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def page(results: Results, now: str) -> Page:
    run = results.run
    machine = run.provenance.machine
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    compared = results.choice.variant or _most_passed(results)
    return Page(
        results=results,
        now=now,
        title=f"{run.suite.name} · {run.model.name}",
        banner=words.toy_banner(run.model) if run.model.toy else run.model.note,
        waiting=_waiting(results),
        claim=words.machine_claim(machine),
        headline=headline(results, compared),
        excerpts=_excerpts(results, compared),
        trade_off=charts.trade_off(results),
        columns=_columns(results),
        peak_hint=_peak_hint(results),
        rows=(_base_row(results), *(_row(results, n, v) for n, v in enumerate(results.variants, 1))),
        common=_common(results),
        curves=charts.learning(results),
        compared=compared,
        choices=tuple(Compared(numbers[v.name], v.name) for v in _ordered(results, compared) if v.rates),
        cases=answers.cases(results, Split.MAIN, compared, numbers),
        confirm_cases=answers.cases(results, Split.CONFIRM, compared, numbers),
        ledger=answers.ledger(results),
        void=len(results.void),
        truncated=sum(sample.truncated for sample in (*results.samples, *results.confirmed_samples)),
        failures=_failures(results),
        phases=_phases(results),
        cost_columns=_cost_columns(results),
        costs=_costs(results),
        facts=_facts(results),
        versions=tuple(run.provenance.versions.items()),
    )


# --- the answer --------------------------------------------------------------------------------------------------


def headline(results: Results, compared: str) -> Headline:
    best, refuted = _best(results), results.choice.refuted
    shown = best or next((v for v in results.variants if v.name == compared), None)
    copied = best and not refuted and not results.run.model.toy
    return Headline(
        title=_title(results, best),
        name=best.name if best else "",
        differs=_differs(best) if best else "",
        chosen=best is not None,
        reasons=results.choice.reasons,
        refuted=refuted,
        tuned=shown.name if shown else "",
        confirmation=_confirmation(results) if best else _instead(compared),
        roles=_roles(results, shown),
        confirmed=bool(results.confirmed and results.confirmed.rates),
        cost=_cost_words(best, results.run.provenance.machine) if best else "",
        settings=_yaml(best.settings) if copied and best and best.settings else "",
    )


def _title(results: Results, best: Outcome | None) -> str:
    run = results.run
    if run.model.toy:
        return "Best in this demonstration" if best else "No best variant in this demonstration"
    if best is None:
        return f"No setting can be recommended for {run.model.name}"
    if results.choice.refuted:
        return f"Not recommended for {run.model.name}: the best while choosing, but not when trained again"
    asked = words.plural(len(run.suite.of(Split.MAIN)), "case")
    return f"Recommended for {run.model.name}, {run.suite.name}, {asked}, {words.plural(len(best.seeds), 'seed')}"


def _instead(compared: str) -> str:
    return f"No variant was chosen. Beside the base stands {compared}, which passes most." if compared else ""


def _waiting(results: Results) -> str:
    trials = [s for v in (*results.variants, *filter(None, [results.confirmed])) for s in v.statuses]
    stopped = trials.count(Status.CANCELLED)
    if not stopped:
        return ""
    return (
        f"Not finished: {stopped} of {words.plural(len(trials), 'trial')} without a result, so all that follows is "
        f"provisional. The command at the end of this page goes on from there."
    )


def _differs(best: Outcome) -> str:
    return ", ".join(f"{_lower(words.SETTINGS[n])} {words.setting(n, v)}" for n, v in best.differs.items())


def _best(results: Results) -> Outcome | None:
    return next((v for v in results.variants if v.name == results.choice.variant), None)


def _most_passed(results: Results) -> str:
    """Without a choice the page still compares with something: whoever passes most of the objective."""
    scored = [v for v in results.variants if v.rates]
    objective = results.choice.objective
    best = max(scored, key=lambda v: _value(v.rates.get(objective)), default=None)
    return best.name if best else ""


def _value(rate: Rate | None) -> float:
    return (rate.value or 0.0) if rate else 0.0


def _confirmation(results: Results) -> str:
    again = results.confirmed
    if again is None:
        return (
            "Not confirmed: these figures come from the very cases that it was chosen by, which flatters the best "
            "of many."
        )
    if not again.rates:
        ended = words.listed(words.ENDED[s] for s in dict.fromkeys(again.statuses) if s in words.ENDED)
        return f"Not confirmed: trained again under fresh seeds, it {ended}. The figures below flatter it."
    seeds = f"{words.plural(len(again.seeds), 'fresh seed')} ({words.listed(again.seeds)})"
    cases = words.plural(len(results.run.suite.of(Split.CONFIRM)), "held-out case")
    return f"Confirmed figures: trained again alone under {seeds} and asked {cases} that took no part in the choice."


def _roles(results: Results, best: Outcome | None) -> tuple[RoleRow, ...]:
    late, again = results.confirmed_base, results.confirmed
    return tuple(
        RoleRow(
            role,
            words.ROLES[role],
            results.base.rates[role],
            best.rates.get(role) if best else None,
            late.rates.get(role) if late else None,
            again.rates.get(role) if again else None,
        )
        for role in Role
        if role in results.base.rates
    )


def _cost_words(best: Outcome, machine: Machine) -> str:
    train = _phase(best, Phase.TRAIN)
    if train is None:
        return ""
    peak = train.peak_reserved or train.peak_resident
    what = "reserved on the GPU" if train.peak_reserved else "of main memory, Python and libraries included"
    told = words.claim(train.seconds.basis, train.seconds.device, machine.memory_cap)
    told = f"Training took {words.measured(train.seconds)} and at most {words.measured(peak)} {what}; {told}."
    return f"{told} Wall time on a CPU says nothing about a GPU." if machine.kind == "cpu" else told


def _yaml(settings: Settings) -> str:
    return "\n".join(f"{name}: {words.plain(name, value)}" for name, value in settings.as_dict().items())


def _excerpts(results: Results, compared: str, most: int = 3) -> tuple[Excerpt, ...]:
    """What was gained, from the cases that took no part in the choice where there are any; then what was lost."""
    late = any(sample.variant == compared for sample in results.confirmed_samples)
    samples = reducers.reduced(results.confirmed_samples if late else results.samples, results.run.suite.reducer)
    base = {s.case: s for s in samples if s.variant == "base"}
    tuned: dict[str, Sample] = {}
    for sample in samples:
        if sample.variant == compared:
            tuned.setdefault(sample.case, sample)
    role = {case.id: case for case in results.run.suite.cases}
    pairs = [(role[id], base[id], new) for id, new in tuned.items() if id in base and id not in results.void]
    gained = [p for p in pairs if p[2].score.passed and not p[1].score.passed]
    gained.sort(key=lambda p: (p[0].role is not results.choice.objective, len(p[2].answer) > 300))
    broken = [p for p in pairs if p[1].score.passed and not p[2].score.passed]
    return tuple(
        Excerpt(
            words.anchor(case.id), _clip(case.prompt), _clip(old.answer), old.score.passed, _clip(new.answer),
            new.score.passed,
        )
        for case, old, new in (*_varied(gained)[:most], *_varied(broken)[:2])
    )  # fmt: skip


def _varied(pairs: Sequence[tuple[Case, Sample, Sample]]) -> list[tuple[Case, Sample, Sample]]:
    """Cases of groups not seen yet first: three answers to one question tell less than three to three."""
    seen: set[str] = set()
    fresh: list[tuple[Case, Sample, Sample]] = []
    rest: list[tuple[Case, Sample, Sample]] = []
    for pair in pairs:
        (rest if pair[0].group in seen else fresh).append(pair)
        seen.add(pair[0].group)
    return [*fresh, *rest]


def _clip(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# --- the table of variants ---------------------------------------------------------------------------------------


def _columns(results: Results) -> tuple[Column, ...]:
    roles = [Column(str(r), f"Pass rate on {r} cases: {words.ROLES[r]}", "Pass rate") for r in results.base.rates]
    axes = [Column(words.SETTINGS[a], f"Setting {a}", "Settings that differ") for a in _axes(results)]
    return (
        Column("Status", "How training ended", number=False),
        *roles,
        Column("Points lost", "Points of pass rate lost on retain and avoid cases taken together", "Against the base"),
        Column("Fixed", "Cases that the base fails and this passes, over all seeds", "Against the base"),
        Column("Broken", "Cases that the base passes and this fails, over all seeds", "Against the base"),
        Column("Train", "Seconds of training, mean over seeds", "Time and memory"),
        Column("Answer", "Seconds to answer all prompts, mean over seeds", "Time and memory"),
        Column("Peak", _peak_hint(results), "Time and memory"),
        Column("Parameters", "Trainable parameters of the adapter", "Time and memory"),
        *axes,
    )


def _peak_hint(results: Results) -> str:
    if results.run.provenance.machine.kind == "cuda":
        return "Largest memory reserved on the GPU while training"
    return "Largest resident memory of the whole process while training, Python and libraries included"


def _axes(results: Results) -> list[str]:
    return list(next((v.differs for v in results.variants if v.differs), {}))


def _row(results: Results, number: int, variant: Outcome) -> Row:
    cells = (
        _status(variant),
        *(_rate(variant.rates.get(role)) for role in results.base.rates),
        _lost(results, variant),
        _flips(variant, variant.fixed),
        _flips(variant, variant.broken),
        *_spent(variant, Phase.ANSWER_AFTER),
        *(_setting(axis, variant.differs.get(axis)) for axis in _axes(results)),
    )
    return Row(number, variant.name, variant.name == results.choice.variant, False, cells)


def _base_row(results: Results) -> Row:
    nothing = Cell(words.ABSENT)
    cells = (
        Cell("Not trained", "0"),
        *(_rate(rate) for rate in results.base.rates.values()),
        nothing, nothing, nothing,
        *_spent(results.base, Phase.ANSWER_BEFORE),
        *(nothing for _ in _axes(results)),
    )  # fmt: skip
    return Row(0, "base", False, True, cells)


def _status(variant: Outcome) -> Cell:
    ended = list(dict.fromkeys(variant.statuses))
    order = str(max((list(Status).index(s) for s in ended), default=0))
    flag = "reused" if variant.reused else ""
    if len(ended) <= 1:
        return Cell(words.status(ended[0]) if ended else words.ABSENT, order, flag)
    told = ", ".join(f"{variant.statuses.count(s)} {s.value}" for s in ended)
    return Cell(told, order, flag)


def _rate(rate: Rate | None) -> Cell:
    if rate is None or rate.value is None:
        return Cell(words.ABSENT, "", "none counts" if rate else "")
    return Cell(words.percent(rate), rate.value, f"{rate.passed}/{rate.total}", rate.value)


def _lost(results: Results, variant: Outcome) -> Cell:
    before, after = _guarded(results.base), _guarded(variant)
    if not before.total or not after.total:
        return Cell(words.ABSENT)
    points = 100 * (_value(before) - _value(after))
    shown = f"{points:.0f}" if abs(points) >= 0.5 else "0"
    if variant.safety is None:
        return Cell(shown, points)
    # The triangle is the chart's mark for the same thing.
    allowed = variant.safety.upper < results.run.suite.margin
    return Cell(("" if allowed else "▼ ") + shown, points, f"below {variant.safety.upper:.0f}")


def _guarded(outcome: Outcome) -> Rate:
    rates = [outcome.rates[role] for role in (Role.RETAIN, Role.AVOID) if role in outcome.rates]
    return Rate(sum(r.passed for r in rates), sum(r.total for r in rates))


def _flips(variant: Outcome, count: int) -> Cell:
    return Cell(str(count), count) if variant.rates else Cell(words.ABSENT)


def _setting(name: str, value: Any) -> Cell:
    if value is None:
        return Cell(words.ABSENT)
    return Cell(words.setting(name, value), value if isinstance(value, int | float) else str(value))


def _spent(outcome: Outcome, answering: Phase) -> tuple[Cell, ...]:
    train, answer = _phase(outcome, Phase.TRAIN), _phase(outcome, answering)
    peak = (train.peak_reserved or train.peak_resident) if train else None
    return (
        Cell(words.measured(train.seconds if train else None), train.seconds.value if train else ""),
        Cell(words.measured(answer.seconds if answer else None), answer.seconds.value if answer else ""),
        Cell(words.measured(peak), peak.value if peak else ""),
        Cell(words.parameters(outcome.trainable_parameters), outcome.trainable_parameters or ""),
    )


def _phase(outcome: Outcome, phase: Phase) -> PhaseCost | None:
    return next((cost for cost in outcome.costs if cost.phase is phase), None)


def _common(results: Results) -> tuple[tuple[str, str], ...]:
    settings = next((v.settings for v in results.variants if v.settings), None)
    axes = _axes(results)
    every = settings.as_dict() if settings else {}
    return tuple((_lower(words.SETTINGS[n]), words.setting(n, v)) for n, v in every.items() if n not in axes)


def _lower(name: str) -> str:
    return name if name == "rsLoRA" else name.lower()


def _ordered(results: Results, first: str) -> list[Outcome]:
    return sorted(results.variants, key=lambda v: v.name != first)


# --- failures, cost, provenance ----------------------------------------------------------------------------------


def _failures(results: Results) -> tuple[Failure, ...]:
    rows = (results.base, *results.variants, results.confirmed_base, results.confirmed)
    return tuple(
        Failure(row.name, seed, words.status(status), message, log)
        for row in rows
        if row
        for seed, status, message, log in zip(row.seeds, row.statuses, row.messages, row.logs, strict=True)
        if status is not Status.SUCCEEDED
    )


def _everyone(results: Results) -> list[tuple[int, str, Outcome]]:
    found = [(0, "base", results.base)] + [(n, v.name, v) for n, v in enumerate(results.variants, 1)]
    if results.confirmed:
        found.append((len(found), f"{results.confirmed.name}, confirmation", results.confirmed))
    return found


def _phases(results: Results) -> tuple[tuple[Cell, ...], ...]:
    """Where the run's time went: what each phase took over all trials, and its largest memory."""
    spent = [(c, len(o.seeds)) for _, _, o in _everyone(results) for c in o.costs]
    totals = {phase: sum(c.seconds.value * n for c, n in spent if c.phase is phase) for phase in Phase}
    whole = sum(totals.values()) or 1.0
    return tuple(
        (
            Cell(words.PHASES[phase]),
            Cell(words.seconds(total)),
            Cell(f"{100 * total / whole:.0f}%", share=total / whole),
            *(Cell(words.measured(peak)) for peak in _peaks([c for c, _ in spent if c.phase is phase], results)),
        )
        for phase, total in totals.items()
        if any(c.phase is phase for c, _ in spent)
    )


MEMORY = (
    ("peak_resident", "Peak resident", "Main memory of the whole process, Python and libraries included"),
    ("peak_allocated", "Peak allocated", "GPU memory that tensors took"),
    ("peak_reserved", "Peak reserved", "GPU memory that torch's allocator held"),
    ("peak_device", "Peak on device", "GPU memory of the process as the driver counts it, CUDA context included"),
)


def _memory(results: Results) -> list[tuple[str, str, str]]:
    every = [cost for _, _, outcome in _everyone(results) for cost in outcome.costs]
    return [each for each in MEMORY if any(getattr(cost, each[0]) for cost in every)]


def _peaks(costs: Sequence[PhaseCost], results: Results) -> list[Any]:
    return [
        max((f for c in costs if (f := getattr(c, name))), key=lambda f: float(f.value), default=None)
        for name, _, _ in _memory(results)
    ]


def _cost_columns(results: Results) -> tuple[Column, ...]:
    return (
        Column("Phase", "What was done", number=False),
        Column("Time", "Wall time, mean over seeds"),
        Column("Tokens/s", "Tokens trained or generated per second"),
        *(Column(title, hint) for _, title, hint in _memory(results)),
        Column("Where from", "Basis and device of the row's figures", number=False),
    )


def _costs(results: Results) -> tuple[Row, ...]:
    return tuple(
        Row(number, name, name == results.choice.variant, number == 0, _cost_cells(results, cost))
        for number, name, outcome in _everyone(results)
        for cost in outcome.costs
    )


def _cost_cells(results: Results, cost: PhaseCost) -> tuple[Cell, ...]:
    rate = cost.tokens_per_second
    cap = results.run.provenance.machine.memory_cap
    return (
        Cell(words.PHASES[cost.phase]),
        Cell(words.measured(cost.seconds)),
        Cell(f"{rate:,.0f}" if rate else words.ABSENT),
        *(Cell(words.measured(getattr(cost, name))) for name, _, _ in _memory(results)),
        Cell(words.claim(cost.seconds.basis, cost.seconds.device, cap)),
    )


def _facts(results: Results) -> tuple[tuple[str, str], ...]:
    run = results.run
    facts, machine = run.provenance, run.provenance.machine
    commit = (facts.git_commit or "not in a git repository") + (" with uncommitted changes" if facts.git_dirty else "")
    cap = f", memory capped at {machine.memory_cap / words.GIB:.1f} GiB" if machine.memory_cap else ""
    threads = f", {words.plural(machine.threads, 'thread')}" if machine.threads else ""
    return (
        ("Base model", f"{run.model.name} {run.model.revision}".strip()),
        ("Model digest", run.model.digest),
        ("Suite and grid", f"{run.suite.name}, {run.plan.grid}"),
        ("Run digest", run.digest),
        ("Seeds", words.listed(run.plan.seeds)),
        ("Confirmation seeds", words.listed(run.confirm_seeds)),
        ("Engine", run.engine),
        ("Device", f"{machine.device} ({machine.kind}), computing in {machine.compute_dtype}{threads}{cap}"),
        ("Basis of all figures", words.machine_claim(machine)),
        ("Harness's git commit", commit),
        ("Python", f"{facts.python}, {facts.platform}"),
        ("Started", words.moment(facts.started)),
        ("Finished", words.moment(results.finished)),
        ("Answers", _decoding(run.suite)),
        ("System prompt", run.suite.system_prompt or "none"),
    )


def _decoding(suite: Suite) -> str:
    decoding = suite.decoding
    how = f"drawn at temperature {decoding.temperature:g}" if decoding.temperature else "greedy"
    often = f", {suite.repeats} of each, counted by {suite.reducer}" if suite.repeats > 1 else ""
    stop = f", stopped at {words.listed(map(repr, decoding.stop))}" if decoding.stop else ""
    return f"{how}{often}, at most {decoding.max_new_tokens} tokens{stop}"
