"""Tests of how the report formats values as text."""

from __future__ import annotations

import re

from harness.report.formatting import anchor


def test_anchors_are_permanent_and_unique() -> None:
    """If a case id is plain, links use it as it is; ids that differ only in special characters get different links."""
    assert anchor("retain-012") == "retain-012"
    assert anchor("a b") != anchor("a/b")
    assert re.fullmatch(r"[\w.-]+", anchor("a b\ud800"))
