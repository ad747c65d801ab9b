"""What a run directory holds: its manifest and one record per trial."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.machine import Provenance
from harness.core.measurement import Basis, PhaseCost, Shortage
from harness.core.model import AdapterRef, ModelRef
from harness.core.settings import Plan as Plan
from harness.core.settings import Settings as Settings
from harness.core.suite import Split, Suite
from harness.core.training import Status, Training


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
