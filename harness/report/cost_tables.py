"""The cost section: tables of time and memory by phase and by variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harness.core import wording
from harness.core.claims import claim, cost_claim
from harness.core.costs import largest
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost
from harness.core.names import REHEARSAL
from harness.core.quantities import quantity
from harness.core.run_results import Outcome, Results
from harness.core.training_outcome import Status, Together
from harness.core.units import DeviceKind
from harness.report import formatting
from harness.report.html_tables import Cell, Column, TableRow

NOTEBOOK = "13.8 of 15.0 GB"
"""GPU memory that the most expensive step of the workshop's notebook needed on a T4, as published with it."""
NOTEBOOK_MODEL = "Llama-2-7b"
"""The model of the workshop's notebook, as part of the names of its copies and of its shape."""


@dataclass(frozen=True)
class _Memory:
    """One kind of memory peak: a function that returns it, and the title and tooltip of its column."""

    figure: Callable[[PhaseCost], Measurement | None]
    title: str
    hint: str


_Pair = tuple[Column, Callable[[PhaseCost], Cell]]
"""A column, with the function that makes its cells."""
MEMORY = (
    _Memory(
        lambda c: c.peak_resident, "Peak resident", "Main memory of the whole process, including Python and libraries"
    ),
    _Memory(lambda c: c.peak_allocated, "Peak allocated", "GPU memory that tensors used"),
    _Memory(lambda c: c.peak_reserved, "Peak reserved", "GPU memory that PyTorch's allocator reserved"),
    _Memory(
        lambda c: c.peak_device,
        "Peak on device",
        "GPU memory of the process, including the CUDA context. ≈: computed from the reserved memory, because the "
        "driver did not report it",
    ),
)


def together(results: Results) -> str:
    """Write how long all passes took in which several trials were trained together; empty if there were none."""
    shared = _shared(results)
    if not shared:
        return ""
    trials = sum(training.together is not None for _, _, outcome in _outcomes(results) for training in outcome.training)
    whole = wording.duration(sum(own.cost.seconds.value for own in shared))
    how = "one pass" if len(shared) == 1 else f"{len(shared)} passes"
    return (
        f"The fused engine trained {trials} trials together in {how} that took {whole}. The time and memory shown for "
        "each trial are estimates for training it alone, scaled from a short probe."
    )


def _shared(results: Results) -> list[Together]:
    """Return the passes that trained several trials together, each as its last trial to end recorded it."""
    last = [own for _, _, outcome in _outcomes(results) for t in outcome.training if (own := t.together)]
    found = [each for own in last for each in (*own.earlier, own)]
    longest: dict[str, Together] = {}
    for own in found:
        longest[own.id] = max(longest.get(own.id, own), own, key=lambda one: one.cost.seconds.value)
    return list(longest.values())


def _outcomes(results: Results) -> list[tuple[int, str, Outcome]]:
    """Return the number, name and outcome of each base model (number 0), of each variant, and of the confirmation."""
    found = [(0, base.name, base) for base in results.every_base]
    found += [(n, v.name, v) for n, v in enumerate(results.variants, 1)]
    if results.confirmed:
        found.append((len(found), f"{results.confirmed.name}, confirmation", results.confirmed))
    return found


def phases(results: Results) -> tuple[tuple[Cell, ...], ...]:
    """Return one row per phase: the time that the run itself took for it, its share, and the largest memory peaks.

    Estimates of what each trial would cost alone are not included.
    """
    spent = _measured(results)
    totals = {phase: sum(c.seconds.value * n for c, n in spent if c.phase is phase) for phase in Phase}
    whole = sum(totals.values()) or 1.0
    kinds = _memory(results)
    return tuple(
        (
            Cell(formatting.PHASES[phase]),
            Cell(wording.duration(total)),
            Cell(f"{100 * total / whole:.0f}%", share=total / whole),
            *(Cell(_marked(largest(each.figure(c) for c, _ in spent if c.phase is phase))) for each in kinds),
        )
        for phase, total in totals.items()
        if any(c.phase is phase for c, _ in spent)
    )


def _rehearsal(results: Results) -> list[PhaseCost]:
    """Return the costs of the base model's answers to rehearsal prompts, which belong to the run and to no trial."""
    return [cost for own in (results.run.rehearsal.answers if results.run.rehearsal else ()) for cost in own.costs]


