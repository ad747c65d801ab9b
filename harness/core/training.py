"""How a training went: its status, steps, cost and fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.measurement import PhaseCost, Shortage


class Status(StrEnum):
    """How a trial ended. The first three are results; the others are tried again by the next run."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_result(self) -> bool:
        return self in (Status.SUCCEEDED, Status.DIVERGED, Status.OUT_OF_MEMORY)


@dataclass(frozen=True)
class Step:
    """One optimizer step of the training log; `tokens` are the supervised ones seen up to and including it."""

    step: int
    epoch: float
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    tokens: int


@dataclass(frozen=True)
class Fingerprint:
    """What was really trained, whatever was asked: the same for every seed and on every machine. Digests are 12 digits.

    Two trainings whose fingerprints differ were not trained alike, even where they answer alike.
    """

    rows: int
    tokens: int
    """Of all rows once, without padding."""
    supervised_tokens: int
    """Those of them that the loss is on."""
    labels: str
    """Digest of every row's token ids and labels, in their order."""
    chat_template: str
    """Digest of its text."""
    trainable: str
    """How many parameters are trained, and a digest of their names."""
    optimizer: str
    """Its class and arguments, as the trainer resolved them."""
    schedule: str
    """The learning rate of every step: their number, the highest, the last, and a digest of all."""
    saved_dtype: str = ""
    """Of the saved adapter's tensors, as safetensors names it (`F32`)."""
    saved_shapes: str = ""
    """How many tensors were saved, and a digest of their names and shapes."""


@dataclass(frozen=True)
class Together:
    """A pass in which several trials were trained: `cost` is that of all of them, until one of them had ended."""

    id: str
    trials: int
    cost: PhaseCost


@dataclass(frozen=True)
class Training:
    """How a training ended. `loss` and gradient norm may be absent in the step where it diverged."""

    id: str
    status: Status
    message: str
    steps: tuple[Step, ...]
    cost: PhaseCost | None
    trainable_parameters: int = 0
    supervised_tokens: int = 0
    fingerprint: Fingerprint | None = None
    """None where it did not succeed, or an older harness trained it."""
    shortage: Shortage | None = None
    """Where the status is OUT_OF_MEMORY."""
    together: Together | None = None
    """The pass that it was trained in with others, by the fused engine; `cost` is what it takes alone."""
