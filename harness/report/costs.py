"""Time and memory by phase, the trials that did not finish, and the facts needed to repeat the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.core import wording
from harness.core.claims import claim, machine_claim
from harness.core.costs import largest
from harness.core.machine import Machine
from harness.core.measurement import Measurement, Phase, PhaseCost
from harness.core.quantities import gib, quantity
from harness.core.results import Outcome, Results
from harness.core.suite import Suite
from harness.core.training import Status, Together
from harness.core.units import DeviceKind
from harness.report import words
from harness.report.tables import Cell, Column, TableRow

NOTEBOOK = "13.8 of 15.0 GB"
"""GPU memory that the workshop's notebook needed on a T4, as published with it: its costliest step."""


@dataclass(frozen=True)
class _Memory:
    """One kind of memory peak, with its column's title and hint."""

    figure: Callable[[PhaseCost], Measurement | None]
    title: str
    hint: str


MEMORY = (
    _Memory(
        lambda c: c.peak_resident, "Peak resident", "Main memory of the whole process, Python and libraries included"
    ),
    _Memory(lambda c: c.peak_allocated, "Peak allocated", "GPU memory that tensors took"),
    _Memory(lambda c: c.peak_reserved, "Peak reserved", "GPU memory that torch's allocator held"),
    _Memory(
        lambda c: c.peak_device,
        "Peak on device",
        "GPU memory of the process as the driver counts it, CUDA context included",
    ),
)


@dataclass(frozen=True)
class Failure:
    variant: str
    seed: int
    status: str
    message: str
    log: str


def failures(results: Results) -> tuple[Failure, ...]:
    rows = (results.base, *results.variants, results.confirmed_base, results.confirmed)
    return tuple(
        Failure(row.name, seed, words.status(status) + (" (predicted)" if predicted else ""), message, log)
        for row in rows
        if row
        for seed, status, predicted, message, log in zip(
            row.seeds, row.statuses, row.predicted, row.messages, row.logs, strict=True
        )
        if status is not Status.SUCCEEDED
    )


def together(results: Results) -> str:
    """Total time of the passes that trained several trials at once, as a sentence; empty without such passes."""
    shared = _shared(results)
    if not shared:
        return ""
    trials = sum(own.trials for own in shared)
    whole = wording.duration(sum(own.cost.seconds.value for own in shared))
    how = "one pass" if len(shared) == 1 else f"{len(shared)} passes"
    return (
        f"{trials} trials were trained side by side in {how} over the base, which took {whole}. Their own time and "
        "memory are what each takes alone, scaled from a short probe."
    )


def _shared(results: Results) -> list[Together]:
    """The passes that trained several trials at once, each by the record of the trial that ended last in it."""
    found = [own for _, _, outcome in _everyone(results) for t in outcome.training if (own := t.together)]
    longest: dict[str, Together] = {}
    for own in found:
        longest[own.id] = max(longest.get(own.id, own), own, key=lambda one: one.cost.seconds.value)
    return list(longest.values())


def _everyone(results: Results) -> list[tuple[int, str, Outcome]]:
    found = [(0, "base", results.base)] + [(n, v.name, v) for n, v in enumerate(results.variants, 1)]
    if results.confirmed:
        found.append((len(found), f"{results.confirmed.name}, confirmation", results.confirmed))
    return found


def phases(results: Results) -> tuple[tuple[Cell, ...], ...]:
    """Rows of the table by phase: total time over all trials, its share of the run, and the largest memory peaks."""
    spent = [(c, len(o.seeds)) for _, _, o in _everyone(results) for c in o.costs]
    totals = {phase: sum(c.seconds.value * n for c, n in spent if c.phase is phase) for phase in Phase}
    whole = sum(totals.values()) or 1.0
    kinds = _memory(results)
    return tuple(
        (
            Cell(words.PHASES[phase]),
            Cell(wording.duration(total)),
            Cell(f"{100 * total / whole:.0f}%", share=total / whole),
            *(Cell(words.measured(largest(each.figure(c) for c, _ in spent if c.phase is phase))) for each in kinds),
        )
        for phase, total in totals.items()
        if any(c.phase is phase for c, _ in spent)
    )


def _memory(results: Results) -> list[_Memory]:
    every = [cost for _, _, outcome in _everyone(results) for cost in outcome.costs]
    return [each for each in MEMORY if any(map(each.figure, every))]


