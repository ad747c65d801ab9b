"""Tests of `harness plan`, and of models that `plan` and `run` refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import (
    error_of,
)

WORKSHOP = Path(__file__).resolve().parents[2] / "suites" / "workshop"


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` prints how many variants and trials there are, the settings in which variants differ, and their steps."""
    assert main(["plan", "small", "--seed", "3", "--seed", "4", "--profile", "cpu"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["small,", "grid", "quick:", "2", "variants,", "seeds", "3,", "4:", "4", "trials"],
        ["variant", "learning", "rate", "steps"],
        ["lr=1e-5", "1e-5", "8"],
        ["lr=0.01", "0.01", "8"],
        ["Passes:", "1", "pass", "of", "4", "trials."],
    ]


IMPOSSIBLE = {
    "no such folder": ("./nowhere", "there is no folder ./nowhere"),
    "a folder's name with a known shape in it": ("./llama-2-7b", "there is no folder ./llama-2-7b"),
    "no owner": ("llama", "there is no model llama"),
    "empty": ("", "--model is given an empty name"),
    "two revisions": ("a/b@c@d", "there is no folder a/b@c@d"),
    "no such shape": ("shape:gpt", "there is no shape 'gpt'"),
    "a folder that is no model": ("small", "holds no config.json, so it is not a model"),
    "a file": ("small/suite.yaml", "is a file, and a base model is a folder"),
    "nobody's home": ("~nobody-at-all/x", "~nobody-at-all/x cannot be the name of a model"),
    "a long name": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize("command", [("plan",), ("plan", "--profile", "cpu"), ("run",)], ids=" ".join)
@pytest.mark.parametrize("mistake", IMPOSSIBLE)
def test_a_model_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], mistake: str, command: tuple[str, ...]
) -> None:
    """If the name of a model is wrong, `plan` and `run` print the same error and a remedy."""
    name, message = IMPOSSIBLE[mistake]
    error = error_of(capsys, *command, "small", "--model", name)
    assert message in error
    assert error.strip().count("\n") == 1, "a line with the remedy"


