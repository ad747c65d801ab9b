"""Many models answer in one mixed batch, and each row gets the answer that its model gives without other models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.suite import Decoding
from harness.engine.adapters import attached
from harness.engine.generation.answers import answer
from harness.engine.generation.continuous_batching import Request, answer_requests, read_adapter
from harness.engine.loading import Base
from harness.engine.tokenization import render
from tests.support.closeness import assert_same_answers
from tests.support.cuda_graphs import Recorder
from tests.support.fused_passes import together
from tests.support.short_trainings import SHORT, SUITE, ask, prompts, rows_of

TEXTS = [case.prompt for case in SUITE.cases[::14]]


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    """Return None, which stands for the base, and the folders of three adapters that answer differently."""
    few = replace(SHORT, epochs=3, learning_rate=2e-2)
    sweep = (
        few,
        replace(SHORT, rank=8, alpha=16, target_modules="all-linear"),
        replace(few, target_modules=("o_proj",)),
    )
    found: list[Path | None] = [None]
    for learned in together(base, *sweep, rows=rows_of(base, 12)).values():
        folder = tmp_path_factory.mktemp("adapter")
        learned.save(folder)
        found.append(folder)
    return found


def mixed(
    base: Base, adapters: list[Path | None], asked: tuple[Prompt, ...], decoding: Decoding, **more: Any
) -> list[list[Answer]]:
    requests = [Request(str(at), read_adapter(base, at) if at else None, asked) for at in adapters]
    found = dict(answer_requests(base, requests, decoding, progress=lambda *_: None, **more))
    return [found[str(at)] for at in adapters]


def apart(base: Base, adapters: list[Path | None], asked: tuple[Prompt, ...], decoding: Decoding) -> list[list[Answer]]:
    """Answer with one model after another, with the method `generate` of transformers."""
    found = []
    for at in adapters:
        if at is None:
            found.append(answer(base, base.model, asked, decoding, progress=lambda _: None))
            continue
        with attached(base, at) as model:
            found.append(answer(base, model, asked, decoding, progress=lambda _: None))
    return found


def said(answers: list[list[Answer]]) -> list[list[tuple[str, str, int, bool]]]:
    return [[(a.key, a.text, a.tokens, a.truncated) for a in own] for own in answers]


def test_a_mixed_batch_answers_as_each_model_does_alone(base: Base, adapters: list[Path | None]) -> None:
    """In a mixed batch, each model gives the same texts, token counts, truncation and log-probabilities as alone."""
    asked = tuple(replace(p, reference="Paris.", choices=("Yes.", "No, never.")) for p in prompts(*TEXTS[::2]))
    decoding = Decoding(max_new_tokens=20, stop=("!",))
    expected = apart(base, adapters, asked, decoding)
    found = mixed(base, adapters, asked, decoding, rows=32)
    assert len(asked) * len(adapters) > 32, "some rows join late"
    assert said(found) == said(expected)
    for own, alone in zip(found, expected, strict=True):
        assert_same_answers(own, alone)
    assert len({tuple(a.text for a in own) for own in found}) == 4


def test_rows_that_join_late_answer_the_same(base: Base, adapters: list[Path | None]) -> None:
    """Answers do not depend on the number of rows in the batch or on how many rows join at once."""
    asked = prompts(*TEXTS[:7])
    whole = said(mixed(base, adapters[:3], asked, Decoding(12)))
    for rows, join_tokens in ((4, 4096), (9, 4096), (9, 40), (64, 40)):
        found = mixed(base, adapters[:3], asked, Decoding(12), rows=rows, join_tokens=join_tokens)
        assert said(found) == whole, (rows, join_tokens)


@pytest.mark.parametrize("rows", [4, 9, 64])
def test_steps_that_are_replayed_as_graphs_answer_the_same(base: Base, adapters: list[Path | None], rows: int) -> None:
    """Answers are the same if every step computes all adapters and is a CUDA graph, also when rows join and leave."""
    asked, capture = prompts(*TEXTS[:7]), Recorder(dtype=torch.float32)
    whole = mixed(base, adapters, asked, Decoding(30, stop=("!",)))
    assert said(mixed(base, adapters, asked, Decoding(30, stop=("!",)), rows=rows, capture=capture)) == said(whole)
    assert capture.replayed > capture.captured


def test_an_adapter_that_is_not_finite_harms_no_other_model(base: Base, adapters: list[Path | None]) -> None:
    """With graphs, the other models of a batch answer as before if the weights of one adapter are not finite."""
    asked, requests = prompts(*TEXTS[:3]), [Request("base", None, prompts(*TEXTS[:3]))]
    good = read_adapter(base, next(at for at in adapters if at))
    assert good is not None
    bad = replace(good, weights={name: (a, torch.full_like(b, torch.nan)) for name, (a, b) in good.weights.items()})
    requests += [Request("good", good, asked), Request("bad", bad, asked)]
    capture = Recorder(dtype=torch.float32)
    found = dict(answer_requests(base, requests, Decoding(12), capture=capture, progress=lambda *_: None))
    assert said([found["base"], found["good"]]) == said(mixed(base, adapters[:2], asked, Decoding(12)))


def test_rows_that_do_not_fit_restart_in_a_smaller_batch(base: Base, adapters: list[Path | None]) -> None:
    """If memory runs out, unfinished rows start again in a smaller batch, and answers stay the same."""
    asked, decoding = prompts(*TEXTS[:6]), Decoding(12)
    expected, seen = mixed(base, adapters[:3], asked, decoding), []

    def short(model: Any, args: Any, given: dict[str, Any]) -> None:
        seen.append(len(given["input_ids"]))
        if seen[-1] > 8 and len(seen) % 5 == 0:
            raise torch.OutOfMemoryError

    hook = base.model.register_forward_pre_hook(short, with_kwargs=True)
    try:
        assert said(mixed(base, adapters[:3], asked, decoding, rows=16)) == said(expected)
    finally:
        hook.remove()
    assert max(seen) == 16
    assert max(seen[5:]) == 8


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_reference_does_not_change_the_answer(base: Base, adapters: list[Path | None], temperature: float) -> None:
    """Answers stay the same if references equal them, begin like them, are longer than an answer may be, or differ."""
    asked, decoding = prompts(*TEXTS[:6]), Decoding(12, temperature=temperature, stop=("!",))
    alone = apart(base, adapters[:3], asked, decoding)
    texts = [answer.text for answer in alone[1]]
    drafts = (texts[0], texts[1], texts[2][:9] + " no", "word " * 40, "", texts[0])
    drafted = tuple(replace(one, reference=text) for one, text in zip(asked, drafts, strict=True))
    found = mixed(base, adapters[:3], drafted, decoding, rows=4)
    assert said(found) == said(alone)
    for own, expected in zip(found, apart(base, adapters[:3], drafted, decoding), strict=True):
        assert_same_answers(own, expected)


def test_a_draft_that_overflows_does_no_harm(base: Base) -> None:
    """If the tokens of wrong references overflow, they have no log-probability, and the answers stay the same."""
    asked = prompts(*TEXTS[:6])
    drafted = tuple(replace(one, reference="zebra " * (1 + n)) for n, one in enumerate(asked))
    expected = mixed(base, [None], asked, Decoding(12))
    longest = max(len(render(one.messages, base.tokenizer, ask=True)) for one in asked)

    def overflow(_: Any, __: Any, out: Any) -> Any:
        if out.shape[1] > 1:
            out[:, longest:] = float("inf")
        return out

    hook = base.model.model.layers[0].self_attn.v_proj.register_forward_hook(overflow)
    try:
        found = mixed(base, [None], drafted, Decoding(12), rows=6)
    finally:
        hook.remove()
    assert said(found) == said(expected)
    assert {answer.reference for answer in found[0]} == {None}


def test_an_expected_answer_takes_one_forward_pass(base: Base, adapters: list[Path | None]) -> None:
    """If a model answers as the reference does, one forward pass gives the whole answer."""
    (asked,) = prompts(TEXTS[0])
    ((answered,),) = mixed(base, [None], (asked,), Decoding(48))
    assert not answered.truncated
    passes: list[int] = []
    hook = base.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        ((drafted,),) = mixed(base, [None], (replace(asked, reference=answered.text),), Decoding(48))
    finally:
        hook.remove()
    assert (drafted.text, len(passes)) == (answered.text, 1)
    assert drafted.likelihood
    assert drafted.reference
    assert drafted.likelihood.total == pytest.approx(drafted.reference.total, abs=1e-4)


@pytest.mark.parametrize("rows", [4, 7])
def test_sampled_answers_do_not_depend_on_other_rows(base: Base, adapters: list[Path | None], rows: int) -> None:
    """A sampled answer in a mixed batch equals the one that the same model samples with `generate` alone."""
    asked, decoding = prompts(*TEXTS[:5]), Decoding(16, temperature=1.5)
    found = mixed(base, adapters[:2], asked, decoding, rows=rows)
    assert said(found) == said(apart(base, adapters[:2], asked, decoding))


def test_requests_may_have_different_prompts(base: Base, adapters: list[Path | None]) -> None:
    """Requests may have different prompts, none, or one twice; a request is yielded when all are answered."""
    first, second = prompts(*TEXTS[:2])
    requests = [Request("base", None, (first, second, first)), Request("silent", None, ())]
    found = list(answer_requests(base, requests, Decoding(6), progress=lambda *_: None))
    assert [name for name, _ in found] == ["silent", "base"]
    assert [a.key for a in found[1][1]] == [first.key, second.key, first.key]


def test_a_mixed_batch_leaves_no_adapter(base: Base, adapters: list[Path | None]) -> None:
    """After a mixed batch, even one that was closed early, no adapter is left on the base."""
    before, names = ask(base, texts=TEXTS[:2]), [name for name, _ in base.model.named_modules()]
    requests = [Request(str(at), read_adapter(base, at) if at else None, prompts(*TEXTS[:2])) for at in adapters]
    running = answer_requests(base, requests, Decoding(4), progress=lambda *_: None)
    next(iter(running))
    running.close()  # type: ignore[attr-defined]
    assert [name for name, _ in base.model.named_modules()] == names
    assert ask(base, texts=TEXTS[:2]) == before


def test_an_adapter_beyond_lora_is_not_read(base: Base, tmp_path: Path) -> None:
    """`read_adapter` returns None for a DoRA adapter, since DoRA also scales the base's own product."""
    from peft import LoraConfig, get_peft_model

    from harness.engine.loading import untouched

    with untouched(base.model):
        config = LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
        get_peft_model(base.model, config).save_pretrained(str(tmp_path))
    assert read_adapter(base, tmp_path) is None
