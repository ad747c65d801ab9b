"""The answer, before anything else: the default to pick, why, and its confirmed figures; or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from harness.analysis import reducers
from harness.analysis.recommendation import TOY, recommend
from harness.core import wording
from harness.core.claims import claim, gpu_of
from harness.core.machine import Machine
from harness.core.measurement import Phase
from harness.core.names import BASE
from harness.core.quantities import quantity
from harness.core.results import Change, Outcome, Recommendation, Results
from harness.core.scores import Rate, Sample
from harness.core.settings import AXES
from harness.core.suite import Case, Role, Split
from harness.core.training import Status
from harness.core.units import DeviceKind
from harness.report import rates, words
from harness.report.rates import Span


@dataclass(frozen=True)
class Figure:
    """A pass rate with its interval."""

    rate: Rate | None
    span: Span | None = None


@dataclass(frozen=True)
class RoleRow:
    """One role's pass rates: while choosing, and confirmed."""

    role: Role
    asks: str
    base: Figure
    tuned: Figure
    confirmed_base: Figure
    confirmed: Figure


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
    missing: tuple[str, ...]
    """What else keeps it from being a recommendation."""
    tuned: str
    """Whose pass rates stand beside the base's: the chosen variant's, else of whoever passes most."""
    confirmation: str
    roles: tuple[RoleRow, ...]
    confirmed: bool
    cost: str
    epochs: str
    """How many epochs were enough, where the run was asked after each."""
    power: str
    """What so many cases can tell at all."""
    settings: str
    """As arguments of TRL and PEFT, to be copied; empty where nothing may be copied."""


@dataclass(frozen=True)
class Excerpt:
    """A case in one line, for a first impression of what the tuned model says now."""

    anchor: str
    prompt: str
    base: str
    base_passed: bool
    tuned: str
    tuned_passed: bool


def headline(results: Results, compared: str, marks: rates.Table) -> Headline:
    best, refuted = chosen(results), results.choice.refuted
    shown = best or next((v for v in results.variants if v.name == compared), None)
    advice = recommend(results)
    return Headline(
        title=_title(results, best, advice),
        name=best.name if best else "",
        differs=_differs(best) if best else "",
        chosen=best is not None,
        reasons=results.choice.reasons,
        refuted=refuted,
        missing=tuple(m for m in advice.missing if best and m not in (*refuted, TOY)),
        tuned=shown.name if shown else "",
        confirmation=_confirmation(results) if best else _instead(compared),
        roles=_roles(results, shown, marks),
        confirmed=bool(results.confirmed and results.confirmed.rates),
        cost=_cost_words(best, results.run.provenance.machine) if best else "",
        epochs=_epochs(results),
        power=_power(shown.changes.get(results.choice.objective) if shown else None),
        settings=advice.script,
    )


def chosen(results: Results) -> Outcome | None:
    return next((v for v in results.variants if v.name == results.choice.variant), None)


def most_passed(results: Results) -> str:
    """Without a choice the page still compares with something: whoever passes most of the objective."""
    scored = [v for v in results.variants if v.rates]
    objective = results.choice.objective
    best = max(scored, key=lambda v: _value(v.rates.get(objective)), default=None)
    return best.name if best else ""


def _value(rate: Rate | None) -> float:
    return (rate.value or 0.0) if rate else 0.0


def _title(results: Results, best: Outcome | None, advice: Recommendation) -> str:
    run = results.run
    if run.model.toy:
        return "Best in this demonstration" if best else "No best variant in this demonstration"
    if best is None:
        return f"No setting can be recommended for {run.model.name}"
    if results.choice.refuted:
        return f"Not recommended for {run.model.name}: the best while choosing, but not when trained again"
    if advice.variant is None:
        return f"Nothing is recommended for {run.model.name} yet. Best so far:"
    return advice.headline.removesuffix(f": {best.name}.")


def _instead(compared: str) -> str:
    return f"No variant was chosen. Beside the base stands {compared}, which passes most." if compared else ""


def _differs(best: Outcome) -> str:
    return ", ".join(f"{words.lower(AXES[n].title)} {words.setting(n, v)}" for n, v in best.differs.items())


