"""Counts, lists and lengths of time as a sentence has them, for whatever speaks to a reader."""

from __future__ import annotations

from collections.abc import Iterable


def plural(count: int, word: str, many: str = "") -> str:
    """`1 case`, `1,200 cases`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def one(name: str) -> str:
    """A device's name with its article: `a Tesla T4`, `an NVIDIA L4`, `an AMD EPYC`."""
    spelled = name.split()[0].isupper() and name[0] in "AEFHILMNORSX"
    return f"{'an' if spelled or name[0] in 'AEIOaeio' else 'a'} {name}"


def listed(words: Iterable[object], most: int | None = None) -> str:
    """`a`, `a and b`, `a, b and c`; of more than `most` the first of them, `and 3 more`; nothing of nothing."""
    every = [str(word) for word in words]
    if most is not None and len(every) > most:
        every[most:] = [f"{len(every) - most} more"]
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}" if every else ""


def duration(low: float, high: float | None = None) -> str:
    """Seconds, or a range of them, in the unit in which the (upper) figure is read: 7.5 s, 8.0-23 min, 1.5-3.4 h."""
    bounds = (low,) if high is None else (low, high)
    unit, length = next((each for each in _UNITS if bounds[-1] >= 1.5 * each[1]), _UNITS[-1])
    return f"{'-'.join(two_digits(bound / length) for bound in bounds)} {unit}"


_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def two_digits(value: float) -> str:
    """As many digits as such a figure is worth: 0.4, 9.9, 10, 123."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
