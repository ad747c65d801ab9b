"""Charts as inline SVG, drawn by Altair and vl-convert, in the page's own colours.

Colours are written as stand-ins and replaced by CSS variables, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from markupsafe import Markup, escape

from harness.core.results import Outcome, Results, Timeline
from harness.core.suite import Role
from harness.core.training import Status, Training
from harness.core.wording import plural
from harness.report.words import number, percent, visible

INK, MUTED, GRID, BASE, CHOSEN, OTHER = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06"
GOOD, BAD = "#0a0a07", "#0a0a08"
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "rule", BASE: "base", CHOSEN: "accent", OTHER: "other", GOOD: "pass", BAD: "fail",
}  # fmt: skip
_ROLE_COLOURS = {"learn": CHOSEN, "generalise": GOOD, "retain": INK, "avoid": BAD}
_FONT = "system-ui, sans-serif"
_PADDING = {"left": 16, "right": 8, "top": 8, "bottom": 8}
"""Text is wider in a reader's font than where it was laid out."""
WIDE, NARROW = 940, 300
"""Widths of the trade-off's drawing area, for a desk and for a telephone."""
POINTS = 100
"""Most points that one line is drawn with."""


@dataclass(frozen=True)
class DataTable:
    """The numbers of a chart, as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing with what a reader needs who cannot see it: `title`, `description` and the numbers as `table`."""

    id: str
    title: str
    description: str
    svg: Markup
    narrow: Markup
    """The same, drawn for a telephone."""
    table: DataTable
    note: str = ""
    narrow_note: str = ""


# --- learning ----------------------------------------------------------------------------------------------------


def learning(results: Results) -> tuple[Chart, ...]:
    """Loss and gradient norm per optimizer step, one small panel per variant, one line per seed."""
    return tuple(
        chart
        for chart in (
            _curves(results, "loss", "Training loss", "loss on the assistant's tokens"),
            _curves(results, "grad_norm", "Gradient norm", "length of the gradient before clipping"),
        )
        if chart is not None
    )


def _curves(results: Results, measure: str, title: str, what: str) -> Chart | None:
    runs = [(n, v, t) for n, v in enumerate(results.variants, 1) for t in v.training if t.steps]
    if not runs:
        return None
    sound = [t for _, _, t in runs if t.status is Status.SUCCEEDED] or [t for _, _, t in runs]
    top = _ceiling([getattr(s, measure) for t in sound for s in t.steps])
    rows = [row for n, v in enumerate(results.variants, 1) for row in _lines(results, n, v, measure, top)]
    cut = any((getattr(s, measure) or 0) > top for _, _, t in runs for s in t.steps)
    names = list(dict.fromkeys(_panel(n, v) for n, v, _ in runs))
    id = f"curve-{measure.replace('_', '-')}"
    return Chart(
        id=id,
        title=f"{title} per step",
        description=(
            f"{title} ({what}) at each optimizer step, one panel per variant; all panels share their axes. The line is "
            f"the mean over seeds, the band spans from the lowest to the highest of them. A cross marks the last step "
            f"of a training that stopped early, which is drawn by itself."
        ),
        svg=svg(_curves_spec(rows, names, top, 3), measure),
        narrow=svg(_curves_spec(rows, names, top, 1), f"{measure}-narrow"),
        table=_curve_table(runs, measure),
        note=f"Values above {number(top)} are drawn at the upper edge; the table has them in full." if cut else "",
    )


def _ceiling(values: Sequence[float | None]) -> float:
    """A little above what sound trainings logged; one that explodes must not flatten all others."""
    known = sorted(v for v in values if v is not None and isfinite(v))
    usual = known[int(0.99 * (len(known) - 1))] if known else 1.0
    return max(min(known[-1] if known else 1.0, 2 * usual), 1e-6) * 1.1


def _panel(number: int, variant: Outcome) -> str:
    ended = next((s for s in variant.statuses if s is not Status.SUCCEEDED), None)
    words = f"#{number} {variant.name}" + (f" · {ended.value}" if ended else "")
    return visible(words if len(words) <= 40 else words[:39] + "…")


def _lines(results: Results, number: int, variant: Outcome, measure: str, top: float) -> list[dict[str, Any]]:
    """The seeds that finished together, each that stopped by itself."""
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
    """By step, the mean over trainings with the lowest and the highest; steps that not all of them logged are left."""
    logs = [{s.step: getattr(s, measure) for s in t.steps} for t in trainings]
    common = [step for step in (logs[0] if logs else {}) if all(_sound(log.get(step)) for log in logs)]
    found = []
    for step in _thinned(common):
        values = [min(log[step], top) for log in logs]
        found.append({"step": step, "value": fmean(values), "low": min(values), "high": max(values)})
    return found


