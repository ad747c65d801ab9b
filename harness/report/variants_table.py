"""The table of variants: its columns with their cells, and the settings that are the same in all variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from harness.analysis.losses import GUARDED
from harness.core import wording
from harness.core.claims import probes
from harness.core.measurement import Phase, PhaseCost
from harness.core.quantities import interval, points, quantity
from harness.core.run_results import Loss, LossVerdict, Outcome, Results
from harness.core.setting_text import in_name, in_report
from harness.core.settings import AXES, Settings
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.report import formatting
from harness.report.eligibility import eligibility
from harness.report.html_tables import Cell, Column, TableRow
from harness.report.most_telling import most_telling
from harness.report.pass_rates import ScoresByRole, reference_losses

NOTHING = Cell(formatting.ABSENT)
SIGNS = {LossVerdict.KEEPS: "", LossVerdict.CANNOT_TELL: "? ", LossVerdict.LOSES: "✗ "}
"""What stands before a net loss."""
PRINTED = 40
"""Number of variants in the table on paper. On the screen, it has all."""


def columns(results: Results) -> tuple[Column, ...]:
    return tuple(column for column, _ in _pairs(results, {}))


def rows(results: Results, scores: ScoresByRole) -> tuple[TableRow, ...]:
    """Return one row for each base model (number 0) and one for each variant."""
    pairs = _pairs(results, scores)
    numbered = [*((0, base) for base in results.every_base), *enumerate(results.variants, 1)]
    printed = {n for n, _ in most_telling(results, numbered[len(results.every_base) :], PRINTED)}
    return tuple(
        TableRow(
            n, v.name, v.name == results.choice.variant, n == 0, tuple(cell(v) for _, cell in pairs),
            n == 0 or n in printed, _in_short(results, v),
        )
        for n, v in numbered
    )  # fmt: skip


def _in_short(results: Results, variant: Outcome) -> str:
    """Return the settings that differ between the variants, as names have them; empty if their columns come first."""
    if results.run.model.shape_only:
        return ""
    words = " ".join(in_name(name, value) for name, value in variant.differs.items())
    return words if words != variant.name else ""


_Pair = tuple[Column, Callable[[Outcome], Cell]]


def _pairs(results: Results, scores: ScoresByRole) -> list[_Pair]:
    """Return the columns from left to right, each with the function that makes a variant's or the base model's cell."""
    if results.run.model.shape_only:  # no answer has a score
        return [*_settings(results), *_rows_cut(results), *_costs(results)]
    return [
        (
            Column("Eligible", "Whether the variant may be chosen, with the reason", number=False),
            _tuned(partial(_eligible, results)),
        ),
        (
            Column("Net loss", "Loss on retain and avoid cases together, in points of what the base passes"),
            _tuned(lambda outcome: _lost(outcome.loss)),
        ),
        *_roles(results, scores),
        *_against_the_base(results),
        *_settings(results),
        *_rows_cut(results),
        *_costs(results),
    ]


def _roles(results: Results, scores: ScoresByRole) -> list[_Pair]:
    """Return the pass rates: first of the objective, by which a variant is chosen, and of what can be lost."""
    group = "Pass rate (number of cases), 95% interval"
    return [
        (Column(f"{role} ({rate.total})", f"Pass rate on {role} cases: {formatting.ROLES[role]}", group),
         partial(_rate, role, scores))
        for role, rate in sorted(results.base.rates.items(), key=lambda each: _decides(results, each[0]))
    ]  # fmt: skip


def _decides(results: Results, role: Role) -> tuple[bool, bool]:
    """Sort the objective first, then the roles of the net loss, then the others."""
    return role is not results.choice.objective, role not in GUARDED


def _against_the_base(results: Results) -> list[_Pair]:
    group, objective = "Compared with the base", results.choice.objective
    losses = reference_losses(results, objective)
    return [
        *([(Column("Base", "The base model that the variant is compared with", group, number=False),
            _tuned(lambda outcome: Cell(results.base_of(outcome).name)))] if results.bases else []),
        *((Column(f"Net loss, {role}", f"The same on {role} cases only; it decides nothing", group),
           _tuned(partial(_lost_in, role))) for role in _guarded(results)),
        (Column("Fixed", "Cases of all roles that the base fails and the variant passes, summed over seeds", group),
         _tuned(lambda outcome: _flips(outcome, outcome.fixed))),
        (Column("Broken", "Cases of all roles that the base passes and the variant fails, summed over seeds", group),
         _tuned(lambda outcome: _flips(outcome, outcome.broken))),
        (Column("Reference loss", f"Mean loss of the references of {objective} cases, in nats per token", group),
         lambda outcome: _loss(losses.get(outcome.name))),
    ]  # fmt: skip


def _settings(results: Results) -> list[_Pair]:
    return [
        (Column(AXES[name].title, f"Setting {name}", "Settings that differ"), partial(_setting, name))
        for name in differing(results)
    ]


def _rows_cut(results: Results) -> list[_Pair]:
    """Return the column of cut training rows; none if no variant's `max_length` cuts rows, or if it is not known."""
    tokens = results.run.tokens
    if tokens is None or not any(cut.cut for cut in tokens.cuts):
        return []

    def cell(outcome: Outcome) -> Cell:
        found = tokens.cut(outcome.settings.max_length) if outcome.settings else None
        if found is None:
            return NOTHING
        return Cell(
            f"{found.cut} of {found.rows}", found.cut, f"{found.endless} without their end" if found.cut else ""
        )

    return [(Column("Rows cut", "Training rows that max_length cuts", "Training rows"), cell)]


