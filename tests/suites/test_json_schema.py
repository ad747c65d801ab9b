"""Tests that the committed JSON Schemas of suites and grids are current and agree with the loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from harness.core.errors import GridError, SuiteError
from harness.core.yaml import parse_yaml
from harness.suites import parse_suite
from harness.suites.grids import parse_plan
from harness.suites.json_schema import grid_schema, schema_texts, suite_schema, write_schemas
from tests.support.suite_texts import PROMPTFOO

SUITES = Path(__file__).parents[2] / "suites"


@pytest.mark.parametrize("name", schema_texts())
def test_the_committed_schema_is_current(name: str) -> None:
    """The committed schemas are equal to those that `harness schema` writes."""
    assert (SUITES / name).read_text(encoding="utf-8") == schema_texts()[name]


def test_schemas_are_written(tmp_path: Path) -> None:
    """The schemas of suites and grids are written under the file names to which suites refer."""
    assert [path.name for path in write_schemas(tmp_path)] == ["suite.schema.json", "grid.schema.json"]
    assert all((tmp_path / name).read_text(encoding="utf-8") == text for name, text in schema_texts().items())


@pytest.mark.parametrize("schema", [suite_schema(), grid_schema()], ids=["suite", "grid"])
def test_schemas_are_schemas(schema: dict[str, Any]) -> None:
    """The schemas of suites and grids are valid JSON Schemas."""
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(SUITES.glob("*/suite.yaml")), ids=lambda path: path.parent.name)
def test_our_suites_fit_their_schema(path: Path) -> None:
    """Every suite of this project is valid under the schema of suites."""
    Draft202012Validator(suite_schema()).validate(_values(path.read_text(encoding="utf-8")))


def test_our_grids_fit_their_schema() -> None:
    """Every grid of this project is valid under the schema of grids."""
    for path in SUITES.glob("*/grids/*.yaml"):
        Draft202012Validator(grid_schema()).validate(_values(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "tests: [{prompt: p, asert: []}]",
        "tests: [{prompt: p, role: lern, assert: [{type: is-json}]}]",
        "tests: [{prompt: p, assert: [{type: icontain, value: x}]}]",
        "tests: 7",
        "margin: lots\ntests: [{prompt: p, assert: [{type: is-json}]}]",
        "{}",
    ],
)
def test_the_loader_refuses_suites_that_the_schema_refuses(text: str) -> None:
    """If a suite is not valid under the schema, the loader refuses it, too."""
    assert not Draft202012Validator(suite_schema()).is_valid(_values(text))
    with pytest.raises(SuiteError):
        parse_suite(text, "suite.yaml", lambda name: name)


def test_a_promptfoo_config_fits_the_schema() -> None:
    """A promptfoo configuration, which the loader accepts, is also valid under the schema of suites."""
    Draft202012Validator(suite_schema()).validate(_values(PROMPTFOO))


@pytest.mark.parametrize(
    "text",
    [
        "axes: {rnk: [1]}",
        "axes: {rank: [0]}",
        "axes: {rank: []}",
        "axes: {scheduler: cosin}",
        "axes: {target_modules: [q_proj]}",
        "axs: {}",
        "exclude: [{name: x}]",
    ],
)
def test_the_loader_refuses_grids_that_the_schema_refuses(text: str) -> None:
    """If a grid is not valid under the schema, the loader refuses it, too."""
    assert not Draft202012Validator(grid_schema()).is_valid(_values(text))
    with pytest.raises(GridError):
        parse_plan(text, "grid.yaml")


@pytest.mark.parametrize(
    "text", ["axes: {rank: 4, target_modules: [qv, [q_proj]]}", "seeds: 3\nrows: [{name: a, alpha: 0}]"]
)
def test_the_schema_accepts_grids_that_the_loader_accepts(text: str) -> None:
    """If the loader accepts a grid, the grid is also valid under the schema."""
    assert parse_plan(text, "grid.yaml").variants
    assert Draft202012Validator(grid_schema()).is_valid(_values(text))


def _values(text: str) -> Any:
    return parse_yaml(text, "file.yaml", SuiteError).value
