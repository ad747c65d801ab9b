"""Check that every room imports only the rooms that the table ROOMS allows. A room is a top-level package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"


@dataclass(frozen=True)
class Room:
    """A room: one top-level package of `harness`. `below` lists the rooms that it may import."""

    below: str
    trains: bool = False
    """Whether the room may import torch, transformers, peft and the other libraries of `TRAINING`."""
    on_demand: str = ""
    """Rooms that this room may import inside functions only, so that importing it does not load them."""


ROOMS = {
    "core": Room(""),
    "storage": Room("core"),
    "scoring": Room("core"),
    "analysis": Room("core storage scoring"),
    "suites": Room("core scoring analysis"),
    "models": Room("core storage"),
    "hardware": Room("core storage models"),
    "engine": Room("core storage models hardware", trains=True),
    "report": Room("core storage analysis hardware"),
    "export": Room("core storage scoring analysis models hardware"),
    "runner": Room("core storage scoring analysis suites models hardware report"),
    "cli": Room("core storage scoring analysis suites models hardware report export runner", on_demand="engine"),
}
"""The rooms from the lowest to the highest. A room may import only rooms from earlier rows of this table."""
ROOT = frozenset({"__init__", "__main__", "pytest_plugin"})
"""Modules directly in `harness`. They may import every room except `engine`."""
TRAINING = frozenset({"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets"})
MOST_LINES = 500


@dataclass(frozen=True)
class Import:
    source: str
    """Name of the room, or of the module directly in `harness`, that has the import statement."""
    target: str
    """The imported name, absolute and with dots."""
    nested: bool
    """Whether the import statement is inside a function."""
    where: str


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    nested = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        for target in targets(node, path):
            where = f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 0)}"
            yield Import(room_of(path), target, node in nested, where)


def targets(node: ast.AST, path: Path) -> list[str]:
    """The absolute names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    stem = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (stem, node.module) if part)
    return [f"{module}.{alias.name}" for alias in node.names]


def every_import() -> list[Import]:
    return [found for path in files() for found in imports(path)]


def allowed(found: Import) -> bool:
    first, _, rest = found.target.partition(".")
    room = ROOMS.get(found.source)
    if first in TRAINING:
        return room is not None and room.trains
    target = rest.partition(".")[0]
    if first != PACKAGE.name or target == found.source or target not in ROOMS:
        return True
    if room is None:
        return not ROOMS[target].trains
    return target in room.below.split() or (found.nested and target in room.on_demand.split())


def test_the_root_holds_the_rooms_and_nothing_else() -> None:
    """The folder `harness` holds the rooms of the table ROOMS and three modules, and no other packages or modules."""
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert packages == ROOMS.keys()
    assert modules == ROOT


def test_the_table_runs_downwards() -> None:
    """The table ROOMS allows every room to import only rooms from earlier rows of the table."""
    order = list(ROOMS)
    for place, (name, room) in enumerate(ROOMS.items()):
        assert set(room.below.split()) <= set(order[:place]), name


def test_imports_follow_the_table() -> None:
    """Every module imports only rooms and libraries that the table ROOMS allows for its own room."""
    wrong = [f"{i.where}: {i.source} may not import {i.target}" for i in every_import() if not allowed(i)]
    assert not wrong, "\n".join(["against the table ROOMS:", *wrong])


def test_the_table_allows_no_more_than_is_used() -> None:
    """If the table ROOMS allows a room to import another, some module of the room does import it."""
    used = {(i.source, i.target.split(".")[1]) for i in every_import() if i.target.startswith("harness.")}
    idle = [(name, low) for name, room in ROOMS.items() for low in room.below.split() if (name, low) not in used]
    assert not idle


def test_no_module_is_too_long() -> None:
    """No module of the package has more than 500 lines."""
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import harness.storage", ["harness.storage"]),
        ("from harness import storage, core", ["harness.storage", "harness.core"]),
        ("from harness.core.suite import Case", ["harness.core.suite.Case"]),
        ("from . import charts", ["harness.report.charts"]),
        ("from ..core import Case", ["harness.core.Case"]),
        ("def f():\n    import torch", ["torch"]),
    ],
)
def test_imports_are_read_however_they_are_written(text: str, expected: list[str]) -> None:
    """`targets` finds absolute, relative and nested imports, and returns their absolute names."""
    found = [t for node in ast.walk(ast.parse(text)) for t in targets(node, PACKAGE / "report" / "page.py")]
    assert found == expected


@pytest.mark.parametrize(
    ("source", "target", "nested", "is_allowed"),
    [
        ("scoring", "harness.storage.runs.RunStore", True, False),
        ("runner", "harness.engine.worker", True, False),
        ("runner", "torch", True, False),
        ("cli", "harness.engine.loading", False, False),
        ("cli", "harness.engine.loading", True, True),
        ("pytest_plugin", "harness.engine.loading", True, False),
        ("engine", "torch", False, True),
    ],
)
def test_an_upward_import_is_caught(source: str, target: str, nested: bool, is_allowed: bool) -> None:
    """`allowed` accepts an import of a top-level package, or of torch, if and only if the table ROOMS permits it."""
    assert allowed(Import(source, target, nested, "")) is is_allowed
