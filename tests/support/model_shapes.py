"""Model shapes, coefficients and settings for tests of predicted memory and time."""

from __future__ import annotations

import json

from harness.core.settings import Settings
from harness.hardware.estimate import Coefficients, ModelShape, predict, shape_of
from harness.models.resolving import SHAPES

NAMES = sorted(path.parent.name for path in SHAPES.glob("*/config.json"))


def shape(name: str) -> ModelShape:
    """Return the shape of a public model that comes with the package."""
    return shape_of(json.loads((SHAPES / name / "config.json").read_text(encoding="utf-8")))


LLAMA = shape("llama-2-7b")
KNOWN = Coefficients(16, 7e7, (0.1, 0.4), 0.07, "made up for tests")
QLORA = Settings(rank=16, max_length=512, batch_size=1)


def allocated(settings: Settings = QLORA, length: int = 512, rows: int = 30, of: ModelShape = LLAMA) -> float:
    """Return the predicted peak memory, in bytes, of a training on `rows` rows of `length` tokens."""
    return predict(of, settings, [length] * rows, known=KNOWN).memory.allocated
