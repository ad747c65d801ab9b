"""A fused trial takes its rows in SFTTrainer's order and scales its loss as SFTTrainer does."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.engine.loading import Base, untouched
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.fused.trial_state import GROWTH_INTERVAL, LossScale, windows
from harness.engine.trainers.sft import TrainingLog, build_trainer
from tests.support.short_trainings import SHORT


@pytest.mark.parametrize(
    ("batch", "accumulation", "epochs"), [(8, 1, 2), (3, 2, 2), (1, 3, 1), (2, 5, 1.5), (4, 1, 0.3), (100, 2, 3)]
)
def test_rows_come_in_the_trainers_order(
    base: Base, tmp_path: Path, batch: int, accumulation: int, epochs: float
) -> None:
    """`windows` yields the batches of SFTTrainer's data loader in every epoch, even if the last batch is incomplete."""
    settings = replace(SHORT, batch_size=batch, gradient_accumulation=accumulation, epochs=epochs)
    rows = [Row([7, 8, 9, 10 + number], [IGNORED, 8, 9, 10 + number]) for number in range(11)]
    with untouched(base.model):
        log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
        trainer = build_trainer(base, rows, settings, 3, str(tmp_path), log)
        loader = trainer.get_train_dataloader()
        batches = []
        for epoch in range(math.ceil(epochs)):
            loader.set_epoch(epoch)
            batches.append([[ids[3] - 10 for ids in one["input_ids"].tolist()] for one in loader])
    steps = [
        tuple(row for one in own[start : start + accumulation] for row in one)
        for own in batches
        for start in range(0, len(own), accumulation)
    ]
    mine = [window.rows for window in windows(11, settings, 3)]
    assert mine == steps[: len(mine)]
    assert len(mine) == math.ceil(epochs * math.ceil(math.ceil(11 / batch) / accumulation))


def test_the_loss_scale_moves_as_pytorchs(base: Base) -> None:
    """As in torch.amp.GradScaler, the loss scale is halved at an overflow and doubled after 2000 steps without one."""

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    own = LossScale(used=True)
    for step in range(GROWTH_INTERVAL + 40):
        overflow = step in (0, 1, 7)
        weight.grad = None
        scaler.scale(weight.sum()).backward()  # type: ignore[no-untyped-call]
        if overflow:
            weight.grad = torch.tensor([math.inf])
        scaler.step(optimizer)
        scaler.update()
        own.update(skipped=overflow)
        assert own.value == scaler.get_scale()
