"""Prompts to answers: left-padded batches, greedy, each answer the same whatever batch it was in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.engine.base import Base
from harness.engine.rows import render
from harness.records import Answer, Decoding, Prompt

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


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

    Rows are batched by length, so that little is padding; greedy decoding in full precision does not depend on it. A
    batch that does not fit the GPU's memory is halved.
    """
    import torch

    distinct = {prompt.key: prompt for prompt in prompts}.values()
    rendered = [(prompt, render(prompt.messages, base.tokenizer, ask=True)) for prompt in distinct]
    rendered.sort(key=lambda pair: len(pair[1]))
    found: dict[str, Answer] = {}
    while rendered:
        batch, rest = rendered[:batch_size], rendered[batch_size:]
        try:
            made = _generate(base, model, [ids for _, ids in batch], decoding)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            batch_size = len(batch) // 2
            continue
        for (prompt, _), (text, tokens, truncated) in zip(batch, made, strict=True):
            found[prompt.key] = Answer(prompt.key, text, tokens, truncated)
        rendered = rest
        progress(len(found))
    return [found[prompt.key] for prompt in prompts]


def _generate(base: Base, model: Any, rows: list[list[int]], decoding: Decoding) -> list[tuple[str, int, bool]]:
    """Text, number of new tokens, and whether the limit cut it, per row."""
    import torch

    tokenizer, width = base.tokenizer, max(map(len, rows))
    # On a CPU fewer than four rows would go through another matrix product than many and round differently.
    padded = rows + rows[:1] * (4 - len(rows)) if base.machine.kind == "cpu" else rows
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in padded], device=base.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in padded], device=base.device)
    options: dict[str, Any] = {"stop_strings": list(decoding.stop), "tokenizer": tokenizer} if decoding.stop else {}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    ends = set(base.model.generation_config.eos_token_id)
    return [_finish(tokenizer, row, ends, decoding) for row in out[: len(rows), width:].tolist()]


def _finish(tokenizer: Any, row: list[int], ends: set[int], decoding: Decoding) -> tuple[str, int, bool]:
    """What of a row is the answer; behind an end or a stop string there is padding, as long as the batch needed it."""
    end = next((at for at, token in enumerate(row) if token in ends), None)
    kept = row if end is None else row[:end]
    stop = _stopped(tokenizer, kept, decoding.stop)
    text = tokenizer.decode(kept[:stop], skip_special_tokens=True)
    if stop is not None:
        text = text[: min((at for at in map(text.find, decoding.stop) if at >= 0), default=len(text))]
        return text.strip(), stop, False
    return text.strip(), len(kept) + (end is not None), end is None


def _stopped(tokenizer: Any, tokens: list[int], stops: Sequence[str]) -> int | None:
    """How many tokens it took until one of the stop strings (which may be a special token's name) was there."""

    def there(count: int) -> bool:
        text = tokenizer.decode(tokens[:count])
        return any(stop in text for stop in stops)

    return next((n for n in range(1, len(tokens) + 1) if there(n)), None) if stops and there(len(tokens)) else None
