"""The search of a grid: what it varies, and the variants with which it begins."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.analysis.settings_search import rounded, with_values
from harness.core.settings import Range, Search, Settings
from harness.core.yaml import Document
from harness.suites.grids.forms import Grid

FIRST = 8
"""Number of variants with which a search begins, and which do not depend on results."""
_FIXED = ("quantization",)
"""Settings that a search cannot vary: variants of different quantisations have different base models."""


def search_of(grid: Grid, document: Document, complete: Callable[[Mapping[str, Any]], Settings]) -> Search | None:
    """Return the search of a grid, or None if it has none. `complete` makes settings of the values that are given.

    Raises:
        GridError: the search has a mistake.
    """
    if grid.search is None:
        return None
    ranges, choices = grid.search.get("ranges", {}), grid.search.get("choices", {})
    for name in ("axes", "paired", "exclude"):
        if getattr(grid, name):
            remedy = f"Remove one of them: `ranges` and `choices` under `search` take the place of `{name}`."
            raise document.wrong(f"the grid has `search` and `{name}`", remedy, (name,))
    for where, given in (("ranges", ranges), ("choices", choices)):
        for name in given:
            place = ("search", where, name)
            if name in grid.settings or (where == "choices" and name in ranges):
                other = "settings" if name in grid.settings else "ranges"
                raise document.wrong(f"{name} is under {where} and {other}", "Remove it from one of them.", place)
            if name in _FIXED:
                raise document.wrong(f"a search cannot vary {name}", "Write it under settings.", place)
    if not ranges and not choices:
        remedy = "Add ranges: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}."
        raise document.wrong("the search varies no setting", remedy, ("search",))
    base = grid.settings
    return Search(
        trials=int(grid.search["trials"]),
        ranges={
            name: Range(float(each["low"]), float(each["high"]), bool(each.get("log", False)))
            for name, each in ranges.items()
        },
        choices={name: tuple(complete({**base, name: value}) for value in values) for name, values in choices.items()},
        base=complete(base),
    )


def first_variants(search: Search, rows: int) -> list[Settings]:
    """Return the variants with which a search begins, if the grid has this number of `rows` besides.

    They are a Latin hypercube: for each setting, its values are spread evenly from the lowest to the highest, and every
    choice occurs. So both ends of each range are tried.
    """
    count, rng = max(0, min(FIRST, search.trials - rows)), random.Random(0)
    columns: dict[str, list[Any]] = {}
    for name in search.names:
        order = list(range(count))
        rng.shuffle(order)
        if name in search.ranges:
            columns[name] = [value_at(search, name, place / max(1, count - 1)) for place in order]
        else:
            options = search.choices[name]
            columns[name] = [getattr(options[place % len(options)], name) for place in order]
    rows_ = [{name: values[n] for name, values in columns.items()} for n in range(count)]
    return list(dict.fromkeys(with_values(search, row) for row in rows_))


_RELATED = ("scheduler", "lr_scheduler_kwargs", "target_modules", "layers_to_transform")
"""Settings of which not all combinations can be trained."""


def extremes(search: Search) -> Iterator[Settings]:
    """Yield every combination of the choices whose combinations matter, with the lowest learning rate."""
    names = [name for name in _RELATED if name in search.choices]
    lowest = search.ranges["learning_rate"].low if "learning_rate" in search.ranges else search.base.learning_rate
    for values in itertools.product(*(search.choices[name] for name in names)):
        own: dict[str, Any] = {name: getattr(each, name) for name, each in zip(names, values, strict=True)}
        yield replace(search.base, learning_rate=lowest, **own)


def value_at(search: Search, name: str, share: float) -> float | int:
    """Return the value of a setting at this share of its range, rounded as in `rounded`."""
    span = search.ranges[name]
    value = span.low * (span.high / span.low) ** share if span.log else span.low + share * (span.high - span.low)
    return rounded(search, name, value)
