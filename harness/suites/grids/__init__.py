"""Read a grid file as a `Plan`: its variants, with stable ids and short names, and their trials.

Every combination of the grid's axes and paired rows is a variant, unless `exclude` removes it. Each row under `rows` is
also a variant.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from harness.core.errors import GridError, HarnessError, Place
from harness.core.schedules import conflict
from harness.core.settings import AXES, Plan, Search, Settings, Trial, Variant
from harness.core.variant_names import NAMELESS, differing, label
from harness.core.yaml import Document, nearest, parse_yaml, raise_all, read_text, shown
from harness.suites.case_files import inside
from harness.suites.grids.forms import Grid, read_grid
from harness.suites.grids.searches import extremes, first_variants, search_of

__all__ = ["differing_settings", "grown", "load_plan", "parse_plan", "trial_id", "variant_id"]
Location = tuple[str | int, ...]
"""A place in a grid: keys, and numbers of items."""
MAX_CELLS = 10_000
MAX_TRIALS = 20_000
"""Largest number of trials of a grid, which are variants times seeds."""


EXAMPLE = "axes: {learning_rate: [3e-4, 1e-3], rank: [2, 16]}"
"""A grid for any suite."""


@dataclass(frozen=True)
class _Cell:
    """A variant before it has an id. If `name` is empty, the variant is later named after the settings that differ."""

    settings: Settings
    name: str
    location: Location


def load_plan(path: Path | str, *, seeds: tuple[int, ...] | None = None) -> Plan:
    """Read the plan of a grid file; `seeds` replace the grid's own seeds. Raise `GridError` for mistakes."""
    file = Path(path)
    try:
        # A grid is in the folder `grids` of its suite.
        folder = file.absolute().parent
        text = read_text(inside(folder.parent, f"{folder.name}/{file.name}"), file.name, GridError)
    except FileNotFoundError:
        raise _no_such_grid(file) from None
    return parse_plan(text, file.name, seeds=seeds)


def parse_plan(text: str, file: str, *, seeds: tuple[int, ...] | None = None) -> Plan:
    """Parse the text of a grid file; the plan is named after the file, without its suffix."""
    document = parse_yaml(text, file, GridError)
    if document.value is None:
        raise _empty(document)
    grid = read_grid(document)
    chosen = grid.seeds if seeds is None else seeds
    search = search_of(grid, document, complete)
    first = [_Cell(settings, "", ("search",)) for settings in first_variants(search, len(grid.rows))] if search else []
    cells = [] if search else _cells(grid, document)
    cells = [*cells, *_rows(grid), *first]
    _check_combinations([(cell.settings, cell.location) for cell in cells], document)
    if search:
        _check_combinations([(each, ("search",)) for each in extremes(search)], document)
    variants = _variants(_distinct(cells, document), grid, document, search)
    if len(variants) * len(chosen) > MAX_TRIALS:
        size = f"{len(variants)} variants with {len(chosen)} seeds are more than {MAX_TRIALS:,} trials"
        raise document.wrong(size, "Remove seeds or values.", ("seeds",) if seeds is None and grid.seeds else ())
    trials = tuple(Trial(trial_id(v.settings, seed), v.id, v.settings, seed) for v in variants for seed in chosen)
    return Plan(Path(file).stem, variants, chosen, trials, grid.about, search)


def grown(plan: Plan, found: Sequence[Settings]) -> Plan:
    """Return the plan of a search with further variants. Their names do not depend on other variants."""
    names = plan.search.names if plan.search else ()
    more = [Variant(variant_id(settings), label(settings, names), settings) for settings in found]
    trials = [Trial(trial_id(v.settings, seed), v.id, v.settings, seed) for v in more for seed in plan.seeds]
    return replace(plan, variants=(*plan.variants, *more), trials=(*plan.trials, *trials))


def differing_settings(plan: Plan) -> tuple[str, ...]:
    """Return the settings in which the plan's variants differ, without alpha if it is always twice the rank."""
    return differing([variant.settings for variant in plan.variants])


# --- ids ---------------------------------------------------------------------------------------------------------


def variant_id(settings: Settings) -> str:
    """Return the id of a variant. Equal settings have the same id in every grid."""
    return _digest(settings.identity())


def trial_id(settings: Settings, seed: int) -> str:
    """Return the id of a trial. Equal settings and seeds have the same id in every grid."""
    return _digest({**settings.identity(), "seed": seed})


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


# --- combinations ------------------------------------------------------------------------------------------------


def _cells(grid: Grid, document: Document) -> list[_Cell]:
    """Return all combinations of axes and paired rows that are not excluded."""
    _check_shape(grid, document)
    if not grid.axes and not grid.paired:
        return []
    cells = list(_product(grid))
    dropped = [_matching(row, cells) for row in grid.exclude]
    remedy = "No combination has these settings. Correct them, or remove the row."
    unused = [i for i, matched in enumerate(dropped) if not matched]
    raise_all([document.wrong("excludes nothing", remedy, ("exclude", i)) for i in unused])
    kept = [cell for i, cell in enumerate(cells) if not any(i in matched for matched in dropped)]
    if not kept and not grid.rows:
        raise document.wrong("every combination is excluded", "Remove a row under exclude.", ("exclude",))
    return kept


