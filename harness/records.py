"""What crosses a boundary: frozen dataclasses and closed sets, nothing that computes.

A suite and a grid become a `Plan` of `Trial`s; a worker is handed a `Job` and answers with `Event`s; what it
leaves behind are `Training`s and `Answer`s; scoring those gives `Score`s, and all of it together is `Results`, which is
what results.json holds and what a report is drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.engines import Engine
from harness.core.settings import Plan as Plan
from harness.core.settings import Quantization as Quantization
from harness.core.settings import Scheduler as Scheduler
from harness.core.settings import Settings as Settings
from harness.core.settings import Trial as Trial
from harness.core.settings import Variant as Variant

FORMAT = 1
"""Version of every file the harness writes, except results.json. Newer ones are refused, older ones upgraded."""
RESULTS_FORMAT = 2
"""Version of results.json. Since 2 a sample holds its `Answer`."""
TEMPLATE_DATE = "26 Jul 2024"
"""What chat templates are told that ask for today's date: what Llama 3.1's says where it is told none."""
GIB = 2**30
"""Bytes: sizes are kept in bytes and told in these."""


class Role(StrEnum):
    """What a case asks of the tuned model."""

    LEARN = "learn"
    GENERALISE = "generalise"
    RETAIN = "retain"
    AVOID = "avoid"


class Split(StrEnum):
    """`main` cases choose a variant; `confirm` cases are kept back to judge the choice."""

    MAIN = "main"
    CONFIRM = "confirm"


class LeakLabel(StrEnum):
    """Whether the training rows hold a case's prompt: the same words, nearly the same, or neither."""

    SEEN = "seen"
    NEAR_DUPLICATE = "near-duplicate"
    UNSEEN = "unseen"


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


class Phase(StrEnum):
    LOAD = "load"
    ANSWER_BEFORE = "answer before"
    TRAIN = "train"
    ANSWER_AFTER = "answer after"


class Basis(StrEnum):
    """Where a figure comes from. Figures of different bases are never ranked against each other."""

    MEASURED = "measured"
    EMULATED = "emulated"
    PREDICTED = "predicted"


class DeviceKind(StrEnum):
    """A kind of device that trials run on."""

    CPU = "cpu"
    CUDA = "cuda"


class Unit(StrEnum):
    """The unit of a measurement."""

    SECONDS = "s"
    BYTES = "bytes"


class Reducer(StrEnum):
    """How the repeats of one case under one seed count."""

    MEAN = "mean"
    """Each counts; where one verdict is needed, the case passes when at least half of them do."""
    ALL = "all"
    """As one, which passes when all of them do."""
    ANY = "any"
    """As one, which passes when any of them does."""


class Verdict(StrEnum):
    """What a comparison of two sets of answers to the same cases may claim."""

    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    """Within the difference that these cases could have shown, which is stated beside it."""
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    """Too few cases or seeds to tell; how many would do is stated beside it."""
    NOT_COMPARABLE = "not comparable"


# --- suites ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Assertion:
    """One check of an answer. `type` is the plain name; `negated` says that it was written with `not-`."""

    type: str
    value: Any = None
    negated: bool = False
    weight: float = 1.0
    """Its share in the case's score; 0 counts for its `metric` only and never fails the case."""
    threshold: float | None = None
    metric: str = ""
    """The named metric that it counts for."""
    children: tuple[Assertion, ...] = ()
    """What an `assert-set` holds."""

    @property
    def name(self) -> str:
        return f"not-{self.type}" if self.negated else self.type


@dataclass(frozen=True)
class Case:
    """A test prompt with what its answer must fulfil: all `assertions`, or enough of them for `threshold`."""

    id: str
    messages: tuple[Message, ...]
    assertions: tuple[Assertion, ...]
    role: Role = Role.LEARN
    split: Split = Split.MAIN
    description: str = ""
    group: str = ""
    reference: str | None = None
    choices: tuple[str, ...] = ()
    """Answers of which the one that the model finds likeliest, token by token, is the one that it prefers."""
    line: int = 0
    threshold: float | None = None
    """The weighted score from which the case passes, whichever assertions fail; None: all must hold."""
    vars: dict[str, str] = field(default_factory=dict)
    """Kept for code beside the suite that asks for them."""
    critical: bool = False
    """Where a later run fails it under every seed and the baseline passed it so, that alone is a regression."""

    @property
    def prompt(self) -> str:
        """The last user message: what the case asks."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True)
class Example:
    """One training row: a conversation whose assistant messages are learned from."""

    messages: tuple[Message, ...]
    line: int = 0


@dataclass(frozen=True)
class Leak:
    """How a case's prompt relates to the training rows: `line` is the nearest row's, unless the case is unseen."""

    label: LeakLabel
    line: int | None = None
    similarity: float | None = None
    """From 0 to 1, to the row in `line`."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: up to `max_new_tokens`, cut at the first of the `stop` strings.

    At temperature 0 each token is the likeliest one, above it is drawn from softmax(logits / temperature).
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    temperature: float = 0.0


