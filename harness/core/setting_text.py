"""Write the values of training settings as text: in names of variants, in the table of a plan, in reports and as CSV.

Each of these has its own style: names are short and exact, reports are easy to read, and CSV files hold raw values.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from harness.core.settings import ALL_LINEAR, AXES

NAMED_MODULES: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "qv": ("q_proj", "v_proj"),
}
"""Words for sets of target modules."""


def in_name(setting: str, value: Any) -> str:
    """Write a setting as a part of a variant's name: `lr=1e-3`, `rslora=yes`, `qv`, `targets=q+k`."""
    label = AXES[setting].label
    if setting != "target_modules":
        if setting == "lr_scheduler_kwargs" and value:
            return "+".join(map(_item, value))
        if isinstance(value, tuple):
            return f"{label}={'+'.join(map(str, value)) or _without(setting)}"
        return f"{label}={_yes_or_no(value) if isinstance(value, bool) else _exact(value)}"
    if isinstance(value, str):
        return value if value == ALL_LINEAR else f"{label}={value}"
    return word_for(value) or f"{label}={'+'.join(name.removesuffix('_proj') for name in value)}"


def in_plan(setting: str, value: Any) -> str:
    """Write a value for the table of a plan: `1e-3`, `True`, `qv`, `q_proj k_proj`, `min_lr_rate=0.1`."""
    if isinstance(value, tuple):
        return word_for(value) or " ".join(map(_item, value)) or _without(setting)
    return str(value) if isinstance(value, bool) else _exact(value)


def in_report(setting: str, value: Any) -> str:
    """Write a value for reports: `yes`, `0.03`, `q_proj, v_proj`; learning rates with an exponent (`2e-4`)."""
    if isinstance(value, bool):
        return _yes_or_no(value)
    if isinstance(value, float):
        return _with_exponent(value) if setting == "learning_rate" else f"{value:g}"
    # A tuple becomes a list when it is read from results.json.
    return ", ".join(map(_item, value)) or _without(setting) if isinstance(value, list | tuple) else str(value)


def in_csv(value: Any) -> str | float | int | None:
    """Return a value for a CSV file: numbers unchanged, `True`, `q_proj v_proj`; None if the setting is missing."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return " ".join(map(_item, value)) if isinstance(value, list | tuple) else str(value)


def number(value: float) -> str:
    """Write a number exactly and briefly: `1e-3`, `2.5e-4`, `0.03`, `10`."""
    if value == 0:
        return "0"
    exact = Decimal(repr(value)).normalize()
    if 0.01 <= abs(value) < 1e6:
        return f"{exact:f}"
    return f"{exact.scaleb(-exact.adjusted()):f}e{exact.adjusted()}"


def _exact(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)


def _item(value: Any) -> str:
    """Write an item of a list; an option of a scheduler is its name and value."""
    if isinstance(value, list | tuple):
        name, given = value
        return f"{name}={_exact(given)}"
    return str(value)


def _without(setting: str) -> str:
    """Write a list without items."""
    return "none" if setting == "lr_scheduler_kwargs" else "all"


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def word_for(modules: tuple[Any, ...]) -> str | None:
    """Return the word for a set of target modules, such as `qv`; None if there is none."""
    return next((word for word, named in NAMED_MODULES.items() if named == modules), None)


def _with_exponent(value: float) -> str:
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"
