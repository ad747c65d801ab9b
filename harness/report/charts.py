"""Charts as inline SVG, drawn by Altair and vl-convert, in the page's own colours.

Colours are written as stand-ins and replaced by CSS variables, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log, log10
from typing import Any

from markupsafe import Markup, escape

from harness.records import Outcome, Phase, Results, Role, Status, Step, Training
from harness.report.words import ABSENT, counts, number, parameters, percent, seconds, status, visible

INK, MUTED, GRID, BASE, CHOSEN, OTHER = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "rule", BASE: "base", CHOSEN: "accent", OTHER: "other"}
_FONT = "system-ui, sans-serif"
_PADDING = {"left": 16, "right": 8, "top": 8, "bottom": 8}
"""Text is wider in a reader's font than where it was laid out."""
WIDE, NARROW = 940, 300
"""Widths of the trade-off's drawing area, for a desk and for a telephone."""
POINTS = 100
"""Most points that one line is drawn with."""


@dataclass(frozen=True)
class Table:
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
    table: Table
    note: str = ""
    narrow_note: str = ""


# --- quality against cost ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """One variant: `cost` None where it is not known, `quality` in points of a hundred where it finished."""

    number: int
    name: str
    cost: float | None
    shown_cost: str
    quality: float | None
    shown_quality: str
    kind: str
    status: Status


CHOSEN_KIND, WITHIN, BEYOND = "Best", "Keeps what the base could do", "Loses too much of it"


def trade_off(results: Results) -> Chart:
    """Pass rate on the objective against training's cost; variants without answers stand in a strip below."""
    cuda, objective = _on_cuda(results.variants), results.choice.objective
    points = [_point(results, objective, n, variant, cuda) for n, variant in enumerate(results.variants, 1)]
    axis = "Training time (s)" if cuda else "Training work (trained tokens × trainable parameters)"
    short = axis if cuda else "Tokens × parameters"
    unplaced = [p.name for p in points if p.cost is None]
    base = results.base.rates.get(objective)
    return Chart(
        id="trade-off",
        title=f"Pass rate on {objective} cases against what training cost",
        description=(
            f"One mark per variant: higher is better, further left is cheaper. The dashed line is the untrained base "
            f"({percent(base)}). Variants that did not finish stand below the axis, at the cost they had reached."
        ),
        svg=_svg(_trade_off_spec(points, axis, base.value if base else None, cuda, WIDE), "trade-off"),
        narrow=_svg(_trade_off_spec(points, short, base.value if base else None, cuda, NARROW), "trade-off-narrow"),
        table=Table(
            ("#", "Variant", axis, f"Pass rate on {objective}", "Mark"),
            tuple((str(p.number), p.name, p.shown_cost, p.shown_quality, p.kind) for p in points),
        ),
        note=f"Not drawn, as they stopped before their cost was known: {', '.join(unplaced)}." if unplaced else "",
        narrow_note="The numbers are those of the table of variants.",
    )


def _on_cuda(variants: Sequence[Outcome]) -> bool:
    """Seconds are an axis only where every training ran on CUDA, on one device and with one basis."""
    train = [c for v in variants for c in v.costs if c.phase is Phase.TRAIN]
    same = len({(c.seconds.basis, c.seconds.device) for c in train}) == 1
    return same and all(c.peak_allocated is not None for c in train)


def _point(results: Results, objective: Role, number: int, variant: Outcome, cuda: bool) -> _Point:
    rate = variant.rates.get(objective)
    if cuda:
        train = next((c.seconds.value for c in variant.costs if c.phase is Phase.TRAIN), None)
        cost, shown = train, seconds(train) if train else ABSENT
    else:
        work = variant.supervised_tokens * variant.trainable_parameters
        cost, shown = float(work) or None, parameters(work)
    failed = next((s for s in variant.statuses if s is not Status.SUCCEEDED), Status.SUCCEEDED)
    value = rate.value if rate else None
    kind = WITHIN if variant.name in results.choice.eligible else BEYOND
    kind = CHOSEN_KIND if variant.name == results.choice.variant else kind
    kind = status(failed) if value is None else kind
    told = f"{percent(rate)} ({counts(rate)})" if rate else ABSENT
    return _Point(number, variant.name, cost or None, shown, None if value is None else 100 * value, told, kind, failed)


