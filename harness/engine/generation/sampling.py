"""Chooses the next token of every row (the most likely one, or a sample) and records its log-probability."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Chooser:
    """A logits processor for greedy decoding that returns scores whose maximum is the token to take.

    Above temperature 0 it adds Gumbel noise. The maximum is then an exact sample from softmax(logits / temperature)
    (Gumbel 1954; Maddison et al., arXiv:1411.0030). Every row has its own random generator, on the CPU and seeded by
    the key of its prompt, so its noise is the same in every batch and on every device.
    """

    def __init__(self, keys: Sequence[str], temperature: float) -> None:
        self._temperature = temperature
        self._generators = [generator_of(key) for key in keys] if temperature else []
        self._logs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, (rows, vocabulary), with noise; record the log-probability of each token taken."""
        del input_ids
        noisy = with_noise(scores, self._temperature, self._generators)
        _, logs = chosen(scores, noisy)
        self._logs.append(logs)
        return noisy

    def log_probabilities(self) -> list[list[float]]:
        """Return the log-probability of each chosen token by row and step; values after a row's end mean nothing."""
        import torch

        logs: list[list[float]] = torch.stack(self._logs, dim=1).tolist()
        return logs


def choose(
    scores: torch.Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose a token per row from scores, (rows, vocabulary); return tokens and log-probabilities, both (rows,)."""
    return chosen(scores, with_noise(scores, temperature, generators))


def with_noise(scores: torch.Tensor, temperature: float, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Return scores, (rows, vocabulary), whose maximum is the token to take; at temperature 0, unchanged."""
    import torch

    if not temperature:
        return scores
    # Draw in double precision: with a float's 24 bits, tokens less likely than 1 in 16 million would never be sampled.
    uniform = torch.stack([torch.rand(scores.shape[-1], generator=own, dtype=torch.float64) for own in generators])
    return scores / temperature - (-uniform.log()).log().to(scores)


def chosen(scores: torch.Tensor, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token with the largest noisy score and its log-probability under `scores`, both (rows,).

    Both arguments are (rows, vocabulary).
    """
    tokens = noisy.argmax(dim=-1)
    logs = scores.float().log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
    return tokens, logs


def generator_of(key: str) -> torch.Generator:
    """Return a row's random number generator, on the CPU and seeded by the key of the row's prompt."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
