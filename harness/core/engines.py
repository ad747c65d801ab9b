"""The engines that train adapters."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """The code that trains the adapters of a run, as `--engine` names it."""

    REFERENCE = "reference"
    """TRL's SFTTrainer, one trial after another."""
    FUSED = "fused"
    """Several trials in one pass over a shared base model."""
    AUTO = "auto"
    """FUSED if several trials share a base model, else REFERENCE. Runs record the engine that was chosen, not AUTO."""
