"""The interface of a trainer: its input, its result and its methods.

Another trainer (DPO, for example) is one module beside `sft` that implements `Trainer`, and one row in
`harness.engine.trainers.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.core.measurement import PhaseCost
from harness.core.settings import Settings
from harness.core.training_outcome import Fingerprint, Status, Step
from harness.engine.loading import Base
from harness.engine.tokenization import Row

if TYPE_CHECKING:
    from transformers import TrainingArguments

Progress = Callable[[Step, int], None]
"""Called after each optimizer step with the step and the total number of steps."""
TrialProgress = Callable[[str, Step, int], None]
"""`Progress` of several trials: called after each step with the trial's name, the step and the number of steps."""
Keep = Callable[[int, Callable[[Path], None]], None]
"""Called at the end of each epoch except the last, with its number and a function that saves the adapter to a folder.

The call does not change the training, and its duration does not count as training time."""


@dataclass(frozen=True)
class TrialInput:
    """One trial to train; progress is reported under `name`."""

    name: str
    rows: Sequence[Row]
    settings: Settings
    seed: int
    keep: Keep | None = None
    until: int = 0
    """Number of epochs after which the training stops before its end, so that it can be continued; 0: at its end."""
    state: Path | None = None
    """Folder that `TrainingResult.save_state` wrote; the training continues from there. None: it starts anew."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The result of training one trial."""

    name: str = ""
    status: Status
    """SUCCEEDED, or DIVERGED if a loss, a gradient norm or a weight was not finite."""
    message: str
    steps: tuple[Step, ...]
    """All steps, with those before the state from which the training continued. Numbers of tokens count them, too."""
    trainable_parameters: int
    supervised_tokens: int
    """Number of tokens with a label, over all steps."""
    tokens: int
    """Number of tokens without padding, over all steps."""
    keeping: float
    """Seconds spent in the trial's `keep`."""
    cost: PhaseCost | None = None
    """Time and memory; None if other trials were trained in the same pass."""
    fingerprint: Fingerprint | None = None
    """Fingerprint without the fields of the saved adapter file; None if the training did not succeed."""

    def save(self, folder: Path) -> None:
        """Write the adapter into `folder` in PEFT's files."""
        raise NotImplementedError

    def save_state(self, folder: Path) -> None:
        """Write everything into `folder` from which a training that stopped before its end continues."""
        raise NotImplementedError


class Trainer(Protocol):
    """Trains adapters on a loaded base."""

    def check(self, base: Base, settings: Settings) -> None:
        """Check that a trial with these settings can be trained on this base.

        Raises:
            EngineError: the trial cannot be trained on this base.
        """
        ...

    def arguments(self, base: Base, settings: Settings, seed: int, folder: str) -> TrainingArguments:
        """Return the training library's arguments; the library writes its files to `folder`."""
        ...

    def train(self, base: Base, trials: Sequence[TrialInput], *, progress: TrialProgress) -> Generator[TrainingResult]:
        """Train the trials and yield each result when its training ends.

        A result can be saved until the next one is requested or the iterator is closed. After the iterator is closed
        or exhausted, the base has no adapter.

        Raises:
            EngineError: a trial cannot be trained on this base, or a guard found that it would be trained wrongly.
            torch.OutOfMemoryError: a trial does not fit in memory.
        """
        ...
