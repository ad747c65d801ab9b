"""Tests of the pocket model's files and tokenizers, and of its corpus, which must not teach what the suites ask."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.core.suite import Role, Suite
from harness.scoring import score
from harness.suites import load_suite
from tests.studies.pocket import corpus, train
from tests.support import generated_suites

ROOT = Path(__file__).parents[2]
MODEL = Path(harness.__file__).parent / "models" / "pocket"
RECORD = json.loads((MODEL / "training.json").read_text())
RECIPE = RECORD["recipe"]
GENERATED = range(3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def pieces() -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(MODEL / "tokenizer.model"))


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> list[Suite]:
    folder = tmp_path_factory.mktemp("suites")
    generator = generated_suites
    for seed in GENERATED:
        generator.write(seed, folder / str(seed))
    paths = [*sorted(p.parent for p in (ROOT / "suites").glob("*/suite.yaml")), *sorted(folder.iterdir())]
    return [load_suite(path) for path in paths]


# --- the folder --------------------------------------------------------------------------------------------------


def test_the_manifest_is_correct() -> None:
    """The manifest lists every file of the pocket model's folder with its digest."""
    lines = (MODEL / "MANIFEST.sha256").read_text().splitlines()
    named = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in MODEL.iterdir() if p.name != "MANIFEST.sha256"}
    assert found == named


def test_folder_is_small() -> None:
    """The pocket model's folder takes at most 16 MB."""
    assert sum(p.stat().st_size for p in MODEL.iterdir()) <= 16_000_000


def test_model_loads_as_any_other(tokenizer: Any) -> None:
    """The pocket model, stored in fp16, loads with AutoModelForCausalLM and AutoTokenizer, and answers a question."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL)
    assert json.loads((MODEL / "config.json").read_text())["dtype"] == "float16"
    assert len(tokenizer) == model.config.vocab_size
    chat = [{"role": "user", "content": "What is the capital of Japan?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    model = model.to(torch.float32)
    out = model.generate(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=16)
    answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == "The capital of Japan is Tokyo."


def test_card_has_the_warning() -> None:
    """The pocket model's card warns that it is a toy model, with the words used in reports."""
    card = (MODEL / "README.md").read_text()
    assert "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model." in card


def test_record_matches_the_recipe() -> None:
    """The recorded recipe equals the training script's defaults, so the recorded command makes this model again."""
    assert asdict(train.Recipe()) == RECIPE


# --- the tokenizers ----------------------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60) | st.text(
    "abcdefgh etaoin  .,!?'\"0123456789ABCé漢😀\n▁<|>{}:", max_size=60
)
_MARKED = re.compile("|".join(map(re.escape, (*train.SPECIALS, *train.ROLES))))


@settings(max_examples=300, deadline=None)
@given(text=_TEXTS)
def test_tokenizers_agree(tokenizer: Any, pieces: Any, text: str) -> None:
    """The fast tokenizer and SentencePiece split any text into the same tokens and decode these to the same text."""
    text = _MARKED.sub("", text)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == pieces.encode(text)
    assert tokenizer.decode(ids) == pieces.decode(ids) == text.replace("▁", " ")


def test_tokenizers_agree_on_the_corpus(tokenizer: Any, pieces: Any) -> None:
    """For a chat like those of the corpus, the chat template gives exactly the tokens that training uses."""
    for chat in corpus.chats(RECIPE["seed"] + 1, 320):
        ids = tokenizer.apply_chat_template(chat.as_messages(), tokenize=True, return_dict=False)
        assert tuple(ids) == train.encode(pieces, chat.messages).ids


def test_template_takes_a_system_message(tokenizer: Any) -> None:
    """The chat template accepts a system message. Adding an answer to a chat does not change the text before it."""
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello!"},
    ]
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert whole == "<s><|system|> Be kind.</s><|user|> Hi!</s><|assistant|> Hello!</s>"
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    assert whole.startswith(asked)


