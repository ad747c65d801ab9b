"""Tests of what training and asking have in common: ends, prefixes, and complete conversations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ModelError, SuiteError
from harness.core.suite import Example, Message
from harness.models.conversation_tokens import IGNORED, Conversations, Row
from harness.models.resolving import POCKET
from harness.models.tokenizer_files import read_tokenizer

EACH = "{% for m in messages %}"
HEAD = "<|{{ m.role }}|>"
OPEN = "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = EACH + HEAD + " {{ m.content }}</s>" + OPEN
THINK = (
    EACH
    + HEAD
    + "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}</s>"
    + OPEN
)
TALK = (Message("user", "Who are you?"), Message("assistant", "I am Dottie."))
TWICE = (*TALK, Message("user", "And now?"), Message("assistant", "Still Dottie."))


def conversations(folder: Path, template: str, **settings: Any) -> Conversations:
    """Return the conversations of the pocket model's tokenizer with this chat template and these settings."""
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "config.json", "generation_config.json"):
        shutil.copy(POCKET / name, folder)
    given = json.loads((POCKET / "tokenizer_config.json").read_text(encoding="utf-8"))
    given |= {"chat_template": template} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(given), encoding="utf-8")
    found = read_tokenizer(folder)
    assert not isinstance(found, str)
    return found.conversations


def row_of(known: Conversations, messages: tuple[Message, ...] = TALK) -> Row:
    (row,) = known.rows([Example(messages, 7)])
    return row


def trained(known: Conversations, row: Row) -> list[str]:
    """Return the text of each stretch of tokens with labels."""
    stretches: list[list[int]] = [[]]
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (token, IGNORED)
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(token)
    return [known.vocabulary.decode(each) for each in stretches if each]


def asked(known: Conversations, messages: tuple[Message, ...] = TALK[:1]) -> list[int]:
    (ids,) = known.asked([("the case", messages)])
    return ids


def test_a_closing_token_that_no_configuration_names_is_an_end(tmp_path: Path) -> None:
    """Generation also stops at the token with which the template closes turns, if the configuration names another."""
    conversations(tmp_path / "known", PLAIN, eos_token="<pad>")
    for name in ("config.json", "generation_config.json"):
        given = json.loads((tmp_path / "known" / name).read_text(encoding="utf-8"))
        (tmp_path / "known" / name).write_text(json.dumps(given | {"eos_token_id": 3}), encoding="utf-8")
    found = read_tokenizer(tmp_path / "known")
    assert not isinstance(found, str)
    turns = found.conversations.turns()
    assert (turns.end_text, turns.named, turns.ends) == ("</s>", False, (2, 3))
    assert "closes each answer with </s>" in turns.notices[0]


def test_labels_end_with_the_closing_token(tmp_path: Path) -> None:
    """Tokens that the template writes behind the closing token have no labels, in every answer of a conversation."""
    known = conversations(tmp_path / "known", EACH + HEAD + "{{ m.content }}</s>\n" + OPEN)
    assert known.turns().behind > 0
    assert trained(known, row_of(known, TWICE)) == ["I am Dottie.</s>", "Still Dottie.</s>"]


def test_a_template_that_always_opens_an_answer_is_trained_without_it(tmp_path: Path) -> None:
    """If the template opens a further answer behind every conversation, as Llama 3's first one, it has no labels."""
    known = conversations(tmp_path / "known", EACH + HEAD + "{{ m.content }}</s>{% endfor %}<|assistant|>")
    assert trained(known, row_of(known)) == ["I am Dottie.</s>"]


def test_a_think_block_of_rows_is_asked_with(tmp_path: Path) -> None:
    """A think block that the template writes before the answer of a row is in prompts, too, and has no labels."""
    known = conversations(tmp_path / "known", THINK)
    row, prompt = row_of(known), asked(known)
    assert known.vocabulary.decode(prompt).endswith("</think>\n\n")
    assert row.input_ids[: len(prompt)] == prompt
    assert trained(known, row) == ["I am Dottie.</s>"]
    assert "asked with it" in known.turns().notices[0]


def test_thoughts_of_prompts_only_are_not_asked_with(tmp_path: Path) -> None:
    """If the template opens thoughts in prompts, and not in rows, the model is asked without them."""
    known = conversations(tmp_path / "known", PLAIN.replace("<|assistant|>{% endif", "<|assistant|><think>\n{% endif"))
    prompt = asked(known)
    assert known.vocabulary.decode(prompt).endswith("<|assistant|>")
    assert row_of(known).input_ids[: len(prompt)] == prompt
    assert (known.turns().opening, known.turns().left_out) == ("", "<think>\n")


