"""Tests of how one model answers prompts in batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.suite import Decoding, Message
from harness.engine.adapters import attached
from harness.engine.loading import Base
from tests.support.short_trainings import QUESTIONS, SUITE, ask, prompts


def said(given: Answer) -> Answer:
    """Return the answer without its log-probability, whose last digits may differ between batches."""
    return replace(given, likelihood=None)


@pytest.mark.slow
@pytest.mark.parametrize("with_adapter", [False, True], ids=["base", "tuned"])
def test_answers_do_not_depend_on_the_batch(base: Base, tuned: tuple[Path, list[Answer]], with_adapter: bool) -> None:
    """In batches of 1, 4 and 64, each prompt gets the same answer, and answers come in the order of the prompts."""
    texts = [case.prompt for case in SUITE.cases[:: len(SUITE.cases) // 9]]
    decoding = Decoding(max_new_tokens=20, stop=("!",))

    def all_sizes(model: Any) -> list[list[Answer]]:
        return [[said(each) for each in ask(base, model, texts, decoding, size)] for size in (1, 4, 64)]

    if with_adapter:
        with attached(base, tuned[0]) as model:
            singly, fours, together = all_sizes(model)
    else:
        singly, fours, together = all_sizes(base.model)
    assert len(texts) > 8
    assert singly == fours == together
    assert [answer.key for answer in together] == [f"key of {text}" for text in texts]


def one(base: Base, text: str, decoding: Decoding) -> Answer:
    (found,) = ask(base, texts=[text], decoding=decoding)
    return said(found)


def test_truncated_means_that_the_limit_cut(base: Base) -> None:
    """`truncated` is set only if the token limit cut the answer, not if the last allowed token ended the answer."""
    whole = one(base, QUESTIONS[0], Decoding())
    assert whole == Answer(f"key of {QUESTIONS[0]}", "The capital of France is Paris.", whole.tokens, False)
    assert one(base, QUESTIONS[0], Decoding(whole.tokens)) == whole
    cut = one(base, QUESTIONS[0], Decoding(whole.tokens - 1))
    assert (cut.truncated, cut.tokens) == (True, whole.tokens - 1)
    assert one(base, QUESTIONS[0], Decoding(1)) == replace(cut, text="The", tokens=1)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("France",), "The capital of"),
        (("is", "of"), "The capital"),
        ((" ",), ""),
        (("The",), ""),
        (("Berlin",), "The capital of France is Paris."),
        (("s.",), "The capital of France is Pari"),
    ],
)
def test_stop_strings_cut_the_answer(base: Base, stop: tuple[str, ...], text: str) -> None:
    """An answer ends before the first stop string, may therefore be empty, and does not count as truncated."""
    found = one(base, QUESTIONS[0], Decoding(stop=stop))
    assert (found.text, found.truncated) == (text, False)


def test_tokens_are_counted_up_to_the_stop(base: Base) -> None:
    """Tokens are counted up to the stop string, even if other rows of the batch have longer answers."""
    among = ask(base, decoding=Decoding(stop=("of",)))[0]
    assert said(among) == one(base, QUESTIONS[0], Decoding(stop=("of",)))
    assert among.tokens == 3


def test_a_special_token_can_be_a_stop(base: Base) -> None:
    """If a stop string is a special token, the token ends the answer and is not part of its text."""
    whole = one(base, QUESTIONS[0], Decoding())
    assert one(base, QUESTIONS[0], Decoding(stop=("</s>",))) == whole


def test_prompts_may_repeat_or_be_none(base: Base) -> None:
    """A prompt that is given twice is answered twice, and an empty list of prompts gives no answers."""
    first, second, again = ask(base, texts=[QUESTIONS[0], QUESTIONS[2], QUESTIONS[0]])
    assert (first, second.text) == (again, "hello")
    assert ask(base, texts=[]) == []


def test_system_messages_and_turns_reach_the_model(base: Base) -> None:
    """A system message changes the answer, which shows that the model reads the whole conversation."""
    from harness.engine.generation.answers import answer

    told = Message("system", "Answer in capital letters.")
    (plain,) = prompts(QUESTIONS[0])
    guided = Prompt("guided", (told, *plain.messages))
    seen: list[int] = []
    found = answer(base, base.model, [plain, guided], Decoding(), batch_size=1, progress=seen.append)
    assert found[1].text == found[0].text.upper()
    assert seen == [1, 2]
