"""Names that have a fixed meaning in every run."""

from __future__ import annotations

BASE = "base"
"""The untrained model's name, wherever a variant has one. No variant and no adapter may take it."""