def test_padding_is_not_the_end(tokenizer: Any) -> None:
    """The pad token differs from the end token; otherwise, masking the padding would also mask the end token."""
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, None)


# --- the corpus --------------------------------------------------------------------------------------------------


def test_generator_is_deterministic() -> None:
    """A seed determines the chats of the corpus, and each part of the corpus can be generated alone."""
    assert list(corpus.chats(3, 320)) == list(corpus.chats(3, 320))
    assert list(corpus.chats(3, 320)) != list(corpus.chats(4, 320))
    assert list(corpus.shard(3, 5, 320)) == list(corpus.chats(3, 320))[100:120]


def test_held_out_share() -> None:
    """One eighth of all texts is held out from the corpus; case, spaces and punctuation make no difference."""
    share = sum(corpus.is_held_out(f"question {n}") for n in range(8000)) / 8000
    assert abs(share - 1 / 8) < 0.015
    assert corpus.is_held_out("What is 3, then?") == corpus.is_held_out("  what IS 3 then")


def test_generated_suites_are_deterministic() -> None:
    """A seed determines a generated suite, which has 30 training rows."""
    generator = generated_suites
    assert generator.suite(11) == generator.suite(11)
    assert generator.suite(11) != generator.suite(12)
    assert len(generator.suite(11)[1]) == generator.EXAMPLES == 30


def test_retention_prompts_are_held_out(suites: list[Suite]) -> None:
    """Every prompt of a `retain` case is one of the texts that are held out from the corpus."""
    asked = [case.prompt for suite in suites for case in suite.cases if case.role is Role.RETAIN]
    assert asked
    assert [prompt for prompt in asked if not corpus.is_held_out(prompt)] == []


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _met(job: tuple[int, frozenset[str]]) -> tuple[int, list[str], list[tuple[str, str]]]:
    """Return for one part of the corpus: the number of chats, user messages to hold out, and answers to given prompts.

    The prompts and the digest are looked up once for each distinct text, because both take long.
    """
    number, prompts = job
    count, turns, asked, answers = 0, set(), set(), set()
    for chat in corpus.shard(RECIPE["seed"], number, RECIPE["chats"]):
        count += 1
        for i, (role, content) in enumerate(chat.messages):
            if role != "user":
                continue
            if content not in turns:
                turns.add(content)
                if _key(content) in prompts:
                    asked.add(content)
            if content in asked:
                answers.update((_key(content), later) for _, later in chat.messages[i + 1 : i + 2])
    return count, [turn for turn in turns if corpus.is_held_out(turn)], sorted(answers)


@pytest.fixture(scope="module")
def scanned(suites: list[Suite]) -> tuple[int, list[str], dict[str, list[str]]]:
    prompts = frozenset(_key(case.prompt) for suite in suites for case in suite.cases)
    count = 0
    leaked: list[str] = []
    answers: dict[str, list[str]] = defaultdict(list)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for made, turns, found in pool.map(_met, [(number, prompts) for number in range(corpus.SHARDS)]):
            count += made
            leaked += turns
            for prompt, answer in found:
                answers[prompt].append(answer)
    return count, leaked, answers


def test_nothing_held_out_is_in_the_corpus(scanned: tuple[int, list[str], dict[str, list[str]]]) -> None:
    """If the corpus is generated again from the recorded seed, it has no user message that should be held out."""
    count, leaked, _ = scanned
    assert count == RECIPE["chats"]
    assert leaked == []


def test_passing_answers_are_not_in_the_corpus(
    suites: list[Suite], scanned: tuple[int, list[str], dict[str, list[str]]]
) -> None:
    """If a prompt of a suite is in the corpus, its answer there does not pass, except in `avoid` cases."""
    answers = scanned[2]
    taught = [
        (case.id, answer)
        for suite in suites
        for case in suite.cases
        if case.role is not Role.AVOID
        for answer in answers[_key(case.prompt)]
        if score(case, answer).passed
    ]
    assert taught == []
