"""Imports within the package run downwards only: the floor plan, held against the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"
GROUND = frozenset({"core", "errors", "records", "wording"})
TEXT = frozenset({"yamltext"})
"""Where each module stands and what of the package it may import; itself always. A package counts as one module."""
FLOOR: dict[str, int] = {
    "core": 0,
    "errors": 0,
    "records": 0,
    "wording": 0,
    "yamltext": 1,
    "schema": 1,
    "suites": 1,
    "grid": 1,
    "predict": 1,
    "scorers": 1,
    "stats": 1,
    "compare": 1,
    "changes": 1,
    "timelines": 1,
    "stability": 1,
    "recommend": 1,
    "paste": 1,
    "advise": 1,
    "reducers": 1,
    "baseline": 1,
    "pairs": 1,
    "gate": 1,
    "leaks": 1,
    "budget": 1,
    "frame": 1,
    "report": 1,
    "lengths": 2,
    "devices": 2,
    "hub": 2,
    "models": 2,
    "adapters": 2,
    "forecast": 2,
    "store": 2,
    "provenance": 2,
    "executors": 2,
    "sync": 2,
    "sweep": 2,
    "starter": 2,
    "export": 2,
    "limits": 2,
    "doctor": 2,
    "parity": 1,
    "benchmark": 2,
    "regression": 2,
    "reporting": 2,
    "engine": 3,
    "groups": 3,
    "worker": 3,
    "cli": 4,
    "pytest_plugin": 4,
    "__init__": 4,
    "__main__": 4,
}
BELOW = frozenset(name for name, floor in FLOOR.items() if floor <= 2)
MAY_IMPORT: dict[str, frozenset[str]] = dict.fromkeys(FLOOR, GROUND) | {
    "core": frozenset({"records"}),
    "errors": frozenset(),
    "records": frozenset({"core", "errors"}),
    "wording": frozenset(),
    "scorers": GROUND | TEXT,
    "suites": GROUND | TEXT | {"scorers"},
    "grid": GROUND | TEXT,
    "schema": GROUND | TEXT | {"suites", "grid"},
    # The results that it assembles hold the choice, which `recommend` makes.
    "compare": GROUND | {"stats", "recommend", "reducers", "changes", "timelines", "leaks"},
    "report": GROUND | {"reducers", "leaks", "stats", "gate", "advise", "stability"},
    "changes": GROUND | {"stats", "reducers"},
    "timelines": GROUND | {"reducers", "changes"},
    "recommend": GROUND | {"stats", "changes"},
    "advise": GROUND | {"compare", "recommend", "paste"},
    "baseline": GROUND | {"scorers"},
    "pairs": GROUND | {"stats", "reducers", "baseline", "compare", "scorers"},
    "gate": GROUND | {"stats"},
    "frame": GROUND | {"leaks", "stability"},
    "models": GROUND | {"store", "hub", "lengths"},
    "forecast": GROUND | {"predict", "lengths", "devices", "hub", "models", "provenance", "store"},
    "executors": GROUND | {"store"},
    "adapters": GROUND | {"store"},
    "provenance": GROUND | {"devices"},
    "doctor": GROUND | {"predict", "devices", "provenance", "store"},
    "limits": GROUND | {"forecast", "budget", "provenance", "store"},
    "sync": GROUND | {"store"},
    "sweep": GROUND | {"store", "executors", "adapters", "budget", "sync"},
    "starter": GROUND | TEXT | {"suites", "grid", "schema", "stats", "leaks"},
    "export": GROUND | {"store", "models", "hub", "provenance", "sweep", "parity", "stats", "paste"},
    "benchmark": BELOW - {"benchmark"},
    "reporting": GROUND | {"benchmark", "regression", "report", "gate", "provenance", "store"},
    "regression": GROUND | {"gate", "baseline", "compare", "pairs", "store", "scorers"},
    "engine": GROUND | {"devices"},
    "groups": GROUND | {"store", "engine"},
    "worker": GROUND | {"store", "provenance", "engine", "groups"},
    "cli": BELOW | {"__init__"},
    "pytest_plugin": BELOW,
    "__init__": BELOW,
    "__main__": frozenset({"cli"}),
}
INSIDE_A_COMMAND: dict[str, frozenset[str]] = {"cli": frozenset({"engine"})}
"""Allowed within a function only."""
APART = "pocket"
"""The embedded model's recipe: imports nothing of the package, and nothing imports it."""
TRAINING = frozenset({"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets"})


