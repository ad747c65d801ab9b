"""Test of `harness schema`."""

from __future__ import annotations

import pytest

from harness.cli import main
from tests.support.command_line import (
    ROOT,
)


@pytest.mark.parametrize("kind", ["suite", "grid"])
def test_schema(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """`schema` prints the JSON Schema that is committed in suites/, for suites as well as for grids."""
    assert main(["schema", kind]) == 0
    assert capsys.readouterr().out == (ROOT / "suites" / f"{kind}.schema.json").read_text(encoding="utf-8")