def test_a_space_that_joins_the_answer_is_left_out_of_prompts(tmp_path: Path) -> None:
    """If the tokenizer joins the space at the end of a prompt with the answer, the prompt is asked without it."""
    template = (
        EACH + "{{ m.role }}: {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    known = conversations(tmp_path / "known", template)
    prompt = asked(known)
    assert known.vocabulary.decode(prompt).endswith("assistant:")
    assert row_of(known).input_ids[: len(prompt)] == prompt
    assert known.turns().short


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (PLAIN.replace("</s>", "{% if not loop.last %}</s>{% endif %}"), "writes no end token"),
        (PLAIN.replace("</s>", "<|im_end|>"), r"writes '<\|im_end\|>' .* divides this text into several tokens"),
        (PLAIN.replace("</s>", "\n"), "writes no end token"),
        (
            EACH + HEAD + "{% for part in m.content %}{{ part.text }}{% endfor %}</s>" + OPEN,
            "leaves out or changes the assistant",
        ),
    ],
    ids=["only between turns", "letters", "a line break", "content parts"],
)
def test_a_template_without_an_end_is_refused(template: str, reason: str, tmp_path: Path) -> None:
    """A template that closes the last answer with no token at which generation could stop is refused, with a remedy."""
    with pytest.raises((ModelError, SuiteError), match=reason) as caught:
        conversations(tmp_path / "known", template).turns()
    assert "into chat_template.jinja in a copy" in caught.value.remedy or "as a text in a copy" in caught.value.remedy


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('not for you') }}", "cannot write a question and its answer: not for you"),
        ("{% for %}", "cannot write a question and its answer: Expected an expression"),
        (" ", "leaves out or changes the assistant's messages"),
    ],
    ids=["raises", "syntax", "writes nothing"],
)
def test_a_template_that_writes_no_row_is_itself_refused(template: str, reason: str, tmp_path: Path) -> None:
    """If a template can write no conversation at all, the message is about the template and not about a row."""
    with pytest.raises(ModelError, match=f"the chat template of .* {reason}"):
        row_of(conversations(tmp_path / "known", template))


@pytest.mark.parametrize(
    "ending",
    ["{% if '!' not in m.content %}</s>{% endif %}", "</s>{% if messages[0].content == 'Hi!' %}<|user|>{% endif %}"],
    ids=["no end", "more behind the end"],
)
def test_an_answer_that_is_not_closed_as_others_is_refused(ending: str, tmp_path: Path) -> None:
    """A row is refused if the template closes its answer otherwise than it closes answers in general."""
    known = conversations(tmp_path / "known", PLAIN.replace("</s>", ending))
    assert row_of(known).supervised
    with pytest.raises(SuiteError, match=r"training row 7: .* closes other answers with '</s>', but this one ends"):
        row_of(known, (Message("user", "Hi!"), Message("assistant", "Hello, friend!")))


@pytest.mark.parametrize("opening", ["<think>", "<think>\n\n</think>\n\n", "Sure! "])
def test_a_text_before_some_answers_is_not_learned(opening: str, tmp_path: Path) -> None:
    """A row is refused if the template writes a text before its answer, but neither before others nor into prompts."""
    some = "{% if m.role == 'assistant' and '?' in messages[0].content %}" + opening + "{% endif %}{{ m.content }}"
    known = conversations(tmp_path / "known", PLAIN.replace("{{ m.content }}", some))
    assert row_of(known, (Message("user", "Hi."), TALK[1])).supervised
    with pytest.raises(SuiteError, match=r"training row 7: .* before the answer, but not into the prompt"):
        row_of(known)


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_templates_are_told_that_there_are_no_tools(name: str, tmp_path: Path) -> None:
    """A template that asks whether tools or documents are none gets the answer that transformers gives."""
    marked = "{% if " + name + " is not none %}MORE{% endif %}{% if " + name + " is defined %}!{% endif %}" + PLAIN
    known = conversations(tmp_path / "known", marked)
    assert known.vocabulary.decode(asked(known)).startswith("!<|user|>")


@pytest.mark.parametrize(
    ("guard", "messages", "remedy"),
    [
        ("messages[0].role == 'system'", (Message("system", "Be brief."), *TALK), "into the first user message"),
        ("messages[0].role != 'system'", TALK, "Put a system message before it"),
        ("messages|selectattr('role', 'equalto', 'user')|list|length == 2", TWICE, "Let user and assistant alternate"),
    ],
    ids=["no system message", "always a system message", "one question"],
)
def test_the_remedy_fits_what_the_template_refuses(
    guard: str, messages: tuple[Message, ...], remedy: str, tmp_path: Path
) -> None:
    """If the template refuses a row for its system message, or for having none, the remedy says so."""
    template = "{% if " + guard + " %}{{ raise_exception('refused') }}{% endif %}" + PLAIN
    with pytest.raises(SuiteError, match="training row 7 cannot be written") as caught:
        row_of(conversations(tmp_path / "known", template), messages)
    assert remedy in caught.value.remedy


