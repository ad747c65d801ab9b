"""Tests of `made_once`, which makes an expensive folder only once for all of pytest's worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.made_once import made_once


def test_a_folder_is_made_once_and_copied(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If `made_once` is called twice, the folder is made once, and each call returns its own copy."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("text", encoding="utf-8")

    name = f"shared-{Path(__file__).stem}"
    one, two = (made_once(tmp_path_factory, name, make) for _ in range(2))
    assert (len(made), one != two) == (1, True)
    (one / "file").write_text("changed", encoding="utf-8")
    assert (two / "file").read_text(encoding="utf-8") == "text"


def test_a_failed_folder_is_made_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If making the folder fails, the next call starts with an empty folder."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        made_once(tmp_path_factory, "broken", fail)
    assert not list(made_once(tmp_path_factory, "broken", lambda folder: None).iterdir())
