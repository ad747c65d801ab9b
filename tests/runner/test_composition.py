"""Tests of the composition of passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.engines import Engine
from harness.core.settings import Quantization, Settings, Trial
from harness.runner.composition import Composition
from harness.suites.grids import trial_id


def trials(count: int, **more: object) -> list[Trial]:
    rows = [replace(Settings(learning_rate=n * 1e-4), **more) for n in range(1, count + 1)]  # type: ignore[arg-type]
    return [Trial(trial_id(settings, 0), "", settings, 0) for settings in rows]


def sizes(found: list[tuple[Trial, ...]]) -> list[int]:
    return [len(some) for some in found]


@pytest.mark.parametrize(
    ("count", "width", "expected"), [(24, 8, [8, 8, 8]), (9, 8, [5, 4]), (3, 8, [3]), (5, 2, [2, 2, 1]), (0, 8, [])]
)
def test_passes_have_at_most_the_width_and_nearly_the_same_size(count: int, width: int, expected: list[int]) -> None:
    """Trials are divided, in their order, into the fewest passes of at most `width` trials, of nearly the same size."""
    wanted = trials(count)
    found = Composition(width).passes(Engine.FUSED, wanted)
    assert sizes(found) == expected
    assert [trial for some in found for trial in some] == wanted


def test_memory_makes_passes_smaller() -> None:
    """A pass has at most as many trials as are predicted to fit into memory together, and at least one."""
    wanted = trials(6)
    assert sizes(Composition(8, {wanted[3].id: 2}).passes(Engine.FUSED, wanted)) == [2, 2, 2]
    assert sizes(Composition(8, {wanted[3].id: 0}).passes(Engine.FUSED, wanted)) == [1] * 6


def test_a_pass_has_one_quantisation() -> None:
    """Trials with different bases are in different passes, and each pass keeps the order of its trials."""
    both = [*trials(2), *trials(3, quantization=Quantization.NONE), *trials(1, rank=2)]
    found = Composition().passes(Engine.FUSED, both)
    assert [{trial.settings.quantization for trial in some} for some in found] == [
        {Quantization.NF4},
        {Quantization.NONE},
    ]
    assert sizes(found) == [3, 3]


def test_trials_that_cannot_be_fused_run_alone() -> None:
    """With the reference engine, and with a setting that the fused engine cannot train, a trial has its own pass."""
    assert sizes(Composition().passes(Engine.REFERENCE, trials(3))) == [1, 1, 1]
    packed = trials(2, packing=True)
    assert Composition().passes(Engine.FUSED, [packed[0], *trials(2, rank=2), packed[1]])[1:] == [
        (packed[0],),
        (packed[1],),
    ]