@dataclass(frozen=True)
class Suite:
    name: str
    folder: str
    description: str
    cases: tuple[Case, ...]
    examples: tuple[Example, ...]
    objective: Role = Role.GENERALISE
    margin: float = 10.0
    """Points of pass rate that may be lost on `retain` and `avoid`."""
    decoding: Decoding = Decoding()
    system_prompt: str | None = None
    repeats: int = 1
    """How often each case is asked; the answers differ because they are drawn."""
    reducer: Reducer = Reducer.MEAN
    notices: tuple[str, ...] = ()
    """What was ignored or left out when the suite was read, for its reader."""

    def of(self, split: Split) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.split is split)


# --- measurements ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """A figure with its unit and its source: `device` is the hardware's name."""

    value: float
    unit: Unit
    basis: Basis
    device: str


@dataclass(frozen=True)
class PhaseCost:
    """What one phase took. Memory is the peak within the phase, in bytes; CUDA's three are absent on a CPU."""

    phase: Phase
    seconds: Measurement
    tokens: int
    peak_resident: Measurement
    peak_allocated: Measurement | None = None
    peak_reserved: Measurement | None = None
    peak_device: Measurement | None = None
    """All that the GPU's driver (NVML) counts for this process, paged optimizer state and CUDA context included."""
    left_allocated: Measurement | None = None
    """What was still allocated at the phase's end: after loading, the base."""
    limit: Measurement | None = None
    """What the allocator may reserve: the profile's cap, else all of the GPU's memory."""
    note: str = ""
    """How the figures were come by, where that is not by measuring all of the phase alone."""
    models: int = 1
    """Number of models that answered in the batch: `seconds` is this model's share, peaks are those of the batch."""

    def peak(self) -> Measurement:
        """The peak that counts as the phase's memory: on a GPU what PyTorch's allocator reserved, else resident memory.

        Resident memory is the whole process's, Python and libraries included.
        """
        return self.peak_reserved or self.peak_resident

    def gpu_peak(self) -> Measurement | None:
        """Memory that the phase took of the GPU, with the CUDA context where the driver counted it; None on a CPU."""
        return self.peak_device or self.peak_reserved or self.peak_allocated

    @property
    def on_gpu(self) -> bool:
        """Whether the phase ran on a GPU."""
        return self.peak_reserved is not None

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds.value if self.tokens and self.seconds.value > 0 else None


@dataclass(frozen=True)
class Shortage:
    """How a trial ran out of memory. Peaks are of its last phase, up to the request that failed."""

    phase: Phase
    requested: Measurement | None
    """What was asked for in vain; None where the message does not say."""
    resident: Measurement
    """Of the process, when it failed."""
    peak_allocated: Measurement | None = None
    peak_reserved: Measurement | None = None
    device: Measurement | None = None
    """As the GPU's driver counts it, when it failed."""
    limit: Measurement | None = None
    """What the allocator might reserve."""
    memory_cap: int | None = None
    """Of the machine that it ran on: under another one it might fit."""


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


# --- the model and the machine -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRef:
    """A base model on this machine: `name` as a person says it, `digest` over the files that determine it."""

    name: str
    path: str
    digest: str
    revision: str = ""
    toy: bool = False
    note: str = ""
    shape_only: bool = False
    """Only the configuration is in `path`: the weights are random, and nothing may be said of quality."""
    tokenizer: str = ""
    """The folder of its tokenizer where that is not `path`."""


@dataclass(frozen=True)
class Machine:
    """Where trials run: `kind` is `cpu` or `cuda`, `device` the hardware's name."""

    kind: DeviceKind
    device: str
    compute_dtype: str
    basis: Basis = Basis.MEASURED
    memory_cap: int | None = None
    threads: int = 0


