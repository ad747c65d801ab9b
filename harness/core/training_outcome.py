"""The outcome of a training: its status, steps, cost and fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.measurement import PhaseCost, Shortage


class Status(StrEnum):
    """How a trial ended. The first three are results; trials with another status run again when the run is resumed.

    STOPPED trials left a race before their end. They are never compared with finished trials; a run without `--race`
    trains them to their end.
    """

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"

    @property
    def is_result(self) -> bool:
        """Whether a trial with this status is complete, so that it does not run again."""
        return self in (Status.SUCCEEDED, Status.DIVERGED, Status.OUT_OF_MEMORY)


@dataclass(frozen=True)
class Step:
    """One optimizer step in the training log. `tokens` counts supervised tokens up to and including this step."""

    step: int
    epoch: float
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    tokens: int


@dataclass(frozen=True)
class Fingerprint:
    """What a training really used: labels, chat template, resolved optimizer, schedule and saved tensors.

    It is the same on every machine, and for every seed unless seeds draw other rehearsal rows. Trainings with different
    fingerprints were not done in the same way, even if their answers are the same. Digests have 12 hex digits.
    """

    rows: int
    tokens: int
    """Number of tokens in all training rows, each row counted once, without padding."""
    supervised_tokens: int
    """Number of tokens in all training rows that the loss is computed on."""
    labels: str
    """Digest of the token ids and labels of all rows, in order."""
    chat_template: str
    """Digest of the chat template's text."""
    trainable: str
    """Number of trainable parameters, and a digest of their names."""
    optimizer: str
    """Class and arguments of the optimizer, as the trainer resolved them."""
    schedule: str
    """Summary of the learning rates: number of steps, highest, last, and a digest of all."""
    saved_dtype: str = ""
    """Dtype of the saved adapter's tensors, with safetensors' name for it (`F32`)."""
    saved_shapes: str = ""
    """Number of saved tensors, and a digest of their names and shapes."""
    attention: str = ""
    """The attention of the base model, with transformers' name for it (`eager`); empty if it is SDPA."""


@dataclass(frozen=True)
class Together:
    """A pass of the fused engine that trained several trials together. `cost` is for all of them."""

    id: str
    trials: int
    cost: PhaseCost
    earlier: tuple[Together, ...] = ()
    """The passes of the earlier parts of the training, if it was interrupted by looks of a race."""


@dataclass(frozen=True)
class Training:
    """The outcome of a training. In the step where it diverged, loss and gradient norm may be None."""

    id: str
    status: Status
    message: str
    steps: tuple[Step, ...]
    cost: PhaseCost | None
    trainable_parameters: int = 0
    supervised_tokens: int = 0
    fingerprint: Fingerprint | None = None
    """The training's fingerprint; None if it did not succeed, or if an older version of the harness trained it."""
    shortage: Shortage | None = None
    """Set if the status is OUT_OF_MEMORY."""
    together: Together | None = None
    """The pass that trained this trial together with others; None if it was trained alone. `cost` is only its share."""
