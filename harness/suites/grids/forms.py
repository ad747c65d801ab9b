"""Pydantic models of a grid file: settings as single values, as axes, and in rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model

from harness.core.names import names_a_base
from harness.core.schedules import OPTIONS, REFUSED, Option
from harness.core.setting_text import NAMED_MODULES
from harness.core.settings import ALL_LINEAR, AXES, MOST, Axis
from harness.core.yaml import Document, Form, Line, Text, fit, nearest, shown

MODULE_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


LONGEST_PATTERN = 1000
"""Largest number of characters of a regular expression for target modules."""
_SPECIAL = r"[.*+?()\[\]{}|\\^$]"
"""A character of regular expressions that is not in names of matrices."""


def _modules(value: Any) -> Any:
    """Return target modules in a fixed spelling and order. PEFT trains the same adapter for any order."""
    if isinstance(value, str):
        if value in NAMED_MODULES:
            return NAMED_MODULES[value]
        return value if value == ALL_LINEAR else _pattern(value)
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError("target_modules: expected all-linear, attention, qv, a regular expression or a list of names\n"
                         "Write [q_proj, v_proj]. Under axes, write a list of such lists: "
                         "[[q_proj], [q_proj, v_proj]].")  # fmt: skip
    place = {name: i for i, name in enumerate(MODULE_ORDER)}
    return tuple(sorted(set(value), key=lambda name: (place.get(name, len(place)), name)))


def _pattern(value: str) -> str:
    """Check a regular expression for whole names of modules. Words match none, so they are a mistake."""
    if not re.search(_SPECIAL, value):
        known = nearest(value, [ALL_LINEAR, *NAMED_MODULES])
        raise ValueError(
            f"unknown target modules {shown(value)}\n{known} Write names of modules as a list: [q_proj, v_proj]."
        )
    if not value.isprintable():
        raise ValueError(f"target_modules: {shown(value)} has invisible characters\n"
                         "Remove them; no name of a module has any.")  # fmt: skip
    if len(value) > LONGEST_PATTERN:
        raise ValueError(f"target_modules: a pattern has {len(value)} characters\n"
                         f"Write at most {LONGEST_PATTERN}, or a list of names.")  # fmt: skip
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(value)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(
            f"target_modules: {shown(value)} is no regular expression: {problem}\n"
            r"Correct it, such as '.*\.[0-3]\..*\.(q|v)_proj', or write a list of names: [q_proj, v_proj]."
        ) from None
    return value


_WORDS_AND_PATTERNS: list[dict[str, Any]] = [
    {"enum": [ALL_LINEAR, *NAMED_MODULES]},
    {"type": "string", "pattern": _SPECIAL, "maxLength": LONGEST_PATTERN,
     "description": "A regular expression for whole names of modules."},
]  # fmt: skip
MODULES_SCHEMA = {"anyOf": [*_WORDS_AND_PATTERNS, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
TARGET_MODULES: Any = Annotated[Any, BeforeValidator(_modules), WithJsonSchema(MODULES_SCHEMA)]
"""Target modules: a word such as all-linear, a pattern, or a list of module names. The whole list is one value."""


def _layers(value: Any) -> Any:
    """Return numbers of layers in ascending order. PEFT trains the same adapter for any order."""
    numbers: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= MOST for one in numbers):
        raise ValueError("layers_to_transform: expected a list of numbers of layers, from 0\n"
                         "Write [0, 1]. Under axes, write a list of such lists: [[0, 1], [2, 3]].")  # fmt: skip
    return tuple(sorted({int(one) for one in numbers}))


_LAYERS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MOST}}


def _scheduler(value: Any) -> Any:
    if isinstance(value, str) and value in REFUSED:
        raise ValueError(f"the scheduler {value} cannot be used: {REFUSED[value]}\nChoose another, such as cosine.")
    return value


def _scheduler_options(value: Any) -> Any:
    """Return options of a scheduler as pairs of name and value, by name."""
    if not isinstance(value, dict):
        raise ValueError("lr_scheduler_kwargs: expected options with values\nWrite {min_lr_rate: 0.1}.")
    found = {}
    for name, given in value.items():
        if name not in OPTIONS:
            raise ValueError(f"unknown option of a scheduler {shown(name)}\n{nearest(str(name), list(OPTIONS))}")
        found[str(name)] = OPTIONS[name].read(given)
        if found[str(name)] is None:
            raise ValueError(f"{name}: {shown(given)} is not allowed\nWrite {OPTIONS[name].words}.")
    return tuple(sorted(found.items()))


def _option_schema(option: Option) -> dict[str, Any]:
    if option.texts:
        return {"enum": list(option.texts)}
    limits = {"exclusiveMinimum": option.above, "minimum": option.at_least, "maximum": option.at_most}
    kind = "integer" if option.kind is int else "number"
    return {"type": kind} | {name: limit for name, limit in limits.items() if limit is not None}


_SCHEDULER_OPTIONS_SCHEMA = {
    "type": "object",
    "properties": {name: _option_schema(option) for name, option in OPTIONS.items()},
    "additionalProperties": False,
}


def _value(axis: Axis) -> Any:
    """Return the pydantic type of a setting's value."""
    if axis.name == "target_modules":
        return TARGET_MODULES
    if axis.name == "layers_to_transform":
        schema = WithJsonSchema(_LAYERS_SCHEMA | {"description": axis.description})
        return Annotated[Any, BeforeValidator(_layers), schema]
    if axis.name == "lr_scheduler_kwargs":
        schema = WithJsonSchema(_SCHEDULER_OPTIONS_SCHEMA | {"description": axis.description})
        return Annotated[Any, BeforeValidator(_scheduler_options), schema]
    if axis.name == "scheduler":
        return Annotated[axis.kind, Field(strict=False), BeforeValidator(_scheduler)]
    if issubclass(axis.kind, Enum):
        return Annotated[axis.kind, Field(strict=False)]
    if axis.options:
        checked = AfterValidator(partial(_option, axis))
        return Annotated[axis.kind, checked, WithJsonSchema({"enum": list(axis.options)})]
    limits = Field(
        gt=axis.above, ge=axis.at_least, lt=axis.below, le=axis.at_most, description=axis.description or None
    )
    return Annotated[axis.kind, limits, AfterValidator(axis.check)] if axis.check else Annotated[axis.kind, limits]