@dataclass(frozen=True)
class SavedBase:
    """A base as the cache keeps it: quantised on a device of `kind`, with its other weights in `compute_dtype`."""

    id: str
    model: str
    quantization: Quantization
    kind: DeviceKind
    compute_dtype: str


@dataclass(frozen=True)
class Timing:
    """How long an optimizer step over `rows` rows of `length` tokens takes on the first `layers` layers of a shape."""

    shape: str
    layers: int
    rows: int
    length: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """How fast one GPU was found to train with QLoRA (`harness.core.profiles.Speed`), by a benchmark that ran on it."""

    device: str
    update: float
    """Seconds that an optimizer step takes besides passes and products."""
    launch: float
    """Seconds that one pass through one layer takes at least."""
    dequantise: float
    """Seconds for each parameter that is dequantised."""
    flops: float
    """Floating-point operations a second in the matrix products."""
    error: float
    """Largest relative error of these four on the benchmark's own steps."""
    made: str
    versions: dict[str, str]
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """All that is needed to repeat a run."""

    command: str
    started: str
    versions: dict[str, str]
    python: str
    platform: str
    git_commit: str
    git_dirty: bool
    machine: Machine


# --- between sweep and worker ------------------------------------------------------------------------------------


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


# --- what a run holds --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpochAnswers:
    """What the adapter answered as it was after so many epochs; answers as in `TrialRecord`."""

    epoch: int
    answers: dict[str, tuple[Answer, ...]]


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial as its run keeps it: record.json, written last."""

    trial: str
    variant: str
    seed: int
    settings: Settings | None
    split: Split
    status: Status
    message: str
    training: Training | None
    costs: tuple[PhaseCost, ...]
    answers: dict[str, tuple[Answer, ...]]
    """By case id, one per repeat."""
    log: str = ""
    reused: bool = False
    """Trained or answered by an earlier run; its figures are from then."""
    shortage: Shortage | None = None
    """Where the status is OUT_OF_MEMORY, unless the system killed the worker for it."""
    timeline: tuple[EpochAnswers, ...] = ()
    """What the adapter answered after each epoch but the last, whose answers are `answers`."""
    basis: Basis = Basis.MEASURED
    """Of how it ended; PREDICTED: it was not tried, because it was predicted to end like this."""


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that was trained elsewhere: `name` as its folder is called, `digest` over its two files."""

    name: str
    path: str
    digest: str
    base: str
    """The base model that its configuration names."""
    rank: int
    target_modules: tuple[str, ...]
    trainable_parameters: int


@dataclass(frozen=True)
class RunManifest:
    """run.json: what a run was asked to do. Its suite is a snapshot, so that the run can be read on its own."""

    format: int
    suite: Suite
    plan: Plan
    model: ModelRef
    engine: Engine
    confirm_seeds: tuple[int, ...]
    provenance: Provenance
    digest: str
    """Over all that determines the results; a run directory with another digest belongs to another run."""
    adapters: tuple[AdapterRef, ...] = ()
    """Scored beside the grid's variants."""


# --- export ------------------------------------------------------------------------------------------------------


class MergeMode(StrEnum):
    """To what an adapter's update is added."""

    NF4_EXACT = "nf4-exact"
    """The base as it was evaluated: quantised to NF4 and back. The result is the model that was evaluated."""
    FP16_BASE = "fp16-base"
    """The base as it was published. Where the run was quantised, the result is a model that nobody evaluated."""


