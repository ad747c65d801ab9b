"""Tests of the token counts of training rows, which equal those of transformers or are estimates with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ModelError
from harness.core.suite import Example, Message
from harness.engine.loading import without_today
from harness.models.resolving import POCKET
from harness.models.token_lengths import lengths
from harness.models.tokenizer_files import read_tokenizer
from harness.suites import load_suite

ROWS = load_suite(Path(__file__).parents[2] / "suites" / "workshop").examples
TALK = Example((Message("system", "Be brief."), Message("user", "Hello, who are you?"), Message("assistant", "I.")))
TEMPLATES = {
    "plain": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
    "llama-2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn!') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "helpers": (
        "{%- for m in messages %}\n{%- if loop.first %}{{ strftime_now('%Y') }}{%- continue %}{%- endif %}\n"
        "{{- m | tojson }}{{ bos_token }}\n{%- break %}{%- endfor %}"
    ),
}


def tokenizer(folder: Path, template: str | None = None, **settings: Any) -> Path:
    """Write the pocket model's tokenizer into a folder, with this chat template and these settings."""
    folder.mkdir()
    shutil.copy(POCKET / "tokenizer.json", folder)
    given = json.loads((POCKET / "tokenizer_config.json").read_text(encoding="utf-8"))
    given |= {"chat_template": template} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(given), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_lengths_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """For each kind of chat template, every row has as many tokens as transformers gives it."""
    from transformers import AutoTokenizer

    rows = [*ROWS, TALK]
    folder = tokenizer(tmp_path / name, TEMPLATES[name], eos_token={"content": "</s>", "__type": "AddedToken"})
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    theirs.chat_template = without_today(theirs.chat_template)
    chats = [[{"role": m.role, "content": m.content} for m in row.messages] for row in rows]
    expected = [len(theirs.apply_chat_template(chat, tokenize=True, return_dict=False)) for chat in chats]
    found = lengths(rows, folder)
    assert found.counted
    assert list(found.tokens) == expected


def test_labels_are_those_of_training() -> None:
    """Every row has as many tokens with labels as the row that is trained."""
    tokenized = read_tokenizer(POCKET)
    assert not isinstance(tokenized, str)
    found = lengths(ROWS, POCKET)
    assert list(found.supervised) == [row.supervised for row in tokenized.conversations.rows(ROWS)]
    assert all(0 < labels < tokens for labels, tokens in zip(found.supervised, found.tokens, strict=True))


def test_the_pocket_model_is_counted() -> None:
    """If the chat template is in chat_template.jinja, as for the pocket model, tokens are counted and not estimated."""
    found = lengths(ROWS, POCKET)
    assert found.counted
    assert found.words == "lengths counted with the model's tokenizer"
    assert len(found.tokens) == len(ROWS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "no chat template"),
    ],
    ids=["no tokenizer", "nothing"],
)
def test_an_estimate_says_why(change: Any, reason: str, tmp_path: Path) -> None:
    """If the tokenizer cannot be used, tokens are estimated from the number of characters, and the reason is given."""
    folder = tokenizer(tmp_path / "given", TEMPLATES["plain"])
    change(folder)
    found = lengths([TALK], folder)
    assert not found.counted
    assert reason in found.words
    assert found.tokens == (round(30 / 3.5 + 3 * 8),)
    assert found.supervised == (round(2 / 3.5 + 1),)


@pytest.mark.parametrize(("name", "content"), [("tokenizer.json", "{}"), ("tokenizer_config.json", "[]")])
def test_a_damaged_tokenizer_is_an_error(name: str, content: str, tmp_path: Path) -> None:
    """A damaged file of the tokenizer is an error, and no reason for an estimate."""
    folder = tokenizer(tmp_path / "given", TEMPLATES["plain"])
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        lengths([TALK], folder)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{% for", "end of template"),
    ],
)
def test_a_template_that_refuses(template: str, reason: str, tmp_path: Path) -> None:
    """If a chat template refuses a row, does something unsafe or cannot be parsed, token counts are estimated."""
    found = lengths([TALK], tokenizer(tmp_path / "given", template))
    assert not found.counted
    assert reason in found.words


def test_no_tokenizer_at_all() -> None:
    """If no tokenizer is given, the number of tokens is estimated, and the reason says that there is none."""
    assert "the model has no tokenizer on this machine yet" in lengths([TALK], None).words