def _empty(document: Document) -> HarnessError:
    return document.wrong("the grid is empty: it has no axes, paired or rows", "Add axes: {rank: [2, 16]}.")


def _check_shape(grid: Grid, document: Document) -> None:
    if not (grid.axes or grid.paired or grid.rows):
        raise _empty(document)
    if grid.exclude and not (grid.axes or grid.paired):
        raise document.wrong(
            "the grid has `exclude`, but no `axes` or `paired`",
            "`exclude` removes combinations of these. Remove it, or add axes.",
            ("exclude",),
        )
    for name in grid.axes:
        where = "settings" if name in grid.settings else "paired" if any(name in row for row in grid.paired) else ""
        if where:
            remedy = "Remove it from one of them."
            raise document.wrong(f"{name} is under axes and {where}", remedy, ("axes", name), key=True)
    size = math.prod(len(values) for values in grid.axes.values()) * max(1, len(grid.paired))
    if size > MAX_CELLS:
        raise document.wrong(f"the grid has {size} combinations, more than {MAX_CELLS}", "Remove values.", ("axes",))


def _product(grid: Grid) -> Iterator[_Cell]:
    varying = [name for name, values in grid.axes.items() if len(set(values)) > 1]
    for i, row in enumerate(grid.paired or ({},)):
        for values in itertools.product(*grid.axes.values()):
            settings = complete({**grid.settings, **row, **dict(zip(grid.axes, values, strict=True))})
            named = f"{row['name']} {label(settings, varying)}".strip() if "name" in row else ""
            yield _Cell(settings, named, ("paired", i, "name") if row else ("axes",))


def _rows(grid: Grid) -> list[_Cell]:
    return [
        _Cell(complete({**grid.settings, **row}), row.get("name", ""), ("rows", i, "name"))
        for i, row in enumerate(grid.rows)
    ]


def complete(given: Mapping[str, Any]) -> Settings:
    """Return complete settings with plain Python values.

    Parsed YAML values keep their spelling, such as 1e-3 or 0.001, which must not change the ids of variants.
    """
    return Settings(
        **{name: _exact(given.get(name, axis.default), axis.default) for name, axis in AXES.items()}
    ).resolved()


def _exact(value: Any, like: Any) -> Any:
    if isinstance(like, bool | str | Enum | tuple):
        return value
    return float(value) if isinstance(like, float) else int(value)


def _check_combinations(given: Iterable[tuple[Settings, Location]], document: Document) -> None:
    for settings, location in given:
        if found := conflict(settings):
            raise document.wrong(*found, location[:2])


def _matching(row: Mapping[str, Any], cells: Sequence[_Cell]) -> set[int]:
    return {i for i, cell in enumerate(cells) if all(getattr(cell.settings, name) == row[name] for name in row)}


# --- variants ----------------------------------------------------------------------------------------------------


def _distinct(cells: Sequence[_Cell], document: Document) -> list[_Cell]:
    """Merge cells with equal settings; raise an error if they have different names."""
    found: dict[Settings, _Cell] = {}
    problems: list[HarnessError] = []
    for cell in cells:
        known = found.setdefault(cell.settings, cell)
        if known.name and cell.name and known.name != cell.name:
            message = f"{shown(cell.name)} has the same settings as {shown(known.name)}"
            problems.append(document.wrong(message, "Change or remove one of them.", cell.location))
        elif not known.name:
            found[cell.settings] = cell
    raise_all(problems)
    return list(found.values())


def _variants(cells: Sequence[_Cell], grid: Grid, document: Document, search: Search | None) -> tuple[Variant, ...]:
    # Named rows are left out here, so that adding such a row does not rename the other variants.
    varied = search.names if search else differing([cell.settings for cell in cells if not cell.name])
    names = varied or tuple(grid.axes) or NAMELESS
    taken = set[str]()
    variants = []
    for cell in cells:
        name = cell.name or label(cell.settings, names)
        if name in taken:
            raise document.wrong(f"two variants are called {shown(name)}", "Choose another name.", cell.location)
        taken.add(name)
        variants.append(Variant(variant_id(cell.settings), name, cell.settings, bool(cell.name)))
    return tuple(variants)


def _no_such_grid(file: Path) -> GridError:
    found = sorted(other.stem for other in file.parent.glob("*.yaml"))
    remedy = nearest(file.stem, found) if found else f"Create this file, for example with the line {EXAMPLE}"
    listed = f" Grids here: {', '.join(found)}." if remedy.startswith("Did") else ""
    return GridError("there is no such grid", remedy=remedy + listed, place=Place(str(file)))