class GgufType(StrEnum):
    """How llama.cpp's file holds the weights, as llama.cpp calls it."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model that is being written; `dtype` as torch calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ExportKind(StrEnum):
    """A target of `harness export --to`."""

    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"
    NOTEBOOK = "notebook"
    HUB = "hub"


@dataclass(frozen=True)
class ExportRecord:
    """export.json: what an exported folder is, and of which run."""

    format: int
    kind: ExportKind
    suite: str
    variant: str
    seed: int
    training: str
    model: ModelRef
    settings: Settings
    mode: MergeMode | None
    """None for an adapter, which is added to nothing yet."""
    dtype: str
    evaluated: bool
    """Whether it computes what the run evaluated, up to the rounding of `dtype`."""
    note: str
    versions: dict[str, str]


class Stage(StrEnum):
    """A parity stage: a step from the evaluated model to the GGUF file that runs at home."""

    ADAPTER = "NF4 + adapter"
    MERGED = "merged"
    RELOADED = "reloaded from disk"
    F16 = "GGUF f16"
    Q8_0 = "GGUF q8_0"
    Q4_K_M = "GGUF q4_k_m"


@dataclass(frozen=True)
class Distance:
    """How far a stage's logits are from those of the stage before, over the same tokens."""

    largest: float
    """The largest difference of a logit, as a share of the largest logit."""
    mean: float
    """The mean difference likewise."""
    agreement: float
    """Share of the tokens after which both find the same next token likeliest."""
    tokens: int


@dataclass(frozen=True)
class StageAnswers:
    """The answers of one stage, in the order of the prompts."""

    stage: Stage
    answers: tuple[Answer, ...]
    distance: Distance | None = None
    """None for the first."""
    tokenised_alike: int | None = None
    """Number of prompts that llama.cpp tokenises as the run did; None at stages without llama.cpp."""


@dataclass(frozen=True)
class Verdicts:
    """A stage's answers, judged: one entry per case and assertion, in `Parity`'s order."""

    stage: Stage
    passed: tuple[bool | None, ...]
    """None where it could not be decided."""
    texts: tuple[str, ...]
    """One per case."""
    distance: Distance | None
    tokenised_alike: int | None


@dataclass(frozen=True)
class VerdictChange:
    """An assertion whose verdict differs from the first stage's, and the first stage at which it differs."""

    case: str
    assertion: str
    stage: Stage
    before: bool | None
    after: bool | None
    back: bool = False
    """The last stage's verdict is the first stage's again."""


@dataclass(frozen=True)
class Parity:
    """parity/*.json: the answers at every stage from adapter to GGUF, each prompt once, without sampling."""

    format: int
    suite: str
    variant: str
    seed: int
    training: str
    cases: tuple[str, ...]
    assertions: tuple[tuple[str, str], ...]
    """Case id and the assertion's name."""
    stages: tuple[Verdicts, ...]
    turns: tuple[VerdictChange, ...]
    versions: dict[str, str]
    device: str
    finished: str


# --- scores and results ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One assertion's verdict on one answer, in words that a reader can act on."""

    assertion: str
    passed: bool
    reason: str
    score: float | None = None
    """From 0 to 1, for a `not-` twin turned round; None, and `reason` says why, when it could not be computed."""
    metric: str = ""
    children: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Score:
    """A case's score: the weighted mean of its checks' scores.

    Passed when every check is, or where the case has a `threshold`, when `value` reaches it. `value` is absent, and
    `error` says why, when it could not be computed; `checks` then end with the one that could not.
    """

    case: str
    passed: bool
    value: float | None
    checks: tuple[Check, ...] = ()
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted mean scores by named metric."""


@dataclass(frozen=True)
class Sample:
    """One answer to one case with its score. `variant` is `base` for the untrained model; `repeat` counts from 0."""

    variant: str
    seed: int
    case: str
    answer: Answer
    score: Score
    repeat: int = 0


@dataclass(frozen=True)
class Rate:
    """Cases passed of cases asked (a case asked under three seeds counts three times).

    Repeats count one by one, or as one where the suite's reducer is `all` or `any`.
    """

    passed: int
    total: int

    @property
    def value(self) -> float | None:
        return self.passed / self.total if self.total else None


@dataclass(frozen=True)
class Safety:
    """What a variant lost of what the base could do, over `retain` and `avoid` together, in points of pass rate."""

    lost: float
    upper: float
    """The loss lies below this with 95% confidence, over cases; and over training seeds, where there are several."""
    cases: int
    needed: int | None
    """How many cases like these would show that the loss is below the suite's margin; None: no number would."""


