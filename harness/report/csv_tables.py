"""The report's tables as CSV files. Values are raw numbers; the headings name their units."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from harness.analysis.contamination import leaks_in_results
from harness.core.measurement import Measurement, PhaseCost
from harness.core.outside_text import csv_cell
from harness.core.regression import Decision, Estimate, Flip, Mismatch, RoleChange, VariantChange
from harness.core.run_results import Outcome, Results
from harness.core.setting_text import in_csv
from harness.core.suite import Role, Split
from harness.report.case_changes import CaseRow, case_rows
from harness.report.eligibility import eligibility
from harness.report.pass_rates import ScoresByRole, Span, reference_losses, scores_by_role
from harness.report.variants_table import differing

Value = str | float | int | None


def run_tables(results: Results) -> dict[str, str]:
    """Return the content of `variants.csv`, `cases.csv` and `costs.csv`, by file name."""
    return {
        "variants.csv": _text(_variants(results)),
        "cases.csv": _text(_cases(results)),
        "costs.csv": _text(_costs(results)),
    }


def comparison_tables(decision: Decision) -> dict[str, str]:
    """Return the content of `changes.csv`, `flips.csv` and `environment.csv`, by file name."""
    found = decision.comparison
    return {
        "changes.csv": _text(
            _table(_change_columns(decision), [(v, role) for v in found.variants for role in v.roles])
        ),
        "flips.csv": _text(_table(_FLIPS, [(v.name, flip) for v in found.variants for flip in v.flips])),
        "environment.csv": _text(_table(_ENVIRONMENT, (*found.obstacles, *found.changed))),
    }


T = TypeVar("T")
_Columns = Sequence[tuple[str, Callable[[T], Value]]]
"""The columns of a table from left to right: each heading with the function that returns the value for one row."""


def _table(columns: _Columns[T], subjects: Iterable[T]) -> Iterator[Sequence[Value]]:
    yield [heading for heading, _ in columns]
    for subject in subjects:
        yield [value(subject) for _, value in columns]


_Change = tuple[VariantChange, RoleChange]


def _change_columns(decision: Decision) -> _Columns[_Change]:
    judged = {judgement.variant: judgement.verdict.value for judgement in decision.variants}
    return [
        ("variant", lambda of: of[0].name),
        ("verdict", lambda of: judged.get(of[0].name)),
        ("role", lambda of: of[1].role.value),
        ("cases", lambda of: of[1].cases),
        *_interval("before", lambda role: role.before),
        *_interval("after", lambda role: role.after),
        *_interval("difference", lambda role: role.difference),
        ("p_worse_adjusted", lambda of: of[1].worse_adjusted),
    ]


def _interval(heading: str, estimate: Callable[[RoleChange], Estimate]) -> _Columns[_Change]:
    return [
        (heading, lambda of: estimate(of[1]).value),
        (f"{heading}_low", lambda of: estimate(of[1]).low),
        (f"{heading}_high", lambda of: estimate(of[1]).high),
    ]


_FLIPS: _Columns[tuple[str, Flip]] = (
    ("variant", lambda of: of[0]),
    ("case", lambda of: of[1].case),
    ("role", lambda of: of[1].role.value),
    ("critical", lambda of: str(of[1].critical)),
    ("seeds_passed_before", lambda of: of[1].before.passed),
    ("seeds_before", lambda of: of[1].before.total),
    ("seeds_passed_after", lambda of: of[1].after.passed),
    ("seeds_after", lambda of: of[1].after.total),
    ("answer_before", lambda of: of[1].answer_before),
    ("answer_after", lambda of: of[1].answer_after),
)
_ENVIRONMENT: _Columns[Mismatch] = (
    ("what", lambda of: of.what),
    ("before", lambda of: of.before),
    ("now", lambda of: of.after),
)


def _text(rows: Iterable[Sequence[Value]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([csv_cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return out.getvalue()


def _variants(results: Results) -> Iterator[Sequence[Value]]:
    scores = scores_by_role(results, results.samples)
    losses = reference_losses(results, results.choice.objective)
    eligible = {variant.name: eligibility(results, variant) for variant in results.variants}
    columns: _Columns[Outcome] = [
        ("variant", lambda of: of.name),
        ("chosen", lambda of: str(of.name == results.choice.variant)),
        ("status", lambda of: ", ".join(of.statuses)),
        ("eligible", lambda of: eligible[of.name].word if of.name in eligible else None),
        ("why", lambda of: eligible[of.name].why if of.name in eligible else None),
        *(column for role in results.base.rates for column in _role(role, scores)),
        ("net_loss", lambda of: of.loss.points if of.loss else None),
        ("net_loss_low", lambda of: of.loss.low if of.loss else None),
        ("net_loss_high", lambda of: of.loss.high if of.loss else None),
        ("net_loss_lower_95", lambda of: of.loss.lower if of.loss else None),
        ("net_loss_upper_95", lambda of: of.loss.upper if of.loss else None),
        ("net_loss_verdict", lambda of: of.loss.verdict.value if of.loss else None),
        ("fixed", lambda of: None if of.untrained else of.fixed),
        ("broken", lambda of: None if of.untrained else of.broken),
        ("reference_loss_nats_per_token", lambda of: losses.get(of.name)),
        ("trainable_parameters", lambda of: of.trainable_parameters),
        ("supervised_tokens", lambda of: of.supervised_tokens),
        *((axis, partial(_setting, axis)) for axis in differing(results)),
    ]
    return _table(columns, (*results.every_base, *results.variants))


def _role(role: Role, scores: ScoresByRole) -> _Columns[Outcome]:
    """Return the columns of one role. A cell is empty if there is no rate or no interval."""

    def span(of: Outcome) -> Span | None:
        own = scores.get((of.name, role))
        return own.span if own and role in of.rates else None

    return [
        (f"{role}_passed", lambda of: of.rates[role].passed if role in of.rates else None),
        (f"{role}_asked", lambda of: of.rates[role].total if role in of.rates else None),
        (f"{role}_rate", lambda of: of.rates[role].value if role in of.rates else None),
        (f"{role}_low", lambda of: found.low if (found := span(of)) else None),
        (f"{role}_high", lambda of: found.high if (found := span(of)) else None),
    ]


def _setting(name: str, outcome: Outcome) -> Value:
    return in_csv(outcome.differs.get(name))


def _cases(results: Results) -> Iterator[Sequence[Value]]:
    found = leaks_in_results(results)
    columns: _Columns[CaseRow] = [
        ("case", lambda of: of.case.id),
        ("role", lambda of: of.case.role.value),
        ("group", lambda of: of.case.group),
        ("leak", lambda of: found[of.case.id].label.value),
        *((base.name, partial(_verdict_of_base, n)) for n, base in enumerate(results.every_base)),
        *((variant.name, partial(_change, n)) for n, variant in enumerate(results.variants)),
    ]
    return _table(columns, case_rows(results))


def _verdict_of_base(place: int, row: CaseRow) -> Value:
    return row.bases[place]


def _change(place: int, row: CaseRow) -> Value:
    change = row.changes[place]
    return f"{change.short} {change.share}".strip()


_COSTS: _Columns[tuple[str, Split, PhaseCost]] = (
    ("variant", lambda of: of[0]),
    ("split", lambda of: of[1].value),
    ("phase", lambda of: of[2].phase.value),
    ("seconds", lambda of: of[2].seconds.value),
    ("tokens", lambda of: of[2].tokens),
    ("peak_resident_bytes", lambda of: _bytes(of[2].peak_resident)),
    ("peak_allocated_bytes", lambda of: _bytes(of[2].peak_allocated)),
    ("peak_reserved_bytes", lambda of: _bytes(of[2].peak_reserved)),
    ("peak_device_bytes", lambda of: _bytes(of[2].peak_device)),
    ("models_in_batch", lambda of: of[2].models),
    ("probes", lambda of: of[2].probes),
    ("steps_per_probe", lambda of: of[2].probe_steps),
    ("basis", lambda of: of[2].seconds.basis.value),
    ("device", lambda of: of[2].seconds.device),
)


def _costs(results: Results) -> Iterator[Sequence[Value]]:
    late = [(Split.CONFIRM, outcome) for outcome in (results.confirmed_base, results.confirmed) if outcome]
    every = [*((Split.MAIN, outcome) for outcome in (*results.every_base, *results.variants)), *late]
    return _table(_COSTS, [(outcome.name, split, cost) for split, outcome in every for cost in outcome.costs])


def _bytes(figure: Measurement | None) -> Value:
    return figure.value if figure else None
