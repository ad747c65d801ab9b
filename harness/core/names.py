"""Names that have a fixed meaning in every run."""

from __future__ import annotations

BASE = "base"
"""Variant name of the base model."""
REHEARSAL = "rehearsal"
"""Name of the work in which the base model answers the rehearsal prompts. It is no trial and has no variant."""


def base_name(quantization: str) -> str:
    """Return the name of the base model in another quantisation than the one that is called `BASE`."""
    return f"{BASE} quant={quantization}"


def names_a_base(name: str) -> bool:
    """Whether a name could be one of the base model. No variant and no adapter may have such a name."""
    return name.casefold() == BASE or name.casefold().startswith(base_name(""))
