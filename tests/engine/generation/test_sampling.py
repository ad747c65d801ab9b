"""Sampled answers are equal in every batch, differ between repeats, and follow the softmax of the model's logits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.suite import Decoding
from harness.engine.generation.answers import answer
from harness.engine.generation.sampling import Chooser
from harness.engine.loading import Base
from tests.support.short_trainings import QUESTIONS, prompts

HOT = Decoding(12, temperature=2.0)


def repeated(text: str, count: int) -> list[Prompt]:
    (one,) = prompts(text)
    return [replace(one, key=f"{one.key} {n}") for n in range(count)]


def texts(base: Base, given: Sequence[Prompt], decoding: Decoding = HOT, size: int = 64) -> list[str]:
    return [one.text for one in drawn(base, given, decoding, size)]


def drawn(base: Base, given: Sequence[Prompt], decoding: Decoding = HOT, size: int = 64) -> list[Answer]:
    return answer(base, base.model, given, decoding, batch_size=size, progress=lambda done: None)


@pytest.mark.slow
def test_sampled_answers_do_not_depend_on_the_batch(base: Base) -> None:
    """Sampled answers are the same in batches of 1, 8 and 64, and in reverse order."""
    given = [prompt for text in QUESTIONS[:6] for prompt in repeated(text, 2)]
    singly, eights, together = (texts(base, given, size=size) for size in (1, 8, 64))
    assert singly == eights == together
    assert texts(base, given[::-1]) == together[::-1]


def test_sampling_is_repeatable_and_repeats_differ(base: Base) -> None:
    """The same sampling keys give the same answers, and different keys give different answers."""
    given = repeated(QUESTIONS[4], 8)
    first = texts(base, given)
    assert texts(base, given) == first
    assert len(set(first)) > 4
    assert texts(base, [replace(prompt, key=f"{prompt.key}!") for prompt in given]) != first


def test_sampling_at_a_low_temperature_is_greedy(base: Base) -> None:
    """At a temperature near 0, every sample is the greedy answer."""
    given = repeated(QUESTIONS[0], 4)
    assert texts(base, given, Decoding(12, temperature=0.01)) == texts(base, given, Decoding(12))


def test_likelihoods_are_of_the_model_not_of_the_temperature(base: Base) -> None:
    """The log-probability of a sampled token is the model's own, whatever the temperature is."""
    import torch

    from harness.engine.tokenization import render

    (prompt,) = repeated(QUESTIONS[4], 1)
    (found,) = drawn(base, [prompt], replace(HOT, max_new_tokens=1))
    ids = torch.tensor([render(prompt.messages, base.tokenizer, ask=True)])
    with torch.inference_mode():
        logs = base.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    assert found.likelihood is not None
    assert (logs - found.likelihood.total).abs().min() < 1e-4


DRAWS = 20_000


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_tokens_follow_softmax(temperature: float) -> None:
    """A chi-squared test at level 1e-4 accepts 20,000 sampled tokens as draws from softmax(logits / temperature)."""
    import torch
    from scipy.stats import chisquare

    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0, 2.5, -30.0])
    chooser = Chooser([f"row {n}" for n in range(DRAWS)], temperature)
    taken = chooser(torch.empty(0), logits.expand(DRAWS, -1)).argmax(-1).tolist()
    expected = (logits.double() / temperature).softmax(-1) * DRAWS
    seen = Counter(taken)
    assert seen[6] == 0
    counts = [seen[token] for token in range(6)]
    assert chisquare(counts, (expected[:6] * (DRAWS / expected[:6].sum())).tolist()).pvalue > 1e-4


@pytest.mark.slow
def test_first_tokens_follow_the_models_softmax(base: Base) -> None:
    """A chi-squared test at level 1e-4 accepts the first tokens of 600 answers as draws from the model's softmax."""
    import torch
    from scipy.stats import chisquare

    from harness.engine.tokenization import render

    # For most other prompts, one token has nearly all of the probability.
    given, first = repeated("Say hello.", 600), replace(HOT, max_new_tokens=1)
    ids = torch.tensor([render(given[0].messages, base.tokenizer, ask=True)])
    with torch.inference_mode():
        shares = (base.model(input_ids=ids).logits[0, -1].double() / HOT.temperature).softmax(-1).tolist()
    seen: Counter[str] = Counter(texts(base, given, first))
    said: dict[str, float] = {}
    for token, share in enumerate(shares):
        text = base.tokenizer.decode([token], skip_special_tokens=True).strip()
        said[text] = said.get(text, 0.0) + share * len(given)
    often = [text for text, count in said.items() if count >= 5]
    counts = [*(seen[text] for text in often), sum(count for text, count in seen.items() if text not in often)]
    expected = [*(said[text] for text in often), sum(count for text, count in said.items() if text not in often)]
    assert len(often) > 4
    assert chisquare(counts, expected).pvalue > 1e-4


def test_samples_of_one_row_are_independent() -> None:
    """If logits are equal, successive samples of one row are independent and uniformly distributed."""
    import torch
    from scipy.stats import chi2_contingency

    chooser, logits = Chooser(["row"], 1.0), torch.zeros(1, 3)
    taken = [int(chooser(torch.empty(0), logits).argmax()) for _ in range(6000)]
    pairs = Counter(zip(taken[::2], taken[1::2], strict=True))
    table = [[pairs[first, second] for second in range(3)] for first in range(3)]
    assert chi2_contingency(table).pvalue > 1e-4
    assert all(abs(taken.count(token) - 2000) < 200 for token in range(3))


def test_the_chooser_remembers_how_likely_each_token_was() -> None:
    """The chooser records each chosen token's log-probability by row and step, in fp32 even if logits are in fp16."""
    import torch

    chooser = Chooser(["a", "b"], 0.0)
    for _ in range(2):
        scores = torch.tensor([[0.0, math.log(3)], [60000.0, 60000.0]], dtype=torch.float16)
        assert chooser(torch.empty(0), scores) is scores
    first, second = chooser.log_probabilities()
    assert first == pytest.approx([math.log(0.75)] * 2, abs=1e-3)
    assert second == pytest.approx([math.log(0.5)] * 2)
