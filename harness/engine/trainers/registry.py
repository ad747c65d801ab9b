"""The table of trainers: one row for each engine."""

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
