"""Names that have a fixed meaning in every run."""

from __future__ import annotations

BASE = "base"
"""Variant name of the base model. No variant and no adapter may have this name."""
REHEARSAL = "rehearsal"
"""Name of the work in which the base model answers the rehearsal prompts. It is no trial and has no variant."""
