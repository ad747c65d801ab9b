"""Charts of pass rate against training time, and against memory, with their Pareto fronts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log, log10
from statistics import median
from typing import Any

from harness.core.claims import gpu_of, machine_claim, probes
from harness.core.device_profiles import REFERENCE, profile_of
from harness.core.measurement import GIB, Basis, Measurement, Phase, PhaseCost
from harness.core.outside_text import visible
from harness.core.quantities import MIB, gib, quantity
from harness.core.run_results import Outcome, Results
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.report.charts.drawing import (  # fmt: skip
    BASE,
    CHOSEN,
    INK,
    MUTED,
    NARROW,
    OTHER,
    WIDE,
    Chart,
    DataTable,
    configured,
    data,
    either,
    layered,
    svg,
)
from harness.report.charts.learned_lost import MANY
from harness.report.charts.trade_off_points import BEST, ELIGIBLE, NOT_ELIGIBLE, Point, front, words
from harness.report.clusters import clustered
from harness.report.formatting import ABSENT, ALLOCATOR, counts, parameters, percent, status
from harness.report.pass_rates import ScoresByRole

NEAR = 0.5
"""The limit of the memory axis is drawn if a training needs at least this share of it."""
MARK = 6
"""Half the width of a mark, in pixels."""
LIFT = 4
"""Distance between a label and the Pareto front below it, in points of pass rate."""
SHAPES = {
    Basis.MEASURED: "circle",
    Basis.EMULATED: "diamond",
    Basis.PREDICTED: "square",
}


@dataclass(frozen=True)
class Axis:
    """The cost axis of a chart. `cost` returns the cost of a variant."""

    id: str
    title: str
    short: str
    against: str
    cost: Callable[[Outcome], Cost]
    log: bool
    tick: str
    """Vega expression for the labels of the axis."""
    limit: float | None = None
    limit_label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """The cost of a variant: its value on the axis, its text, and its source."""

    value: float | None
    shown: str
    basis: Basis = Basis.MEASURED
    device: str = ""
    probes: str = ""


def trade_offs(results: Results, scores: ScoresByRole) -> tuple[Chart, ...]:
    """Draw the pass rate on the objective against training time, and against memory."""
    return tuple(_chart(results, axis, scores) for axis in (_time(results), _memory(results)))


# --- axes --------------------------------------------------------------------------------------------------------


def on_cuda(variants: Sequence[Outcome]) -> bool:
    """Whether every training ran on a GPU, so that the cost axis can show GPU figures."""
    train = [cost for variant in variants if (cost := variant.cost(Phase.TRAIN))]
    return bool(train) and all(cost.on_gpu for cost in train)


def _time(results: Results) -> Axis:
    if on_cuda(results.variants):
        return Axis(
            "trade-off", "Training time (minutes)", "Minutes", "training time",
            lambda v: _cost(v, lambda train: train.seconds, 60.0), log=True, tick="datum.label",
        )  # fmt: skip
    return Axis(
        "trade-off", "Training work (trained tokens × trainable parameters)", "Tokens × parameters",
        "training work", lambda v: _work(results, v), log=True,
        # 200,000,000 is written as 200 M.
        tick="replace(replace(format(datum.value, '~s'), 'G', ' B'), 'M', ' M')",
        note="Time on a CPU says nothing about a GPU, so the axis is the amount of work.",
    )  # fmt: skip


def _memory(results: Results) -> Axis:
    machine = results.run.provenance.machine
    held = profile_of(machine) or REFERENCE
    if on_cuda(results.variants):
        return Axis(
            "memory-trade-off", f"Peak GPU memory of {ALLOCATOR} while training (GiB)", f"Peak of {ALLOCATOR} (GiB)",
            "GPU memory", lambda v: _cost(v, PhaseCost.peak, GIB), log=False, tick="datum.label",
            limit=held.memory_cap / GIB, limit_label=f"{held.title} {gib(held.memory_cap)}",
            note=f"The memory available to PyTorch on {gpu_of(machine)} is {gib(held.memory_cap)}: the dotted line, if "
            "that is near enough to be drawn. A training that ran out of memory needs more than its mark shows. The "
            f"whole GPU also holds a CUDA context. Figures {machine_claim(machine)}.",
        )  # fmt: skip
    return Axis(
        "memory-trade-off", "Peak main memory of the process while training (MiB)", "Peak memory (MiB)",
        "main memory", lambda v: _cost(v, lambda train: train.peak_resident, MIB), log=False,
        tick="datum.label",
        note="Main memory of a CPU run, including Python and libraries. It does not say how much a GPU would need.",
    )  # fmt: skip


def _cost(variant: Outcome, figure: Callable[[PhaseCost], Measurement], unit: float) -> Cost:
    train = variant.cost(Phase.TRAIN)
    if train is None:
        return Cost(None, ABSENT)
    found = figure(train)
    return Cost(found.value / unit, quantity(found), found.basis, found.device, probes(train))


def _work(results: Results, variant: Outcome) -> Cost:
    """Return the work of a training. If it stopped early, estimate the work of the whole training from its epochs."""
    tokens: float = variant.supervised_tokens
    if not _finished(variant) and variant.settings:
        whole = [v.supervised_tokens / v.settings.epochs for v in results.variants if _finished(v) and v.settings]
        tokens = median(whole) * variant.settings.epochs if whole else tokens
    work = tokens * variant.trainable_parameters
    return Cost(work or None, parameters(round(work)))


def _requested(variant: Outcome) -> float:
    """Return the bytes that a training would have held if its last allocation had succeeded; 0 if unknown."""
    short = [s for s in variant.shortages if s and s.requested]
    return max(((s.peak_allocated.value if s.peak_allocated else 0) + s.requested.value for s in short if s.requested),
               default=0.0)  # fmt: skip


def _finished(variant: Outcome) -> bool:
    return bool(variant.statuses) and all(s is Status.SUCCEEDED for s in variant.statuses)


# --- points ------------------------------------------------------------------------------------------------------


def _chart(results: Results, axis: Axis, scores: ScoresByRole) -> Chart:
    objective = results.choice.objective
    points = [_point(results, axis, objective, n, v, scores) for n, v in enumerate(results.variants, 1)]
    most = max((p.cost for p in points if p.cost is not None), default=0.0)
    if axis.limit and most < NEAR * axis.limit:
        axis = replace(axis, limit=None)
    unplaced = [p.name for p in points if p.cost is None]
    untrained = results.base_beside(results.choice.variant)
    base = untrained.rates.get(objective)
    height = base.value if base else None
    grouped = ", clustered by group" if clustered(results.run.suite) else ""
    model = untrained.name if results.bases else "base model"
    return Chart(
        id=axis.id,
        title=f"Pass rate on {objective} cases against {axis.against}",
        description=(
            f"One mark per variant, with its 95% interval{grouped}. Higher is better; further left is cheaper. "
            f"The dashed line is the {model} ({percent(base)}). {words(points, axis.against)} {axis.note}"
        ).strip(),
        svg=svg(_spec(points, axis, axis.title, height, WIDE), axis.id),
        narrow=svg(_spec(points, axis, axis.short, height, NARROW), f"{axis.id}-narrow"),
        table=DataTable(
            ("#", "Variant", axis.title, f"Pass rate on {objective}", "95% interval", "Result", "Basis"),
            tuple(
                (str(p.number), p.name, p.shown_cost, p.shown_quality, str(p.span or ""), p.kind, p.source)
                for p in points
            ),
        ),
        note=f"Not drawn, because they stopped before their cost was known: {', '.join(unplaced)}." if unplaced else "",
        narrow_note="The table of variants has the name of each number.",
    )


def _point(
    results: Results, axis: Axis, objective: Role, number: int, variant: Outcome, scores: ScoresByRole
) -> Point:  # fmt: skip
    rate, cost = variant.rates.get(objective), axis.cost(variant)
    failed = next((s for s in variant.statuses if s is not Status.SUCCEEDED), Status.SUCCEEDED)
    value = rate.value if rate else None
    kind = ELIGIBLE if variant.name in results.choice.eligible else NOT_ELIGIBLE
    kind = BEST if variant.name == results.choice.variant else kind
    if value is None:
        kind = status(failed) + (" (predicted)" if any(variant.predicted) else "")
    over = failed is Status.OUT_OF_MEMORY and value is None and axis.limit is not None
    place = max(_requested(variant) / GIB, cost.value or 0.0, axis.limit or 0.0) if over else cost.value
    shown = f"more than {place:.1f} GiB" if over else cost.shown
    shown_quality = f"{percent(rate)} ({counts(rate)})" if rate else ABSENT
    own = scores.get((variant.name, objective))
    # Without a cost, the training did not fit or stopped on the machine of the run, so the basis is that machine's.
    source = results.run.provenance.machine.basis if cost.value is None else cost.basis
    return Point(
        number, variant.name, place or None, shown, None if value is None else 100 * value, shown_quality, kind, failed,
        own.span if own and value is not None else None, Basis.PREDICTED if any(variant.predicted) else source,
        cost.device, cost.probes,
    )  # fmt: skip


# --- drawing -----------------------------------------------------------------------------------------------------


def _spec(points: Sequence[Point], axis: Axis, title: str, base: float | None, width: int) -> dict[str, Any]:
    import altair as alt

    placed = [p for p in points if p.cost is not None]
    if width == NARROW and any(p.quality is None for p in placed):
        width -= 66  # Space for the statuses, left of the axis.
    domain = _domain([p.cost for p in placed if p.cost is not None], axis)
    scale = alt.Scale(type="log" if axis.log else "linear", domain=domain, nice=False, zero=False)
    ticks = alt.Axis(title=title, grid=False, labelExpr=axis.tick, tickCount=8 if width > NARROW else 4)
    if axis.log:
        ticks = alt.Axis(title=title, grid=False, labelExpr=axis.tick, values=_ticks(domain))
    x = alt.X("cost:Q", scale=scale, axis=ticks)
    done, stopped = [p for p in placed if p.quality is not None], [p for p in placed if p.quality is None]
    over = x.axis(alt.Axis(labels=False, ticks=False, grid=False, title=None)) if stopped else x
    layers = [
        *(_front(line, over) for line in front(done)), _spans(done, over), _points(done, over),
        _limit(axis, over, labelled=True), _base_line(base, domain, over),
        _names(labels(done, domain, base, width, axis.log), over),
    ]  # fmt: skip
    upper = layered(*layers, width=width, height=300)
    if not stopped:
        return configured(upper)
    return configured({"vconcat": [upper, _stopped(stopped, x, width, axis)], "spacing": 14})


def _domain(costs: Sequence[float], axis: Axis) -> list[float]:
    """Return the bounds of the cost axis, including the limit, with space on the right for labels."""
    known = [*costs, *([axis.limit] if axis.limit else [])] or [1.0, 10.0]
    low, high = min(known), max(known)
    if axis.log:
        return [low / 1.35, high * (2.4 if high > 3 * low else 1.5)]
    room = max(high - low, 0.02 * high)
    return [max(0.0, low - 0.1 * room), high + 0.3 * room]


def _ticks(domain: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times each power of ten on the axis, or only the powers if more than four are needed."""
    first, last = floor(log10(domain[0])), ceil(log10(domain[1]))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [value for value in found if domain[0] <= value <= domain[1]]


