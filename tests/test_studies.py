"""Tests that the studies, which pytest does not run, still fit the package."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

STUDIES = sorted(path.stem for path in (Path(__file__).parent / "studies").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_can_be_imported(name: str) -> None:
    """All names that a study imports from the package exist."""
    importlib.import_module(f"tests.studies.{name}")
