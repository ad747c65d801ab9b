"""Values as text."""

from __future__ import annotations

import re

from harness.report.formatting import anchor, setting


def test_anchors_are_permanent_and_unique() -> None:
    """A plain case id is its own anchor; ids that differ only in odd characters have different ones."""
    assert anchor("retain-012") == "retain-012"
    assert anchor("a b") != anchor("a/b")
    assert re.fullmatch(r"[\w.-]+", anchor("a b\ud800"))


def test_module_names_read_alike_after_loading() -> None:
    """A list of modules shows as one, be it a tuple of a fresh run or a list of one that was read back."""
    assert setting("target_modules", ["q_proj", "v_proj"]) == setting("target_modules", ("q_proj", "v_proj"))
    assert setting("target_modules", ["q_proj", "v_proj"]) == "q_proj, v_proj"