def _costs(results: Results) -> list[_Pair]:
    of_gpu = results.run.provenance.machine.kind is DeviceKind.CUDA
    group = f"Time and memory (peaks of {formatting.ALLOCATOR if of_gpu else 'the whole process'}), {_machine(results)}"
    return [
        (Column("Train", "Training time: mean over seeds, or an estimate from probes for training alone", group),
         lambda outcome: _time(outcome.cost(Phase.TRAIN))),
        (Column("Answer", "Time to answer all prompts, mean over seeds; in a batch, this model's share", group),
         lambda outcome: _time(_answering(outcome))),
        (Column("Peak, train", peak_hint(results), group),
         lambda outcome: _peak(outcome.cost(Phase.TRAIN))),
        (Column("Peak, answer", "The same while answering; of the whole batch if several models shared it", group),
         lambda outcome: _peak(_answering(outcome))),
        (Column("Parameters", "Trainable parameters of the adapter", group), _parameters),
        (Column("Status", "How training ended", group, number=False), _status),
    ]  # fmt: skip


def _machine(results: Results) -> str:
    bases = dict.fromkeys(c.seconds.basis.value for v in (*results.every_base, *results.variants) for c in v.costs)
    return wording.listed(bases) or "unknown"


def peak_hint(results: Results) -> str:
    if results.run.provenance.machine.kind is DeviceKind.CUDA:
        return f"Largest GPU memory that {formatting.ALLOCATOR} reserved while training"
    return "Largest resident memory of the whole process while training, including Python and libraries"


def differing(results: Results) -> list[str]:
    """Return the names of the settings in which the run's variants differ."""
    return list(next((v.differs for v in results.variants if v.differs), {}))


def _tuned(cell: Callable[[Outcome], Cell]) -> Callable[[Outcome], Cell]:
    """Return `cell`, but with an empty cell for the base model, for columns that compare variants with it."""
    return lambda outcome: NOTHING if outcome.untrained else cell(outcome)


def _eligible(results: Results, outcome: Outcome) -> Cell:
    found = eligibility(results, outcome)
    return Cell(found.word, ("yes", "unclear", "no").index(found.word), found.why)


def _status(outcome: Outcome) -> Cell:
    if outcome.untrained:
        return Cell("Not trained", "")
    ended = list(dict.fromkeys(outcome.statuses))
    order = str(max((list(Status).index(s) for s in ended), default=0))
    flag = "reused" if outcome.reused else "trained elsewhere" if outcome.elsewhere else ""
    flag = "predicted, not run" if any(outcome.predicted) else flag
    if len(ended) <= 1:
        return Cell(formatting.status(ended[0]) if ended else formatting.ABSENT, order, flag)
    return Cell(", ".join(f"{outcome.statuses.count(s)} {s.value}" for s in ended), order, flag)


def _rate(role: Role, scores: ScoresByRole, outcome: Outcome) -> Cell:
    rate, own = outcome.rates.get(role), scores.get((outcome.name, role))
    if rate is None or rate.value is None:
        return Cell(formatting.ABSENT, "", "none scored" if rate else "")
    span = own.span if own else None
    return Cell(formatting.percent(rate), rate.value, str(span or ""), rate.value, span)


def _guarded(results: Results) -> list[Role]:
    """Return the roles to show apart: both of `retain` and `avoid`, or none if there are cases of only one of them."""
    found = [role for role in GUARDED if role in results.base.rates]
    return found if len(found) > 1 else []


def _lost_in(role: Role, outcome: Outcome) -> Cell:
    return _lost(outcome.losses.get(role))


def _lost(loss: Loss | None) -> Cell:
    if loss is None or loss.points is None:
        return NOTHING
    sign = SIGNS[loss.verdict]
    flips = f"{points(loss.broken)} broken, {points(loss.fixed)} fixed"
    return Cell(f"{sign}{points(loss.points)}", loss.points, f"{interval(loss.low, loss.high)}; {flips}")


def _flips(outcome: Outcome, count: int) -> Cell:
    return Cell(str(count), count) if outcome.rates else NOTHING


def _loss(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(f"{value:.2f}", value)


def _setting(name: str, outcome: Outcome) -> Cell:
    value = outcome.differs.get(name)
    if value is None:
        return NOTHING
    return Cell(in_report(name, value), value if isinstance(value, int | float) else str(value))


def _answering(outcome: Outcome) -> PhaseCost | None:
    return outcome.cost(Phase.ANSWER_BEFORE if outcome.untrained else Phase.ANSWER_AFTER)


def _time(cost: PhaseCost | None) -> Cell:
    if cost is None:
        return NOTHING
    share = f"share of {formatting.batch(cost)}" if cost.models > 1 else ""
    return Cell(quantity(cost.seconds), cost.seconds.value, probes(cost) or share)


def _peak(cost: PhaseCost | None) -> Cell:
    return Cell(quantity(cost.peak()), cost.peak().value, probes(cost) or formatting.batch(cost)) if cost else NOTHING


def _parameters(outcome: Outcome) -> Cell:
    return Cell(formatting.parameters(outcome.trainable_parameters), outcome.trainable_parameters or "")


def common(results: Results) -> tuple[tuple[str, str], ...]:
    """Return the title and value of each setting that is the same in every variant."""
    settings: Settings | None = next((v.settings for v in results.variants if v.settings), None)
    axes = differing(results)
    every = settings.as_dict() if settings else {}
    return tuple(
        (formatting.within_sentence(AXES[n].title), in_report(n, v)) for n, v in every.items() if n not in axes
    )


def ordered(results: Results, first: str) -> Sequence[Outcome]:
    """Return the variants in the order of the grid, except that the variant named `first` comes first."""
    return sorted(results.variants, key=lambda v: v.name != first)
