"""What a variant is called: its row's name, else the settings in which it differs from others without name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.core.setting_text import in_name
from harness.core.settings import AXES, Settings

NAMELESS = ("learning_rate", "rank")
"""What to show of a variant that differs from no other."""


def differing(every: Sequence[Settings]) -> tuple[str, ...]:
    """The settings in which these differ; alpha only where it is not always twice the rank."""
    names = [name for name in AXES if len({getattr(settings, name) for settings in every}) > 1]
    if all(settings.alpha == 2 * settings.rank for settings in every) and "alpha" in names:
        names.remove("alpha")
    return tuple(names)


def label(settings: Settings, names: Iterable[str]) -> str:
    """These settings on one line: `lr=1e-3 r=16 qv`."""
    return " ".join(in_name(name, getattr(settings, name)) for name in names)
