"""Chart of what each variant learned against what it lost, with intervals and the suite's margin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from harness.core.outside_text import visible
from harness.core.quantities import interval, points, upper_bound
from harness.core.run_results import Outcome, Results
from harness.report.charts.drawing import (  # fmt: skip
    BAD,
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
from harness.report.formatting import ABSENT

ID = "learned-lost"
HEIGHT = 340
DECIDES = (
    "Whether a loss is below it is decided by a one-sided upper bound, drawn as a tick: at 95% confidence for the "
    "choice, at 80% for the confirmation."
)
RESULT_OF_BASE = {"chosen": "recommended", "eligible": "confirmed", "not eligible": "not confirmed"}
"""What each kind of mark means on the chart of several bases."""
_Box = tuple[float, float, float, float]
"""A place on the drawing in pixels: left, lower end, right and upper end."""
MANY = 30
"""With more variants than this, only the chosen one and the next one to try have a label and intervals."""


@dataclass(frozen=True)
class Mark:
    """One variant on the chart, in points: its gain on the objective, and its net loss, with 95% intervals."""

    number: int
    name: str
    gain: float
    gain_low: float
    gain_high: float
    loss: float
    loss_low: float | None
    loss_high: float | None
    kind: str
    """`chosen`, `eligible`, `not eligible` or, for the chosen variant on its held-out cases, `held out`."""
    next: bool = False
    """Whether the next trial starts from this variant."""
    bound: float | None = None
    """The one-sided upper bound of the loss that decides: at 95% for the choice, at 80% for the confirmation."""
    at: tuple[float, float] = (0.0, 0.0)
    """Where the mark is drawn, as (loss, gain): moved a little if another mark is at the same place."""


def learned_lost(results: Results, next_from: str) -> Chart | None:
    """Draw the chart; None if no variant has both a gain and a loss. `next_from`: where the next trial starts."""
    marks = _dodged(_marks(results, next_from))
    if not marks:
        return None
    objective, margin = results.choice.objective, results.run.suite.margin
    upwards = f"gained on {objective} (points) →"
    held_out = any(mark.kind == "held out" for mark in marks)
    left_out = [v.name for v in results.variants if v.name not in {mark.name for mark in marks}]
    return Chart(
        id=ID,
        title="What each variant learned, and what it lost",
        description=(
            f"One mark per variant. Upwards: points gained on {objective} cases. To the right: points lost on retain "
            "and avoid cases, of what the base passes; left of 0, a net gain. The dashed line is the suite's margin "
            f"of {margin:g} points. {DECIDES} Bars are two-sided 95% intervals"
            f"{'' if len(marks) <= MANY else ', drawn for the chosen variant only'}: a bar may cross the line although "
            "the bound does not. Best is the upper left. "
            f"{'The diamond is the chosen variant on held-out cases, under fresh seeds. ' if held_out else ''}"
            "A mark links to its row in the table of variants."
        ),
        svg=_linked(svg(_spec(marks, margin, upwards, WIDE), ID), marks),
        narrow=_linked(svg(_spec(marks, margin, upwards, NARROW), f"{ID}-narrow"), marks),
        table=DataTable(
            ("#", "Variant", f"Gain on {objective} (points)", "95% interval", "Net loss (points)", "95% interval",
             "Bound that decides", "Result"),
            tuple(_numbers(mark) for mark in marks),
        ),
        note=f"Not drawn, because they have no answers to compare: {_few(left_out)}." if left_out else "",
        narrow_note="The table of variants has the name of each number.",
    )  # fmt: skip


def of_bases(marks: Sequence[Mark], results: Results) -> Chart:
    """Draw what the best variant of each base model passes, against what it lost. `results` are those of one run."""
    objective, margin = results.choice.objective, results.run.suite.margin
    marks = _dodged(marks)
    wide, narrow = (
        _linked(svg(_spec(marks, margin, f"{objective} cases passed (%) →", width), name), marks, _told_of_base)
        for width, name in ((WIDE, "bases"), (NARROW, "bases-narrow"))
    )
    return Chart(
        id="bases",
        title="What each base passes after training, and what it lost",
        description=(
            f"One mark per base model: its best variant. Upwards: the share of {objective} cases that pass after "
            "training. To the right: points lost on retain and avoid cases, of what the base passes. Filled marks are "
            f"confirmed; the large blue one is recommended. The dashed line is the suite's margin of {margin:g} "
            f"points. {DECIDES} Bars are two-sided 95% intervals: a bar may cross the line although the bound does not."
        ),
        svg=wide,
        narrow=narrow,
        table=DataTable(
            ("#", "Base", f"{objective} passed (%)", "95% interval", "Net loss (points)", "95% interval",
             "Bound that decides", "Result"),
            tuple((*_numbers(mark)[:-1], RESULT_OF_BASE[mark.kind]) for mark in marks),
        ),
        narrow_note="The numbers are those of the bases in the table above.",
    )  # fmt: skip


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _numbers(mark: Mark) -> tuple[str, ...]:
    return (
        str(mark.number), mark.name, points(mark.gain), interval(mark.gain_low, mark.gain_high), points(mark.loss),
        interval(mark.loss_low, mark.loss_high), ABSENT if mark.bound is None else upper_bound(mark.bound), mark.kind,
    )  # fmt: skip


def _marks(results: Results, next_from: str) -> list[Mark]:
    found = [
        mark
        for n, variant in enumerate(results.variants, 1)
        if (mark := _mark(results, n, variant, _kind(results, variant)))
    ]
    found = [replace(mark, next=mark.name == next_from) for mark in found]
    again = results.confirmed
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    if again and again.name in numbers and (mark := _mark(results, numbers[again.name], again, "held out")):
        found.append(replace(mark, bound=deciding_bound(results, again, held_out=True)))
    return found


def deciding_bound(results: Results, variant: Outcome, *, held_out: bool) -> float | None:
    """Return the one-sided upper bound of the loss that is compared with the margin; None if there is none."""
    if held_out:
        return results.choice.confirmation.upper if results.choice.confirmation else None
    return variant.loss.upper if variant.loss else None


def _kind(results: Results, variant: Outcome) -> str:
    if variant.name == results.choice.variant:
        return "chosen"
    return "eligible" if variant.name in results.choice.eligible else "not eligible"


def _mark(results: Results, number: int, variant: Outcome, kind: str) -> Mark | None:
    change, loss = variant.changes.get(results.choice.objective), variant.loss
    if change is None or loss is None or loss.points is None:
        return None
    return Mark(
        number, variant.name, change.points, change.low, change.high, loss.points, loss.low, loss.high, kind,
        bound=deciding_bound(results, variant, held_out=False), at=(loss.points, change.points),
    )  # fmt: skip


def _dodged(marks: Sequence[Mark]) -> list[Mark]:
    """Move marks that would cover each other to the right, one after another."""
    width = max((m.loss for m in marks), default=0.0) - min((m.loss for m in marks), default=0.0)
    step, taken = max(width, 10.0) / 70, set[tuple[int, int]]()
    found = []
    for mark in marks:
        x, y = mark.at
        while (round(x / step), round(y / 2)) in taken:
            x += step
        taken.add((round(x / step), round(y / 2)))
        found.append(replace(mark, at=(x, y)))
    return found


# --- drawing -----------------------------------------------------------------------------------------------------


def _spec(marks: Sequence[Mark], margin: float, upwards: str, width: int) -> dict[str, Any]:
    import altair as alt

    spread = marks if len(marks) <= MANY else [m for m in marks if m.kind in ("chosen", "held out")]
    lows = [m.loss_low if m.loss_low is not None else m.loss for m in spread] + [m.at[0] for m in marks]
    highs = [m.loss_high if m.loss_high is not None else m.loss for m in spread] + [m.at[0] for m in marks]
    left, right = max(-60.0, min([*lows, 0.0])), min(115.0, max([*highs, margin]))
    room = (right - left) * (0.04 if width > NARROW else 0.08)
    across = [left - room, right + (room * 4 if width > NARROW else room * 2)]
    bottom = min([*(m.gain_low for m in spread), *(m.gain for m in marks), 0.0])
    top = max([*(m.gain_high for m in spread), *(m.gain for m in marks), 10.0])
    up = [bottom - 4, top + 6]
    x = alt.X("x:Q", scale=alt.Scale(domain=across, nice=False, clamp=True),
              axis=alt.Axis(title=_across_title(width), grid=False, tickCount=8 if width > NARROW else 4))  # fmt: skip
    y = alt.Y("y:Q", scale=alt.Scale(domain=up, nice=False, clamp=True),
              axis=alt.Axis(title=upwards, tickCount=6))  # fmt: skip
    rows = [
        {"x": m.at[0], "y": m.at[1], "kind": m.kind, "next": m.next, "href": f"#variant-{m.number}",
         "low": m.gain_low, "high": m.gain_high, "left": m.loss_low if m.loss_low is not None else across[0],
         "right": m.loss_high if m.loss_high is not None else across[1], "bound": m.bound, "spread": m in spread}
        for m in marks
    ]  # fmt: skip
    chart = alt.Chart(data(rows))
    strong = "datum.kind === 'chosen' || datum.kind === 'held out'"
    colour = alt.ColorValue(**either(strong, CHOSEN, OTHER))
    faint = alt.OpacityValue(**either(strong, 0.9, 0.45))
    thick = alt.StrokeWidthValue(**either(strong, 1.8, 1))
    spans = chart.transform_filter("datum.spread")
    upright = spans.mark_rule().encode(
        x=x, y=_as(y, "low"), y2=alt.Y2("high:Q"), color=colour, opacity=faint, strokeWidth=thick
    )
    flat = spans.mark_rule().encode(
        x=_as(x, "left"), x2=alt.X2("right:Q"), y=y, color=colour, opacity=faint, strokeWidth=thick
    )
    ticks = spans.transform_filter("datum.bound !== null").mark_tick(orient="vertical", size=13, thickness=2.5)
    bounds = ticks.encode(x=_as(x, "bound"), y=y, color=colour, opacity=alt.OpacityValue(1))
    size = alt.SizeValue(**either("datum.kind === 'chosen'", 170, 80))
    dots = chart.encode(x=x, y=y, size=size, href=alt.Href("href:N"))
    full = dots.transform_filter("datum.kind === 'chosen' || datum.kind === 'eligible'")
    hollow = dots.transform_filter("datum.kind === 'not eligible'")
    layers = [
        _line(0.0, across, up, x, y), flat, upright, bounds, _margin(margin, up, x, y),
        chart.transform_filter("datum.next").mark_point(size=420, strokeWidth=2, strokeDash=[3, 2], color=CHOSEN,
                                                        opacity=1).encode(x=x, y=y),
        full.mark_point(filled=True, opacity=1).encode(color=colour),
        hollow.mark_point(filled=False, opacity=1, strokeWidth=2).encode(color=colour),
        dots.transform_filter("datum.kind === 'held out'").mark_point(shape="diamond", filled=True, opacity=1, size=150,
                                                                      color=CHOSEN).encode(x=x, y=y),
        _labels(marks, across, up, width, x, y),
    ]  # fmt: skip
    return configured(layered(*layers, width=width, height=HEIGHT))


def _across_title(width: int) -> str:
    long = "lost of what the base passes on retain and avoid cases (points) →"
    return long if width > NARROW else "lost (points) →"


def _as(channel: Any, field: str) -> Any:
    found = channel.copy()
    found.shorthand = f"{field}:Q"
    return found


def _line(at: float, across: Sequence[float], up: Sequence[float], x: Any, y: Any) -> Any:
    import altair as alt

    rows = [{"x": at, "y": up[0], "x2": at, "y2": up[1]}, {"x": across[0], "y": at, "x2": across[1], "y2": at}]
    return (
        alt.Chart(data(rows)).mark_rule(color=MUTED, opacity=0.5).encode(x=x, y=y, x2=alt.X2("x2:Q"), y2=alt.Y2("y2:Q"))
    )


def _margin(margin: float, up: Sequence[float], x: Any, y: Any) -> Any:
    import altair as alt

    row = data([{"x": margin, "y": up[0], "top": up[1], "label": f"margin {margin:g}"}])
    rule = alt.Chart(row).mark_rule(color=BAD, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y, y2=alt.Y2("top:Q"))
    name = (
        alt.Chart(row)
        .mark_text(align="left", dx=5, dy=8, color=BAD, fontSize=12)
        .encode(x=x, y=_as(y, "top"), text=alt.Text("label:N"))
    )
    return layered(rule, name)


def _labels(
    marks: Sequence[Mark], across: Sequence[float], up: Sequence[float], width: int, x: Any, y: Any
) -> Any:  # fmt: skip
    import altair as alt

    chart = alt.Chart(data(_placed(marks, across, up, width)))
    return chart.mark_text(align="left", fontSize=12, baseline="middle").encode(
        x=x, y=y, text=alt.Text("label:N"), color=alt.ColorValue(**either("datum.strong", CHOSEN, INK))
    )


def _placed(marks: Sequence[Mark], across: Sequence[float], up: Sequence[float], width: int) -> list[dict[str, Any]]:
    """Return the labels with a place each: beside its mark, moved up or down so that no two overlap."""
    wide, high = width / (across[1] - across[0]), HEIGHT / (up[1] - up[0])
    taken = [(m.at[0] * wide - 7, m.at[1] * high - 7, m.at[0] * wide + 7, m.at[1] * high + 7) for m in marks]
    bars = [
        bar for m in marks if len(marks) <= MANY or m.kind in ("chosen", "held out") for bar in _bars(m, wide, high)
    ]
    found = []
    for mark in sorted(marks, key=lambda m: (m.kind != "chosen", m.kind != "held out", not m.next)):
        if len(marks) > MANY and not (mark.kind in ("chosen", "held out") or mark.next):
            continue
        text = _label(mark, width)
        size, at = len(text) * 6.7, mark.at[0] * wide
        beside = [(abs(step) + 1.5 * (side < 0), step, side) for step in range(-5, 6) for side in (1, -1)]
        boxes = []
        for _, step, side in sorted(beside):
            left, middle = (at + 12 if side > 0 else at - 12 - size), mark.at[1] * high + 9 * step
            box = (left, middle - 7, left + size, middle + 7)
            inside = up[0] * high + 6 < middle < up[1] * high - 6 and across[0] * wide < left < across[1] * wide - size
            if inside and not any(_overlap(box, other) for other in taken):
                boxes.append(box)
        if not boxes:
            continue
        # If a bar strikes every place, the label stands on a bar.
        box = next((box for box in boxes if not any(_overlap(box, bar) for bar in bars)), boxes[0])
        left, middle = box[0], (box[1] + box[3]) / 2
        taken.append(box)
        strong = mark.kind in ("chosen", "held out")
        found.append({"x": left / wide, "y": middle / high, "label": visible(text), "strong": strong})
    return found


def _bars(mark: Mark, wide: float, high: float) -> list[_Box]:
    """Return the places of a mark's two bars and of its tick, in pixels."""
    x, y = mark.at[0] * wide, mark.at[1] * high
    left = -math.inf if mark.loss_low is None else mark.loss_low * wide
    right = math.inf if mark.loss_high is None else mark.loss_high * wide
    found = [(left, y - 1, right, y + 1), (x - 1, mark.gain_low * high, x + 1, mark.gain_high * high)]
    if mark.bound is not None:
        found.append((mark.bound * wide - 2, y - 7, mark.bound * wide + 2, y + 7))
    return found


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _label(mark: Mark, width: int) -> str:
    if mark.kind == "held out":
        return "held-out cases, fresh seeds" if width > NARROW else "held out"
    name = mark.name if width > NARROW else f"#{mark.number}"
    return name if len(name) <= 34 else name[:33] + "…"


def _linked(drawing: Markup, marks: Sequence[Mark], told: Callable[[Mark], str] | None = None) -> Markup:
    """Make the marks' links lead to rows of the table of variants, and give each the text of its mark."""
    texts = {f"#variant-{mark.number}": (told or _told)(mark) for mark in reversed(marks)}

    def link(found: re.Match[str]) -> str:
        return str(Markup('<a href="{0}"><title>{1}</title>').format(found[1], texts[found[1]]))

    return Markup(re.sub(r'<a [^>]*?(#variant-\d+)"[^>]*>', link, str(drawing)))


def _told(mark: Mark) -> str:
    return visible(
        f"#{mark.number} {mark.name}: gained {points(mark.gain)}, lost {points(mark.loss)} points, {mark.kind}"
    )


def _told_of_base(mark: Mark) -> str:
    return visible(
        f"#{mark.number} {mark.name}: passes {points(mark.gain)}%, lost {points(mark.loss)} points, "
        f"{RESULT_OF_BASE[mark.kind]}"
    )
