"""Answers prompts with one model, in left-padded batches, by greedy decoding or sampling.

In full precision the texts do not depend on how the prompts are batched. Log-probabilities are bit-identical only in
batches of the same rows; in other batches they differ by rounding (see `continuous_batching`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.suite import Decoding
from harness.core.units import DeviceKind
from harness.engine.generation.batches import in_batches
from harness.engine.generation.log_probabilities import evaluate, likelihood
from harness.engine.generation.sampling import Chooser
from harness.engine.loading import Base
from harness.engine.tokenization import render

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Request:
    """A prompt with its token ids."""

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
    """Return one answer per prompt, in the order of the prompts. `model` is the base with or without an adapter.

    Rows of similar length share a batch to save padding. Each row samples with its own generator, so in full precision
    its text does not depend on the other rows. A batch that does not fit in the GPU's memory is halved.
    """
    distinct = list({prompt.key: prompt for prompt in prompts}.values())
    requests = [_Request(prompt, render(prompt.messages, base.tokenizer, ask=True)) for prompt in distinct]
    requests.sort(key=lambda request: len(request.ids))
    found: dict[str, Answer] = {}
    for batch in in_batches(requests, batch_size, lambda some: _generate(base, model, some, decoding)):
        found |= {request.prompt.key: made for request, made in batch}
        progress(len(found))
    for prompt, more in zip(distinct, evaluate(base, model, distinct, batch_size=batch_size), strict=True):
        found[prompt.key] = replace(found[prompt.key], reference=more.reference, choices=more.choices)
    return [found[prompt.key] for prompt in prompts]


def _generate(base: Base, model: Any, requests: Sequence[_Request], decoding: Decoding) -> list[Answer]:
    import torch
    from transformers import LogitsProcessorList

    tokenizer, width = base.tokenizer, max(len(request.ids) for request in requests)
    # Fill up to four rows on a CPU: smaller batches use another matrix product, which rounds differently.
    rows = [*requests, *[requests[0]] * (4 - len(requests))] if base.machine.kind is DeviceKind.CPU else list(requests)
    pads = [width - len(one.ids) for one in rows]
    ids = [[tokenizer.pad_token_id] * pad + one.ids for one, pad in zip(rows, pads, strict=True)]
    mask = [[0] * pad + [1] * (width - pad) for pad in pads]
    options: dict[str, Any] = {"stop_strings": list(decoding.stop), "tokenizer": tokenizer} if decoding.stop else {}
    chooser = Chooser([one.prompt.key for one in rows], decoding.temperature)
    with torch.inference_mode():
        out = model.generate(
            input_ids=torch.tensor(ids, device=base.device),
            attention_mask=torch.tensor(mask, device=base.device),
            do_sample=False,  # the chooser samples
            logits_processor=LogitsProcessorList([chooser]),
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    ends = set(base.model.generation_config.eos_token_id)
    made = zip(requests, out[:, width:].tolist(), chooser.log_probabilities(), strict=False)
    return [answer_of(request.prompt.key, finish(tokenizer, row, ends, decoding), logs) for request, row, logs in made]


def answer_of(key: str, finished: tuple[str, int, bool], logs: Sequence[float]) -> Answer:
    """Build an answer from the result of `finish` and the log-probability of each generated token."""
    text, tokens, truncated = finished
    return Answer(key, text, tokens, truncated, likelihood(sum(logs[:tokens]), tokens))


def finish(tokenizer: Any, row: list[int], ends: set[int], decoding: Decoding) -> tuple[str, int, bool]:
    """Return the text of an answer, its number of tokens, and whether the limit on new tokens cut it.

    `row` has the ids of the generated tokens. Tokens after an end token or a stop string are ignored.
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
    """Return the number of tokens up to the end of the first stop string; None without one.

    The text of a special token can be a stop string, too.
    """

    def has_stop(count: int) -> bool:
        text = tokenizer.decode(tokens[:count])
        return any(stop in text for stop in stops)

    return (
        next((n for n in range(1, len(tokens) + 1) if has_stop(n)), None) if stops and has_stop(len(tokens)) else None
    )
