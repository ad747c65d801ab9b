"""Names that have a fixed meaning in every run."""

from __future__ import annotations

BASE = "base"
"""Variant name of the base model. No variant and no adapter may have this name."""
