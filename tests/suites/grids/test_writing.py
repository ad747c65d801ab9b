"""Tests of grids that are written from complete settings."""

from __future__ import annotations

import pytest

from harness.core.settings import Quantization, Scheduler, Settings
from harness.suites.grids import parse_plan
from harness.suites.grids.writing import GridRow, grid_text
from tests.support.synthetic_runs import HOSTILE

SETTINGS = {
    "plain": Settings(),
    "numbers": Settings(4.5e-4, epochs=2.5, warmup=10, weight_decay=1e-5, rehearsal=60),
    "words": Settings(scheduler=Scheduler.COSINE, quantization=Quantization.NONE, optimizer="paged_adamw_8bit"),
    "modules": Settings(target_modules=("q_proj", "v_proj")),
    "one module": Settings(target_modules=("q_proj",)),
    "odd modules": Settings(target_modules=("q_proj", "a: b, [c]")),
    "pattern": Settings(target_modules=r".*\.[0-3]\..*\.(q|v)_proj", loraplus_lr_ratio=2.5),
    "layers": Settings(target_modules=("q_proj", "v_proj"), layers_to_transform=(0, 3)),
    "options": Settings(
        scheduler=Scheduler.WARMUP_STABLE_DECAY, lr_scheduler_kwargs=(("decay_type", "1-sqrt"), ("num_decay_steps", 8))
    ),
    "alpha": Settings(rank=8, alpha=64, rslora=True, dropout=0.05),
}


@pytest.mark.parametrize("names", [[name] for name in SETTINGS] + [list(SETTINGS)], ids=lambda names: names[-1])
def test_a_written_grid_reads_as_its_rows(names: list[str]) -> None:
    """The text of a grid, read again, gives the same names, settings and seeds."""
    rows = [GridRow(name, SETTINGS[name].resolved(), "A reason.") for name in names]
    plan = parse_plan(grid_text("What to try.", (3, 5), rows), "next.yaml")
    assert [(v.name, v.settings) for v in plan.variants] == [(row.name, row.settings) for row in rows]
    assert plan.seeds == (3, 5)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """A description or reason with line breaks, control characters or YAML changes no setting of the grid."""
    reason = f"{text}\n  - {{learning_rate: 1}}"
    [variant] = parse_plan(grid_text(reason, (0,), [GridRow("one", Settings().resolved(), reason)]), "a.yaml").variants
    assert variant.settings == Settings().resolved()


def test_the_reason_is_above_its_row() -> None:
    """The reason of a row is a comment in the lines above it."""
    text = grid_text("", (0,), [GridRow("one", Settings(1e-3), "First reason."), GridRow("two", Settings(), "Second.")])
    lines = [line.strip() for line in text.splitlines()]
    assert lines[lines.index("# First reason.") + 1].startswith('- {name: "one"')
    assert lines[lines.index("# Second.") + 1].startswith('- {name: "two"')
