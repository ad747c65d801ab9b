"""The table of variants: settings that differ, pass rates with intervals, eligibility and its reason, costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harness.core import wording
from harness.core.measurement import Phase, PhaseCost
from harness.core.quantities import quantity
from harness.core.results import Outcome, Results, Safety
from harness.core.settings import AXES, Settings
from harness.core.suite import Role
from harness.core.training import Status
from harness.core.units import DeviceKind
from harness.report import rates, words
from harness.report.tables import Cell, Column, TableRow

NOTHING = Cell(words.ABSENT)


@dataclass(frozen=True)
class Verdict:
    """Whether a variant may be chosen, and why or why not."""

    word: str
    why: str


def verdict(results: Results, variant: Outcome) -> Verdict:
    """A variant is eligible if it finished under every seed and is shown to lose less than the suite allows."""
    if variant.name in results.choice.eligible:
        return Verdict("yes", _kept(variant))
    if any(status is not Status.SUCCEEDED for status in variant.statuses) or not variant.statuses:
        return Verdict("no", f"did not finish: {wording.listed(dict.fromkeys(_unfinished(variant)))}")
    safety = variant.safety
    if safety is None:
        return Verdict("no", "nothing to compare it with")
    if safety.lost >= results.run.suite.margin:
        return Verdict("no", f"loses {safety.lost:.0f} points")
    more = f"; about {safety.needed} cases would tell" if safety.needed and safety.needed > safety.cases else ""
    return Verdict("unclear", f"may lose {safety.upper:.0f} points{more}")


def _unfinished(variant: Outcome) -> list[str]:
    return [status.value for status in variant.statuses if status is not Status.SUCCEEDED] or ["nothing was tried"]


def _kept(variant: Outcome) -> str:
    return f"loses less than {_above(variant.safety)} points" if variant.safety else "no case asks what it lost"


def _above(safety: Safety) -> int:
    """The upper bound of the loss (95% confidence), rounded up to a whole number so that it stays a bound."""
    return math.ceil(safety.upper)


def columns(results: Results) -> tuple[Column, ...]:
    return tuple(column for column, _ in _pairs(results, {}))


def rows(results: Results, marks: rates.Table) -> tuple[TableRow, ...]:
    """One row for the base (number 0) and one for each variant."""
    pairs = _pairs(results, marks)
    return tuple(
        TableRow(n, v.name, v.name == results.choice.variant, n == 0, tuple(cell(v) for _, cell in pairs))
        for n, v in enumerate((results.base, *results.variants))
    )


_Pair = tuple[Column, Callable[[Outcome], Cell]]


def _pairs(results: Results, marks: rates.Table) -> list[_Pair]:
    """The table's columns from left to right, each with the function that makes its cell for the base or a variant."""
    return [
        (
            Column("Eligible", "Whether it may be chosen, and why or why not", number=False),
            _tuned(results, partial(_eligible, results)),
        ),
        *_roles(results, marks),
        *_against_the_base(results),
        *_settings(results),
        *_costs(results),
    ]


def _roles(results: Results, marks: rates.Table) -> list[_Pair]:
    group = "Pass rate (cases), 95% interval"
    return [
        (Column(f"{role} ({rate.total})", f"Pass rate on {role} cases: {words.ROLES[role]}", group),
         partial(_rate, role, marks))
        for role, rate in results.base.rates.items()
    ]  # fmt: skip


def _against_the_base(results: Results) -> list[_Pair]:
    group, objective = "Against the base", results.choice.objective
    losses = rates.reference_losses(results, objective)
    return [
        (Column("Points lost", "Points of pass rate lost on retain and avoid cases taken together", group),
         _tuned(results, partial(_lost, results))),
        (Column("Fixed", "Cases that the base fails and this passes, over all seeds", group),
         _tuned(results, lambda outcome: _flips(outcome, outcome.fixed))),
        (Column("Broken", "Cases that the base passes and this fails, over all seeds", group),
         _tuned(results, lambda outcome: _flips(outcome, outcome.broken))),
        (Column("Reference loss", f"Nats per token of the references of {objective} cases", group),
         lambda outcome: _loss(losses.get(outcome.name))),
    ]  # fmt: skip


def _settings(results: Results) -> list[_Pair]:
    return [
        (Column(AXES[name].title, f"Setting {name}", "Settings that differ"), partial(_setting, name))
        for name in differing(results)
    ]


