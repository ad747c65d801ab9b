"""Tests of charts of pass rate against time and memory, and their Pareto fronts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from harness.core import device_profiles
from harness.core.measurement import GIB, Basis
from harness.core.training_outcome import Status
from harness.hardware.environment import machine as machine_of
from harness.hardware.gpu import Gpu
from harness.report.charts import trade_off
from harness.report.charts.drawing import NARROW, WIDE
from harness.report.charts.trade_off import labels, trade_offs
from harness.report.charts.trade_off_points import BEST, ELIGIBLE, NOT_ELIGIBLE, Point, front, words
from harness.report.pass_rates import scores_by_role
from tests.support.report_runs import sample_run


def point(name: str, cost: float, quality: float, kind: str = ELIGIBLE, basis: Basis = Basis.MEASURED) -> Point:
    return Point(1, name, cost, "", quality, "", kind, Status.SUCCEEDED, None, basis, "GPU")


def test_each_basis_has_its_own_front() -> None:
    """Measured and predicted costs have separate Pareto fronts, which leave out variants that are not eligible."""
    lines = front(
        [
            point("cheap", 1, 50), point("dear", 3, 80), point("worse", 2, 40), point("unsafe", 1, 99, NOT_ELIGIBLE),
            point("predicted", 0.5, 60, basis=Basis.PREDICTED),
        ]
    )  # fmt: skip
    assert [[p.name for p in line] for line in lines] == [["cheap", "dear"], ["predicted"]]


def test_half_the_cost_is_put_into_words() -> None:
    """The text says what the best eligible variant passes at half the cost of the chosen one, or that there is none."""
    best, half = point("best", 2, 80, BEST), point("half", 1, 70)
    unlike = (point("unsafe", 1, 90, NOT_ELIGIBLE), point("other", 1, 90, basis=Basis.PREDICTED))
    said = words([best, half, point("less", 0.5, 60), *unlike], "training time")
    assert "With half the training time of best or less, half passes most" in said
    assert "70% instead of 80%" in said
    assert "No eligible variant needs half the memory of best or less." in words([best, *unlike], "memory")
    assert "half" not in words([point("eligible", 1, 70)], "memory")


def test_each_basis_has_its_own_mark() -> None:
    """Measured, emulated and predicted costs have marks of different shapes."""
    assert len(set(trade_off.SHAPES.values())) == len(Basis)


def test_the_t4_line_is_where_trials_are_capped() -> None:
    """The memory chart's limit for a T4 is the memory to which the profile `t4` limits a larger GPU."""
    held = machine_of(device_profiles.T4, ask=lambda: Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB))
    assert held.memory_cap is not None
    assert trade_off._memory(sample_run("cuda")).limit == held.memory_cap / GIB


def test_out_of_memory_is_drawn_at_the_limit() -> None:
    """If a variant ran out of memory, the chart shows it at the limit, and the table says that it needs more."""
    whole = sample_run("cuda")
    name = next(v.name for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses)
    _, memory = trade_offs(whole, scores_by_role(whole, whole.samples))
    row = next(row for row in memory.table.rows if row[1] == name)
    assert row[2].startswith("more than")
    assert row[5] == "Out of memory"
    assert name in memory.svg


def test_a_stopped_training_is_drawn_at_its_whole_work() -> None:
    """If a variant diverged, the chart shows it at the work of its whole training, not at the work until it stopped."""
    whole = sample_run()
    work, _ = trade_offs(whole, scores_by_role(whole, whole.samples))
    shown = {row[1]: row[2] for row in work.table.rows}
    diverged = next(v for v in whole.variants if Status.DIVERGED in v.statuses)
    sound = next(v for v in whole.variants if v.trainable_parameters == diverged.trainable_parameters and v.rates)
    assert diverged.supervised_tokens < sound.supervised_tokens
    assert shown[diverged.name] == shown[sound.name]


def test_predictions_have_their_own_mark() -> None:
    """If a variant was only predicted to run out of memory, its mark is different, and the table says predicted."""
    whole = sample_run("cuda")
    failed = next(v for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses)
    others = tuple(
        replace(v, bases=(Basis.PREDICTED,) * 2, costs=failed.costs) if v is failed else v for v in whole.variants
    )
    told = replace(whole, variants=others)
    _, memory = trade_offs(told, scores_by_role(told, told.samples))
    row = next(row for row in memory.table.rows if row[1] == failed.name)
    assert row[5] == "Out of memory (predicted)"
    assert row[6] == "predicted"
    _, tried = trade_offs(whole, scores_by_role(whole, whole.samples))
    assert memory.svg.count("<path") == tried.svg.count("<path")
    assert memory.svg != tried.svg


def test_labels_of_the_trade_off_do_not_overlap() -> None:
    """If several marks are at the same place, their labels do not overlap each other or the base model's label."""
    point = Point(1, "lr=1e-3 r=2", 1e6, "1 M", 0.0, "0%", ELIGIBLE, Status.SUCCEEDED)
    points = [replace(point, number=n, cost=cost) for n, cost in enumerate((1e6, 1e6, 1e6, 9e6), 1)]
    many = [replace(point, number=n, quality=float(n), span=None) for n in range(1, 50)]
    assert [each["label"] for each in labels(many, (1e6, 1e7), 0.0, WIDE)] == ["#49"]
    for width in (WIDE, NARROW):
        heights = [label["quality"] for label in labels(points, (1e6, 1e7), 0.0, width)]
        assert min(heights) >= 2
        assert all(abs(a - b) >= 5 for a, b in combinations(heights[:3], 2))
        assert heights[3] >= 7
