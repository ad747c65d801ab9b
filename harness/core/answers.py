"""Answers of a model before scoring, with their log-probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """Log-probability that a model gives to a text: `total` is the sum over its `tokens` tokens, in nats."""

    total: float
    tokens: int

    @property
    def loss(self) -> float:
        """Mean negative log-probability per token, in nats; infinite for a text without tokens."""
        return -self.total / self.tokens if self.tokens else math.inf

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; 1 if the model was certain of every token (Jelinek et al., JASA 62, S63, 1977)."""
        return math.exp(self.loss) if self.loss < 700 else math.inf  # a float overflows from e**710 on


@dataclass(frozen=True)
class Answer:
    """An answer as the model generated it, before scoring.

    Log-probabilities are those of temperature 1, whatever the decoding temperature. A log-probability that is not a
    finite number is stored as None.
    """

    key: str
    """The key of the prompt that was answered."""
    text: str
    tokens: int
    """Number of generated tokens."""
    truncated: bool
    """Whether generation stopped at the token limit, before the model ended its answer."""
    likelihood: Likelihood | None = None
    """Log-probability of the generated tokens, including the end token if the model generated one."""
    reference: Likelihood | None = None
    """Log-probability of the case's reference as the answer, over the tokens that a training loss would include."""
    choices: tuple[Likelihood, ...] = ()
    """Log-probability of each of the case's choices, in their order; empty if any is not a finite number."""
