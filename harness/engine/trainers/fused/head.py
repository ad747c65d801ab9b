"""Computes the log-probabilities of a pass's targets without the logits of other positions.

Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

from typing import Any

import torch

from harness.engine.trainers.fused.batch import Batch

_POSITIONS = 1024
"""Number of positions whose logits are in memory at once."""
_FACTOR = 1024.0
"""Factor of small probabilities, so that fp16 can hold them; it is divided out."""


def log_probabilities(model: Any, batch: Batch) -> torch.Tensor:
    """Return the log-probability of each target, (targets,), in fp32 or double precision."""
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    chosen = hidden.flatten(0, 1).index_select(0, batch.positions).to(head.weight.dtype)
    found: torch.Tensor = _LogProbabilities.apply(chosen, batch.targets, head.weight, head.bias)  # type: ignore[no-untyped-call]
    return found


class _LogProbabilities(torch.autograd.Function):
    """Log-probabilities of tokens, (targets,), from hidden states, (targets, hidden), and the head's frozen matrix.

    The gradient of each hidden state is computed together with its logits, so that these are computed once.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        wide = torch.promote_types(torch.float32, hidden.dtype)
        found, slopes = hidden.new_empty(len(hidden), dtype=wide), torch.empty_like(hidden)
        for start in range(0, len(hidden), _POSITIONS):
            part = slice(start, start + _POSITIONS)
            wanted = targets[part, None]
            logits = torch.nn.functional.linear(hidden[part], weight, bias).to(wide)
            total = logits.logsumexp(-1, keepdim=True)
            found[part] = (logits.gather(-1, wanted) - total).squeeze(-1)
            # The gradient of the logits is 1 at the target, less the probability of each token.
            gradient = logits.sub_(total).exp_().neg_()
            gradient.scatter_add_(-1, wanted, torch.ones_like(total)).mul_(_FACTOR)
            slopes[part] = gradient.to(hidden.dtype) @ weight
        ctx.save_for_backward(slopes, found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        slopes, found = ctx.saved_tensors
        # The logits' gradient is largest at the target. SFTTrainer holds it in the precision of the logits: where it
        # overflows there, SFTTrainer skips the step, and so must this trial.
        largest = (torch.expm1(found) * gradient).to(slopes.dtype)
        gradient = gradient / _FACTOR + (largest - largest)  # plus zero, or NaN after an overflow
        return (slopes * gradient[:, None]).to(slopes.dtype), None, None, None
