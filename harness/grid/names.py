"""What a variant is called: its row's name, else the settings in which it differs from others without name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from harness.grid.forms import NAMED_MODULES
from harness.records import Settings

SHORT = {
    "learning_rate": "lr", "epochs": "ep", "warmup": "warmup", "scheduler": "sched", "rank": "r", "alpha": "a",
    "dropout": "drop", "rslora": "rslora", "target_modules": "targets", "batch_size": "bs",
    "gradient_accumulation": "acc", "optimizer": "opt", "max_length": "len", "weight_decay": "wd",
    "max_grad_norm": "clip", "packing": "packing", "quantization": "quant",
}  # fmt: skip
"""Settings in the order of names, and how they are called there."""
NAMELESS = ("learning_rate", "rank")
"""What to show of a variant that differs from no other."""


def differing(every: Sequence[Settings]) -> tuple[str, ...]:
    """The settings in which these differ; alpha only where it is not always twice the rank."""
    names = [name for name in SHORT if len({getattr(settings, name) for settings in every}) > 1]
    if all(settings.alpha == 2 * settings.rank for settings in every) and "alpha" in names:
        names.remove("alpha")
    return tuple(names)


def label(settings: Settings, names: Iterable[str]) -> str:
    """These settings on one line: `lr=1e-3 r=16 qv`."""
    return " ".join(_part(name, getattr(settings, name)) for name in names)


def _part(name: str, value: Any) -> str:
    if name == "target_modules":
        return _modules(value)
    if isinstance(value, bool):
        word = "yes" if value else "no"
    else:
        word = number(value) if isinstance(value, int | float) else str(value)
    return f"{SHORT[name]}={word}"


def _modules(value: str | tuple[str, ...]) -> str:
    """The short word for a set of modules where there is one; else their names, joined."""
    if isinstance(value, str):
        return value
    known = next((word for word, modules in NAMED_MODULES.items() if modules == value), None)
    return known or f"{SHORT['target_modules']}={'+'.join(name.removesuffix('_proj') for name in value)}"


def number(value: float) -> str:
    """A number, exactly and briefly: 1e-3, 2.5e-4, 0.03, 10."""
    if value == 0:
        return "0"
    exact = Decimal(repr(value)).normalize()
    if 0.01 <= abs(value) < 1e6:
        return f"{exact:f}"
    return f"{exact.scaleb(-exact.adjusted()):f}e{exact.adjusted()}"
