"""Chooses the next token of every row, likeliest or drawn, and remembers how likely it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Chooser:
    """A logits processor whose largest score is the token to take, so that greedy decoding takes it.

    Above temperature 0 the scores get Gumbel noise: the largest of them is then a draw from softmax(logits /
    temperature), exactly (Gumbel 1954; Maddison et al., arXiv:1411.0030). Every row has a generator of its own, on the
    CPU and seeded by its key, so that it draws the same beside any other rows and on any device.
    """

    def __init__(self, keys: Sequence[str], temperature: float) -> None:
        self._temperature = temperature
        self._generators = [_generator(key) for key in keys] if temperature else []
        self._logs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores, (rows, vocabulary), of the next token; called once per step."""
        del input_ids
        noisy = scores / self._temperature + self._noise(scores) if self._temperature else scores
        taken = noisy.argmax(dim=-1, keepdim=True)
        self._logs.append(scores.float().log_softmax(dim=-1).gather(-1, taken).squeeze(-1))
        return noisy

    def log_probabilities(self) -> list[list[float]]:
        """By row, of each token that was taken; behind a row's end they mean nothing."""
        import torch

        taken: list[list[float]] = torch.stack(self._logs, dim=1).tolist()
        return taken

    def _noise(self, scores: torch.Tensor) -> torch.Tensor:
        import torch

        # In double precision: a float's 24 bits would leave tokens of less than 1 in 16 million undrawn.
        uniform = torch.stack(
            [torch.rand(scores.shape[-1], generator=own, dtype=torch.float64) for own in self._generators]
        )
        return -(-uniform.log()).log().to(scores)


def _generator(key: str) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
