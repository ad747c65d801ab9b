"""Name variants after the settings in which they differ, such as `lr=1e-3 r=16 qv`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from harness.core.settings import AXES, Settings
from harness.suites.grids.forms import NAMED_MODULES

NAMELESS = ("learning_rate", "rank")
"""The settings in the name of a grid's only variant."""


def differing(every: Sequence[Settings]) -> tuple[str, ...]:
    """Return the names of the settings that differ, without alpha if it is always twice the rank."""
    names = [name for name in AXES if len({getattr(settings, name) for settings in every}) > 1]
    if all(settings.alpha == 2 * settings.rank for settings in every) and "alpha" in names:
        names.remove("alpha")
    return tuple(names)


def label(settings: Settings, names: Iterable[str]) -> str:
    """Return the values of these settings on one line: `lr=1e-3 r=16 qv`."""
    return " ".join(_part(name, getattr(settings, name)) for name in names)


def _part(name: str, value: Any) -> str:
    if name == "target_modules":
        return _modules(value)
    if isinstance(value, bool):
        word = "yes" if value else "no"
    else:
        word = number(value) if isinstance(value, int | float) else str(value)
    return f"{AXES[name].label}={word}"


def _modules(value: str | tuple[str, ...]) -> str:
    """Return the word for a set of target modules, such as `qv`, or their joined names."""
    if isinstance(value, str):
        return value
    known = next((word for word, modules in NAMED_MODULES.items() if modules == value), None)
    return known or f"{AXES['target_modules'].label}={'+'.join(name.removesuffix('_proj') for name in value)}"


def number(value: float) -> str:
    """Format a number exactly and briefly: 1e-3, 2.5e-4, 0.03, 10."""
    if value == 0:
        return "0"
    exact = Decimal(repr(value)).normalize()
    if 0.01 <= abs(value) < 1e6:
        return f"{exact:f}"
    return f"{exact.scaleb(-exact.adjusted()):f}e{exact.adjusted()}"
