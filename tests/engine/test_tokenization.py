"""Only the assistant's tokens get labels, as in TRL's tokenization of prompt/completion rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.conversations import as_chat
from harness.core.errors import SuiteError
from harness.core.model import TEMPLATE_DATE
from harness.core.settings import Quantization
from harness.core.suite import Example, Message
from harness.engine.loading import Base, load_base, untouched
from harness.engine.tokenization import IGNORED, Row, conversations_of, render, tokenize
from harness.engine.trainers.sft import lora_config, sft_arguments
from harness.models.resolving import POCKET, resolve
from harness.models.token_lengths import lengths
from harness.models.tokenizer_files import read_tokenizer
from tests.support.architectures import FAMILIES, _tokenizer
from tests.support.short_trainings import SHORT, SUITE, losses, one_core, rows_of, talk, trained_once, trainer_of


def learned(base: Base, row: Row) -> list[str]:
    """Return the parts of a row that have labels, decoded to text."""
    found: list[list[int]] = [[]]
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (token, IGNORED)
        if label == IGNORED:
            found.append([])
        else:
            found[-1].append(token)
    return [base.tokenizer.decode(stretch) for stretch in found if stretch]


def trl_trainer(base: Base, folder: Path, examples: Sequence[Example]) -> Any:
    """Return an SFTTrainer over prompt/completion rows, which TRL renders, tokenises and masks itself."""
    from datasets import Dataset
    from trl import SFTTrainer

    chats = [[{"role": m.role, "content": m.content} for m in example.messages] for example in examples]
    rows = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]
    arguments = sft_arguments(base, SHORT, 0, str(folder))
    arguments.completion_only_loss = True
    return SFTTrainer(
        model=base.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=base.tokenizer,
        peft_config=lora_config(SHORT),
    )


def test_single_answers_are_labelled_as_trl_labels_them(base: Base, tmp_path: Path) -> None:
    """If rows have a single answer, every batch equals the batch that TRL makes of prompt/completion rows."""
    with untouched(base.model):
        ours = list(trainer_of(base, tmp_path, rows=rows_of(base, 30)).get_train_dataloader())
    with untouched(base.model):
        theirs = list(trl_trainer(base, tmp_path, SUITE.examples[:30]).get_train_dataloader())
    assert len(ours) == len(theirs) == 8
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.keys() == its.keys()
        assert all(mine[name].equal(its[name]) for name in mine)


def test_the_first_loss_is_trls(base: Base, tmp_path: Path) -> None:
    """The loss of the first step equals the loss with which TRL itself starts on the same rows."""
    ours = losses(trained_once(base))[0]
    with untouched(base.model):
        trainer = trl_trainer(base, tmp_path, SUITE.examples[:8])
        trainer.model.float()
        trainer.train()
    assert trainer.state.log_history[0]["loss"] == ours


def test_every_answer_of_a_conversation_has_labels(base: Base) -> None:
    """In a conversation, every assistant message has labels; user messages and role marks have none."""
    (row,) = tokenize([talk("Hi.", "Hello you.", "What is two?", "Two is a number.")], base.tokenizer, 512)
    assert learned(base, row) == [" Hello you.</s>", " Two is a number.</s>"]


def test_a_system_message_has_no_labels(base: Base) -> None:
    """A system message has no labels, nor have two user messages in a row."""
    told = (
        Message("system", "Be brief."),
        Message("user", "Hi."),
        Message("user", "You?"),
        Message("assistant", "Ok."),
    )
    (row,) = tokenize([Example(told, 1)], base.tokenizer, 512)
    assert learned(base, row) == [" Ok.</s>"]


def test_two_answers_in_a_row_both_have_labels(base: Base) -> None:
    """If two assistant messages follow each other, both have labels."""
    told = (Message("user", "Hi."), Message("assistant", "One."), Message("assistant", "Two."))
    (row,) = tokenize([Example(told, 1)], base.tokenizer, 512)
    assert learned(base, row) == [" One.</s>", " Two.</s>"]


def test_a_long_row_is_cut(base: Base) -> None:
    """A row is cut at `max_length` tokens, and what is left of its answer keeps the labels."""
    example = talk("Hi.", "One two three four five six seven eight nine ten.")
    (whole,), (cut,) = tokenize([example], base.tokenizer, 512), tokenize([example], base.tokenizer, 14)
    assert cut == Row(whole.input_ids[:14], whole.labels[:14])
    assert 0 < cut.supervised < whole.supervised


def test_a_row_without_labels_is_refused(base: Base) -> None:
    """A row whose prompt alone fills `max_length` is refused; the message has the row's line and two remedies."""
    rows = [talk("Hi.", "Hello."), talk("word " * 40, "Hello.", line=7)]
    with pytest.raises(SuiteError, match=r"training row 7: .*all 20 tokens of max_length\nRaise max_length .*shorten"):
        tokenize(rows, base.tokenizer, 20)