def test_rows_that_are_cut_are_counted_per_variant(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`plan` counts, per variant, the rows that `max_length` cuts, and those that lose the end of an answer."""
    grid = here / "small" / "grids" / "quick.yaml"
    grid.write_text(
        "seeds: [0]\nsettings: {epochs: 4, batch_size: 2, rank: 4}\naxes: {max_length: [12, 512]}\n", encoding="utf-8"
    )
    assert main(["plan", "small", "--profile", "cpu"]) == 0
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert found[1][-4:] == ["rows", "cut", "without", "end"]
    assert [line[-2:] for line in found[2:4]] == [["3", "3"], ["0", "0"]]
    assert " ".join(found[4]).startswith("Warning: max_length 12 cuts 3 of 4 training rows; 3 of them lose the end")


REHEARSAL = "seeds: [0]\nsettings: {epochs: 4, batch_size: 2, rank: 4}\naxes: {rehearsal: [0, 6]}\n"


def test_rehearsal_is_planned_before_its_answers_exist(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`plan` counts the steps of rehearsal rows, and says that their answers are made before training."""
    (here / "small" / "grids" / "quick.yaml").write_text(REHEARSAL, encoding="utf-8")
    assert main(["plan", "small", "--profile", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = [line.split()[1:] for line in lines if line.startswith("rehearsal=")]
    assert steps == [["0", "8"], ["6", "20"]]
    [note] = [line for line in lines if line.startswith("Rehearsal: ")]
    assert "before training, the base model answers 38" in note
    assert "with at most 96 tokens each" in note


def test_predictions_take_rehearsal_answers_to_be_long(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """With predictions, `plan` says that it takes each rehearsal row to have the longest answer."""
    (here / "small" / "grids" / "quick.yaml").write_text(REHEARSAL, encoding="utf-8")
    assert main(["plan", "small", "--profile", "t4"]) == 0
    assert "take each rehearsal row to have an answer of 96 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_a_mistake_in_the_rehearsal_prompts_is_one_error(
    capsys: pytest.CaptureFixture[str], here: Path, command: str
) -> None:
    """A mistake in a suite's rehearsal.jsonl is reported with file and line by every command that reads it."""
    (here / "small" / "grids" / "quick.yaml").write_text(REHEARSAL, encoding="utf-8")
    (here / "small" / "rehearsal.jsonl").write_text('{"prompt": "One?"}\n{"text": "Two?"}\n', encoding="utf-8")
    assert "rehearsal.jsonl:2" in error_of(capsys, command, "small")


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_more_rehearsal_than_prompts_is_one_error(capsys: pytest.CaptureFixture[str], here: Path, command: str) -> None:
    """A grid with more rehearsal rows than there are prompts is refused, with the largest number that is possible."""
    (here / "small" / "grids" / "quick.yaml").write_text(REHEARSAL.replace("6]", "999]"), encoding="utf-8")
    error = error_of(capsys, command, "small")
    assert "grids/quick.yaml: rehearsal=999 has rehearsal 999, and there are only 38" in error
    assert "Set rehearsal to at most 38" in error


def test_plan_says_what_a_race_can_save(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness plan --race` says when variants are looked at, how many groups must differ, and what is saved."""
    assert main(["plan", str(WORKSHOP), "--grid", "quick", "--profile", "cpu", "--race"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Race: all variants are looked at" in said
    assert "groups must differ" in said
    assert "simulated races" in said
    assert "A race is not expected to save time here" in said or "a race is expected to save" in said


def test_plan_says_that_a_grid_of_one_variant_cannot_be_raced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`harness plan --race` says that a race has no effect with one variant."""
    folder = tmp_path / "suite"
    shutil.copytree(WORKSHOP, folder)
    (folder / "grids" / "one.yaml").write_text("axes: {rank: [4]}\n", encoding="utf-8")
    assert main(["plan", str(folder), "--grid", "one", "--profile", "cpu", "--race"]) == 0
    assert "`--race` has no effect, because the grid has one variant" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_a_decay_that_is_longer_than_the_training_is_one_error(
    capsys: pytest.CaptureFixture[str], here: Path, command: str
) -> None:
    """A schedule whose decay has more steps than the training is refused, with the largest number that is possible."""
    settings = "epochs: 2, batch_size: 2, warmup: 1, scheduler: warmup_stable_decay"
    text = f"settings: {{{settings}, lr_scheduler_kwargs: {{num_decay_steps: 4}}}}\naxes: {{rank: 4}}\n"
    (here / "small" / "grids" / "quick.yaml").write_text(text, encoding="utf-8")
    error = error_of(capsys, command, "small")
    assert "grids/quick.yaml: r=4: 1 of warmup and 4 of decay are more than the 4 steps of the training" in error
    assert "Write num_decay_steps: 3 or less" in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("warmup: 5", "5 of warmup are more than the 4 steps of the training\nWrite warmup: 4 or less"),
        ("warmup: 5, packing: true", "5 of warmup are more than the 4 steps of the training"),
        (
            "warmup: 4, scheduler: warmup_stable_decay, lr_scheduler_kwargs: {num_decay_steps: 1}",
            "Write warmup: 0 and num_decay_steps: 4 or less",
        ),
        (
            "warmup: 1, scheduler: cosine_with_restarts, lr_scheduler_kwargs: {num_cycles: 4}",
            "num_cycles: 4 are more restarts than the 3 steps after warmup\nWrite num_cycles: 3 or less",
        ),
    ],
)
def test_phases_of_a_schedule_that_do_not_fit_are_an_error(
    capsys: pytest.CaptureFixture[str], here: Path, settings: str, message: str
) -> None:
    """Warmup, decay or restarts for which the training has too few steps are refused, with values that fit."""
    text = f"settings: {{epochs: 2, batch_size: 2, {settings}}}\naxes: {{rank: 4}}\n"
    (here / "small" / "grids" / "quick.yaml").write_text(text, encoding="utf-8")
    error = error_of(capsys, "validate", "small")
    assert all(line in error for line in message.splitlines())