def _sound(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _thinned(steps: Sequence[int]) -> list[int]:
    if len(steps) <= POINTS:
        return list(steps)
    stride = (len(steps) - 1) / (POINTS - 1)
    return [steps[round(n * stride)] for n in range(POINTS)]


def _curves_spec(rows: Sequence[dict[str, Any]], names: Sequence[str], top: float, columns: int) -> dict[str, Any]:
    import altair as alt

    base = alt.Chart(data(rows))
    x = alt.X("step:Q", axis=alt.Axis(title="step", tickCount=4, grid=False, format="d"))
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(title=None, tickCount=3))
    lines = base.mark_line(strokeWidth=1.6).encode(
        x=x,
        y=y,
        detail="run:N",
        color=alt.Color("best:N", legend=None, scale=alt.Scale(domain=[True, False], range=[CHOSEN, OTHER])),
    )
    band = base.mark_area(opacity=0.25).encode(
        x=x,
        y=alt.Y("low:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(title=None, tickCount=3)),
        y2="high:Q",
        detail="run:N",
        color=alt.Color("best:N", legend=None, scale=alt.Scale(domain=[True, False], range=[CHOSEN, OTHER])),
    )
    ends = (
        base.transform_filter("datum.end")
        .mark_point(shape="cross", angle=45, filled=True, size=70, color=INK, opacity=1)
        .encode(x=x, y=y)
    )
    facet = alt.Facet(
        "panel:N",
        sort=list(names),
        title=None,
        header=alt.Header(labelAnchor="start", labelFontSize=12, labelPadding=4),
    )
    return configured((band + lines + ends).properties(width=306, height=95).facet(facet, columns=columns, spacing=18))


def _curve_table(runs: Sequence[tuple[int, Outcome, Training]], measure: str) -> DataTable:
    last = max(s.step for _, _, t in runs for s in t.steps)
    at = sorted({max(1, round(last * n / 10)) for n in range(11)})
    rows = []
    for n, variant, training in runs:
        values = {s.step: getattr(s, measure) for s in training.steps}
        seed = _seed_of(variant, training)
        cells = [number(values[s]) if s in values else "" for s in at]
        rows.append((str(n), variant.name, seed, *cells))
    return DataTable(("#", "Variant", "Seed", *(f"step {s}" for s in at)), tuple(rows))


def _seed_of(variant: Outcome, training: Training) -> str:
    place = variant.training.index(training)
    return str(variant.seeds[place]) if len(variant.training) == len(variant.seeds) else str(place + 1)


# --- epoch by epoch ----------------------------------------------------------------------------------------------

_DASHES = {"learn": [1, 0], "generalise": [6, 2], "retain": [2, 2], "avoid": [8, 3, 2, 3]}


def timelines(results: Results) -> Chart | None:
    """Pass rates by role after every epoch, one panel per variant that was asked so."""
    if not results.timelines:
        return None
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    rows = [row for timeline in results.timelines for row in _epochs(results, timeline, numbers)]
    names = [visible(f"#{numbers.get(t.variant, 0)} {t.variant}") for t in results.timelines]
    return Chart(
        id="timeline",
        title="When behaviours come and go: pass rate by role after every epoch",
        description=(
            "One panel per variant, over all its seeds; epoch 0 is the base. Where the lines of learn and generalise "
            "have risen and those of retain and avoid still hold, further epochs buy nothing."
        ),
        svg=svg(_epochs_spec(rows, names, 3), "timeline"),
        narrow=svg(_epochs_spec(rows, names, 1), "timeline-narrow"),
        table=_epochs_table(results),
    )


def _epochs(results: Results, timeline: Timeline, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    panel = visible(f"#{numbers.get(timeline.variant, 0)} {timeline.variant}")
    points = [(0.0, results.base.rates), *((e.epoch, e.rates) for e in timeline.epochs)]
    return [
        {"panel": panel, "epoch": epoch, "role": role.value, "share": 100 * rate.value}
        for epoch, rates in points
        for role, rate in rates.items()
        if rate.value is not None
    ]


def _epochs_spec(rows: Sequence[dict[str, Any]], names: Sequence[str], columns: int) -> dict[str, Any]:
    import altair as alt

    roles = [role.value for role in Role if any(row["role"] == role.value for row in rows)]
    legend = alt.Legend(title=None, orient="top", labelColor=INK, labelFontSize=12, symbolStrokeColor=INK)
    colours = alt.Scale(domain=roles, range=[_ROLE_COLOURS[role] for role in roles])
    dashes = alt.Scale(domain=roles, range=[_DASHES[role] for role in roles])
    percents = alt.Axis(title=None, values=[0, 50, 100], labelExpr="datum.value + '%'")
    lines = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.8, point={"size": 22, "filled": True})
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1, tickCount=6, grid=False)),
            y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 104]), axis=percents),
            color=alt.Color("role:N", scale=colours, legend=legend),
            strokeDash=alt.StrokeDash("role:N", scale=dashes, legend=legend),
        )
    )
    header = alt.Header(labelAnchor="start", labelFontSize=12, labelPadding=4)
    facet = alt.Facet("panel:N", sort=list(names), title=None, header=header)
    return configured(lines.properties(width=300, height=110).facet(facet, columns=columns, spacing=18))


