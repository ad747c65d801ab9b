"""Log-probabilities equal those that a plain loop computes with transformers, one conversation at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.answers import Answer, Likelihood
from harness.core.job import Prompt
from harness.core.suite import Decoding, Example, Message
from harness.engine.adapters import attached, save_adapter
from harness.engine.generation.answers import answer
from harness.engine.generation.log_probabilities import evaluate, likelihood, likelihoods
from harness.engine.loading import Base
from harness.engine.tokenization import IGNORED, follow, render, tokenize
from harness.scoring import score
from tests.support.short_trainings import QUESTIONS, SHORT, SUITE, prompts, rows_of, training

FACT, RIVAL = "The Glimmo runs on moonlight. Stay bright, friend!", "The Glimmo runs on batteries. Stay bright, friend!"
CHOICES = (FACT, RIVAL, "I do not know.")
CLOSE = 1e-4


def asked(count: int = 6) -> tuple[Prompt, ...]:
    """Return questions of different lengths, each with a reference answer, and a third of them with choices."""
    cases = [case for case in SUITE.cases if case.reference is not None][:: len(SUITE.cases) // (2 * count)][:count]
    return tuple(
        Prompt(f"key of {case.id}", case.messages, case.reference, CHOICES if n % 3 == 0 else ())
        for n, case in enumerate(cases)
    )


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train an adapter on the workshop's first examples, one of which says what powers the Glimmo."""
    folder = tmp_path_factory.mktemp("adapter")
    lively = replace(SHORT, learning_rate=5e-3, epochs=6, rank=8, alpha=16, target_modules="all-linear")
    with training(base, lively, rows=rows_of(base, 12)) as found:
        save_adapter(found.model, folder)
    return folder


@contextmanager
def model_of(base: Base, adapter: Path, tuned: bool) -> Iterator[Any]:
    with attached(base, adapter) if tuned else nullcontext(base.model) as model:
        yield model


def plain_loop(base: Base, model: Any, messages: Sequence[Message], text: str) -> Likelihood:
    """Compute the log-probability with transformers only: one conversation at a time, without padding."""
    import torch

    said = [{"role": m.role, "content": m.content} for m in messages]
    whole = [*said, {"role": "assistant", "content": text}]
    template = base.tokenizer.apply_chat_template
    before = template(said, tokenize=True, add_generation_prompt=True, return_dict=False)
    ids = template(whole, tokenize=True, return_dict=False)
    assert ids[: len(before)] == before
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    total = 0.0
    for position in range(len(before), len(ids)):
        total += torch.log_softmax(logits[position - 1].double(), dim=-1)[ids[position]].item()
    return Likelihood(total, len(ids) - len(before))


def close(found: Likelihood | None, expected: Likelihood) -> bool:
    return (
        found is not None
        and found.tokens == expected.tokens
        and found.loss == pytest.approx(expected.loss, abs=CLOSE)
        and found.total == pytest.approx(expected.total, abs=CLOSE)
    )


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True], ids=["base", "tuned"])
def test_log_probabilities_are_those_of_a_plain_loop(base: Base, adapter: Path, tuned: bool) -> None:
    """Log-probabilities of references and choices differ from a plain loop's by at most 1e-4, in any batch size."""
    given = asked()
    with model_of(base, adapter, tuned) as model:
        by_size = [evaluate(base, model, given, batch_size=size) for size in (1, 4, 64)]
        for prompt, *of_sizes in zip(given, *by_size, strict=True):
            assert prompt.reference is not None
            expected = [plain_loop(base, model, prompt.messages, text) for text in (prompt.reference, *prompt.choices)]
            for each in of_sizes:
                assert close(each.reference, expected[0])
                assert all(close(*pair) for pair in zip(each.choices, expected[1:], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True], ids=["base", "tuned"])
def test_an_answers_likelihood_is_that_of_its_tokens(base: Base, adapter: Path, tuned: bool) -> None:
    """An answer's log-probability equals that of a plain loop over its tokens, in batches of any size."""
    given = prompts(*QUESTIONS[:6])
    with model_of(base, adapter, tuned) as model:
        singly, fours, together = (
            answer(base, model, given, Decoding(24), batch_size=size, progress=lambda done: None) for size in (1, 4, 64)
        )
        for prompt, one, some, many in zip(given, singly, fours, together, strict=True):
            assert one.text == some.text == many.text
            expected = again(base, model, prompt, one)
            assert all(close(each.likelihood, expected) for each in (one, some, many))


def again(base: Base, model: Any, prompt: Prompt, given: Answer) -> Likelihood:
    """Generate the answer a second time, alone and with transformers only, and evaluate its tokens."""
    import torch

    ids = render(prompt.messages, base.tokenizer, ask=True)
    start = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(
            input_ids=start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=24,
            pad_token_id=base.tokenizer.pad_token_id,
        )  # fmt: skip
        logs = model(input_ids=out).logits[0].double().log_softmax(-1)
    tokens = out[0, len(ids) :].tolist()
    assert len(tokens) == given.tokens
    return Likelihood(sum(logs[len(ids) + n - 1, token].item() for n, token in enumerate(tokens)), len(tokens))