@dataclass(frozen=True)
class ScoreChange:
    """How the mean scores differ, in points of 100, with a 95% interval from drawing cases and seeds again.

    Scores of likelihood and similarity move before an answer flips.
    """

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """How one pass rate differs from another on the same cases of one role, in points: this one less the other.

    The interval, at 95%, and so the verdict go beyond both noises: what other cases, and what other training seeds,
    would have made of it. Void cases and those without a score under some seed are left out.
    """

    role: Role
    points: float
    low: float
    high: float
    case_noise: float
    """Standard error of `points` from the choice of cases."""
    seed_noise: float | None
    """Standard error from the choice of training seeds, beyond what the cases explain; None: one seed cannot tell."""
    cases: int
    seeds: int
    detectable: float
    """The smallest drop that so many cases, with these noises, would find with 80% power."""
    verdict: Verdict
    reason: str
    """The verdict in words."""
    needed: int | None = None
    """For INCONCLUSIVE, how many cases like these would do; None where no number of cases would, or it is not that."""
    p_worse: float | None = None
    """One-sided sign-flip test of this one being worse, by Holm's method over the variants that were compared."""
    scores: ScoreChange | None = None
    """None where every score is a pass or a failure, so that it would say the same."""


@dataclass(frozen=True)
class Outcome:
    """A variant (or the base: `settings` None) over all its seeds, on one split of the cases."""

    name: str
    settings: Settings | None
    differs: dict[str, Any]
    """The settings in which the variants of this run differ."""
    statuses: tuple[Status, ...]
    """One per seed, in the order of `seeds`."""
    seeds: tuple[int, ...]
    messages: tuple[str, ...]
    rates: dict[Role, Rate]
    fixed: int
    """Cases that the base fails and this passes, over all seeds."""
    broken: int
    """Cases that the base passes and this fails, over all seeds."""
    truncated: int
    costs: tuple[PhaseCost, ...]
    """Mean seconds and largest peaks over seeds, by phase."""
    trainable_parameters: int = 0
    supervised_tokens: int = 0
    training: tuple[Training, ...] = ()
    reused: bool = False
    logs: tuple[str, ...] = ()
    shortages: tuple[Shortage | None, ...] = ()
    """One per seed: how it ran out of memory, where it did."""
    safety: Safety | None = None
    """None where no `retain` or `avoid` case counts, or nothing finished."""
    changes: dict[Role, Change] = field(default_factory=dict)
    """Against the base, by role; empty for the base, and where nothing finished."""
    elsewhere: bool = False
    """An adapter that was trained elsewhere: its settings and what it cost are not known."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = field(default_factory=dict)
    """The rates of roles whose cases are not all equally near to the training rows, by how near they are."""
    bases: tuple[Basis, ...] = ()
    """Of how it ended, one per seed: PREDICTED where it was not tried. Empty in files from before there were any."""

    def cost(self, phase: Phase) -> PhaseCost | None:
        """What a phase took; None where it did not run."""
        return next((cost for cost in self.costs if cost.phase is phase), None)

    @property
    def predicted(self) -> tuple[bool, ...]:
        """By seed, whether its end is a prediction."""
        return tuple(basis is Basis.PREDICTED for basis in self.bases) or (False,) * len(self.statuses)


@dataclass(frozen=True)
class Choice:
    """The best variant and why, in words; `variant` None when there is none, and then `reasons` say why not."""

    variant: str | None
    reasons: tuple[str, ...]
    objective: Role = Role.GENERALISE
    """The role whose pass rate decided: the suite's objective, or `learn` where it has no such cases."""
    eligible: tuple[str, ...] = ()
    """The variants that finished under every seed and stay within the suite's margin."""
    refuted: tuple[str, ...] = ()
    """What the confirmation says against the choice, in words."""
    best: str | None = None
    """The eligible variant that passes most; `variant` is the cheapest within one standard error of it."""


@dataclass(frozen=True)
class Recommendation:
    """What `harness recommend` says. `variant` is None where nothing is recommended; `missing` then says why not."""

    variant: str | None
    best: str | None
    """The choice that was looked at, recommended or not."""
    headline: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...] = ()
    sft_config: str = ""
    """TRL's and PEFT's arguments as Python; empty where there is no recommendation."""
    lora_config: str = ""
    script: str = ""
    """Both with their imports, and the quantisation's."""


@dataclass(frozen=True)
class EpochRates:
    """Pass rates by role, over all seeds, of one variant's adapters after so many epochs."""

    epoch: float
    """The last one may be a fraction."""
    rates: dict[Role, Rate]


@dataclass(frozen=True)
class Milestone:
    """When one case was learned or lost, in epochs, by the majority of seeds; None: it was not.

    `learned`: the first epoch from which on it passes to the end. `lost`: the first from which on it fails to the end,
    of a case that the base passes or an earlier epoch passed.
    """

    case: str
    role: Role
    learned: float | None
    lost: float | None


