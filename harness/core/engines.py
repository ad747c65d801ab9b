"""The engines that can train a run."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """What trains the adapters of a run."""

    REFERENCE = "reference"
    """TRL's SFTTrainer, one trial after another."""
    FUSED = "fused"
    """Many trials in one pass over the shared base."""
    AUTO = "auto"
    """Only requested, never recorded: FUSED if several trials share a base, else REFERENCE."""
