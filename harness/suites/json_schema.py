"""JSON Schemas of suites and grids, for completion and validation in editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.suites.forms import SuiteForm
from harness.suites.grids.forms import GridForm

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema of suite.yaml."""
    return _schema(SuiteForm, "Suite")


def grid_schema() -> dict[str, Any]:
    """Return the JSON Schema of a grid."""
    return _schema(GridForm, "Grid")


def schema_texts() -> dict[str, str]:
    """Return the texts of suite.schema.json and grid.schema.json by file name."""
    schemas = {"suite.schema.json": suite_schema(), "grid.schema.json": grid_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def write_schemas(folder: Path) -> list[Path]:
    """Write both schemas into a folder; return their paths."""
    for name, text in schema_texts().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in schema_texts()]


def _schema(form: type[BaseModel], title: str) -> dict[str, Any]:
    described: dict[str, Any] = _tidy(form.model_json_schema(by_alias=True))
    return {"$schema": DIALECT, "title": title, **described}


def _tidy(part: Any) -> Any:
    """Remove generated titles, and defaults that are not a single number, text or truth value."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {key: _tidy(value) for key, value in part.items() if not _is_noise(key, value)}


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and not isinstance(value, bool | int | float | str)
    )