def _y(field: str = "quality:Q") -> Any:
    import altair as alt

    ticks = alt.Axis(values=[0, 25, 50, 75, 100], labelExpr="datum.value + '%'", title=None)
    return alt.Y(field, scale=alt.Scale(domain=[0, 104], nice=False), axis=ticks)


def _points(points: Sequence[Point], x: Any) -> Any:
    """Draw one mark per variant: filled if it is eligible, otherwise hollow. The shape shows the basis of its cost."""
    import altair as alt

    rows = [
        {
            "cost": p.cost,
            "quality": p.quality,
            "basis": p.basis.value,
            "best": p.kind == BEST,
            "full": p.eligible,
        }
        for p in points
    ]
    shape = alt.Scale(domain=[basis.value for basis in SHAPES], range=list(SHAPES.values()))
    colour = alt.ColorValue(**either("datum.best", CHOSEN, OTHER))
    base = alt.Chart(data(rows)).encode(
        x=x,
        y=_y(),
        shape=alt.Shape("basis:N", scale=shape, legend=None),
        size=alt.SizeValue(**either("datum.best", 150, 70)),
    )
    full = base.transform_filter("datum.full").mark_point(filled=True, opacity=1).encode(color=colour)
    hollow = base.transform_filter("!datum.full").mark_point(filled=False, opacity=1, strokeWidth=2)
    return layered(full, hollow.encode(color=colour))


