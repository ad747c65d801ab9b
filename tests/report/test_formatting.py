"""Tests of how the report formats values as text."""

from __future__ import annotations

import re

from harness.report.formatting import anchor, unbroken, with_code


def test_anchors_are_permanent_and_unique() -> None:
    """If a case id is plain, links use it as it is; ids that differ only in special characters get different links."""
    assert anchor("retain-012") == "retain-012"
    assert anchor("a b") != anchor("a/b")
    assert re.fullmatch(r"[\w.-]+", anchor("a b\ud800"))


def test_code_in_a_sentence() -> None:
    """Parts between backticks are code, and everything else in the sentence is escaped."""
    assert with_code("run `harness next` on <b>\x1b") == "run <code>harness next</code> on &lt;b&gt;‹ESC›"


def test_short_words_with_a_hyphen_are_not_broken() -> None:
    """Of a name, only short words with a hyphen are kept on one line, and everything is escaped."""
    assert unbroken("lr=1e-3 r=2 <b>\x1b") == '<span class="whole">lr=1e-3</span> r=2 &lt;b&gt;‹ESC›'
    assert unbroken("a-name-that-is-too-long-for-a-phone") == "a-name-that-is-too-long-for-a-phone"
