"""Trainers: each implements `protocol.Trainer` and is one row of `trainers`.

protocol  the interface of a trainer: input, result and methods
sft       TRL's SFTTrainer, one trial after another: the reference
fused     trains many trials in shared passes over one base
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.engines import Engine

if TYPE_CHECKING:
    from harness.engine.trainers.protocol import Trainer


def trainers() -> dict[Engine, Trainer]:
    """Return the trainer of every engine."""
    from harness.engine.trainers.fused.training import Fused
    from harness.engine.trainers.sft import Sft

    return {Engine.REFERENCE: Sft(), Engine.FUSED: Fused()}