def _epochs_table(results: Results) -> DataTable:
    roles = [role for role in Role if role in results.base.rates]
    rows = [
        (t.variant, f"{e.epoch:g}", *(percent(e.rates.get(role)) for role in roles))
        for t in results.timelines
        for e in t.epochs
    ]
    return DataTable(("Variant", "Epoch", *(role.value for role in roles)), tuple(rows))


@dataclass(frozen=True)
class Reached:
    """When one variant had learned and lost what it did, in words."""

    variant: str
    enough: str
    learned: tuple[str, ...]
    lost: tuple[str, ...]


def reached(results: Results) -> tuple[Reached, ...]:
    """Of the variants that were asked after every epoch, the chosen one first."""
    order = sorted(results.timelines, key=lambda t: t.variant != results.choice.variant)
    return tuple(
        Reached(
            timeline.variant,
            f"{timeline.enough:g}" if timeline.enough is not None else "",
            _when([(m.learned, m.case) for m in timeline.milestones]),
            _when([(m.lost, m.case) for m in timeline.milestones]),
        )
        for timeline in order
    )


def _when(found: Sequence[tuple[float | None, str]]) -> tuple[str, ...]:
    """`epoch 2: 14 cases, such as learn-price-1 and learn-name-1`."""
    epochs = sorted({epoch for epoch, _ in found if epoch is not None})
    own = {epoch: [case for at, case in found if at == epoch] for epoch in epochs}
    return tuple(
        f"epoch {epoch:g}: {plural(len(cases), 'case')} ({', '.join(cases[:3])}{', …' if len(cases) > 3 else ''})"
        for epoch, cases in own.items()
    )


# --- drawing -----------------------------------------------------------------------------------------------------


def data(rows: Sequence[dict[str, Any]]) -> Any:
    """As text, which Altair does not copy and check row by row each time that charts are put together."""
    import altair as alt

    data: Any = alt.Data  # its constructor has no types
    return data(values=json.dumps(list(rows)), format={"type": "json"})


def configured(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = (
        chart.configure(background="transparent", padding=_PADDING, font=_FONT, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED, titleColor=MUTED, gridColor=GRID, domainColor=GRID, tickColor=GRID, labelFontSize=12,
            titleFontSize=12, titleFontWeight="normal", titlePadding=8,
        )
        .configure_header(labelColor=INK, labelFontSize=12)
        .to_dict(validate=False)  # the drawing itself would fail
    )  # fmt: skip
    return spec


def svg(spec: dict[str, Any], name: str) -> Markup:
    """The drawing, its ids made unique on the page and its colours those of the page's theme."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(json.dumps(spec), allowed_base_urls=[])
    # The drawing is one image with one title; its parts' roles would each want a name of their own.
    drawn = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", drawn)
    drawn = re.sub(r'\b(id="|url\(#)(\w+)', rf"\g<1>{name}-\g<2>", drawn)
    for stand_in, variable in _VARIABLES.items():
        drawn = drawn.replace(stand_in, f"var(--{variable})")
    drawn = re.sub(r"(\d+\.\d{2})\d+", r"\1", drawn)
    return Markup(drawn)


def titled(chart: Chart) -> Markup:
    """Both drawings, of which the page shows one, with the title and description that a screen reader speaks."""
    drawings = (("wide", chart.svg, chart.id), ("narrow", chart.narrow, f"{chart.id}-narrow"))
    return Markup("").join(_titled(svg, id, kind, chart) for kind, svg, id in drawings)


def _titled(svg: Markup, id: str, kind: str, chart: Chart) -> Markup:
    inner = Markup("<title id='{0}-t'>{1}</title><desc id='{0}-d'>{2}</desc>").format(
        id, visible(chart.title), visible(chart.description)
    )
    head = f'<svg role="img" class="at-{kind}" aria-labelledby="{escape(id)}-t {escape(id)}-d" '
    plain = str(svg).replace(' class="marks"', "", 1)
    return Markup(re.sub(r"<svg ([^>]*>)", lambda m: head + m[1] + str(inner), plain, count=1))