def _confirmation(results: Results) -> str:
    again = results.confirmed
    if again is None:
        return (
            "Not confirmed: these figures come from the very cases that it was chosen by, which flatters the best "
            "of many."
        )
    if not again.rates:
        ended = wording.listed(words.ENDED[s] for s in dict.fromkeys(again.statuses) if s in words.ENDED)
        return f"Not confirmed: trained again under fresh seeds, it {ended}. The figures below flatter it."
    seeds = f"{wording.plural(len(again.seeds), 'fresh seed')} ({wording.listed(again.seeds)})"
    cases = wording.plural(len(results.run.suite.of(Split.CONFIRM)), "held-out case")
    return f"Confirmed figures: trained again alone under {seeds} and asked {cases} that took no part in the choice."


def _roles(results: Results, best: Outcome | None, marks: rates.Table) -> tuple[RoleRow, ...]:
    late = rates.marks(results, results.confirmed_samples)

    def figure(outcome: Outcome | None, role: Role, table: rates.Table) -> Figure:
        rate = outcome.rates.get(role) if outcome else None
        own = table.get((outcome.name, role)) if outcome else None
        return Figure(rate, own.span if own else None)

    return tuple(
        RoleRow(
            role,
            words.ROLES[role],
            figure(results.base, role, marks),
            figure(best, role, marks),
            figure(results.confirmed_base, role, late),
            figure(results.confirmed, role, late),
        )
        for role in Role
        if role in results.base.rates
    )


def _power(change: Change | None) -> str:
    """With twice the cases the noise that they make halves in variance; that of the training seeds stays."""
    if change is None or not change.cases:
        return ""
    under = f" under {change.seeds} seeds" if change.seeds > 1 else ""
    seeds = change.seed_noise or 0.0
    noise = change.case_noise**2 + seeds**2
    half = sqrt((change.case_noise**2 / 2 + seeds**2) / noise) if noise else sqrt(0.5)
    return (
        f"These {change.cases} {change.role} cases{under} cannot tell differences below about {change.detectable:.0f} "
        f"points (80% power); {2 * change.cases} would tell {change.detectable * half:.0f} points."
    )


def _epochs(results: Results) -> str:
    own = next((t for t in results.timelines if t.variant == results.choice.variant), None)
    if own is None or own.enough is None or not own.epochs:
        return ""
    last = own.epochs[-1].epoch
    return f"After epoch {own.enough:g} of {last:g} it was already within one standard error of its best epoch."


def _cost_words(best: Outcome, machine: Machine) -> str:
    train = best.cost(Phase.TRAIN)
    if train is None:
        return ""
    what = "reserved on the GPU" if train.on_gpu else "of main memory, Python and libraries included"
    told = claim(train.seconds, machine)
    told += f", {train.note}" if train.note else ""
    told = f"Training took {quantity(train.seconds)} and at most {quantity(train.peak())} {what}; {told}."
    if machine.kind is not DeviceKind.CPU:
        return told
    fits = f"whether it fits {gpu_of(machine)}, this run cannot tell"
    return f"{told} A CPU's time and memory say nothing about a GPU: {fits}."


def waiting(results: Results) -> str:
    """That trials are still to be run, where some are."""
    trials = [s for v in (*results.variants, *filter(None, [results.confirmed])) for s in v.statuses]
    stopped = trials.count(Status.CANCELLED)
    if not stopped:
        return ""
    return (
        f"Not finished: {stopped} of {wording.plural(len(trials), 'trial')} without a result, so all that follows is "
        f"provisional. The command at the end of this page goes on from there."
    )


def excerpts(results: Results, compared: str, most: int = 3) -> tuple[Excerpt, ...]:
    """What was gained, from the cases that took no part in the choice where there are any; then what was lost."""
    late = any(sample.variant == compared for sample in results.confirmed_samples)
    samples = reducers.reduced(results.confirmed_samples if late else results.samples, results.run.suite.reducer)
    base = {s.case: s for s in samples if s.variant == BASE}
    tuned: dict[str, Sample] = {}
    for sample in samples:
        if sample.variant == compared:
            tuned.setdefault(sample.case, sample)
    role = {case.id: case for case in results.run.suite.cases}
    pairs = [(role[id], base[id], new) for id, new in tuned.items() if id in base and id not in results.void]
    gained = [p for p in pairs if p[2].score.passed and not p[1].score.passed]
    gained.sort(key=lambda p: (p[0].role is not results.choice.objective, len(p[2].answer.text) > 300))
    broken = [p for p in pairs if p[1].score.passed and not p[2].score.passed]
    return tuple(
        Excerpt(
            words.anchor(case.id), _clip(case.prompt), _clip(old.answer.text), old.score.passed, _clip(new.answer.text),
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