def _spans(points: Sequence[Point], x: Any) -> Any:
    import altair as alt

    rows = [{"cost": p.cost, "low": 100 * p.span.low, "high": 100 * p.span.high} for p in points if p.span]
    if not rows:
        return None
    rule = alt.Chart(data(rows)).mark_rule(color=OTHER, strokeWidth=1.2, opacity=0.7)
    return rule.encode(x=x, y=_y("low:Q"), y2=alt.Y2("high:Q"))


def _front(line: Sequence[Point], x: Any) -> Any:
    import altair as alt

    rows = [{"cost": p.cost, "quality": p.quality} for p in line]
    return alt.Chart(data(rows)).mark_line(interpolate="step-after", color=CHOSEN, strokeWidth=1.5).encode(x=x, y=_y())


def _limit(axis: Axis, x: Any, *, labelled: bool) -> Any:
    import altair as alt

    if axis.limit is None:
        return None
    row = data([{"cost": axis.limit, "quality": 6, "label": axis.limit_label}])
    rule = alt.Chart(row).mark_rule(strokeDash=[2, 3], color=INK, strokeWidth=1.5).encode(x=x)
    name = alt.Chart(row).mark_text(align="right", dx=-6, color=INK, fontSize=12)
    return layered(rule, name.encode(x=x, y=_y(), text=alt.Text("label:N"))) if labelled else rule


