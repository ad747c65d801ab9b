"""The table of variants: settings that differ, pass rates with intervals, eligibility and why, cost by phase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import wording
from harness.core.settings import AXES
from harness.records import Outcome, Phase, PhaseCost, Rate, Results, Role, Safety, Settings, Status
from harness.report import rates, words
from harness.report.rates import Span
from harness.report.tables import Cell, Column, Row

NOTHING = Cell(words.ABSENT)


@dataclass(frozen=True)
class Verdict:
    """Whether a variant may be chosen, and why or why not."""

    word: str
    why: str


def verdict(results: Results, variant: Outcome) -> Verdict:
    """Eligible is who finished under every seed and is shown to lose less than the suite allows."""
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
    """A whole number that the loss lies below with 95% confidence, as it may not lie below the nearest one."""
    return math.ceil(safety.upper)


def columns(results: Results) -> tuple[Column, ...]:
    asked = {role: rate.total for role, rate in results.base.rates.items()}
    roles = [
        Column(
            f"{role} ({asked[role]})",
            f"Pass rate on {role} cases: {words.ROLES[role]}",
            "Pass rate (cases), 95% interval",
        )
        for role in results.base.rates
    ]
    axes = [Column(AXES[a].title, f"Setting {a}", "Settings that differ") for a in differing(results)]
    against, cost = "Against the base", f"Time and memory, {_machine(results)}"
    return (
        Column("Eligible", "Whether it may be chosen, and why or why not", number=False),
        *roles,
        Column("Points lost", "Points of pass rate lost on retain and avoid cases taken together", against),
        Column("Fixed", "Cases that the base fails and this passes, over all seeds", against),
        Column("Broken", "Cases that the base passes and this fails, over all seeds", against),
        Column("Reference loss", f"Nats per token of the references of {results.choice.objective} cases", against),
        *axes,
        Column("Train", "Time of training, mean over seeds", cost),
        Column("Answer", "Time to answer all prompts, mean over seeds", cost),
        Column("Peak, train", peak_hint(results), cost),
        Column("Peak, answer", "The same while answering; where several answered together, of all of them", cost),
        Column("Parameters", "Trainable parameters of the adapter", cost),
        Column("Status", "How training ended", cost, number=False),
    )


def _machine(results: Results) -> str:
    bases = dict.fromkeys(c.seconds.basis.value for v in (results.base, *results.variants) for c in v.costs)
    return wording.listed(bases) or "none known"


def peak_hint(results: Results) -> str:
    if results.run.provenance.machine.kind == "cuda":
        return "Largest memory reserved on the GPU while training"
    return "Largest resident memory of the whole process while training, Python and libraries included"


def differing(results: Results) -> list[str]:
    """The settings in which this run's variants differ."""
    return list(next((v.differs for v in results.variants if v.differs), {}))


def rows(results: Results, marks: rates.Table) -> tuple[Row, ...]:
    losses = rates.reference_losses(results, results.choice.objective)
    tuned = (_row(results, n, v, marks, losses) for n, v in enumerate(results.variants, 1))
    return (_base_row(results, marks, losses), *tuned)


def _row(results: Results, number: int, variant: Outcome, marks: rates.Table, losses: dict[str, float]) -> Row:
    told = verdict(results, variant)
    cells = (
        Cell(told.word, ("yes", "unclear", "no").index(told.word), told.why),
        *(_rate(variant.rates.get(role), _span(marks, variant.name, role)) for role in results.base.rates),
        _lost(results, variant),
        _flips(variant, variant.fixed),
        _flips(variant, variant.broken),
        _loss(losses.get(variant.name)),
        *(_setting(axis, variant.differs.get(axis)) for axis in differing(results)),
        *_spent(variant, Phase.ANSWER_AFTER),
        _status(variant),
    )
    return Row(number, variant.name, variant.name == results.choice.variant, False, cells)


def _base_row(results: Results, marks: rates.Table, losses: dict[str, float]) -> Row:
    cells = (
        NOTHING,
        *(_rate(rate, _span(marks, "base", role)) for role, rate in results.base.rates.items()),
        NOTHING, NOTHING, NOTHING,
        _loss(losses.get("base")),
        *(NOTHING for _ in differing(results)),
        *_spent(results.base, Phase.ANSWER_BEFORE),
        Cell("Not trained", ""),
    )  # fmt: skip
    return Row(0, "base", False, True, cells)


def _span(marks: rates.Table, name: str, role: Role) -> Span | None:
    own = marks.get((name, role))
    return own.span if own else None


def _status(variant: Outcome) -> Cell:
    ended = list(dict.fromkeys(variant.statuses))
    order = str(max((list(Status).index(s) for s in ended), default=0))
    flag = "reused" if variant.reused else "trained elsewhere" if variant.elsewhere else ""
    flag = "predicted, not tried" if any(variant.predicted) else flag
    if len(ended) <= 1:
        return Cell(words.status(ended[0]) if ended else words.ABSENT, order, flag)
    told = ", ".join(f"{variant.statuses.count(s)} {s.value}" for s in ended)
    return Cell(told, order, flag)


def _rate(rate: Rate | None, span: Span | None) -> Cell:
    if rate is None or rate.value is None:
        return Cell(words.ABSENT, "", "none counts" if rate else "")
    return Cell(words.percent(rate), rate.value, str(span or ""), rate.value, span)


def _lost(results: Results, variant: Outcome) -> Cell:
    if variant.safety is None:
        return NOTHING
    lost = variant.safety.lost
    sign = "" if variant.safety.upper < results.run.suite.margin else "▼ "
    return Cell(f"{sign}{lost:.0f}", lost, f"below {_above(variant.safety)}")


def _flips(variant: Outcome, count: int) -> Cell:
    return Cell(str(count), count) if variant.rates else NOTHING


def _loss(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:.2f}", value)


def _setting(name: str, value: Any) -> Cell:
    if value is None:
        return NOTHING
    return Cell(words.setting(name, value), value if isinstance(value, int | float) else str(value))


def _spent(outcome: Outcome, answering: Phase) -> tuple[Cell, ...]:
    train, answer = phase(outcome, Phase.TRAIN), phase(outcome, answering)
    return (
        _time(train),
        _time(answer),
        _peak(train),
        _peak(answer),
        Cell(words.parameters(outcome.trainable_parameters), outcome.trainable_parameters or ""),
    )


def _time(cost: PhaseCost | None) -> Cell:
    return Cell(words.measured(cost.seconds), cost.seconds.value) if cost else NOTHING


def _peak(cost: PhaseCost | None) -> Cell:
    peak = (cost.peak_reserved or cost.peak_resident) if cost else None
    return Cell(words.measured(peak), peak.value) if peak else NOTHING


def phase(outcome: Outcome, which: Phase) -> PhaseCost | None:
    return next((cost for cost in outcome.costs if cost.phase is which), None)


def common(results: Results) -> tuple[tuple[str, str], ...]:
    """Settings that are the same in every variant, in words."""
    settings: Settings | None = next((v.settings for v in results.variants if v.settings), None)
    axes = differing(results)
    every = settings.as_dict() if settings else {}
    return tuple((words.lower(AXES[n].title), words.setting(n, v)) for n, v in every.items() if n not in axes)


def ordered(results: Results, first: str) -> Sequence[Outcome]:
    return sorted(results.variants, key=lambda v: v.name != first)
