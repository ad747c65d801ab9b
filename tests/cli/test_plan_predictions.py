"""Tests of the predicted memory and time that `harness plan` shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support.small_suite import small_suite

LLAMA = "meta-llama/Llama-2-7b-chat-hf"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_plan_shows_memory_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` prints each variant's memory, fit and time on a T4, and how reliable these predictions are."""
    assert main(["plan", "small", "--model", LLAMA]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("lr=")]
    assert len(rows) == 2
    assert all("GiB, fits" in row and row.endswith(("min", " s")) for row in rows)
    assert "Predicted for meta-llama/Llama-2-7b-chat-hf on a Tesla T4" in said
    assert "nothing was measured" in said
    assert "not validated on a T4" in said
    assert "Lengths estimated at 3.5 characters a token" in said


@pytest.mark.usefixtures("here")
def test_plan_without_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    """If the model cannot be predicted, or the profile is `cpu`, `plan` prints the variants without predictions."""
    assert main(["plan", "small", "--model", "someone/else"]) == 0
    said = capsys.readouterr().out
    assert "No prediction: there is no folder someone/else" in said
    assert said.count("lr=") == 2
    assert main(["plan", "small", "--profile", "cpu"]) == 0
    assert "GiB" not in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_plan_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """If a variant needs far more memory than a T4 has, `plan` says that it does not fit."""
    grid = Path("small/grids/quick.yaml")
    grid.write_text("axes: {rank: [16, 2048]}\n", encoding="utf-8")
    assert main(["plan", "small", "--model", LLAMA, "--profile", "t4"]) == 0
    fits, too_large = [line for line in capsys.readouterr().out.splitlines() if line.startswith("r=")]
    assert "fits" in fits
    assert "does not fit" in too_large


@pytest.mark.usefixtures("here")
def test_plan_says_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """For variants with DoRA or a pattern, `plan` shows no figure, and says that memory and time are unknown."""
    text = "axes: {use_dora: [false, true]}\nrows: [{name: some, target_modules: '.*q_proj'}]\n"
    Path("small/grids/dora.yaml").write_text(text, encoding="utf-8")
    assert main(["plan", "small", "--grid", "dora", "--model", LLAMA]) == 0
    said = capsys.readouterr().out
    known, unknown = (line for line in said.splitlines() if line.startswith("dora="))
    assert "GiB, fits" in known
    assert "GiB" not in unknown
    assert "Memory and time are unknown for trials with DoRA and a pattern for target modules" in said
