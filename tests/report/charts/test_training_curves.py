"""Tests of charts of loss and gradient norm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.training_outcome import Status
from harness.report.charts import training_curves
from tests.support.report_runs import sample_run


def test_curves_show_mean_and_range() -> None:
    """A curve shows the mean and the range over seeds; the end of a training that diverged is marked."""
    whole = sample_run()
    sound, diverged = whole.variants[0], next(v for v in whole.variants if Status.DIVERGED in v.statuses)
    other = replace(sound.training[1], steps=tuple(replace(s, loss=(s.loss or 0) + 1) for s in sound.training[1].steps))
    rows = training_curves._lines(whole, 1, replace(sound, training=(sound.training[0], other)), "loss", 1e9)
    assert len(rows) == len(sound.training[0].steps)
    assert all(row["high"] - row["low"] == pytest.approx(1) for row in rows)
    assert all(row["value"] == pytest.approx((row["high"] + row["low"]) / 2) for row in rows)
    alone = training_curves._lines(whole, 1, diverged, "loss", 1e9)
    assert sum(row["end"] for row in alone) == len(diverged.training)


def test_each_row_names_its_seed() -> None:
    """The table behind a curve names the seed of each training, also if the trial of another seed was cancelled."""
    made = sample_run()
    first = replace(made.variants[0], seeds=(4, 7), statuses=(Status.CANCELLED, Status.SUCCEEDED))
    alone = replace(made, variants=(replace(first, training=first.training[1:]),))
    [loss, _] = training_curves.learning(alone)
    assert [row[2] for row in loss.table.rows] == ["7"]
    both = replace(made, variants=(replace(first, statuses=(Status.SUCCEEDED,) * 2),))
    [loss, _] = training_curves.learning(both)
    assert [row[2] for row in loss.table.rows] == ["4", "7"]