def test_a_row_that_the_template_refuses_is_named(base: Base) -> None:
    """If the chat template refuses a training row, the message has the row's line and the template's error."""
    from copy import deepcopy

    tokenizer = deepcopy(base.tokenizer)
    guard = "{% if messages[0].content == 'Hi.' %}{{ raise_exception('no greetings here') }}{% endif %}"
    tokenizer.chat_template = guard + tokenizer.chat_template
    with pytest.raises(
        SuiteError, match="training row 3 cannot be written with the model's chat template: no greetings here"
    ):
        tokenize([talk("Hi.", "Hello.", line=3)], tokenizer, 512)


def test_an_answer_that_is_written_otherwise_later_is_refused(base: Base) -> None:
    """A template that renders an answer differently once another turn follows, as Qwen3's does, is refused."""
    from copy import deepcopy

    tokenizer = deepcopy(base.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: "
        "{% if m.role == 'assistant' and loop.last %}(thought) {% endif %}{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    twice = replace(talk("Hi.", "Hello.", "Who?", "Dottie."), line=5)
    with pytest.raises(SuiteError, match=r"training row 5: .* renders an answer differently when another turn follows"):
        tokenize([twice], tokenizer, 512)
    (row,) = tokenize([talk("Hi.", "Hello.")], tokenizer, 512)
    assert row.supervised > 2


def test_a_template_gets_the_same_date_every_day(tmp_path: Path) -> None:
    """A chat template that asks for today's date, as Llama 3.2's does, always gets the same fixed date."""
    folder = tmp_path / "dated"
    shutil.copytree(POCKET, folder)
    whole = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }} " + whole, encoding="utf-8")
    dated = load_base(resolve(str(folder)), Quantization.NONE, one_core())
    text = dated.tokenizer.decode(render((Message("user", "Hi."),), dated.tokenizer, ask=True))
    assert f"{TEMPLATE_DATE} " in text
    rows = tokenize([talk("Hi.", "Hello.")], dated.tokenizer, 512)
    assert lengths([talk("Hi.", "Hello.")], folder).tokens == (len(rows[0].input_ids),)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_each_family_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """For templates like those of known models, rows are those of transformers, with the labels that answers need.

    The prompt is a prefix of its row, the labels are the answer and its end, and generation stops at that end. With the
    tokenizer's files alone, the tokens are the same.
    """
    tokenizer = _tokenizer(FAMILIES[name])
    tokenizer.save_pretrained(tmp_path)
    talk = (Message("user", "Who are you?"), Message("assistant", "I am Dottie: 42!"))
    chat = as_chat(talk)
    (row,) = tokenize([Example(talk)], tokenizer, 512)
    prompt = render(talk[:1], tokenizer, ask=True)
    assert row.input_ids == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert row.input_ids[: len(prompt)] == prompt
    assert row.labels[: len(prompt)] == [IGNORED] * len(prompt)
    answer = row.input_ids[len(prompt) : row.end]
    assert row.labels[len(prompt) : row.end] == answer
    assert tokenizer.decode(answer[:-1]).strip() == "I am Dottie: 42!"
    assert answer[-1] in conversations_of(tokenizer).ends
    files = read_tokenizer(tmp_path)
    assert not isinstance(files, str)
    assert files.conversations.rows([Example(talk)]) == [row]
    assert files.conversations.asked([("", talk[:1])]) == [prompt]
