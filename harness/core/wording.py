"""Counts, lists and durations in words, for messages and reports."""

from __future__ import annotations

from collections.abc import Iterable


def plural(count: int, word: str, many: str = "") -> str:
    """Return a count with its noun: `1 case`, `1,200 cases`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def one(name: str) -> str:
    """Return the name of a device with its indefinite article: `a Tesla T4`, `an NVIDIA L4`, `an AMD EPYC`."""
    is_spelled_out = name.split()[0].isupper() and name[0] in "AEFHILMNORSX"
    return f"{'an' if is_spelled_out or name[0] in 'AEIOaeio' else 'a'} {name}"


def listed(words: Iterable[object], most: int | None = None) -> str:
    """Join words: `a`, `a and b`, `a, b and c`. Words after the first `most` are counted: `a, b and 3 more`."""
    items = [str(word) for word in words]
    if most is not None and len(items) > most:
        items[most:] = [f"{len(items) - most} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def duration(low: float, high: float | None = None) -> str:
    """Return a number of seconds, or a range, as text: `7.5 s`, `8.0-23 min`, `1.5-3.4 h`.

    The upper value decides the unit: minutes from 90 s on, hours from 90 min on.
    """
    bounds = (low,) if high is None else (low, high)
    unit, length = next((each for each in _UNITS if bounds[-1] >= 1.5 * each[1]), _UNITS[-1])
    return f"{'-'.join(two_digits(bound / length) for bound in bounds)} {unit}"


_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def two_digits(value: float) -> str:
    """Return a value with one decimal place if it is below 10, else with none: `0.4`, `9.9`, `10`, `123`."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
