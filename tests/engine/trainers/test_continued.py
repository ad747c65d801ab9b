"""Tests of trainings that stop before their end and continue from the saved state, as a race needs them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.engines import Engine
from harness.core.settings import Scheduler, Settings
from harness.core.training_outcome import Status, Step
from harness.engine.loading import Base
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.registry import trainers
from tests.support.short_trainings import SHORT, rows_of
from tests.support.stored_files import tensors_in

SCHEDULED = replace(SHORT, epochs=3, dropout=0.1, warmup=0.2, scheduler=Scheduler.COSINE, gradient_accumulation=2)
"""Settings whose result depends on all that must be kept: optimizer, schedule, order of rows and dropout."""


def parts(
    base: Base, engine: Engine, each: Sequence[tuple[Settings, int, Path | None]], folder: Path
) -> list[tuple[Path, tuple[Step, ...], int]]:
    """Train trials of (settings, until, state), and return the folder, steps and tokens of each."""
    trials = [
        TrialInput(str(n), rows_of(base), settings, n, until=until, state=state)
        for n, (settings, until, state) in enumerate(each)
    ]
    found = {}
    with closing(trainers()[engine].train(base, trials, progress=lambda *_: None)) as results:
        for one in results:
            assert one.status is Status.SUCCEEDED
            own = folder / one.name
            (own / "state").mkdir(parents=True)
            one.save(own)
            if trials[int(one.name)].until:
                one.save_state(own / "state")
            found[one.name] = (own, one.steps, one.tokens)
    return [found[trial.name] for trial in trials]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.FUSED])
def test_a_continued_training_equals_an_uninterrupted_one(base: Base, engine: Engine, tmp_path: Path) -> None:
    """A training that stops after two of three epochs and continues has the same adapter and steps, bit for bit."""
    both = [replace(SCHEDULED, optimizer=name) for name in ("adamw_torch", "paged_adamw_8bit")]
    whole = parts(base, engine, [(each, 0, None) for each in both], tmp_path / "whole")
    first = parts(base, engine, [(each, 2, None) for each in both], tmp_path / "first")
    again = [(each, 0, own / "state") for each, (own, _, _) in zip(both, first, strict=True)]
    last = parts(base, engine, again, tmp_path / "last")
    for once, begun, ended in zip(whole, first, last, strict=True):
        assert len(begun[1]) == 2 * len(once[1]) // 3
        assert begun[1] == once[1][: len(begun[1])]
        assert ended[1:] == once[1:]
        held, wanted = tensors_in(ended[0]), tensors_in(once[0])
        assert held.keys() == wanted.keys()
        assert all(bool((held[name] == wanted[name]).all()) for name in wanted)


@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.FUSED])
def test_what_a_race_keeps_is_the_adapter_of_that_epoch(base: Base, engine: Engine, tmp_path: Path) -> None:
    """A training that stops after an epoch saves the adapter that an uninterrupted one has after that epoch."""
    kept = tmp_path / "kept"

    def keep(epoch: int, save: object) -> None:
        if epoch == 1 and callable(save):
            kept.mkdir()
            save(kept)

    trial = TrialInput("whole", rows_of(base), SCHEDULED, 0, keep)
    with closing(trainers()[engine].train(base, [trial], progress=lambda *_: None)) as results:
        list(results)
    [(stopped, _, _)] = parts(base, engine, [(SCHEDULED, 1, None)], tmp_path / "first")
    held, wanted = tensors_in(stopped), tensors_in(kept)
    assert all(bool((held[name] == wanted[name]).all()) for name in wanted)
