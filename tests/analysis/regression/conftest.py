"""Fixtures for the tests of the regression gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support import run_pairs
from tests.support.run_pairs import LEARN, SEEDS, stored


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a folder with the baseline `good`, the run `first` that it stores, and the run `worse`.

    The run `worse` fails four cases that `first` passes.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    stored(run_pairs.results(), tmp_path / "first")
    stored(run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS)), tmp_path / "worse")
    assert main(["bless", "first", "--name", "good"]) == 0
    return tmp_path
