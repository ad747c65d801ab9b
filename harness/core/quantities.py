"""Figures as text: memory in GiB or MiB, durations in seconds, minutes or hours, and points of a pass rate.

Points have one decimal place. Estimates are rounded to the nearest value. Bounds are rounded away from the estimate, so
that a rounded bound never claims more than the exact one: upper bounds up, lower bounds down.
"""

from __future__ import annotations

import math

from harness.core.measurement import GIB, Measurement
from harness.core.units import Unit
from harness.core.wording import duration

MIB = 2**20
"""Number of bytes in one MiB."""
ROUNDING_ERROR = 1e-6
"""A bound that exceeds a decimal by less than this, in tenths of a point, is taken as that decimal."""


def gib(size: float, digits: int = 1) -> str:
    """Return a number of bytes in GiB: `14.2 GiB`."""
    return f"{size / GIB:.{digits}f} GiB"


def memory(size: float) -> str:
    """Return a number of bytes in GiB, or in MiB if it is below one GiB: `1.35 GiB`, `900 MiB`."""
    return gib(size, 2) if size >= GIB else f"{size / MIB:.0f} MiB"


def quantity(figure: Measurement) -> str:
    """Return a measured figure with its unit: `7.5 s`, `1.35 GiB`."""
    return duration(figure.value) if figure.unit is Unit.SECONDS else memory(figure.value)


def points(value: float) -> str:
    """Return an estimate in points: `5`, `5.3`."""
    return "0" if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")


def upper_bound(value: float | None) -> str:
    """Return an upper bound in points, rounded up: `38.5` for 38.42. Without a bound, return `unlimited`."""
    return "unlimited" if value is None else points(math.ceil(10 * value - ROUNDING_ERROR) / 10)


def lower_bound(value: float | None) -> str:
    """Return a lower bound in points, rounded down: `-3.3` for -3.21. Without a bound, return `unlimited`."""
    return "unlimited" if value is None else points(math.floor(10 * value + ROUNDING_ERROR) / 10)


def interval(low: float | None, high: float | None) -> str:
    """Return an interval in points, with both ends rounded outwards: `-3.3 to 17.1`."""
    return f"{lower_bound(low)} to {upper_bound(high)}"