def _option(axis: Axis, value: str) -> str:
    if value not in axis.options:
        raise ValueError(f"unknown {axis.name} {shown(value)}\n{nearest(value, axis.options)}")
    return value


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _free(name: str) -> str:
    if names_a_base(name.strip()):
        raise ValueError(f"the name {shown(name.strip())} is taken by the untrained model\nChoose another name.")
    return name.strip()


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is given twice\nGive each seed once: every seed is one more trial of each variant.")
    return seeds


def _filled(row: Form) -> Form:
    if not row.model_fields_set:
        raise ValueError("an empty row would exclude every combination\nName the settings to exclude.")
    return row


def _listed(kind: Any, alone: Any = None) -> Any:
    """Return the type of a list of values of type `kind`. A single value, of type `alone`, needs no brackets."""
    several = Annotated[list[kind], Field(min_length=1)]
    return Annotated[several, BeforeValidator(_several, json_schema_input_type=(alone or kind) | several)]


def _ordered(given: Form) -> Form:
    low, high = given.low, given.high  # type: ignore[attr-defined]
    if low >= high:
        raise ValueError(f"low is {shown(low)}, which is not below high\nExchange them, or write the setting once.")
    if given.log and low <= 0:  # type: ignore[attr-defined]
        raise ValueError("a logarithmic scale has no 0\nRaise low, or remove log.")
    return given


def _range(axis: Axis) -> Any:
    """Return the pydantic type of a range of a setting's values."""
    fields: dict[str, Any] = {
        "low": (_value(axis), ...),
        "high": (_value(axis), ...),
        "log": (bool, Field(default=False, description="Try values on a logarithmic scale.")),
    }
    made = create_model(f"Range of {axis.name}", __base__=Form, **fields)
    return Annotated[made, AfterValidator(_ordered)] | None


class _SettingsByName(Form):
    """The base of forms whose keys are settings."""

    other_names: ClassVar[Mapping[str, str]] = {
        axis.sft or axis.lora: axis.name for axis in AXES.values() if axis.sft or axis.lora
    }


# The models are generated from the table `AXES`, so that settings, rows and axes cannot differ.
_SETTINGS: dict[str, Any] = {axis.name: (_value(axis), axis.default) for axis in AXES.values()}