def test_a_template_that_writes_prompts_otherwise_is_named_as_the_cause(tmp_path: Path) -> None:
    """If the template writes a question otherwise in a prompt than in a row, the answer's beginning is not blamed."""
    template = PLAIN.replace(HEAD, HEAD + "{% if messages|length == 2 and '?' in m.content %}!{% endif %}")
    with pytest.raises(SuiteError, match=r"training row 7: .* differently in a prompt and in a row"):
        row_of(conversations(tmp_path / "known", template))


def test_an_ordinary_token_can_close_turns(tmp_path: Path) -> None:
    """If a token of the vocabulary that is no special token closes every answer, generation stops at it."""
    known = conversations(tmp_path / "known", PLAIN.replace("</s>", " friend\n"), eos_token="<pad>")
    assert known.turns().end_text.strip("▁") == "friend"


@pytest.mark.parametrize(
    ("template", "messages", "named"),
    [
        (PLAIN.replace("{{ m.content }}", "{% if m.role != 'user' %}{{ m.content }}{% endif %}"), TALK, "user"),
        (PLAIN.replace(HEAD, "{% if m.role == 'system' %}{% continue %}{% endif %}" + HEAD),
         (Message("system", "Be brief."), *TALK), "system"),
    ],
    ids=["no user message", "no system message"],
)  # fmt: skip
def test_a_message_that_is_left_out_is_refused(
    template: str, messages: tuple[Message, ...], named: str, tmp_path: Path
) -> None:
    """If the rendered text of a row or a prompt lacks a message, it is refused, with its name and the message."""
    known = conversations(tmp_path / "known", template)
    with pytest.raises(SuiteError, match=f"training row 7: .* leaves out or changes the {named} message"):
        row_of(known, messages)
    with pytest.raises(SuiteError, match=f"the case: .* leaves out or changes the {named} message"):
        asked(known, messages[:-1])


@pytest.mark.parametrize(
    ("template", "answer", "reason"),
    [
        (PLAIN, "One.</s> Two.", "holds the text '</s>', at which generation stops"),
        (THINK.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}").replace(
            "<think>\n\n<", "<think>\n{{ m.content.split('</think>')[0] }}\n<"), "Hm.</think>One.", "thoughts"),
    ],
    ids=["an end token", "thoughts"],
)  # fmt: skip
def test_an_answer_that_would_not_be_asked_for_is_refused(
    template: str, answer: str, reason: str, tmp_path: Path
) -> None:
    """An answer that holds an end token, or thoughts that the prompt closes, is refused with the row's line."""
    known = conversations(tmp_path / "known", template)
    with pytest.raises(SuiteError, match=f"training row 7: .*{reason}"):
        row_of(known, (TALK[0], Message("assistant", answer)))


@pytest.mark.parametrize(
    "template",
    [PLAIN.replace("</s>", "{% if loop.last or m.role == 'user' %}</s>{% endif %}"), THINK],
    ids=["only the last answer ends", "only the last answer has a think block"],
)
def test_an_earlier_answer_that_ends_otherwise_is_refused(template: str, tmp_path: Path) -> None:
    """If an earlier answer is rendered otherwise than a last one, the row is refused, and the remedy works."""
    known = conversations(tmp_path / "known", template)
    with pytest.raises(SuiteError, match=r"training row 7: .* differently when another turn follows") as caught:
        row_of(known, TWICE)
    assert "one row of each question and its answer, without the turns before" in caught.value.remedy
    assert row_of(known, TWICE[:2]).supervised
    assert row_of(known, TWICE[2:]).supervised


def test_the_pocket_model_has_no_deviation() -> None:
    """For the pocket model, nothing differs from the configuration and from the template's own prompts."""
    found = read_tokenizer(POCKET)
    assert not isinstance(found, str)
    turns = found.conversations.turns()
    assert (turns.end_text, turns.ends, turns.key, turns.notices) == ("</s>", (2,), "", ())


def test_a_template_may_require_a_system_message(tmp_path: Path) -> None:
    """If the template refuses conversations without a system message, its turns are found with one."""
    guard = "{% if messages[0].role != 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    known = conversations(tmp_path / "known", guard + PLAIN)
    assert known.turns().end_text == "</s>"
    with pytest.raises(SuiteError, match=r"training row 7 cannot be written .*: no system message"):
        row_of(known)


def test_the_remedy_for_a_missing_end_works(tmp_path: Path) -> None:
    """With `{{ eos_token }}` behind the content of the assistant's messages, as the message advises, turns end."""
    broken = PLAIN.replace("</s>", "{% if not loop.last %}</s>{% endif %}")
    end = "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    known = conversations(tmp_path / "known", broken.replace("{{ m.content }}", "{{ m.content }}" + end))
    assert trained(known, row_of(known)) == [" I am Dottie.</s>"]