@dataclass(frozen=True)
class Timeline:
    """How one variant's behaviour came and went, epoch by epoch. Void cases are not in it."""

    variant: str
    epochs: tuple[EpochRates, ...]
    """From the first epoch to the last; the base is `Results.base`."""
    milestones: tuple[Milestone, ...]
    enough: float | None
    """The first epoch whose pass rate on the objective is within one standard error of the best epoch's."""


@dataclass(frozen=True)
class Results:
    """results.json: everything a report is drawn from."""

    format: int
    run: RunManifest
    base: Outcome
    variants: tuple[Outcome, ...]
    void: dict[str, str]
    """Case id to the reason why it is not counted for this base."""
    samples: tuple[Sample, ...] = field(repr=False, default=())
    choice: Choice = Choice(None, ())
    confirmed_base: Outcome | None = None
    confirmed: Outcome | None = None
    confirmed_samples: tuple[Sample, ...] = field(repr=False, default=())
    finished: str = ""
    parities: tuple[Parity, ...] = field(repr=False, default=())
    """The parity checks of this run's exports (`harness parity`)."""
    timelines: tuple[Timeline, ...] = ()
    """Of the variants that were asked after every epoch (`harness run --timeline`)."""
    leaks: dict[str, Leak] = field(repr=False, default_factory=dict)
    """Case id to whether the training rows hold its prompt; empty in files of format 1, then computed when needed."""


# --- one run held against another --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredAnswer:
    """An answer in a baseline: stored once for all seeds that gave it."""

    text: str
    seeds: tuple[int, ...]
    tokens: int
    passed: bool
    value: float | None
    """The score; None, and `reason` says why, where there is none."""
    reason: str = ""
    """What the first check that failed says."""
    repeat: int = 0
    truncated: bool = False
    likelihood: Likelihood | None = None
    """This and the next two only where the case's assertions judge by them."""
    reference: Likelihood | None = None
    choices: tuple[Likelihood, ...] = ()


@dataclass(frozen=True)
class BaselineVariant:
    """One variant of a baseline (or its base: `settings` None) over all its seeds."""

    name: str
    named: bool
    settings: Settings | None
    seeds: tuple[int, ...]
    statuses: tuple[Status, ...]
    messages: tuple[str, ...]
    fingerprints: tuple[Fingerprint, ...]
    """The different ones among its trainings: one, unless something depends on the seed."""
    costs: tuple[PhaseCost, ...]
    """Of each training."""
    trainable_parameters: int
    answers: dict[str, tuple[StoredAnswer, ...]]
    """By case."""


@dataclass(frozen=True)
class Baseline:
    """A run reduced to what another one is held against: what `harness bless` keeps, and what it makes of either run.

    `suite` has the cases that choose, and no training rows: those are in `training_rows`, a digest each.
    """

    format: int
    name: str
    suite: Suite
    training_rows: tuple[str, ...]
    model: ModelRef
    engine: Engine
    provenance: Provenance
    base: BaselineVariant
    variants: tuple[BaselineVariant, ...]
    digest: str = ""
    """Over all else in the file, so that an edit by hand is noticed."""


@dataclass(frozen=True)
class Mismatch:
    """One thing in which two runs differ, in words; empty on a side that does not have it."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its 95% interval; between -1 and 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RoleChange:
    """The pass rates of one variant on one role's cases, before and after, on those that have a score on both sides.

    A trial that diverged or ran out of memory passes nothing. The intervals are for these very cases and what other
    training seeds would make of them. The p-values are one-sided, from the paired test over the cases' means across
    seeds; the adjusted ones are Holm's, over all variants and roles of the comparison.
    """

    role: Role
    cases: int
    before: Estimate
    after: Estimate
    difference: Estimate
    """After less before."""
    worst: float
    """The loss lies below this with 95% confidence."""
    detectable: float
    """The smallest loss that so many cases and seeds would show with 80% power, with as many tests as there are."""
    p_worse: float
    p_better: float
    worse_adjusted: float
    better_adjusted: float


@dataclass(frozen=True)
class Flip:
    """A case that one side passes under more seeds than the other."""

    case: str
    role: Role
    prompt: str
    critical: bool
    before: Rate
    """Seeds under which it passes, of those that have a score."""
    after: Rate
    answer_before: str
    answer_after: str
    """Of a seed that shows the difference, where there is one."""
    reason: str
    """What the failing side's check says."""

    @property
    def lost(self) -> bool:
        return (self.after.value or 0.0) < (self.before.value or 0.0)

    @property
    def everywhere(self) -> bool:
        """Passed under every seed before, and under none after."""
        return self.before.passed == self.before.total > 0 and self.after.passed == 0 < self.after.total