def columns(results: Results) -> tuple[Column, ...]:
    return tuple(column for column, _ in _pairs(results))


def by_variant(results: Results) -> tuple[TableRow, ...]:
    pairs = _pairs(results)
    return tuple(
        TableRow(number, name, name == results.choice.variant, number == 0, tuple(cell(cost) for _, cell in pairs))
        for number, name, outcome in _everyone(results)
        for cost in outcome.costs
    )


def _pairs(results: Results) -> list[tuple[Column, Callable[[PhaseCost], Cell]]]:
    """Columns of the table by variant and phase, each with the function that makes its cell."""
    machine = results.run.provenance.machine
    return [
        (Column("Phase", "What was done", number=False), lambda cost: Cell(words.PHASES[cost.phase])),
        (Column("Time", "Wall time, mean over seeds"), lambda cost: Cell(quantity(cost.seconds))),
        (Column("Tokens/s", "Tokens trained or generated per second"), _rate),
        *((Column(each.title, each.hint), partial(_peak, each)) for each in _memory(results)),
        (Column("Where from", "Basis and device of the row's figures", number=False), partial(_source, machine)),
    ]


def _rate(cost: PhaseCost) -> Cell:
    return Cell(f"{cost.tokens_per_second:,.0f}" if cost.tokens_per_second else words.ABSENT)


def _peak(kind: _Memory, cost: PhaseCost) -> Cell:
    return Cell(words.measured(kind.figure(cost)))


def _source(machine: Machine, cost: PhaseCost) -> Cell:
    return Cell(", ".join(filter(None, (claim(cost.seconds, machine), cost.note))))


def passes(results: Results) -> tuple[str, ...]:
    """One line for each pass in which the fused engine trained several trials; its cost belongs to no single trial."""
    machine = results.run.provenance.machine
    return tuple(
        f"{wording.plural(one.trials, 'trial')} together in {quantity(one.cost.seconds)}, at most "
        f"{quantity(one.cost.peak())} ({claim(one.cost.seconds, machine)})"
        for one in _shared(results)
    )


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    run = results.run
    facts, machine = run.provenance, run.provenance.machine
    commit = (facts.git_commit or "not in a git repository") + (" with uncommitted changes" if facts.git_dirty else "")
    cap = f", memory capped at {gib(machine.memory_cap)}" if machine.memory_cap else ""
    threads = f", {wording.plural(machine.threads, 'thread')}" if machine.threads else ""
    return (
        ("Base model", f"{run.model.name} {run.model.revision}".strip()),
        ("Model digest", run.model.digest),
        ("Suite and grid", f"{run.suite.name}, {run.plan.grid}"),
        ("Run digest", run.digest),
        ("Seeds", wording.listed(run.plan.seeds)),
        ("Confirmation seeds", wording.listed(run.confirm_seeds)),
        ("Engine", run.engine),
        ("Device", f"{machine.device} ({machine.kind}), computing in {machine.compute_dtype}{threads}{cap}"),
        ("Basis of all figures", machine_claim(machine)),
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
    stop = f", stopped at {wording.listed(map(repr, decoding.stop))}" if decoding.stop else ""
    return f"{how}{often}, at most {decoding.max_new_tokens} tokens{stop}"


def notebook(results: Results) -> tuple[str, ...]:
    """Sentences that compare the run with the workshop's notebook; empty for toy models."""
    machine = results.run.provenance.machine
    if results.run.model.toy:
        return ()
    published = f"The workshop's notebook: {NOTEBOOK} of GPU memory for its merge, after two restarts of its runtime"
    if machine.kind is not DeviceKind.CUDA:
        return (f"{published} (published, on a T4). Main memory of a CPU run cannot be set beside it.",)
    every = [c for _, _, outcome in _everyone(results) for c in outcome.costs]
    peak = largest(cost.gpu_peak() for cost in (*every, *(own.cost for own in _shared(results))))
    if peak is None:
        return (f"{published} (published, on a T4).",)
    size = f"{peak.value / 1e9:.1f} GB"
    return (
        f"{published} (published, on a T4, in GB of 10⁹ bytes).",
        f"This run, from loading to the last answer, without a restart: {size} at most ({claim(peak, machine)}).",
    )
