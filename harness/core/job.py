"""What the runner and a worker process exchange: jobs and events."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.engines import Engine
from harness.core.machine import Machine
from harness.core.measurement import Shortage
from harness.core.model import ModelRef
from harness.core.settings import Quantization as Quantization
from harness.core.settings import Settings as Settings
from harness.core.suite import Decoding, Example, Message
from harness.core.training import Status


@dataclass(frozen=True)
class Prompt:
    """One prompt to be answered; the answer is stored under `key`, which also seeds what is drawn for it.

    Beside it, the log-probabilities of `reference` and `choices` as answers are found out.
    """

    key: str
    messages: tuple[Message, ...]
    reference: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """An adapter as it was when an epoch before its training's last had ended, and what it is asked."""

    epoch: int
    """From 1."""
    id: str
    """What the cache calls it, as if it were a training of its own."""
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Task:
    """Train (unless the adapter is there already) and answer.

    Without `settings` nothing is trained: it is the base alone or, with `attach`, an adapter that the cache holds.
    """

    trial: str
    training: str
    settings: Settings | None
    seed: int
    train: bool
    prompts: tuple[Prompt, ...]
    attach: str = ""
    """Where that adapter came from, as messages say it."""
    timeline: tuple[Snapshot, ...] = ()
    """Adapters to be kept while training, and to be asked after it."""


@dataclass(frozen=True)
class Job:
    """What one worker process does: tasks over one base model in one quantisation."""

    model: ModelRef
    machine: Machine
    quantization: Quantization
    engine: Engine
    cache: str
    examples: tuple[Example, ...]
    decoding: Decoding
    tasks: tuple[Task, ...]
    batch_size: int = 64
    base: str = ""
    """Names the base among the saved ones of the cache."""


class EventKind(StrEnum):
    """A benchmark says NOTICED, a sweep PLANNED; a worker LOADED to REFUSED; its executor, at last, ENDED."""

    NOTICED = "noticed"
    """`message` is one of the suite's notices."""
    PLANNED = "planned"
    """`total` trials are to be done now; `message` says what for."""
    LOADED = "loaded"
    STARTED = "started"
    STEP = "step"
    ANSWERING = "answering"
    FINISHED = "finished"
    REFUSED = "refused"
    """A mistake in what was given, which would meet every trial: `message` says what and what to do."""
    ENDED = "ended"
    """The worker is gone; `status` and `message` say how. No other event follows."""


@dataclass(frozen=True)
class Event:
    """Progress. `trial` is empty for what concerns no trial; `done` of `total` counts steps or answers."""

    kind: EventKind
    trial: str = ""
    status: Status | None = None
    message: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    shortage: Shortage | None = None
    """How a trial (or, without one, loading the base) ran out of memory."""
