"""Tests of the check of rows and prompts with a model's tokenizer, before anything trains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ModelError, SuiteError
from harness.core.suite import Example, Message
from harness.core.turn_tokens import CutRows, PartKind, TurnTokens
from harness.models.resolving import POCKET
from harness.models.token_check import check_named, check_tokens, views_named
from harness.models.tokenizer_files import read_tokenizer
from harness.suites import load_suite

SUITE = load_suite(Path(__file__).parents[2] / "suites" / "workshop")
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def model(folder: Path, template: str = "", **settings: Any) -> Path:
    """Write the pocket model's description into a folder, with other settings of the tokenizer."""
    folder.mkdir()
    for name in ("tokenizer.json", "config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copy(POCKET / name, folder)
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    given = json.loads((POCKET / "tokenizer_config.json").read_text(encoding="utf-8")) | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(given), encoding="utf-8")
    return folder


def checked(folder: Path, *lengths: int) -> TurnTokens:
    found = check_tokens(SUITE, lengths or (512,), folder)
    assert not isinstance(found, str)
    return found


def test_cut_rows_are_counted_for_each_length() -> None:
    """For each `max_length`, the rows that it cuts and those that lose an end are counted with the tokenizer."""
    short, whole = checked(POCKET, 512, 20).cuts
    assert (short.max_length, short.cut, short.endless) == (20, 30, 30)
    assert whole == CutRows(512, 30, 0, 0)


def test_a_row_that_loses_only_what_is_behind_its_end_is_cut_but_not_endless(tmp_path: Path) -> None:
    """A row of which only tokens behind the closing token are cut still teaches the model to stop."""
    template = (
        (POCKET / "chat_template.jinja").read_text(encoding="utf-8").replace("eos_token }}", "eos_token + '\\n' }}")
    )
    folder = model(tmp_path / "model", template)
    suite = replace(SUITE, examples=SUITE.examples[:1])
    whole = check_tokens(suite, [512], folder)
    assert not isinstance(whole, str)
    length = whole.views[0].tokens
    found = check_tokens(suite, [length - 1, length - 2], folder)
    assert not isinstance(found, str)
    assert [(cut.cut, cut.endless) for cut in found.cuts] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("token", ["[PAD]", "<mine>"])
def test_a_token_without_an_embedding_is_refused(token: str, tmp_path: Path) -> None:
    """A padding token, or a token of the rows, whose id is too large for the model is refused with a remedy."""
    if token == "[PAD]":
        folder = model(tmp_path / "model", pad_token="[PAD]")
    else:
        template = "<mine>" + (POCKET / "chat_template.jinja").read_text(encoding="utf-8")
        folder = model(tmp_path / "model", template, added_tokens_decoder={"2048": {"content": "<mine>"}})
    with pytest.raises(ModelError, match=r"has the id 2048|the id 2048, and the model has embeddings") as caught:
        checked(folder)
    assert "resize_token_embeddings" in caught.value.remedy


def test_the_remedy_for_a_padding_token_works(tmp_path: Path) -> None:
    """With another token of the tokenizer as `pad_token`, as the message advises, the check passes."""
    assert checked(model(tmp_path / "model", pad_token="</s>")).end == 2


def test_a_template_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """A template that needs too much memory is given up, and the message names the model's folder."""
    large = "{% set x = 'a' * (10**9) %}" + (POCKET / "chat_template.jinja").read_text(encoding="utf-8")
    folder = model(tmp_path / "model", large)
    with pytest.raises(ModelError, match=r"the chat template of .*model needed more than 512 MiB"):
        checked(folder)


def test_a_prompt_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    """If the template refuses a case, the message has the case's question."""
    whole = (POCKET / "chat_template.jinja").read_text(encoding="utf-8")
    odd = "{% if messages[0].content == 'Odd?' %}{{ raise_exception('too odd') }}{% endif %}" + whole
    folder = model(tmp_path / "model", odd)
    suite = replace(SUITE, cases=(replace(SUITE.cases[0], messages=(Message("user", "Odd?"),)),))
    with pytest.raises(SuiteError, match=r"the case that asks 'Odd\?' cannot be written .*: too odd"):
        check_tokens(suite, [512], folder)


def test_without_a_readable_tokenizer_there_is_a_reason(tmp_path: Path) -> None:
    """If the folder has no tokenizer.json, nothing is checked here, and the reason is returned."""
    folder = model(tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    assert check_tokens(SUITE, [512], folder) == "the model's folder holds no tokenizer.json"
    with pytest.raises(ModelError, match=r"cannot be shown: .*no tokenizer.json"):
        views_named(SUITE, [512], str(folder), 1)


def test_a_model_that_cannot_be_found_gives_a_reason() -> None:
    """If the model's description cannot be had, the check is left out, and the reason is returned."""
    assert "there is no model" in str(check_named(SUITE, [512], "nothing-like-this"))


def test_views_show_what_is_given_trained_cut_and_asked() -> None:
    """A row is shown in parts that are given, trained and cut; a case is shown as it is asked."""
    _, (row, case), _ = views_named(SUITE, [25], "pocket", 1)
    assert [part.kind for part in row.parts] == [PartKind.GIVEN, PartKind.TRAINED, PartKind.CUT]
    assert row.parts[0].text.endswith("<|assistant|>")
    assert row.parts[2].text.endswith("</s>")
    assert [part.kind for part in case.parts] == [PartKind.ASKED]
    assert case.parts[0].text.endswith("<|assistant|>")


def test_many_rows_are_checked() -> None:
    """Thousands of rows are checked, all in one child process."""
    rows = tuple(
        Example((Message("user", f"How much is {n}?"), Message("assistant", f"It is {n}.")), n) for n in range(3000)
    )
    found = check_tokens(replace(SUITE, examples=rows), [512], POCKET)
    assert not isinstance(found, str)
    assert found.cuts[0].rows == 3000


@pytest.mark.parametrize(("listed", "expected"), [({}, 2), ({"added_tokens_decoder": {}}, 3)])
def test_special_tokens_are_those_that_transformers_reads(
    listed: dict[str, object], expected: int, tmp_path: Path
) -> None:
    """special_tokens_map.json counts only if tokenizer_config.json does not list the added tokens."""
    folder = model(tmp_path / "model", pad_token="<pad>", **listed)
    (folder / "special_tokens_map.json").write_text('{"pad_token": "</s>"}', encoding="utf-8")
    found = read_tokenizer(folder)
    assert not isinstance(found, str)
    assert found.pad == expected
