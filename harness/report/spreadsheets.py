"""The page's tables as CSV: raw values with their units in the heading, one file per table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from harness.leaks import of_results
from harness.records import Decision, Measurement, Outcome, Results, Split
from harness.report import answers, rates
from harness.report.variants import differing, verdict
from harness.report.words import visible

Value = str | float | int | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def tables(results: Results) -> dict[str, str]:
    """File name to content: `variants.csv`, `cases.csv`, `costs.csv`."""
    return {
        "variants.csv": _text(_variants(results)),
        "cases.csv": _text(_cases(results)),
        "costs.csv": _text(_costs(results)),
    }


def comparison_tables(decision: Decision) -> dict[str, str]:
    """File name to content: `changes.csv`, `flips.csv`, `environment.csv`."""
    found = decision.comparison
    judged = {judgement.variant: judgement.verdict.value for judgement in decision.variants}
    changes: list[Sequence[Value]] = [
        ("variant", "verdict", "role", "cases", "before", "before_low", "before_high", "after", "after_low",
         "after_high", "difference", "difference_low", "difference_high", "p_worse_adjusted")
    ]  # fmt: skip
    flips: list[Sequence[Value]] = [
        ("variant", "case", "role", "critical", "seeds_passed_before", "seeds_before", "seeds_passed_after",
         "seeds_after", "answer_before", "answer_after")
    ]  # fmt: skip
    for variant in found.variants:
        for role in variant.roles:
            parts = [x for e in (role.before, role.after, role.difference) for x in (e.value, e.low, e.high)]
            changes.append(
                (variant.name, judged.get(variant.name), role.role.value, role.cases, *parts, role.worse_adjusted)
            )
        for flip in variant.flips:
            rates = (flip.before.passed, flip.before.total, flip.after.passed, flip.after.total)
            flips.append(
                (variant.name, flip.case, flip.role.value, str(flip.critical), *rates, flip.answer_before,
                 flip.answer_after)
            )  # fmt: skip
    environment = [
        ("what", "before", "now"),
        *((d.what, d.before, d.after) for d in (*found.obstacles, *found.changed)),
    ]
    return {"changes.csv": _text(changes), "flips.csv": _text(flips), "environment.csv": _text(environment)}


def _text(rows: Iterable[Sequence[Value]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_safe(value) for value in row] for row in rows)
    return out.getvalue()


def _safe(value: Value) -> Value:
    """A spreadsheet runs what begins like a formula; an apostrophe makes it text (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _variants(results: Results) -> Iterator[Sequence[Value]]:
    marks = rates.marks(results, results.samples)
    losses = rates.reference_losses(results, results.choice.objective)
    roles, axes = list(results.base.rates), differing(results)
    heads = [f"{role}_{what}" for role in roles for what in ("passed", "asked", "rate", "low", "high")]
    yield (
        "variant", "chosen", "status", "eligible", "why", *heads, "points_lost", "points_lost_below", "fixed", "broken",
        "reference_loss_nats_per_token", "trainable_parameters", "supervised_tokens", *axes,
    )  # fmt: skip
    for outcome in (results.base, *results.variants):
        base = outcome is results.base
        told = None if base else verdict(results, outcome)
        figures: list[Value] = []
        for role in roles:
            rate, own = outcome.rates.get(role), marks.get((outcome.name, role))
            span = own.span if own and rate else None
            figures += [rate.passed, rate.total, rate.value] if rate else [None] * 3
            figures += [span.low, span.high] if span else [None] * 2
        safety = outcome.safety
        yield (
            outcome.name, str(outcome.name == results.choice.variant), ", ".join(outcome.statuses),
            told.word if told else None, told.why if told else None, *figures, safety.lost if safety else None,
            safety.upper if safety else None, None if base else outcome.fixed, None if base else outcome.broken,
            losses.get(outcome.name), outcome.trainable_parameters, outcome.supervised_tokens,
            *(_plain(outcome.differs.get(axis)) for axis in axes),
        )  # fmt: skip


def _plain(value: object) -> Value:
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value)
    return (
        value if isinstance(value, int | float) else " ".join(value) if isinstance(value, list | tuple) else str(value)
    )


def _cases(results: Results) -> Iterator[Sequence[Value]]:
    found = of_results(results)
    yield ("case", "role", "group", "leak", "void", "base", *(variant.name for variant in results.variants))
    for row in answers.ledger(results):
        case = row.case
        flips = (f"{flip.short} {flip.share}".strip() for flip in row.flips)
        yield (
            case.id, case.role.value, case.group, found[case.id].label.value, results.void.get(case.id, ""), row.base,
            *flips,
        )  # fmt: skip


def _costs(results: Results) -> Iterator[Sequence[Value]]:
    yield (
        "variant", "split", "phase", "seconds", "tokens", "peak_resident_bytes", "peak_allocated_bytes",
        "peak_reserved_bytes", "peak_device_bytes", "basis", "device",
    )  # fmt: skip
    late = [(Split.CONFIRM, outcome) for outcome in (results.confirmed_base, results.confirmed) if outcome]
    for split, outcome in [*((Split.MAIN, o) for o in (results.base, *results.variants)), *late]:
        yield from _phases(split, outcome)


def _phases(split: Split, outcome: Outcome) -> Iterator[Sequence[Value]]:
    for cost in outcome.costs:
        peaks = (cost.peak_resident, cost.peak_allocated, cost.peak_reserved, cost.peak_device)
        yield (
            outcome.name, split.value, cost.phase.value, cost.seconds.value, cost.tokens, *map(_bytes, peaks),
            cost.seconds.basis.value, cost.seconds.device,
        )  # fmt: skip


def _bytes(figure: Measurement | None) -> Value:
    return figure.value if figure else None
