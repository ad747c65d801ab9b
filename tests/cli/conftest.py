"""A fixture for tests of the command line: each of them runs in its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_suite import small_suite


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which has only the suite `small`. No GPU is visible."""
    small_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path
