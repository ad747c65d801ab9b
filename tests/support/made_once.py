"""Makes an expensive folder once per test session, shared by all of pytest's processes. Each process gets a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of a folder that `make` fills. Only the first process that calls this function calls `make`."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    made, whole = root / f"made-{name}", root / f"made-{name}.whole"
    with FileLock(root / f"made-{name}.lock"):
        if not whole.exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
            whole.touch()
    return Path(shutil.copytree(made, factory.mktemp(name), dirs_exist_ok=True))