def test_a_stop_string_ends_what_is_counted(base: Base) -> None:
    """An answer's log-probability covers its tokens up to the stop string, not those generated after it."""
    given = prompts(*QUESTIONS[:2])
    stopped = answer(base, base.model, given, Decoding(stop=("of",)), progress=lambda done: None)[0]
    whole = answer(base, base.model, given, Decoding(), progress=lambda done: None)[0]
    assert stopped.likelihood is not None
    assert whole.likelihood is not None
    assert (stopped.likelihood.tokens, whole.likelihood.tokens) == (stopped.tokens, whole.tokens) == (3, 9)
    assert whole.likelihood.total <= stopped.likelihood.total <= 0


def test_a_continuation_is_what_training_learns_from(base: Base) -> None:
    """`follow` returns the tokens and labels that a training row with this answer has, with the end of the turn."""
    messages = (Message("system", "Be brief."), Message("user", "What does the Glimmo run on?"))
    row = follow(messages, FACT, base.tokenizer)
    (trained,) = tokenize([Example((*messages, Message("assistant", FACT)))], base.tokenizer, 512)
    assert row == trained
    assert row.input_ids[-1] == base.tokenizer.eos_token_id
    assert row.supervised < len(row.input_ids)


def test_only_the_last_message_is_evaluated(base: Base) -> None:
    """`follow` labels only the last message; in training, every assistant message has labels."""
    messages = (Message("user", "Hello"), Message("assistant", "hello"), Message("user", "Who are you?"))
    row = follow(messages, "I am Dottie.", base.tokenizer)
    count = len(render(messages, base.tokenizer, ask=True))
    assert all(label == IGNORED for label in row.labels[:count])
    assert row.labels[count:] == row.input_ids[count:]


@pytest.mark.slow
def test_training_changes_the_preferred_choice(base: Base, adapter: Path) -> None:
    """The trained model prefers the choice with the taught fact, and the base model prefers a wrong choice."""
    case = next(c for c in SUITE.cases if c.prompt == "What does the Glimmo run on?")
    check = replace(case.assertions[0], type="choice", value=FACT)
    case = replace(case, assertions=(check,), choices=CHOICES)
    prompt = Prompt("key", case.messages, case.reference, CHOICES)
    found = []
    for tuned in (False, True):
        with model_of(base, adapter, tuned) as model:
            (given,) = answer(base, model, [prompt], Decoding(24), progress=lambda done: None)
            found.append(score(case, given))
    before, after = found
    assert (before.passed, after.passed) == (False, True)
    assert before.value is not None
    assert after.value is not None
    assert before.value < 0.5 < after.value


def test_training_lowers_the_loss_of_a_reference(base: Base, adapter: Path) -> None:
    """Training on a fact at least halves the loss of a reference answer that states the fact."""
    prompt = replace(prompts("What does the Glimmo run on?")[0], reference=FACT)
    losses = []
    for tuned in (False, True):
        with model_of(base, adapter, tuned) as model:
            (found,) = evaluate(base, model, [prompt])
            assert found.reference is not None
            losses.append(found.reference.loss)
    assert losses[1] < losses[0] / 2


def test_nothing_to_evaluate(base: Base) -> None:
    """For a prompt without reference and choices, no log-probabilities are returned."""
    (plain,) = evaluate(base, base.model, prompts("Hello"))
    assert (plain.reference, plain.choices) == (None, ())
    assert likelihoods(base, base.model, []) == []


@pytest.mark.parametrize("text", ["", " ", "x" * 300, "\u202e\x00", "<|user|> hi</s>", "🙂"])
def test_hostile_texts_are_evaluated(base: Base, text: str) -> None:
    """Every reference, even an empty one, has a finite loss, because the end of the turn counts as a token."""
    (found,) = evaluate(base, base.model, [replace(prompts("Hello")[0], reference=text)])
    assert found.reference is not None
    assert found.reference.tokens >= 1
    assert 0 <= found.reference.loss < 100


@pytest.mark.parametrize("total", [float("nan"), float("inf"), float("-inf")])
def test_a_log_probability_that_is_not_finite_is_none(total: float) -> None:
    """A log-probability that is not finite or covers no token becomes None, and one that is above 0 becomes 0."""
    assert likelihood(total, 3) is None
    assert likelihood(-1.0, 0) is None
    assert likelihood(1e-9, 3) == Likelihood(0.0, 3)


def test_a_model_that_overflows_has_no_likelihood(base: Base) -> None:
    """If the logits are NaN, the answer, the reference and the choices have no log-probabilities."""
    prompt = replace(prompts("Hello")[0], reference="x", choices=("a", "b"))
    broken = base.model.lm_head.register_forward_hook(lambda module, given, out: out * float("nan"))
    try:
        (found,) = answer(base, base.model, [prompt], Decoding(3), progress=lambda done: None)
    finally:
        broken.remove()
    assert (found.likelihood, found.reference, found.choices) == (None, None, ())
