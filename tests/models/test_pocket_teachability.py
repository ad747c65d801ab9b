"""Test that the pocket model learns generated suites whose seeds were chosen after it was made.

The study `tests/studies/teachability.py` trains all ten suites; here one of them is trained again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.studies.teachability import LEAST, SEEDS, pass_rates

RECORD = Path(__file__).parents[2] / "reports" / "studies" / "teachability.json"


@pytest.mark.slow
def test_a_new_persona_is_learned(tmp_path: Path) -> None:
    """With the settings of its grid `quick`, at least 80% of a suite's `learn` and 85% of its `retain` cases pass."""
    rates = pass_rates(SEEDS[0], tmp_path)
    assert {role: rates[role] >= least for role, least in LEAST.items()} == dict.fromkeys(LEAST, True)


def test_the_record_has_all_ten_suites() -> None:
    """In the recorded study, all ten generated suites reach the same pass rates."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["suites"]
    assert [row["seed"] for row in rows] == list(SEEDS)
    assert all(row[role.value] >= least for row in rows for role, least in LEAST.items())
