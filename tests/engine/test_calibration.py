"""The benchmarks of a calibration time real training steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.device_profiles import Speed
from harness.core.machine import Timing
from harness.engine.calibration import BENCHMARKS, timings
from harness.models.resolving import POCKET
from tests.support.short_trainings import one_core
from tests.support.timed_steps import step_seconds


@pytest.mark.slow
def test_real_steps_are_timed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each benchmark trains a model and reports a time, which is longer for longer rows, and prints nothing.

    The test runs on a CPU, with small layers.
    """
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    wanted = [Timing("tiny", 2, 1, 8), Timing("tiny", 2, 8, 256)]
    reported: list[Timing] = []
    found = timings(one_core(), tmp_path, POCKET, reported.append, wanted)
    assert reported == found
    assert [replace(each, seconds=0.0) for each in found] == wanted
    assert 0 < found[0].seconds < found[1].seconds
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("floor", "flops", "rows"), [(0.4, 12e12, ()), (0.09, 300e12, (16,)), (0.09, 1e18, (16, 32, 64))]
)
def test_a_fast_gpu_is_given_more_rows(tmp_path: Path, floor: float, flops: float, rows: tuple[int, ...]) -> None:
    """The rows of the last benchmark are doubled until a step takes twice the shortest time, up to a limit.

    On a fast GPU, the speed of matrix products shows only then; on a T4, no doubling is needed.
    """
    speed = Speed(update=floor, launch=0, dequantise=0, flops=flops)
    reported: list[Timing] = []
    found = timings(
        one_core(), tmp_path, POCKET, reported.append,
        make=lambda *_: None, measure=lambda _, each: replace(each, seconds=step_seconds(each, speed)),
    )  # fmt: skip
    assert reported == found
    assert tuple(each.rows for each in found[len(BENCHMARKS) :]) == rows
