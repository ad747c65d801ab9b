"""Figures as text with units: memory in GiB or MiB, durations in seconds, minutes or hours."""

from __future__ import annotations

from harness.core.measurement import GIB, Measurement
from harness.core.units import Unit
from harness.core.wording import duration

MIB = 2**20
"""Number of bytes in one MiB."""


def gib(size: float, digits: int = 1) -> str:
    """Return a number of bytes in GiB: `14.2 GiB`."""
    return f"{size / GIB:.{digits}f} GiB"


def memory(size: float) -> str:
    """Return a number of bytes in GiB, or in MiB if it is below one GiB: `1.35 GiB`, `900 MiB`."""
    return gib(size, 2) if size >= GIB else f"{size / MIB:.0f} MiB"


def quantity(figure: Measurement) -> str:
    """Return a measured figure with its unit: `7.5 s`, `1.35 GiB`."""
    return duration(figure.value) if figure.unit is Unit.SECONDS else memory(figure.value)