@dataclass(frozen=True)
class Import:
    source: str
    target: str
    """A dotted absolute name."""
    nested: bool
    """Within a function."""
    where: str


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The module of the floor plan that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nested = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        for target in targets(node, path):
            line = getattr(node, "lineno", 0)
            yield Import(unit(path), target, node in nested, f"{path.relative_to(PACKAGE.parent)}:{line}")


def targets(node: ast.AST, path: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    stem = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (stem, node.module) if part)
    return [f"{module}.{alias.name}" for alias in node.names]


def inner(target: str) -> str | None:
    """The module of the floor plan that a dotted name lies in; None outside the package."""
    parts = target.split(".")
    if parts[0] != PACKAGE.name:
        return None
    name = parts[1] if len(parts) > 1 else "__init__"
    is_module = name in FLOOR or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    return name if is_module else "__init__"


def every_import() -> list[Import]:
    return [found for path in files() for found in imports(path)]


def allowed(found: Import) -> bool:
    target = inner(found.target)
    if target is None or target == found.source:
        return True
    if found.nested and target in INSIDE_A_COMMAND.get(found.source, ()):
        return True
    return target in MAY_IMPORT.get(found.source, frozenset())


def test_every_module_has_a_place() -> None:
    """Every module of the package stands on a floor of the plan."""
    homeless = sorted({unit(path) for path in files()} - FLOOR.keys() - {APART})
    assert not homeless, (
        f"place {', '.join(homeless)} in the tables of {Path(__file__).name}: choose a floor and what it may import"
    )


def test_the_plan_runs_downwards() -> None:
    """No module may import one of a higher floor."""
    upwards = [(a, b) for a, names in MAY_IMPORT.items() for b in names if FLOOR[b] > FLOOR[a]]
    assert not upwards


def test_imports_run_downwards() -> None:
    """No module imports what the plan does not allow it."""
    wrong = [f"{i.where}: {i.source} imports {i.target}" for i in every_import() if not allowed(i)]
    assert not wrong, "\n".join(["against the floor plan:", *wrong])


def test_training_libraries_stay_on_floor_3() -> None:
    """Only the engine, the worker and the pocket recipe know the libraries that train; provenance may ask torch."""
    home = {"engine", "groups", "worker", APART}
    wrong = [
        f"{i.where}: {i.target}"
        for i in every_import()
        if i.target.split(".")[0] in TRAINING and i.source not in home and not (i.source == "provenance" and i.nested)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import harness.store", ["harness.store"]),
        ("from harness import store, records", ["harness.store", "harness.records"]),
        ("from harness.records import Case", ["harness.records.Case"]),
        ("from . import charts", ["harness.report.charts"]),
        ("from ..records import Case", ["harness.records.Case"]),
        ("def f():\n    import torch", ["torch"]),
    ],
)
def test_imports_are_read_however_written(text: str, expected: list[str]) -> None:
    """Absolute, relative and nested imports are all seen, under their absolute names."""
    found = [t for node in ast.walk(ast.parse(text)) for t in targets(node, PACKAGE / "report" / "page.py")]
    assert found == expected


def test_an_upward_import_is_caught() -> None:
    """A scorer may not import the store, nor a command module the engine, save within a command."""
    assert not allowed(Import("scorers", "harness.store.Store", nested=True, where=""))
    assert not allowed(Import("cli", "harness.engine.trainers.sft", nested=False, where=""))
    assert allowed(Import("cli", "harness.engine.trainers.sft", nested=True, where=""))
