"""Progress display of a run: a bar with the remaining time in a terminal, else one line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from harness.cli.output import Output
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.listeners.protocol import Listener

_TRAINING = 0.8
"""Share of a trial's progress bar that training fills; answering fills the rest."""
_SPEED_WINDOW = 3600.0
"""Seconds over which the speed is averaged for the remaining time. A trial takes minutes, so less would be noisy."""
_LINE_INTERVAL = 30.0
"""Seconds between two progress lines if the output is not a terminal."""


class Display(Listener):
    """Shows a run's events. Use it in a `with` block: the display ends with the block."""

    def __init__(
        self, *, quiet: bool = False, console: Output | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Output(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._prints_lines, self._clock, self._printed = not self._live and not quiet, clock, clock()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=self._console,
            disable=not self._live,
            speed_estimate_period=_SPEED_WINDOW,
        )
        self._task: TaskID | None = None
        self._title, self._total, self._finished = "", 0, 0
        self._partial: dict[str, float] = {}
        self._now: dict[str, str] = {}
        """What each part of the hardware does now, by its name."""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, text: str) -> None:
        """Print text of a worker's log above the progress bar."""
        self._progress.console.print(text.replace("\r", "\n"), end="", soft_wrap=True)

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.NOTICED:
            self._progress.console.print(event.message, soft_wrap=True)
        elif event.kind is EventKind.PLANNED:
            self._begin(event)
        elif self._task is not None:
            self._follow(event, self._task)

    def _begin(self, event: Event) -> None:
        self._finished, self._partial, self._now = 0, {}, {}
        self._title, self._total = event.message[:1].upper() + event.message[1:], event.total
        if event.total:
            self._task = self._progress.add_task(self._title, total=event.total, now="starting a worker")
        elif self._live:
            self._progress.console.print(f"{self._title}: all trials are finished already")

    def _follow(self, event: Event, task: TaskID) -> None:
        name = "the base" if event.trial in ("", "base") else event.trial
        if event.kind is EventKind.FINISHED:
            self._finished += 1
            self._partial.pop(event.trial, None)
            self._print_failure(name, event)
            now = ""
        elif event.kind is EventKind.STEP:
            self._partial[event.trial] = _TRAINING * event.done / max(1, event.total)
            loss = f", loss {event.loss:.3g}" if event.loss is not None else ""
            now = f"{name}: step {event.done} of {event.total}{loss}"
        elif event.kind is EventKind.ANSWERING:
            self._partial[event.trial] = _TRAINING + (1 - _TRAINING) * event.done / max(1, event.total)
            now = f"{name}: {event.done} of {event.total} answers"
        elif event.kind is EventKind.LOADING:
            now = "loading the base"
        else:
            now = name if event.kind is EventKind.STARTED else ""
        self._now[event.place] = now
        now = " | ".join(f"{place}: {text}" if place else text for place, text in sorted(self._now.items()) if text)
        self._progress.update(task, completed=self._finished + sum(self._partial.values()), now=now)
        if self._prints_lines and self._clock() >= self._printed + _LINE_INTERVAL:
            self._printed = self._clock()
            line = f"{self._title}: {self._finished} of {self._total}{now and f'; {now}'}"
            self._console.print(line, soft_wrap=True)

    def _print_failure(self, name: str, event: Event) -> None:
        if event.status is not Status.SUCCEEDED and self._live:
            self._progress.console.print(f"{name}: {event.status}: {event.message}")
