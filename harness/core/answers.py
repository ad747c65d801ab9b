"""Raw answers of a model, with their log-probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a text of `tokens` tokens: `total` is the sum of their natural log-probabilities."""

    total: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats per token; infinite for a text that has none."""
        return -self.total / self.tokens if self.tokens else math.inf

    @property
    def perplexity(self) -> float:
        """e to the loss: 1 where every token was certain (Jelinek et al., JASA 62, S63, 1977)."""
        return math.exp(self.loss) if self.loss < 700 else math.inf  # e**709 is no float any more


@dataclass(frozen=True)
class Answer:
    """A raw answer. `truncated`: the token limit cut it, not the model.

    Likelihoods are of the model as it is, whatever the temperature, and None where one was no finite number.
    """

    key: str
    text: str
    tokens: int
    truncated: bool
    likelihood: Likelihood | None = None
    """Of the `tokens` generated, the end token among them where the model gave it."""
    reference: Likelihood | None = None
    """Of the case's reference, given as the assistant's message: of the tokens that training would learn from."""
    choices: tuple[Likelihood, ...] = ()
    """Of the case's choices likewise, in their order; empty where one of them has none."""