@dataclass(frozen=True)
class CostChange:
    """What each training took, before and after; a figure of another device or basis is shown and not compared."""

    what: str
    before: tuple[Measurement, ...]
    after: tuple[Measurement, ...]
    hindrance: str = ""
    """Why the two are not compared; empty where they are."""
    resident: bool = False
    """Memory of the whole process, where there is no GPU to ask."""


@dataclass(frozen=True)
class VariantChange:
    """One variant (or the base) before and after."""

    name: str
    settings: tuple[Mismatch, ...]
    drift: tuple[Mismatch, ...]
    """What differs between their fingerprints, beyond what the settings say or because of it."""
    seeds_after: tuple[int, ...]
    failures_before: tuple[str, ...]
    failures_after: tuple[str, ...]
    """How trials ended that did not succeed, one line each."""
    missing: tuple[str, ...]
    """Those of the later run that have no result: failed, timed out, cancelled."""
    unscored: int
    """Cases with a score under every seed before, and not now."""
    roles: tuple[RoleChange, ...]
    flips: tuple[Flip, ...]
    """Lost ones first, those that flip under most seeds first."""
    costs: tuple[CostChange, ...]


@dataclass(frozen=True)
class Side:
    """Which run, in words."""

    name: str
    suite: str
    started: str
    git_commit: str
    git_dirty: bool


@dataclass(frozen=True)
class SuiteChange:
    """Ids of cases that are not in both suites as they were."""

    asked_otherwise: tuple[str, ...]
    """Left out: the prompt is another."""
    gone: tuple[str, ...]
    new: tuple[str, ...]
    judged_otherwise: tuple[str, ...]
    """The stored answers were judged again by the later suite's assertions."""
    unjudged: tuple[str, ...]
    """Left out: the later assertions need what is not kept of the earlier answers."""

    @property
    def empty(self) -> bool:
        return not any((self.asked_otherwise, self.gone, self.new, self.judged_otherwise, self.unjudged))


@dataclass(frozen=True)
class Comparison:
    """Two runs, paired by variant, case and seed: what a gate decides by, and what a page of two runs shows."""

    before: Side
    after: Side
    obstacles: tuple[Mismatch, ...]
    """Why answers cannot be compared: another model, other training rows, another decoding, another compute dtype."""
    changed: tuple[Mismatch, ...]
    """Library versions and machine: the suspects, when something is worse."""
    suite: SuiteChange
    void: dict[str, str]
    """Case id to the reason why it is not counted, by the earlier run's base."""
    variants: tuple[VariantChange, ...]
    missing: tuple[str, ...]
    """Variants of the earlier run that the later one has not."""
    added: tuple[str, ...]
    base: tuple[Flip, ...] = ()
    """Cases that the untrained model answers with another verdict than before."""


@dataclass(frozen=True)
class Policy:
    """What a gate calls worse. Points are of pass rate."""

    margin: float
    """Points that a role may lose and still be called unchanged: the suite's margin."""
    least: float = 5.0
    """Points below which a loss or a gain is not spoken of, however sure it is."""
    alpha: float = 0.01
    """How often chance alone may be called worse, over all variants and roles together."""
    slower: float = 0.10
    """Share of time that may be lost even where the baseline's repeats differ less."""
    larger: float = 0.05
    """Likewise of GPU memory."""
    resident: float = 0.20
    """Likewise of a CPU's resident memory, which other versions of libraries fill otherwise."""


@dataclass(frozen=True)
class Reason:
    """One thing that a verdict rests on, in words."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on one variant."""

    variant: str
    verdict: Verdict
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Decision:
    """The verdict on a run, and on each of its variants."""

    verdict: Verdict
    reasons: tuple[str, ...]
    variants: tuple[Judgement, ...]
    policy: Policy
    comparison: Comparison
