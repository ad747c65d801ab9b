"""Tests of the chart of pass rates by epoch."""

from __future__ import annotations

from dataclasses import replace

from harness.core.run_results import EpochRates, Milestone, Timeline
from harness.core.scores import Rate
from harness.core.suite import Role
from harness.report.charts import epochs
from tests.support.report_runs import sample_run


def test_the_timeline_is_drawn() -> None:
    """If a run has a timeline, the report has a chart and a table of pass rates by epoch.

    It also lists which cases were learned and lost at which epoch.
    """
    whole = sample_run()
    name = whole.variants[3].name
    rates = tuple(EpochRates(n, {Role.LEARN: Rate(n, 3), Role.RETAIN: Rate(6 - n, 6)}) for n in (1, 2, 3))
    milestones = (Milestone("c000", Role.LEARN, 2.0, None), Milestone("c002", Role.RETAIN, None, 3.0))
    told = replace(whole, timelines=(Timeline(name, rates, milestones, 2.0),))
    chart = epochs.timelines(told)
    assert chart
    assert name in chart.svg
    assert chart.table.rows[1][:2] == (name, "2")
    [reached] = epochs.milestones(told)
    assert reached.enough == "2"
    assert reached.learned == ("epoch 2: 1 case (c000)",)
    assert reached.lost == ("epoch 3: 1 case (c002)",)
