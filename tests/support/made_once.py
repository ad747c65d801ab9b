"""Makes a folder that takes long to make only once per test session; each of pytest's processes gets a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of the folder `name`. Only the first process that asks for it calls `make`, which fills it."""
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
