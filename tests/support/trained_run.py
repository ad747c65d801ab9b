"""A small run with a real training of the pocket model, for tests of exports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core import device_profiles
from harness.core.engines import Engine
from harness.export.source import Source, find
from harness.runner.benchmark import run
from harness.runner.executors.inline import Inline
from harness.runner.request import Request
from harness.storage.cache import Cache
from harness.storage.runs import RunStore
from tests.support.small_suite import GRID, small_suite

ONE = GRID.replace("[1e-5, 1e-2]", "[1e-2]")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Change the working directory while the block runs, since commands look there for runs and the cache."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def small_run(folder: Path, engine: Engine = Engine.AUTO, grid: str = ONE) -> RunStore:
    """Run the suite `small` with one variant of the pocket model, in this process."""
    from harness.engine.worker import work

    small_suite(folder, grid=grid)
    with inside(folder):
        request = Request(suite=Path("small"), profile=device_profiles.CPU, confirm_seeds=0, engine=engine)
        store, _ = run(request, Inline(work))
    return RunStore(folder / store.root)


def cache_of(store: RunStore) -> Cache:
    """Return the cache that the run used."""
    return Cache(store.root.parents[1] / "cache")


def source_of(store: RunStore) -> Source:
    """Return the run's only adapter, ready to be exported."""
    return find(store, store.manifest().plan.variants[0].name, None, cache_of(store))
