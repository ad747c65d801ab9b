"""What may be written in a grid: settings as values, as axes, and as rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model

from harness.core.names import BASE
from harness.core.setting_text import NAMED_MODULES
from harness.core.settings import AXES, Axis
from harness.core.yaml import Document, Form, Line, Text, fit, nearest, shown

ALL_LINEAR = "all-linear"
MODULE_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _modules(value: Any) -> Any:
    """Target modules in one spelling and order, because PEFT trains the same adapter for any order."""
    if isinstance(value, str):
        if value == ALL_LINEAR:
            return value
        if value not in NAMED_MODULES:
            known = nearest(value, [ALL_LINEAR, *NAMED_MODULES])
            raise ValueError(
                f"unknown target modules {shown(value)}\n{known} Modules by name are a list: [q_proj, v_proj]."
            )
        return NAMED_MODULES[value]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError("target_modules: expected all-linear, attention, qv or a list of module names\n"
                         "Write [q_proj, v_proj]; among axes, a list of such lists.")  # fmt: skip
    place = {name: i for i, name in enumerate(MODULE_ORDER)}
    return tuple(sorted(set(value), key=lambda name: (place.get(name, len(place)), name)))


MODULES_SCHEMA = {
    "anyOf": [{"enum": [ALL_LINEAR, *NAMED_MODULES]}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
TARGET_MODULES: Any = Annotated[Any, BeforeValidator(_modules), WithJsonSchema(MODULES_SCHEMA)]
"""Target modules have words of their own, and a list of them is one value."""


def _value(axis: Axis) -> Any:
    """What the value of a setting may be, as a type for pydantic."""
    if axis.name == "target_modules":
        return TARGET_MODULES
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
    if name.strip().casefold() == BASE:
        raise ValueError(f'the name "{BASE}" is taken by the untrained model\nChoose another name.')
    return name.strip()


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds: one is given twice\nEvery seed is one more trial of each variant.")
    return seeds


def _filled(row: Form) -> Form:
    if not row.model_fields_set:
        raise ValueError("an empty row would drop every cell\nName the settings of the cells to drop.")
    return row


def _listed(kind: Any, alone: Any = None) -> Any:
    """A list of such values; one `alone` needs no brackets."""
    several = Annotated[list[kind], Field(min_length=1)]
    return Annotated[several, BeforeValidator(_several, json_schema_input_type=(alone or kind) | several)]


# The forms are made from the table of axes, so that settings, rows and axes cannot drift apart.
_SETTINGS: dict[str, Any] = {axis.name: (_value(axis), axis.default) for axis in AXES.values()}
# A list alone would be an axis, so modules by name need brackets within brackets there.
_ALONE = {"target_modules": Literal["all-linear", "attention", "qv"]}
_AXES: dict[str, Any] = {
    axis.name: (_listed(_value(axis), _ALONE.get(axis.name)), Field(default_factory=list)) for axis in AXES.values()
}
_NAMED: dict[str, Any] = {
    "name": (Annotated[Line, AfterValidator(_free)], Field(default="", description="Its name in reports."))
}
SettingsForm: Any = create_model("Settings", __base__=Form, **_SETTINGS)
RowForm: Any = create_model("Row", __base__=SettingsForm, **_NAMED)
AxesForm: Any = create_model("Axes", __base__=Form, **_AXES)
_GRID: dict[str, Any] = {
    "description": (Text, ""),
    "about": (
        Line,
        Field(default="", description="The model in question; results of another say that it was not tested."),
    ),
    "seeds": (Annotated[_listed(Annotated[int, Field(ge=0, lt=2**32)]), AfterValidator(_distinct)], [0]),
    "settings": (SettingsForm, Field(default=SettingsForm(), description="What holds for every variant.")),
    "axes": (AxesForm, Field(default=AxesForm(), description="Every combination of these values is a cell.")),
    "paired": (list[RowForm], Field(default=[], description="Settings that vary together, times the axes.")),
    "exclude": (
        list[Annotated[SettingsForm, AfterValidator(_filled)]],
        Field(default=[], description="Cells to drop: those that have all settings of a row."),
    ),
    "rows": (list[RowForm], Field(default=[], description="Variants beside the cells.")),
}
GridForm: type[Form] = create_model("Grid", __base__=Form, __doc__="A grid of training settings.", **_GRID)


@dataclass(frozen=True)
class Grid:
    """A grid as written. Rows hold only the settings that they give, and perhaps a `name`."""

    description: str
    about: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    axes: dict[str, list[Any]]
    paired: tuple[dict[str, Any], ...]
    exclude: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]


def read_grid(document: Document) -> Grid:
    """The grid in a document; raises `GridError` with the place of whatever does not fit."""
    whole = fit(GridForm, document)
    given = whole.model_dump(exclude_unset=True)
    return Grid(
        description=given.get("description", ""),
        about=given.get("about", ""),
        seeds=tuple(int(seed) for seed in given.get("seeds", (0,))),
        settings=given.get("settings", {}),
        axes=given.get("axes", {}),
        paired=tuple(given.get("paired", ())),
        exclude=tuple(given.get("exclude", ())),
        rows=tuple(given.get("rows", ())),
    )
