"""Jobs for a worker on the pocket model, and a function that runs a job in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.core.engines import Engine
from harness.core.job import Event, Job, Prompt, Task
from harness.core.model import ModelRef
from harness.core.settings import Quantization, Settings
from harness.core.suite import Decoding, Example
from harness.engine.worker import work
from harness.models.resolving import resolve
from tests.support.short_trainings import QUESTIONS, SHORT, SUITE, one_core, prompts

TINY = replace(SHORT, epochs=1)
ASKED = prompts(*QUESTIONS[:3])


def job(
    cache: Path,
    *tasks: Task,
    examples: Sequence[Example] = SUITE.examples[:8],
    model: ModelRef | None = None,
    decoding: Decoding = Decoding(16),  # noqa: B008 - frozen
) -> Job:
    return Job(
        model=model or resolve("pocket"),
        machine=one_core(),
        quantization=Quantization.NF4,
        engine=Engine.REFERENCE,
        cache=str(cache),
        examples=tuple(examples),
        decoding=decoding,
        tasks=tasks or (task(),),
    )


def task(trial: str = "trial", settings: Settings | None = TINY, asked: tuple[Prompt, ...] = ASKED) -> Task:
    return Task(trial, f"training-{trial}", settings, 0, train=settings is not None, prompts=asked)


def done(job: Job) -> tuple[bool, list[Event]]:
    """Run a job in this process, and return whether it succeeded, and its events."""
    events: list[Event] = []
    return work(job, events.append), events
