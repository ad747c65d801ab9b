"""Tests that a chart which cannot be drawn costs the picture only."""

from __future__ import annotations

import os
import signal
import time

import altair as alt

from harness.report.charts import drawing

SPECIFICATION = drawing.configured(alt.Chart(drawing.data([{"a": 1}])).mark_point().encode(x="a:Q"))


def test_a_crash_of_the_drawing_library_costs_the_picture() -> None:
    """If the process that draws crashes, the picture says so, and the next chart is drawn by a new process."""
    assert "could not be drawn" not in drawing.svg(SPECIFICATION, "chart")
    child = drawing._drawing()._child
    assert child is not None
    os.kill(child.pid, signal.SIGSEGV)
    time.sleep(0.2)
    other = SPECIFICATION | {"width": 77}
    assert "could not be drawn: drawing ended the process that ran it (signal 11)" in drawing.svg(other, "chart")
    assert "could not be drawn" not in drawing.svg(other, "chart")


def test_a_chart_with_a_mistake_costs_the_picture() -> None:
    """If a chart's specification cannot be drawn, the picture says so instead of ending the report."""
    assert "could not be drawn: drawing failed" in drawing.svg({"mark": 3}, "chart")
