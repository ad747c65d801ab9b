"""The engines that train adapters."""

from __future__ import annotations

from enum import StrEnum

from harness.core.settings import Settings, fusible


class Engine(StrEnum):
    """The code that trains the adapters of a run; the values are those of `--engine`."""

    REFERENCE = "reference"
    """TRL's SFTTrainer, one trial after another."""
    FUSED = "fused"
    """Several trials in one pass over a shared base model."""
    AUTO = "auto"
    """FUSED if several trials share a base model, else REFERENCE. Runs record the engine that was chosen, not AUTO."""

    @property
    def alone(self) -> Engine:
        """The engine to use for a trial that is trained alone: REFERENCE instead of FUSED, else this engine."""
        return Engine.REFERENCE if self is Engine.FUSED else self

    def that_trains(self, settings: Settings) -> Engine:
        """Return this engine or, if it is FUSED and cannot train these settings, REFERENCE."""
        return self if fusible(settings) else self.alone


RECIPES = {Engine.REFERENCE: 2, Engine.FUSED: 2}
"""Version of each engine. Raise it when a change of the engine's code changes adapters or answers."""