def _trade_off_spec(points: Sequence[_Point], axis: str, base: float | None, cuda: bool, width: int) -> dict[str, Any]:
    import altair as alt

    placed = [p for p in points if p.cost is not None]
    if width == NARROW and any(p.quality is None for p in placed):
        width -= 66  # for the names of how they ended, left of the axis
    costs = [p.cost for p in placed if p.cost is not None] or [1.0, 10.0]
    low, high = min(costs), max(costs)
    domain = [low / 1.35, high * (2.4 if high > 3 * low else 1.5)]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    # 200,000,000 reads as 200 M; seconds stay as they are.
    tick = "datum.label" if cuda else "replace(replace(format(datum.value, '~s'), 'G', ' B'), 'M', ' M')"
    x = alt.X("cost:Q", scale=scale, axis=alt.Axis(title=axis, grid=False, labelExpr=tick, values=_ticks(domain)))
    done = [p for p in placed if p.quality is not None]
    labels = _labels(done, domain, base, width)
    stopped = [p for p in placed if p.quality is None]
    over = x.axis(alt.Axis(labels=False, ticks=False, grid=False, title=None)) if stopped else x
    layers = [_base_line(base, domain, over), _marks(done, over), _names(labels, over)]
    upper = alt.layer(*[layer for layer in layers if layer is not None]).properties(width=width, height=300)
    return _configured(alt.vconcat(upper, _stopped(stopped, x, width), spacing=14) if stopped else upper)


