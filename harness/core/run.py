"""The records of a run directory: its manifest, and one record per trial."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.machine import Provenance
from harness.core.measurement import Basis, PhaseCost, Shortage
from harness.core.model import AdapterRef, ModelRef
from harness.core.rehearsal import Rehearsal, draw
from harness.core.settings import Plan, Quantization, Settings
from harness.core.suite import Example, Split, Suite
from harness.core.training_outcome import Status, Training
from harness.core.turn_tokens import TurnTokens


@dataclass(frozen=True)
class EpochAnswers:
    """The answers of an adapter as it was after `epoch` epochs."""

    epoch: int
    answers: dict[str, tuple[Answer, ...]]
    """For each case id, a tuple with one answer per repeat."""


@dataclass(frozen=True)
class Look:
    """The answers of an adapter at a look of a race, after `epoch` epochs, and what answering cost."""

    epoch: int
    answers: dict[str, tuple[Answer, ...]]
    """For each case id, a tuple with one answer per repeat. Only the cases that decide the race are asked."""
    costs: tuple[PhaseCost, ...] = ()


@dataclass(frozen=True)
class TrialRecord:
    """record.json: a finished trial. It is the last file that a trial writes."""

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
    """For each case id, a tuple with one answer per repeat."""
    log: str = ""
    reused: bool = False
    """Whether the training or the answers are from the cache. Their costs are then those of the run that made them."""
    shortage: Shortage | None = None
    """Set if the status is OUT_OF_MEMORY, unless the operating system killed the worker."""
    timeline: tuple[EpochAnswers, ...] = ()
    """The adapter's answers after each epoch except the last; `answers` has those after the last epoch."""
    basis: Basis = Basis.MEASURED
    """Basis of `status`. PREDICTED means that the trial did not run, because its failure was predicted."""
    looks: tuple[Look, ...] = ()
    """With `--race`, the looks before the training ended or stopped."""
    quantization: Quantization | None = None
    """Quantisation of the base model that answered, with or without an adapter. None in files of earlier versions."""


@dataclass(frozen=True)
class RunManifest:
    """run.json: the inputs of a run, including a copy of the suite, so that the suite's folder is no longer needed."""

    format: int
    suite: Suite
    plan: Plan
    model: ModelRef
    engine: Engine
    confirm_seeds: tuple[int, ...]
    provenance: Provenance
    digest: str
    """Digest of all inputs that determine the results. Runs with different digests are different runs."""
    adapters: tuple[AdapterRef, ...] = ()
    """Adapters trained elsewhere, which the run scores in addition to the grid's variants."""
    tokens: TurnTokens | None = None
    """How turns end and which rows are cut; None if only the worker could read the tokenizer, or in older files."""
    rehearsal: Rehearsal | None = None
    """The rehearsal prompts, and the rows from the base model's answers; None if no variant has `rehearsal`."""

    def added_rows(self, settings: Settings, seed: int) -> tuple[Example, ...]:
        """Return the rehearsal rows that a trial of this run was trained on, besides the suite's training rows."""
        found = self.rehearsal.of(settings.quantization) if self.rehearsal and settings.rehearsal else None
        return tuple(row.example for row in draw(found.rows, settings, seed)) if found else ()
