"""Prompts to answers: left-padded batches, greedy or drawn, each answer the same whatever batch it was in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.engine.base import Base
from harness.engine.batches import in_batches
from harness.engine.drawing import Chooser
from harness.engine.likelihood import evaluate, likelihood
from harness.engine.rows import render
from harness.records import Answer, Decoding, DeviceKind, Prompt

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Asked:
    """A prompt as the model is given it."""

    prompt: Prompt
    ids: list[int]


def answer(
    base: Base,
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None],
) -> list[Answer]:
    """One answer per prompt, in the prompts' order. `model` is the base, or the base with an adapter attached.

    Rows are batched by length, so that little is padding; decoding in full precision does not depend on it, since what
    is drawn for a row comes from a generator of its own. A batch that does not fit the GPU's memory is halved.
    """
    distinct = list({prompt.key: prompt for prompt in prompts}.values())
    asked = [_Asked(prompt, render(prompt.messages, base.tokenizer, ask=True)) for prompt in distinct]
    asked.sort(key=lambda one: len(one.ids))
    found: dict[str, Answer] = {}
    for batch in in_batches(asked, batch_size, lambda some: _generate(base, model, some, decoding)):
        found |= {one.prompt.key: made for one, made in batch}
        progress(len(found))
    for prompt, more in zip(distinct, evaluate(base, model, distinct, batch_size=batch_size), strict=True):
        found[prompt.key] = replace(found[prompt.key], reference=more.reference, choices=more.choices)
    return [found[prompt.key] for prompt in prompts]


def _generate(base: Base, model: Any, asked: Sequence[_Asked], decoding: Decoding) -> list[Answer]:
    import torch
    from transformers import LogitsProcessorList

    tokenizer, width = base.tokenizer, max(len(one.ids) for one in asked)
    # On a CPU fewer than four rows would go through another matrix product than many and round differently.
    rows = [*asked, *[asked[0]] * (4 - len(asked))] if base.machine.kind is DeviceKind.CPU else list(asked)
    pads = [width - len(one.ids) for one in rows]
    ids = [[tokenizer.pad_token_id] * pad + one.ids for one, pad in zip(rows, pads, strict=True)]
    mask = [[0] * pad + [1] * (width - pad) for pad in pads]
    options: dict[str, Any] = {"stop_strings": list(decoding.stop), "tokenizer": tokenizer} if decoding.stop else {}
    chooser = Chooser([one.prompt.key for one in rows], decoding.temperature)
    with torch.inference_mode():
        out = model.generate(
            input_ids=torch.tensor(ids, device=base.device),
            attention_mask=torch.tensor(mask, device=base.device),
            do_sample=False,  # what is drawn, the chooser draws
            logits_processor=LogitsProcessorList([chooser]),
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    ends = set(base.model.generation_config.eos_token_id)
    made = zip(asked, out[:, width:].tolist(), chooser.log_probabilities(), strict=False)
    return [given_answer(one.prompt.key, finish(tokenizer, row, ends, decoding), logs) for one, row, logs in made]


def given_answer(key: str, finished: tuple[str, int, bool], logs: Sequence[float]) -> Answer:
    """What `finish` found, with the log-probabilities of the tokens that count."""
    text, tokens, truncated = finished
    return Answer(key, text, tokens, truncated, likelihood(sum(logs[:tokens]), tokens))


def finish(tokenizer: Any, row: list[int], ends: set[int], decoding: Decoding) -> tuple[str, int, bool]:
    """What of a row is the answer; behind an end or a stop string there is padding, as long as the batch needed it.

    That is: text, number of new tokens, and whether the limit cut it.
    """
    end = next((at for at, token in enumerate(row) if token in ends), None)
    kept = row if end is None else row[:end]
    stop = stopped(tokenizer, kept, decoding.stop)
    text = tokenizer.decode(kept[:stop], skip_special_tokens=True)
    if stop is not None:
        text = text[: min((at for at in map(text.find, decoding.stop) if at >= 0), default=len(text))]
        return text.strip(), stop, False
    return text.strip(), len(kept) + (end is not None), end is None


def stopped(tokenizer: Any, tokens: list[int], stops: Sequence[str]) -> int | None:
    """How many tokens it took until one of the stop strings (which may be a special token's name) was there."""

    def there(count: int) -> bool:
        text = tokenizer.decode(tokens[:count])
        return any(stop in text for stop in stops)

    return next((n for n in range(1, len(tokens) + 1) if there(n)), None) if stops and there(len(tokens)) else None
