"""Tests of how the report formats values as text."""

from __future__ import annotations

import re

from harness.report.formatting import anchor, with_code


def test_anchors_are_permanent_and_unique() -> None:
    """If a case id is plain, links use it as it is; ids that differ only in special characters get different links."""
    assert anchor("retain-012") == "retain-012"
    assert anchor("a b") != anchor("a/b")
    assert re.fullmatch(r"[\w.-]+", anchor("a b\ud800"))


def test_code_in_a_sentence() -> None:
    """Parts between backticks are code, and everything else in the sentence is escaped."""
    assert with_code("run `harness next` on <b>\x1b") == "run <code>harness next</code> on &lt;b&gt;‹ESC›"