def _measured(results: Results) -> list[tuple[PhaseCost, int]]:
    """Return the costs that were measured, each with the number of trials that it is a mean of.

    A pass that trained several trials counts once. A trial that was cancelled has no costs.
    """
    every = (*results.every_base, results.confirmed_base, *results.variants, results.confirmed)
    rows = [row for row in every if row]
    alone = [t.cost for row in rows for t in row.training if t.cost and not t.together]
    answered = [
        (cost, row.statuses.count(Status.SUCCEEDED))
        for row in rows
        for cost in row.costs
        if cost.phase is not Phase.TRAIN
    ]
    once = [*(one.cost for one in _shared(results)), *alone, *_rehearsal(results)]
    return [*((cost, 1) for cost in once), *answered]


def estimated(results: Results) -> bool:
    """Return whether the cost of a training is an estimate from a probe, since it shared a pass with others."""
    return any(training.together for _, _, outcome in _outcomes(results) for training in outcome.training)


def _memory(results: Results) -> list[_Memory]:
    every = [cost for _, _, outcome in _outcomes(results) for cost in outcome.costs] + _rehearsal(results)
    return [each for each in MEMORY if any(map(each.figure, every))]


def columns(results: Results) -> tuple[Column, ...]:
    return tuple(column for column, _ in _pairs(results))


def by_variant(results: Results) -> tuple[TableRow, ...]:
    """Return one row for each phase of the base model and of each variant."""
    pairs = _pairs(results)
    rehearsed = (
        TableRow(0, REHEARSAL, False, True, tuple(cell(cost) for _, cell in pairs)) for cost in _rehearsal(results)
    )
    return (*rehearsed, *_by_outcome(results, pairs))


def _by_outcome(results: Results, pairs: Sequence[_Pair]) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(number, name, name == results.choice.variant, number == 0, tuple(cell(cost) for _, cell in pairs))
        for number, name, outcome in _outcomes(results)
        for cost in outcome.costs
    )


def _pairs(results: Results) -> list[_Pair]:
    """Return the columns of the table of costs by variant and phase, each with the function that makes its cells."""
    machine = results.run.provenance.machine
    return [
        (Column("Phase", "Step of the run", number=False), lambda cost: Cell(formatting.PHASES[cost.phase])),
        (Column("Time", "Wall time, as the column Source says"), lambda cost: Cell(quantity(cost.seconds))),
        (Column("Tokens/s", "Tokens trained or generated per second"), _rate),
        *((Column(each.title, each.hint), partial(_peak, each)) for each in _memory(results)),
        (Column("Source", "Basis and device of the figures in the row", number=False), partial(_source, machine)),
    ]


def _rate(cost: PhaseCost) -> Cell:
    return Cell(f"{cost.tokens_per_second:,.0f}" if cost.tokens_per_second else formatting.ABSENT)


def _peak(kind: _Memory, cost: PhaseCost) -> Cell:
    return Cell(_marked(kind.figure(cost)), under=formatting.batch(cost) if kind.figure(cost) else "")


def _marked(figure: Measurement | None) -> str:
    """Write a figure, with ≈ if it was computed and not measured."""
    computed = "≈ " if figure and figure.basis is Basis.PREDICTED else ""
    return f"{computed}{formatting.measured(figure)}"


def _source(machine: Machine, cost: PhaseCost) -> Cell:
    return Cell(cost_claim(cost, machine))


def passes(results: Results) -> tuple[str, ...]:
    """Return one line for each pass that trained several trials together, with the cost of the whole pass."""
    machine = results.run.provenance.machine
    return tuple(
        f"{wording.plural(one.trials, 'trial')} together in {quantity(one.cost.seconds)}, at most "
        f"{quantity(one.cost.peak())} ({claim(one.cost.seconds, machine)})"
        for one in _shared(results)
    )


def notebook(results: Results) -> tuple[str, ...]:
    """Compare the run's memory peak with the published figure of the workshop's notebook; empty for other models."""
    machine = results.run.provenance.machine
    if NOTEBOOK_MODEL.lower() not in results.run.model.name.lower():
        return ()
    published = (
        f"With {NOTEBOOK_MODEL}, the workshop's notebook needed {NOTEBOOK} of GPU memory to merge, after two restarts "
        "of its runtime"
    )
    if machine.kind is not DeviceKind.CUDA:
        return (f"{published} (published, on a T4). The main memory of a CPU run cannot be compared with it.",)
    every = [c for _, _, outcome in _outcomes(results) for c in outcome.costs] + _rehearsal(results)
    peak = largest(cost.gpu_peak() for cost in (*every, *(own.cost for own in _shared(results))))
    if peak is None:
        return (f"{published} (published, on a T4).",)
    size = f"{peak.value / 1e9:.1f} GB"
    return (
        f"{published} (published, on a T4, in GB of 10⁹ bytes).",
        f"This run needed {size} at most, from loading to the last answer, without a restart ({claim(peak, machine)}).",
    )
