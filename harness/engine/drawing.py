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
        self._generators = [generator_of(key) for key in keys] if temperature else []
        self._logs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores, (rows, vocabulary), of the next token; called once per step."""
        del input_ids
        noisy = with_noise(scores, self._temperature, self._generators)
        _, logs = taken(scores, noisy)
        self._logs.append(logs)
        return noisy

    def log_probabilities(self) -> list[list[float]]:
        """By row, of each token that was taken; behind a row's end they mean nothing."""
        import torch

        taken: list[list[float]] = torch.stack(self._logs, dim=1).tolist()
        return taken


def choose(
    scores: torch.Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """From scores, (rows, vocabulary), the token that each row takes and its log-probability, both (rows,)."""
    return taken(scores, with_noise(scores, temperature, generators))


def with_noise(scores: torch.Tensor, temperature: float, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Scores whose largest is the token to take: at temperature 0 as they are."""
    import torch

    if not temperature:
        return scores
    # In double precision: a float's 24 bits would leave tokens of less than 1 in 16 million undrawn.
    uniform = torch.stack([torch.rand(scores.shape[-1], generator=own, dtype=torch.float64) for own in generators])
    return scores / temperature - (-uniform.log()).log().to(scores)


def taken(scores: torch.Tensor, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = noisy.argmax(dim=-1)
    logs = scores.float().log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
    return tokens, logs


def generator_of(key: str) -> torch.Generator:
    """A row's own, on the CPU and seeded by its key."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
