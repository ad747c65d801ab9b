"""Uses a case's reference as a draft of the answer: one forward pass then gives several of the answer's tokens.

A forward pass over a prompt and its reference gives the log-probability of the reference, and at every position the
token that the model itself would take next. As far as these tokens equal the reference, they are the model's answer,
and nothing has to be generated for them (speculative decoding with a given draft: Leviathan et al., arXiv:2211.17192;
Yang et al., arXiv:2304.04487). This holds for greedy decoding. A sampled answer takes only its first token from the
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from harness.core.answers import Likelihood
from harness.core.job import Prompt
from harness.core.suite import Decoding
from harness.engine.generation.log_probabilities import likelihood
from harness.engine.tokenization import IGNORED, Row, follow

if TYPE_CHECKING:
    import torch


def draft_of(prompt: Prompt, ids: Sequence[int], tokenizer: Any, decoding: Decoding) -> Row | None:
    """Return the row of a prompt and its reference if the reference can be a draft of the answer; otherwise None.

    `ids` are the tokens of the prompt. The row must begin with them, which some chat templates do not grant. A
    reference that is longer than any answer would take more memory than an answer, so it is no draft either.
    """
    if prompt.reference is None:
        return None
    row = follow(prompt.messages, prompt.reference, tokenizer)
    fits = 0 < len(row.input_ids) - len(ids) <= decoding.max_new_tokens
    return row if fits and row.input_ids[: len(ids)] == list(ids) and row.supervised else None


def agreed(taken: Sequence[int], draft: Sequence[int]) -> int:
    """Return how many tokens of an answer are known, given the token that the model takes after each part of a draft.

    `taken[n]` is the token that the model takes after the first `n` tokens of `draft`.
    """
    same = next((n for n, (own, drafted) in enumerate(zip(taken, draft, strict=False)) if own != drafted), len(draft))
    return min(same + 1, len(taken))


def draft_likelihoods(rows: Sequence[tuple[Row | None, int]], scores: torch.Tensor) -> list[Likelihood | None]:
    """Return the log-probability of each row's draft; None for a row without one, or if it is not finite.

    `rows` are pairs of a draft and the number of tokens of its prompt. `scores`, (positions, vocabulary), are the
    logits in fp32 at the last token of each row's prompt and at all tokens of its draft, one row after the other.
    """
    import torch

    labels = [[*row.labels[prompt:], IGNORED] if row else [IGNORED] for row, prompt in rows]
    flat = torch.tensor([max(label, 0) for own in labels for label in own], device=scores.device)
    logs = scores.log_softmax(-1).gather(-1, flat[:, None])[:, 0].tolist()
    spans = pairwise(accumulate(map(len, labels), initial=0))
    found: list[Likelihood | None] = []
    for (row, _), own, (start, end) in zip(rows, labels, spans, strict=True):
        total = sum(log for log, label in zip(logs[start:end], own, strict=True) if label != IGNORED)
        found.append(likelihood(total, row.supervised) if row else None)
    return found