def _costs(results: Results) -> list[_Pair]:
    group = f"Time and memory, {_machine(results)}"
    return [
        (Column("Train", "Time of training, mean over seeds", group),
         lambda outcome: _time(outcome.cost(Phase.TRAIN))),
        (Column("Answer", "Time to answer all prompts, mean over seeds", group),
         lambda outcome: _time(_answering(results, outcome))),
        (Column("Peak, train", peak_hint(results), group),
         lambda outcome: _peak(outcome.cost(Phase.TRAIN))),
        (Column("Peak, answer", "The same while answering; where several answered together, of all of them", group),
         lambda outcome: _peak(_answering(results, outcome))),
        (Column("Parameters", "Trainable parameters of the adapter", group), _parameters),
        (Column("Status", "How training ended", group, number=False), partial(_status, results)),
    ]  # fmt: skip


def _machine(results: Results) -> str:
    bases = dict.fromkeys(c.seconds.basis.value for v in (results.base, *results.variants) for c in v.costs)
    return wording.listed(bases) or "none known"


def peak_hint(results: Results) -> str:
    if results.run.provenance.machine.kind is DeviceKind.CUDA:
        return "Largest memory reserved on the GPU while training"
    return "Largest resident memory of the whole process while training, Python and libraries included"


def differing(results: Results) -> list[str]:
    """The settings in which this run's variants differ."""
    return list(next((v.differs for v in results.variants if v.differs), {}))


# --- cells -------------------------------------------------------------------------------------------------------


def _tuned(results: Results, cell: Callable[[Outcome], Cell]) -> Callable[[Outcome], Cell]:
    """Leave the base's cell empty in columns that compare variants with the base."""
    return lambda outcome: NOTHING if outcome is results.base else cell(outcome)


def _eligible(results: Results, outcome: Outcome) -> Cell:
    told = verdict(results, outcome)
    return Cell(told.word, ("yes", "unclear", "no").index(told.word), told.why)


def _status(results: Results, outcome: Outcome) -> Cell:
    if outcome is results.base:
        return Cell("Not trained", "")
    ended = list(dict.fromkeys(outcome.statuses))
    order = str(max((list(Status).index(s) for s in ended), default=0))
    flag = "reused" if outcome.reused else "trained elsewhere" if outcome.elsewhere else ""
    flag = "predicted, not tried" if any(outcome.predicted) else flag
    if len(ended) <= 1:
        return Cell(words.status(ended[0]) if ended else words.ABSENT, order, flag)
    told = ", ".join(f"{outcome.statuses.count(s)} {s.value}" for s in ended)
    return Cell(told, order, flag)


def _rate(role: Role, marks: rates.Table, outcome: Outcome) -> Cell:
    rate, own = outcome.rates.get(role), marks.get((outcome.name, role))
    if rate is None or rate.value is None:
        return Cell(words.ABSENT, "", "none counts" if rate else "")
    span = own.span if own else None
    return Cell(words.percent(rate), rate.value, str(span or ""), rate.value, span)


def _lost(results: Results, outcome: Outcome) -> Cell:
    if outcome.safety is None:
        return NOTHING
    lost = outcome.safety.lost
    sign = "" if outcome.safety.upper < results.run.suite.margin else "▼ "
    return Cell(f"{sign}{lost:.0f}", lost, f"below {_above(outcome.safety)}")


def _flips(outcome: Outcome, count: int) -> Cell:
    return Cell(str(count), count) if outcome.rates else NOTHING


def _loss(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:.2f}", value)


def _setting(name: str, outcome: Outcome) -> Cell:
    value = outcome.differs.get(name)
    if value is None:
        return NOTHING
    return Cell(words.setting(name, value), value if isinstance(value, int | float) else str(value))


def _answering(results: Results, outcome: Outcome) -> PhaseCost | None:
    return outcome.cost(Phase.ANSWER_BEFORE if outcome is results.base else Phase.ANSWER_AFTER)


def _time(cost: PhaseCost | None) -> Cell:
    return Cell(quantity(cost.seconds), cost.seconds.value) if cost else NOTHING


def _peak(cost: PhaseCost | None) -> Cell:
    return Cell(quantity(cost.peak()), cost.peak().value) if cost else NOTHING


def _parameters(outcome: Outcome) -> Cell:
    return Cell(words.parameters(outcome.trainable_parameters), outcome.trainable_parameters or "")


# --- around the table --------------------------------------------------------------------------------------------


def common(results: Results) -> tuple[tuple[str, str], ...]:
    """Settings that are the same in every variant: title and value of each."""
    settings: Settings | None = next((v.settings for v in results.variants if v.settings), None)
    axes = differing(results)
    every = settings.as_dict() if settings else {}
    return tuple((words.lower(AXES[n].title), words.setting(n, v)) for n, v in every.items() if n not in axes)


def ordered(results: Results, first: str) -> Sequence[Outcome]:
    return sorted(results.variants, key=lambda v: v.name != first)
