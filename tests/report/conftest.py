"""Fixtures for tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_pairs
from tests.support.report_runs import LOST, stored


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into an empty folder with two run directories: `first`, and `second`, which lost three cases."""
    monkeypatch.chdir(tmp_path)
    stored(run_pairs.results(), Path("first"))
    stored(run_pairs.results(LOST), Path("second"))
    return tmp_path
