"""Where time and memory went by phase, what did not finish, and what is needed to repeat it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import wording
from harness.records import GIB, Outcome, Phase, PhaseCost, Results, Status, Suite, Together
from harness.report import words
from harness.report.tables import Cell, Column, Row

NOTEBOOK = "13.8 of 15.0 GB"
"""What the workshop's notebook needed on its T4, as published with it: its costliest step, after two restarts."""
MEMORY = (
    ("peak_resident", "Peak resident", "Main memory of the whole process, Python and libraries included"),
    ("peak_allocated", "Peak allocated", "GPU memory that tensors took"),
    ("peak_reserved", "Peak reserved", "GPU memory that torch's allocator held"),
    ("peak_device", "Peak on device", "GPU memory of the process as the driver counts it, CUDA context included"),
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
    """What the passes took in which trials were trained side by side; empty where there were none."""
    passes: dict[str, Together] = {}
    for _, _, outcome in _everyone(results):
        for training in outcome.training:
            if (own := training.together) and own.cost.seconds.value >= _seconds(passes.get(own.id)):
                passes[own.id] = own
    if not passes:
        return ""
    trials = sum(own.trials for own in passes.values())
    whole = wording.duration(sum(own.cost.seconds.value for own in passes.values()))
    how = "one pass" if len(passes) == 1 else f"{len(passes)} passes"
    return (
        f"{trials} trials were trained side by side in {how} over the base, which took {whole}. Their own time and "
        "memory are what each takes alone, scaled from a short probe."
    )


def _seconds(own: Together | None) -> float:
    return own.cost.seconds.value if own else 0.0


def _everyone(results: Results) -> list[tuple[int, str, Outcome]]:
    found = [(0, "base", results.base)] + [(n, v.name, v) for n, v in enumerate(results.variants, 1)]
    if results.confirmed:
        found.append((len(found), f"{results.confirmed.name}, confirmation", results.confirmed))
    return found


def phases(results: Results) -> tuple[tuple[Cell, ...], ...]:
    """Where the run's time went: what each phase took over all trials, and its largest memory."""
    spent = [(c, len(o.seeds)) for _, _, o in _everyone(results) for c in o.costs]
    totals = {phase: sum(c.seconds.value * n for c, n in spent if c.phase is phase) for phase in Phase}
    whole = sum(totals.values()) or 1.0
    return tuple(
        (
            Cell(words.PHASES[phase]),
            Cell(wording.duration(total)),
            Cell(f"{100 * total / whole:.0f}%", share=total / whole),
            *(Cell(words.measured(peak)) for peak in _peaks([c for c, _ in spent if c.phase is phase], results)),
        )
        for phase, total in totals.items()
        if any(c.phase is phase for c, _ in spent)
    )


def _memory(results: Results) -> list[tuple[str, str, str]]:
    every = [cost for _, _, outcome in _everyone(results) for cost in outcome.costs]
    return [each for each in MEMORY if any(getattr(cost, each[0]) for cost in every)]


def _peaks(costs: Sequence[PhaseCost], results: Results) -> list[Any]:
    return [
        max((f for c in costs if (f := getattr(c, name))), key=lambda f: float(f.value), default=None)
        for name, _, _ in _memory(results)
    ]


def columns(results: Results) -> tuple[Column, ...]:
    return (
        Column("Phase", "What was done", number=False),
        Column("Time", "Wall time, mean over seeds"),
        Column("Tokens/s", "Tokens trained or generated per second"),
        *(Column(title, hint) for _, title, hint in _memory(results)),
        Column("Where from", "Basis and device of the row's figures", number=False),
    )


def by_variant(results: Results) -> tuple[Row, ...]:
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
        Cell(", ".join(filter(None, (words.claim(cost.seconds.basis, cost.seconds.device, cap), cost.note)))),
    )


def passes(results: Results) -> tuple[str, ...]:
    """What passes took in which the fused engine trained several trials at once: no trial's own cost, so apart."""
    shared = {t.together.id: t.together for _, _, outcome in _everyone(results) for t in outcome.training if t.together}
    return tuple(
        f"{wording.plural(one.trials, 'trial')} together in {words.measured(one.cost.seconds)}, at most "
        f"{words.measured(one.cost.peak_reserved or one.cost.peak_resident)} "
        f"({words.claim(one.cost.seconds.basis, one.cost.seconds.device, results.run.provenance.machine.memory_cap)})"
        for one in shared.values()
    )


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    run = results.run
    facts, machine = run.provenance, run.provenance.machine
    commit = (facts.git_commit or "not in a git repository") + (" with uncommitted changes" if facts.git_dirty else "")
    cap = f", memory capped at {machine.memory_cap / GIB:.1f} GiB" if machine.memory_cap else ""
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
    stop = f", stopped at {wording.listed(map(repr, decoding.stop))}" if decoding.stop else ""
    return f"{how}{often}, at most {decoding.max_new_tokens} tokens{stop}"


def notebook(results: Results) -> tuple[str, ...]:
    """What the workshop's notebook needed, in words; empty for toys. Beside a CPU's figures it stands apart."""
    if results.run.model.toy:
        return ()
    published = f"The workshop's notebook: {NOTEBOOK} of GPU memory for its merge, after two restarts of its runtime"
    if results.run.provenance.machine.kind != "cuda":
        return (f"{published} (published, on a T4). Main memory of a CPU run cannot be set beside it.",)
    every = [c for _, _, outcome in _everyone(results) for c in outcome.costs]
    every += [t.together.cost for _, _, outcome in _everyone(results) for t in outcome.training if t.together]
    peak = max((p for c in every if (p := c.peak_device or c.peak_reserved)), key=lambda p: p.value, default=None)
    if peak is None:
        return (f"{published} (published, on a T4).",)
    told = words.claim(peak.basis, peak.device, results.run.provenance.machine.memory_cap)
    return (
        f"{published} (published, on a T4, in GB of 10⁹ bytes).",
        f"This run, from loading to the last answer, without a restart: {peak.value / 1e9:.1f} GB at most ({told}).",
    )
