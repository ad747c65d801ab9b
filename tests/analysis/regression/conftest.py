"""Fixtures of the gate's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support import run_pairs
from tests.support.run_pairs import LEARN, SEEDS, stored


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run `first`, stored as the baseline `good`, and the run `worse`, which lost four cases."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    stored(run_pairs.results(), tmp_path / "first")
    stored(run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS)), tmp_path / "worse")
    assert main(["bless", "first", "--name", "good"]) == 0
    return tmp_path