# Under axes, a list is a list of values, so that a list of module names needs a second pair of brackets.
def _list_of(kind: Any) -> Any:
    return list[kind]


_ALONE: dict[str, Any] = {
    "target_modules": Annotated[Any, WithJsonSchema({"anyOf": _WORDS_AND_PATTERNS})],
    "layers_to_transform": _list_of(_value(AXES["layers_to_transform"])),
}
_AXES: dict[str, Any] = {
    axis.name: (_listed(_value(axis), _ALONE.get(axis.name)), Field(default_factory=list)) for axis in AXES.values()
}
_NAMED: dict[str, Any] = {
    "name": (Annotated[Line, AfterValidator(_free)], Field(default="", description="Name of the variant in reports."))
}
SettingsForm: Any = create_model("Settings", __base__=_SettingsByName, **_SETTINGS)
RowForm: Any = create_model("Row", __base__=SettingsForm, **_NAMED)
AxesForm: Any = create_model("Axes", __base__=_SettingsByName, **_AXES)
_GRID: dict[str, Any] = {
    "description": (Text, ""),
    "about": (
        Line,
        Field(
            default="",
            description="Name of the model that the grid studies; reports on others state that it was not tested.",
        ),
    ),
    "seeds": (Annotated[_listed(Annotated[int, Field(ge=0, lt=2**32)]), AfterValidator(_distinct)], [0]),
    "settings": (
        SettingsForm,
        Field(default=SettingsForm(), description="Settings of all variants; rows can replace them."),
    ),
    "axes": (
        AxesForm,
        Field(default=AxesForm(), description="Lists of values; every combination of them is a variant."),
    ),
    "paired": (
        list[RowForm],
        Field(
            default=[],
            description="Rows of settings; each row is combined with every combination of the axes.",
        ),
    ),
    "exclude": (
        list[Annotated[SettingsForm, AfterValidator(_filled)]],
        Field(
            default=[],
            description="Rows of settings; a combination that has all settings of one of these rows is left out.",
        ),
    ),
    "rows": (list[RowForm], Field(default=[], description="Variants in addition to the combinations, one per row.")),
}
_RANGES: dict[str, Any] = {
    axis.name: (_range(axis), None) for axis in AXES.values() if axis.kind in (int, float) and axis.name != "alpha"
}
RangesForm: Any = create_model("Ranges", __base__=_SettingsByName, **_RANGES)
_SEARCH: dict[str, Any] = {
    "trials": (
        Annotated[int, Field(ge=1, le=1000)],
        Field(description="Number of variants to train, with those under `rows`."),
    ),
    "ranges": (
        RangesForm,
        Field(default=RangesForm(), description="For each setting, the lowest and the highest value to try."),
    ),
    "choices": (AxesForm, Field(default=AxesForm(), description="Lists of values to choose from.")),
}
SearchForm: type[Form] = create_model(
    "Search", __base__=Form, __doc__="A search for good settings, instead of all combinations of axes.", **_SEARCH
)
_GRID["search"] = (
    SearchForm | None,
    Field(default=None, description="Search for good settings with Optuna, instead of axes: `trials` variants."),
)
GridForm: type[Form] = create_model("Grid", __base__=Form, __doc__="A grid of training settings.", **_GRID)


@dataclass(frozen=True)
class Grid:
    """A grid as it is written. A row holds only the settings, and the `name`, that are written in the row."""

    description: str
    about: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    axes: dict[str, list[Any]]
    paired: tuple[dict[str, Any], ...]
    exclude: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]
    search: dict[str, Any] | None = None
    """`trials`, `ranges` and `choices`; None if the grid has no search."""


def read_grid(document: Document) -> Grid:
    """Read the grid in a document; raise `GridError` with the places of all mistakes."""
    form = fit(GridForm, document)
    given = form.model_dump(exclude_unset=True)
    return Grid(
        description=given.get("description", ""),
        about=given.get("about", ""),
        seeds=tuple(int(seed) for seed in given.get("seeds", (0,))),
        settings=given.get("settings", {}),
        axes=given.get("axes", {}),
        paired=tuple(given.get("paired", ())),
        exclude=tuple(given.get("exclude", ())),
        rows=tuple(given.get("rows", ())),
        search=given.get("search"),
    )
