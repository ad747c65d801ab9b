"""Jobs that the runner gives to a worker process, and events that report progress."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.engines import Engine
from harness.core.machine import Machine
from harness.core.measurement import Shortage
from harness.core.model import ModelRef
from harness.core.settings import Quantization, Settings
from harness.core.suite import Decoding, Example, Message
from harness.core.training_outcome import Status

WIDTH = 8
"""Largest number of trials that are trained in one pass, unless `--width` says otherwise.

More would save little time, a killed worker loses all trials of its pass, and several GPUs would share fewer passes."""


@dataclass(frozen=True)
class Prompt:
    """One prompt for a model. The answer is stored under `key`, which also seeds the sampling.

    The worker also computes the log-probability that the model gives to `reference`, and to each choice, as the answer.
    """

    key: str
    messages: tuple[Message, ...]
    reference: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A training's adapter as it is after one of the epochs before the last, and the prompts that it then answers."""

    epoch: int
    """Number of completed epochs, from 1."""
    id: str
    """The adapter's key in the cache, where it is stored like the result of a training."""
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Task:
    """One trial for a worker: train an adapter, unless the cache has it, and answer prompts.

    If `settings` is None, nothing is trained: the base model answers alone or, with `attach`, with an adapter from the
    cache.
    """

    trial: str
    training: str
    settings: Settings | None
    seed: int
    train: bool
    prompts: tuple[Prompt, ...]
    attach: str = ""
    """The original path of an adapter that was trained elsewhere, for messages; empty if there is none."""
    timeline: tuple[Snapshot, ...] = ()
    """Adapters to save during the training. Once it has ended, each of them answers its prompts."""
    rehearsal: tuple[int, ...] = ()
    """Places in `Job.rehearsal` of the rows that this trial adds to the training rows."""
    until: int = 0
    """Number of epochs after which the training stops, and its state is kept; 0: it is trained to its end."""
    resume: str = ""
    """Key of the first part of this training, whose state is in the cache; empty: the training starts from nothing."""


@dataclass(frozen=True)
class Job:
    """The work of one worker process: tasks that share one base model in one quantisation."""

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
    """Key of the quantised base model in the cache; empty if the cache is not used for it."""
    rehearsal: tuple[Example, ...] = ()
    """Rows with the base model's own answers. Each task names the ones that it trains on."""
    width: int = WIDTH
    """Largest number of tasks that are trained in one pass."""


@dataclass(frozen=True)
class Instruction:
    """What an executor sends to a worker: a further job after the last one is done, or another number of threads."""

    job: str = ""
    """Path of the further job; empty if there is none."""
    log: str = ""
    """Path of the further job's log."""
    threads: int = 0
    """Number of CPU threads that the worker uses from now on; 0 leaves it unchanged."""


STAY = "--stay"
"""Argument after the job's path: the worker waits for further jobs, and ends when its standard input is closed."""
OTHER_BASE = 75
"""Exit code of a worker whose further job is about another base model, so that it needs a new process."""


class EventKind(StrEnum):
    """The kind of an event. The runner sends NOTICED and PLANNED, executors send ENDED, workers send the others."""

    NOTICED = "noticed"
    """`message` is a notice for the user, for example about ignored parts of the suite."""
    PLANNED = "planned"
    """`total` trials are about to run; `message` gives their purpose."""
    LOADING = "loading"
    """The worker is about to load the base model, or waits until another worker has loaded it."""
    LOADED = "loaded"
    STARTED = "started"
    STEP = "step"
    ANSWERING = "answering"
    FINISHED = "finished"
    REFUSED = "refused"
    """The input has a mistake that affects every trial: `message` says what is wrong and what to do."""
    DONE = "done"
    """The worker has done its job and waits for another one. Executors turn it into ENDED."""
    ENDED = "ended"
    """The job has ended, as `status` and `message` describe. It is the last event of a job."""


@dataclass(frozen=True)
class Event:
    """A report of progress. `trial` is empty if it is not about a trial; `done` and `total` count steps or answers."""

    kind: EventKind
    trial: str = ""
    status: Status | None = None
    message: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    shortage: Shortage | None = None
    """How the trial ran out of memory or, if `trial` is empty, how loading the base model ran out of memory."""
    place: str = ""
    """The part of the hardware that the event comes from, such as "GPU 0"; empty if the run uses only one."""
    lost: bool = False
    """For ENDED: the machine of the worker disappeared, so that no trial is to blame."""
