"""A fixture for tests that change a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.storage.runs import RunStore


@pytest.fixture
def own_run(trained_run: RunStore, tmp_path: Path) -> RunStore:
    """Return a copy of the finished run, which a test may change."""
    return RunStore(Path(shutil.copytree(trained_run.root, tmp_path / "run")))
