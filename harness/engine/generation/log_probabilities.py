"""Computes the log-probabilities of given answers, in batches and without generating."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.answers import Likelihood
from harness.core.job import Prompt
from harness.engine.generation.batches import in_batches
from harness.engine.loading import Base
from harness.engine.tokenization import IGNORED, Row, follow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Enter = Callable[[Sequence[tuple[int, Row]]], None]
"""Called before each batch with (index of the prompt, row) for each row of the batch."""


@dataclass(frozen=True)
class Evaluated:
    """The log-probabilities of a prompt's reference and choices."""

    reference: Likelihood | None = None
    choices: tuple[Likelihood, ...] = ()


def evaluate(
    base: Base, model: PreTrainedModel | PeftModel, prompts: Sequence[Prompt], *, batch_size: int = 64
) -> list[Evaluated]:
    """Return the log-probabilities of each prompt's reference and choices as the assistant's next message.

    Log-probabilities cover the tokens that training would learn from, including the end of the turn. That end
    distinguishes an answer from a longer one that begins with the same words.
    """
    return evaluate_all(base, model, prompts, batch_size=batch_size)


def evaluate_all(
    base: Base,
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    enter: Enter | None = None,
) -> list[Evaluated]:
    """Evaluate prompts as `evaluate` does; `enter` is called before each batch to give each row its own adapter."""
    rows = {
        (number, text): follow(prompt.messages, text, base.tokenizer)
        for number, prompt in enumerate(prompts)
        for text in texts_of(prompt)
    }
    whose = [number for number, _ in rows]
    own = list(rows.values())
    computed = likelihoods(
        base,
        model,
        own,
        batch_size=batch_size,
        enter=enter and (lambda batch: enter([(whose[index], own[index]) for index in batch])),
    )
    found = dict(zip(rows, computed, strict=True))
    return [_evaluated(number, prompt, found) for number, prompt in enumerate(prompts)]


def texts_of(prompt: Prompt) -> tuple[str, ...]:
    """Return the reference and the choices of a prompt, whose log-probabilities are computed."""
    return (*([] if prompt.reference is None else [prompt.reference]), *prompt.choices)


def likelihoods(
    base: Base,
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Row],
    *,
    batch_size: int = 64,
    enter: Callable[[Sequence[int]], None] | None = None,
) -> list[Likelihood | None]:
    """Return for each row the log-probability of its labels given all earlier tokens; None if it is not finite.

    `enter` is called before each batch with the indices of its rows.
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    found: list[Likelihood | None] = [None] * len(rows)

    def totals(some: Sequence[int]) -> list[float]:
        if enter:
            enter(some)
        return _totals(base, model, [rows[index] for index in some])

    for batch in in_batches(order, batch_size, totals):
        for index, total in batch:
            found[index] = likelihood(total, rows[index].supervised)
    return found


def likelihood(total: float, tokens: int) -> Likelihood | None:
    """Return `total`, the log-probability of `tokens` tokens, but 0 if rounding made it positive.

    Returns None if `total` is not finite or `tokens` is 0.
    """
    return Likelihood(min(total, 0.0), tokens) if tokens and math.isfinite(total) else None


def _evaluated(number: int, prompt: Prompt, found: dict[tuple[int, str], Likelihood | None]) -> Evaluated:
    reference = None if prompt.reference is None else found[number, prompt.reference]
    choices = tuple(one for text in prompt.choices if (one := found[number, text]) is not None)
    return Evaluated(reference, choices if len(choices) == len(prompt.choices) else ())


def _totals(base: Base, model: Any, rows: Sequence[Row]) -> list[float]:
    """Return for each row the sum of its labels' log-probabilities.

    Rows are padded on the right: no token attends to later padding, and every token keeps its position.
    """
    import torch

    width = max(len(row.input_ids) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([each + [filler] * (width - len(each)) for each in values], device=base.device)

    ids = padded([row.input_ids for row in rows], base.tokenizer.pad_token_id)
    mask = padded([[1] * len(row.input_ids) for row in rows], 0)
    labels = padded([row.labels for row in rows], IGNORED)[:, 1:]
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        return [_total(own[kept != IGNORED], kept[kept != IGNORED]) for own, kept in zip(logits, labels, strict=True)]


def _total(logits: Any, tokens: Any) -> float:
    """Sum the log-probabilities of `tokens`, (tokens,), under `logits`, (tokens, vocabulary).

    Logits are cast to fp32 because fp16 ends at 65504, and sums are in fp64 because sums of many tokens lose digits.
    """
    return float(logits.float().log_softmax(-1).gather(-1, tokens[:, None]).double().sum())
