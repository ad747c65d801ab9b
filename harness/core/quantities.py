"""Write figures with their units: memory in GiB or MiB, seconds as a length of time."""

from __future__ import annotations

from harness.core.measurement import GIB, Measurement
from harness.core.units import Unit
from harness.core.wording import duration

MIB = 2**20
"""Bytes."""


def gib(size: float, digits: int = 1) -> str:
    """Bytes in GiB, whatever their size: `14.2 GiB`."""
    return f"{size / GIB:.{digits}f} GiB"


def memory(size: float) -> str:
    """Bytes in the unit in which they are read: `1.35 GiB`, `900 MiB`."""
    return gib(size, 2) if size >= GIB else f"{size / MIB:.0f} MiB"


def quantity(figure: Measurement) -> str:
    """A measured figure with its unit: `7.5 s`, `1.35 GiB`."""
    return duration(figure.value) if figure.unit is Unit.SECONDS else memory(figure.value)
