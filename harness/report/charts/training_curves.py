"""Charts of training loss and gradient norm by step."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from harness.core.outside_text import visible
from harness.core.run_results import Outcome, Results
from harness.core.training_outcome import Status, Training
from harness.report.charts.drawing import CHOSEN, INK, OTHER, Chart, DataTable, configured, faceted, layered, svg
from harness.report.formatting import ABSENT, number
from harness.report.most_telling import most_telling

POINTS = 100
"""Largest number of points of one line."""
PANELS = 24
"""Largest number of panels, and so of variants that are drawn."""


def learning(results: Results) -> tuple[Chart, ...]:
    """Draw loss and gradient norm by optimizer step, one panel per variant."""
    return tuple(
        chart
        for chart in (
            _curves(results, "loss", "Training loss", "loss on the tokens of the assistant's answers"),
            _curves(results, "grad_norm", "Gradient norm", "norm of the gradient before clipping"),
        )
        if chart is not None
    )


def _curves(results: Results, measure: str, title: str, what: str) -> Chart | None:
    every = [(n, v, t, seed) for n, v in enumerate(results.variants, 1) for t, seed in _with_seeds(v) if t.steps]
    runs = [(n, v, t) for n, v, t, _ in every]
    if not runs:
        return None
    sound = [t for _, _, t in runs if t.status is Status.SUCCEEDED] or [t for _, _, t in runs]
    top = _ceiling([getattr(s, measure) for t in sound for s in t.steps])
    shown = most_telling(results, list({n: (n, v) for n, v, _ in runs}.values()), PANELS)
    rows = [row for n, v in shown for row in _lines(results, n, v, measure, top)]
    cut = any((getattr(s, measure) or 0) > top for _, _, t in runs for s in t.steps)
    names = [_panel(n, v) for n, v in shown]
    left_out = len({n for n, *_ in runs}) - len(shown)
    id = f"curve-{measure.replace('_', '-')}"
    return Chart(
        id=id,
        title=f"{title} per step",
        description=(
            f"{title} ({what}) at each optimizer step, one panel per variant; all panels have the same axes. The line "
            f"is the mean over seeds, and the band reaches from the lowest to the highest seed. A training that "
            "stopped early has its own line, which ends in a cross."
            + (
                f" Drawn are the {len(shown)} variants with the highest pass rates; the table has all."
                if left_out
                else ""
            )
        ),
        svg=svg(_curves_spec(rows, names, top, 3), measure),
        narrow=svg(_curves_spec(rows, names, top, 1), f"{measure}-narrow"),
        table=_curve_table(every, measure),
        note=f"Values above {number(top)} are drawn at the upper edge; the table has the true values." if cut else "",
    )


def _ceiling(values: Sequence[float | None]) -> float:
    """Return the upper end of the axis: slightly above the values of trainings that succeeded.

    A training that diverges would otherwise flatten all other curves.
    """
    known = sorted(v for v in values if v is not None and isfinite(v))
    usual = known[int(0.99 * (len(known) - 1))] if known else 1.0
    return max(min(known[-1] if known else 1.0, 2 * usual), 1e-6) * 1.1


def _panel(number: int, variant: Outcome) -> str:
    ended = next((s for s in variant.statuses if s is not Status.SUCCEEDED), None)
    words = f"#{number} {variant.name}" + (f" · {ended.value}" if ended else "")
    return visible(words if len(words) <= 40 else words[:39] + "…")


def _lines(results: Results, number: int, variant: Outcome, measure: str, top: float) -> list[dict[str, Any]]:
    """Return the data of a variant's panel: one line for all seeds that finished, and one for each other seed."""
    whole = [t for t in variant.training if t.status is Status.SUCCEEDED and t.steps]
    rows: list[dict[str, Any]] = []
    for place, trainings in enumerate([whole, *([t] for t in variant.training if t not in whole)]):
        own = [{"panel": _panel(number, variant), "run": place, **row} for row in _spread(trainings, measure, top)]
        for row in own:
            row |= {"best": variant.name == results.choice.variant, "end": False}
        if own and place:
            own[-1]["end"] = True
        rows += own
    return rows


def _spread(trainings: Sequence[Training], measure: str, top: float) -> list[dict[str, float]]:
    """Return the mean, lowest and highest value at each step that all trainings logged."""
    logs = [{s.step: getattr(s, measure) for s in t.steps} for t in trainings]
    common = [step for step in (logs[0] if logs else {}) if all(_finite(log.get(step)) for log in logs)]
    found = []
    for step in _thinned(common):
        values = [min(log[step], top) for log in logs]
        found.append({"step": step, "value": fmean(values), "low": min(values), "high": max(values)})
    return found


def _finite(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _thinned(steps: Sequence[int]) -> list[int]:
    if len(steps) <= POINTS:
        return list(steps)
    stride = (len(steps) - 1) / (POINTS - 1)
    return [steps[round(n * stride)] for n in range(POINTS)]


def _curves_spec(rows: Sequence[dict[str, Any]], names: Sequence[str], top: float, columns: int) -> dict[str, Any]:
    import altair as alt

    base = alt.Chart()
    x = alt.X("step:Q", axis=alt.Axis(title="step", tickCount=4, grid=False, format="d"))
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(title=None, tickCount=3))
    lines = base.mark_line(strokeWidth=1.6).encode(
        x=x,
        y=y,
        detail=alt.Detail("run:N"),
        color=alt.Color("best:N", legend=None, scale=alt.Scale(domain=[True, False], range=[CHOSEN, OTHER])),
    )
    band = base.mark_area(opacity=0.25).encode(
        x=x,
        y=alt.Y("low:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(title=None, tickCount=3)),
        y2=alt.Y2("high:Q"),
        detail=alt.Detail("run:N"),
        color=alt.Color("best:N", legend=None, scale=alt.Scale(domain=[True, False], range=[CHOSEN, OTHER])),
    )
    ends = (
        base.transform_filter("datum.end")
        .mark_point(shape="cross", angle=45, filled=True, size=70, color=INK, opacity=1)
        .encode(x=x, y=y)
    )
    panel = layered(band, lines, ends, width=306, height=95)
    return configured(faceted(panel, rows, names, columns=columns, spacing=18))


def _curve_table(runs: Sequence[tuple[int, Outcome, Training, str]], measure: str) -> DataTable:
    last = max(s.step for _, _, t, _ in runs for s in t.steps)
    at = sorted({max(1, round(last * n / 10)) for n in range(11)})
    rows = []
    for n, variant, training, seed in runs:
        values = {s.step: getattr(s, measure) for s in training.steps}
        cells = [number(values[s]) if s in values else "" for s in at]
        rows.append((str(n), variant.name, seed, *cells))
    return DataTable(("#", "Variant", "Seed", *(f"step {s}" for s in at)), tuple(rows))


def _with_seeds(variant: Outcome) -> list[tuple[Training, str]]:
    """Return a variant's trainings with their seeds. A cancelled trial has no training; a failed one may have none."""
    ended = list(zip(variant.seeds, variant.statuses, strict=True))
    begun = [seed for seed, status in ended if status is not Status.CANCELLED]
    done = [seed for seed, status in ended if status.is_result]
    seeds = next((own for own in (begun, done) if len(own) == len(variant.training)), None)
    names = map(str, seeds) if seeds is not None else [ABSENT] * len(variant.training)
    return list(zip(variant.training, names, strict=True))
