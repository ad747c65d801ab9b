"""Name variants after the settings in which they differ, such as `lr=1e-3 r=16 qv`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.core.setting_text import in_name
from harness.core.settings import AXES, Settings

NAMELESS = ("learning_rate", "rank")
"""The settings after which a grid's only variant is named."""


def differing(every: Sequence[Settings]) -> tuple[str, ...]:
    """Return the names of the settings that differ, without alpha if it is always twice the rank."""
    names = [name for name in AXES if len({getattr(settings, name) for settings in every}) > 1]
    if all(settings.alpha == 2 * settings.rank for settings in every) and "alpha" in names:
        names.remove("alpha")
    return tuple(names)


def label(settings: Settings, names: Iterable[str]) -> str:
    """Return the values of the settings `names` on one line, such as `lr=1e-3 r=16 qv`."""
    return " ".join(in_name(name, getattr(settings, name)) for name in names)