def _ticks(domain: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten within the axis, or powers alone where those are many."""
    first, last = floor(log10(domain[0])), ceil(log10(domain[1]))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [value for value in found if domain[0] <= value <= domain[1]]


def _y() -> Any:
    import altair as alt

    ticks = alt.Axis(values=[0, 25, 50, 75, 100], labelExpr="datum.value + '%'", title=None)
    return alt.Y("quality:Q", scale=alt.Scale(domain=[0, 104], nice=False), axis=ticks)


def _marks(points: Sequence[_Point], x: Any) -> Any:
    import altair as alt

    rows = [{"cost": p.cost, "quality": p.quality, "kind": p.kind} for p in points]
    colour = alt.Scale(domain=[CHOSEN_KIND, WITHIN, BEYOND], range=[CHOSEN, OTHER, OTHER])
    shape = alt.Scale(domain=[CHOSEN_KIND, WITHIN, BEYOND], range=["circle", "circle", "triangle-down"])
    return (
        alt.Chart(_data(rows))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=_y(),
            color=alt.Color("kind:N", scale=colour, legend=None),
            shape=alt.Shape("kind:N", scale=shape, legend=None),
            size=alt.condition(f"datum.kind === '{CHOSEN_KIND}'", alt.value(150), alt.value(70)),
        )
    )


def _base_line(base: float | None, domain: Sequence[float], x: Any) -> Any:
    import altair as alt

    if base is None:
        return None
    row = _data([{"quality": 100 * base, "label": f"base {100 * base:.0f}%", "cost": domain[1]}])
    rule = alt.Chart(row).mark_rule(strokeDash=[5, 4], color=BASE, strokeWidth=1.5).encode(y=_y())
    name = alt.Chart(row).mark_text(align="right", dy=-7, color=BASE, fontSize=12).encode(x=x, y=_y(), text="label:N")
    return rule + name


def _names(labels: Sequence[dict[str, Any]], x: Any) -> Any:
    import altair as alt

    if not labels:
        return None
    chart = alt.Chart(_data(labels))
    return chart.mark_text(align="left", dx=11, fontSize=12).encode(
        x=x,
        y=_y(),
        text="label:N",
        color=alt.condition("datum.best", alt.value(CHOSEN), alt.value(MUTED)),
    )


def _labels(points: Sequence[_Point], domain: Sequence[float], base: float | None, width: int) -> list[dict[str, Any]]:
    """A label beside each mark, moved up or down where it would cover another one."""
    taken = [] if base is None else [_base_label(100 * base, width)]
    labels = []
    for point in sorted(points, key=lambda p: (p.kind != CHOSEN_KIND, -(p.quality or 0), p.number)):
        text = _label(point, len(points), width)
        left = log((point.cost or 1) / domain[0]) / log(domain[1] / domain[0])
        box = _free(left, left + (len(text) * 6.6 + 24) / width, point.quality or 0, base, taken)
        taken.append(box)
        labels.append(
            {"cost": point.cost, "quality": box.at, "label": visible(text), "best": point.kind == CHOSEN_KIND}
        )
    return labels


@dataclass(frozen=True)
class _Box:
    """Where a label lies: from `left` to `right` as shares of the width, `at` as its height in points."""

    left: float
    right: float
    at: float

    def covers(self, other: _Box) -> bool:
        return self.left < other.right and other.left < self.right and abs(self.at - other.at) < 5


def _label(point: _Point, among: int, width: int) -> str:
    """The name, or the number where names would be too many or too long."""
    named = width > NARROW and (among <= 14 or point.kind == CHOSEN_KIND)
    return point.name if named else f"#{point.number}"


def _base_label(at: float, width: int) -> _Box:
    return _Box(1 - 64 / width, 1, at + 2.5)


def _free(left: float, right: float, wish: float, base: float | None, taken: Sequence[_Box]) -> _Box:
    """The place nearest to the wished one that is within the drawing, off the base's line and free; else the wish."""
    steps = sorted(range(-60, 61), key=lambda step: (abs(step), step))
    boxes = [_Box(left, right, wish + step) for step in steps if 2 <= wish + step <= 102]
    clear = (
        box
        for box in boxes
        if (base is None or abs(box.at - 100 * base) >= 3) and not any(box.covers(other) for other in taken)
    )
    return next(clear, _Box(left, right, wish))


def _stopped(points: Sequence[_Point], x: Any, width: int) -> Any:
    import altair as alt

    rows = [{"cost": p.cost, "kind": p.kind, "label": visible(_label(p, len(points), width))} for p in points]
    chart = alt.Chart(_data(rows)).properties(width=width, height=alt.Step(24))
    order = [status(s) for s in Status]
    y = alt.Y("kind:N", sort=order, axis=alt.Axis(title=None, ticks=False, domain=False, labelLimit=140, grid=True))
    cross = chart.mark_point(shape="cross", angle=45, filled=True, size=80, color=INK, opacity=1).encode(x=x, y=y)
    text = chart.mark_text(align="left", dx=11, color=MUTED, fontSize=12).encode(x=x, y=y, text="label:N")
    return cross + text


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
    rows = [row for n, v, t in runs for row in _line(n, v, t, measure, top, v.name == results.choice.variant)]
    cut = any((getattr(s, measure) or 0) > top for _, _, t in runs for s in t.steps)
    names = list(dict.fromkeys(_panel(n, v) for n, v, _ in runs))
    return Chart(
        id=f"curve-{measure.replace('_', '-')}",
        title=f"{title} per step",
        description=(
            f"{title} ({what}) at each optimizer step, one panel per variant and one line per seed; all panels share "
            f"their axes. A cross marks the last step of a training that stopped early."
        ),
        svg=_svg(_curves_spec(rows, names, top, 3), measure),
        narrow=_svg(_curves_spec(rows, names, top, 1), f"{measure}-narrow"),
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


def _line(
    number: int, variant: Outcome, training: Training, measure: str, top: float, best: bool
) -> list[dict[str, Any]]:
    known = [s for s in training.steps if isfinite(getattr(s, measure) or 0.0) and getattr(s, measure) is not None]
    rows = [
        {"panel": _panel(number, variant), "run": training.id + str(number), "step": s.step,
         "value": min(getattr(s, measure), top), "best": best, "end": False}
        for s in _thinned(known)
    ]  # fmt: skip
    if rows and training.status is not Status.SUCCEEDED:
        rows[-1]["end"] = True
    return rows


def _thinned(steps: Sequence[Step]) -> list[Step]:
    if len(steps) <= POINTS:
        return list(steps)
    stride = (len(steps) - 1) / (POINTS - 1)
    return [steps[round(n * stride)] for n in range(POINTS)]


def _curves_spec(rows: Sequence[dict[str, Any]], names: Sequence[str], top: float, columns: int) -> dict[str, Any]:
    import altair as alt

    base = alt.Chart(_data(rows))
    x = alt.X("step:Q", axis=alt.Axis(title="step", tickCount=4, grid=False, format="d"))
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(title=None, tickCount=3))
    lines = base.mark_line(strokeWidth=1.6).encode(
        x=x,
        y=y,
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
    return _configured((lines + ends).properties(width=306, height=95).facet(facet, columns=columns, spacing=18))


def _curve_table(runs: Sequence[tuple[int, Outcome, Training]], measure: str) -> Table:
    last = max(s.step for _, _, t in runs for s in t.steps)
    at = sorted({max(1, round(last * n / 10)) for n in range(11)})
    rows = []
    for n, variant, training in runs:
        values = {s.step: getattr(s, measure) for s in training.steps}
        seed = _seed_of(variant, training)
        cells = [number(values[s]) if s in values else "" for s in at]
        rows.append((str(n), variant.name, seed, *cells))
    return Table(("#", "Variant", "Seed", *(f"step {s}" for s in at)), tuple(rows))


def _seed_of(variant: Outcome, training: Training) -> str:
    place = variant.training.index(training)
    return str(variant.seeds[place]) if len(variant.training) == len(variant.seeds) else str(place + 1)


# --- drawing -----------------------------------------------------------------------------------------------------


def _data(rows: Sequence[dict[str, Any]]) -> Any:
    import altair as alt

    data: Any = alt.Data  # its constructor has no types
    return data(values=list(rows))


def _configured(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = (
        chart.configure(background="transparent", padding=_PADDING, font=_FONT, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED, titleColor=MUTED, gridColor=GRID, domainColor=GRID, tickColor=GRID, labelFontSize=12,
            titleFontSize=12, titleFontWeight="normal", titlePadding=8,
        )
        .configure_header(labelColor=INK, labelFontSize=12)
        .to_dict()
    )  # fmt: skip
    return spec


def _svg(spec: dict[str, Any], name: str) -> Markup:
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