def _base_line(base: float | None, domain: Sequence[float], x: Any) -> Any:
    import altair as alt

    if base is None:
        return None
    row = data([{"quality": 100 * base, "label": f"base {100 * base:.0f}%", "cost": domain[1]}])
    rule = alt.Chart(row).mark_rule(strokeDash=[5, 4], color=BASE, strokeWidth=1.5).encode(y=_y())
    name = alt.Chart(row).mark_text(align="right", dy=-7, color=BASE, fontSize=12)
    return layered(rule, name.encode(x=x, y=_y(), text=alt.Text("label:N")))


def _names(shown: Sequence[dict[str, Any]], x: Any) -> Any:
    import altair as alt

    if not shown:
        return None
    chart = alt.Chart(data(shown))
    return chart.mark_text(align="left", dx=11, fontSize=12).encode(
        x=x,
        y=_y(),
        text=alt.Text("label:N"),
        color=alt.ColorValue(**either("datum.best", CHOSEN, MUTED)),
    )


def labels(
    points: Sequence[Point], domain: Sequence[float], base: float | None, width: int, logarithmic: bool = True
) -> list[dict[str, Any]]:
    """Place a label beside each mark (of many, the best one and the Pareto front's), off other labels and marks."""
    taken = [] if base is None else [_base_label(100 * base, width)]
    lines = {point.number for line in front(points) for point in line}
    places = {point.number: _place(point.cost or domain[0], domain, logarithmic) for point in points}
    beside, half = {p.number: p.quality or 0 for p in points}, MARK / width
    marks = {n: _Box(at - half, at + half, beside[n]) for n, at in places.items()}
    found = []
    for point in sorted(points, key=lambda p: (p.kind != BEST, -(p.quality or 0), p.number)):
        if len(points) > MANY and point.kind != BEST and point.number not in lines:
            continue
        text, left = _label(point, len(points), width), places[point.number]
        wanted = (point.quality or 0) + (LIFT if point.number in lines else 0)  # The front continues to the right.
        others = [mark for number, mark in marks.items() if number != point.number]
        box = _free(left + 2 * MARK / width, left + (len(text) * 6.6 + 24) / width, wanted, base, [*taken, *others])
        taken.append(box)
        found.append({"cost": point.cost, "quality": box.at, "label": visible(text), "best": point.kind == BEST})
    return found


def _place(cost: float, domain: Sequence[float], logarithmic: bool) -> float:
    """Return the position of a cost on the axis, as a share of the width."""
    if logarithmic:
        return log(cost / domain[0]) / log(domain[1] / domain[0])
    return (cost - domain[0]) / (domain[1] - domain[0])


@dataclass(frozen=True)
class _Box:
    """Place of a label: `left` and `right` as shares of the width, `at` as a pass rate in percent."""

    left: float
    right: float
    at: float

    def covers(self, other: _Box) -> bool:
        return self.left < other.right and other.left < self.right and abs(self.at - other.at) < 5


def _label(point: Point, among: int, width: int) -> str:
    """Return the name of the variant, or its number if the chart is narrow or has many variants."""
    named = width > NARROW and (among <= 14 or point.kind == BEST)
    return point.name if named else f"#{point.number}"


def _base_label(at: float, width: int) -> _Box:
    return _Box(1 - 64 / width, 1, at + 2.5)


def _free(left: float, right: float, wanted: float, base: float | None, taken: Sequence[_Box]) -> _Box:
    """Return the place nearest to the height `wanted` that is free: inside the chart and off the base model's line.

    If no place is free, return the place at `wanted`.
    """
    steps = sorted(range(-60, 61), key=lambda step: (abs(step), step))
    boxes = [_Box(left, right, wanted + step) for step in steps if 2 <= wanted + step <= 102]
    clear = (
        box
        for box in boxes
        if (base is None or abs(box.at - 100 * base) >= 3) and not any(box.covers(other) for other in taken)
    )
    return next(clear, _Box(left, right, wanted))


def _stopped(points: Sequence[Point], x: Any, width: int, axis: Axis) -> Any:
    import altair as alt

    rows = [
        {"cost": p.cost, "kind": p.kind, "label": visible(_label(p, len(points), width)),
         "run": p.basis is not Basis.PREDICTED}
        for p in points
    ]  # fmt: skip
    chart = alt.Chart(data(rows))
    order = [status(s) + basis for s in Status for basis in ("", " (predicted)")]
    y = alt.Y("kind:N", sort=order, axis=alt.Axis(title=None, ticks=False, domain=False, labelLimit=140, grid=True))
    cross = chart.mark_point(angle=45, filled=True, size=80, color=INK, opacity=1).encode(
        x=x, y=y, shape=alt.ShapeValue(**either("datum.run", "cross", SHAPES[Basis.PREDICTED]))
    )
    text = chart.mark_text(align="left", dx=11, color=MUTED, fontSize=12).encode(x=x, y=y, text=alt.Text("label:N"))
    return layered(_limit(axis, x, labelled=False), cross, text, width=width, height={"step": 24})
