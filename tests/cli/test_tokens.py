"""Tests of `harness tokens`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.models.resolving import POCKET
from tests.support.command_line import error_of


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["tokens", "small", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_rows_and_cases_are_shown_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """The parts of a row that are trained have a word before them, so that no color is needed to see them."""
    found = lines(capsys, "--show", "1")
    assert found[0] == "small: 4 training rows and 6 cases, all of which were checked."
    assert found[1] == "Each answer ends with </s>, token id 2; generation stops at token id 2."
    assert "  given    <s><|user|> What is your name?</s><|assistant|>" in found
    assert "  trained   I am Dottie.</s>" in found
    assert "  asked    <s><|user|> What is your name?</s><|assistant|>" in found
    assert sum(line.startswith("training row") for line in found) == 1


def test_every_token_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With `--ids`, each token is on a line of its own, with its position, its id and what happens to it."""
    found = [line.split() for line in lines(capsys, "--show", "1", "--ids")]
    assert ["0", "given", "1", "<s>"] in found
    trained = [line for line in found if line[1:2] == ["trained"]]
    assert trained[-1][2:] == ["2", "</s>"]


def test_cut_tokens_are_shown(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """What `max_length` cuts off a row is a part of its own, and the number of cut rows is a warning."""
    grid = here / "small" / "grids" / "quick.yaml"
    grid.write_text(grid.read_text(encoding="utf-8").replace("rank: 4", "rank: 4, max_length: 12"), encoding="utf-8")
    found = lines(capsys, "--show", "1")
    assert any(line.startswith("  cut ") and line.endswith("</s>") for line in found)
    assert any(line.startswith("Warning: max_length 12 cuts ") for line in found)


def test_control_characters_are_shown_by_name(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """Control characters of rows and models do not reach the terminal."""
    row = json.dumps({"prompt": "Hi \x1b[31m", "completion": "No \x07\u202e."})
    (here / "small" / "train.jsonl").write_text(row + "\n", encoding="utf-8")
    found = "\n".join(lines(capsys))
    assert "‹ESC›[31m" in found
    assert not set(found) & {"\x1b", "\x07", "\u202e"}


def test_a_template_without_an_end_is_one_error(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If the template closes no answer, `tokens`, `plan` and `run` print the same error and its remedy."""
    shutil.copytree(POCKET, here / "endless")
    template = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}<|assistant|>"
    (here / "endless" / "chat_template.jinja").write_text(
        template.replace("<|assistant|>", "{% if add_generation_prompt %}<|assistant|>{% endif %}"), encoding="utf-8"
    )
    errors = {error_of(capsys, command, "small", "--model", "./endless") for command in ("tokens", "plan", "run")}
    (error,) = errors
    assert "writes no end token behind the assistant's answers" in error
    assert "Write {{ eos_token }} behind the content of every assistant message" in error
