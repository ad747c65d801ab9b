"""Draw charts as inline SVG with Altair and vl-convert, in the colours of the page.

Charts are drawn in stand-in colours, which are then replaced by CSS variables. Therefore one drawing serves light mode,
dark mode and print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from markupsafe import Markup, escape

from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused
from harness.core.outside_text import visible

INK, MUTED, GRID, BASE, CHOSEN, OTHER = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06"
GOOD, BAD = "#0a0a07", "#0a0a08"
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "rule", BASE: "base", CHOSEN: "accent", OTHER: "other", GOOD: "pass", BAD: "fail",
}  # fmt: skip
_FONT = "system-ui, sans-serif"
_PADDING = {"left": 16, "right": 8, "top": 8, "bottom": 8}
"""Space around a chart in pixels, for text that is wider in the reader's font than in the font used for drawing."""
_STYLE = {
    "background": "transparent",
    "padding": _PADDING,
    "font": _FONT,
    "aria": False,
    "view": {"continuousWidth": 300, "continuousHeight": 300, "stroke": None},
    "axis": {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
    },
    "header": {"labelColor": INK, "labelFontSize": 12},
}  # fmt: skip
WIDE, NARROW = 940, 300
"""Widths of the trade-off charts in pixels, for wide and for narrow screens."""


_LIMITS = Limits(seconds=60, memory=-1)  # the drawing library reserves more address space than it uses


@dataclass(frozen=True)
class DataTable:
    """The numbers behind a chart, as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A chart: its drawings, and for screen readers a title, a description and the numbers as a table."""

    id: str
    title: str
    description: str
    svg: Markup
    narrow: Markup
    """The same chart, drawn for narrow screens."""
    table: DataTable
    note: str = ""
    narrow_note: str = ""


def data(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as Altair data. They are passed as text, because Altair would copy and check a list several times."""
    import altair as alt

    data: Any = alt.Data  # Its constructor is untyped.
    return data(**_inline(rows))


def _inline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"values": json.dumps(list(rows)), "format": {"type": "json"}}


def either(test: str, value: Any, otherwise: Any) -> dict[str, Any]:
    """Return arguments of an Altair channel: `value` where the expression `test` is true of a row, else `otherwise`."""
    return {"value": otherwise, "condition": {"test": test, "value": value}}


def layered(*charts: Any, **size: Any) -> dict[str, Any]:
    """Return the specification of Altair charts drawn over each other, or of such specifications.

    Altair's own layers and facets copy all of their charts several times, which takes most of a report's time.
    """
    return {"layer": [part(chart) for chart in charts if chart is not None], **size}


def part(chart: Any) -> dict[str, Any]:
    """Return the specification of an Altair chart as part of a larger one. An invalid one fails when it is drawn."""
    if isinstance(chart, dict):
        return chart
    spec: dict[str, Any] = chart.to_dict(validate=False, context={"top_level": False})
    if spec["data"] == {"name": "empty"}:  # what Altair writes for a chart without rows, which then takes the panel's
        del spec["data"]
    return spec


def faceted(spec: Mapping[str, Any], rows: Sequence[dict[str, Any]], panels: Sequence[str], **layout: int) -> Any:
    """Return a specification that draws `spec` once per panel, with the rows that name the panel in `panel`."""
    header = {"labelAnchor": "start", "labelFontSize": 12, "labelPadding": 4}
    facet = {"field": "panel", "type": "nominal", "sort": list(panels), "title": None, "header": header}
    return {"data": _inline(rows), "facet": facet, "spec": spec, **layout}


def configured(chart: Any) -> dict[str, Any]:
    """Return the complete specification of a chart, in the style of the page."""
    import altair as alt

    return {"$schema": alt.SCHEMA_URL, "config": _STYLE, **part(chart)}


def svg(spec: dict[str, Any], name: str) -> Markup:
    """Draw a specification. Ids get the prefix `name`, to be unique on the page; colours become variables."""
    try:
        drawn = _drawn(json.dumps(spec))
    except LimitReachedError as error:
        return _not_drawn(str(error))
    except ValueError as error:
        return _not_drawn(f"failed: {error}")
    # The drawing is one image with one title; if its parts had roles, each would need a title of its own.
    drawn = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", drawn)
    drawn = re.sub(r'\b(id="|url\(#)(\w+)', rf"\g<1>{name}-\g<2>", drawn)
    for stand_in, variable in _VARIABLES.items():
        drawn = drawn.replace(stand_in, f"var(--{variable})")
    drawn = re.sub(r"(\d+\.\d{2})\d+", r"\1", drawn)
    return Markup(drawn)


@lru_cache(maxsize=64)
def _drawn(spec: str) -> str:
    """Draw a specification, unless this process has just drawn it: a page that is shown again has the same charts.

    Raises:
        ValueError: it cannot be drawn.
        LimitReachedError: drawing it takes too long or crashes.
    """
    (found,) = _drawing().work(None, [spec])
    if isinstance(found, Refused):
        raise ValueError(found.reason)
    return str(found)


@cache
def _drawing() -> LimitedProcess:
    return LimitedProcess("harness.report.charts.drawing_process", _LIMITS)


def _not_drawn(why: str) -> Markup:
    """Return a picture that says why there is no chart. The numbers stand in the table behind it."""
    text = '<svg width="{0}" height="40" viewBox="0 0 {0} 40"><text x="0" y="24" fill="var(--ink)">{1}</text></svg>'
    return Markup(text).format(NARROW, f"This chart could not be drawn: drawing {why}.")


def titled(chart: Chart) -> Markup:
    """Return the wide and the narrow drawing, each with a title and a description for screen readers.

    The page shows the one that fits the screen.
    """
    drawings = (("wide", chart.svg, chart.id), ("narrow", chart.narrow, f"{chart.id}-narrow"))
    return Markup("").join(_titled(svg, id, kind, chart) for kind, svg, id in drawings)


def _titled(svg: Markup, id: str, kind: str, chart: Chart) -> Markup:
    inner = Markup("<title id='{0}-t'>{1}</title><desc id='{0}-d'>{2}</desc>").format(
        id, visible(chart.title), visible(chart.description)
    )
    role = "group" if "<a " in svg else "img"  # an image would hide its links
    head = f'<svg role="{role}" class="at-{kind}" aria-labelledby="{escape(id)}-t {escape(id)}-d" '
    plain = str(svg).replace(' class="marks"', "", 1)
    return Markup(re.sub(r"<svg ([^>]*>)", lambda m: head + m[1] + str(inner), plain, count=1))
