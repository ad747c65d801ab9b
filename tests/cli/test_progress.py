"""Tests of the progress that `harness run` shows."""

from __future__ import annotations

from io import StringIO

from harness.cli.output import Output
from harness.cli.progress import Display
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status

PLANNED = Event(EventKind.PLANNED, message="grid", total=3)
BEGUN = Event(EventKind.STARTED, "hot")
STEP = Event(EventKind.STEP, "hot", done=4, total=40, loss=1.25)
ENDED = Event(EventKind.FINISHED, "hot", Status.SUCCEEDED)


def printed(*given: tuple[float, Event], quiet: bool = False) -> str:
    """Return the text that is written without a terminal if these events happen at these seconds."""
    console, now = Output(file=StringIO(), width=200), [0.0]
    with Display(quiet=quiet, console=console, clock=lambda: now[0]) as display:
        for at, event in given:
            now[0] = at
            display.on_event(event)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


def test_quiet_shows_notices() -> None:
    """Notices are printed even with --quiet."""
    assert (
        printed((0, Event(EventKind.NOTICED, message="Ignored: [providers].")), quiet=True) == "Ignored: [providers]."
    )


def test_a_log_has_a_line_every_30_seconds() -> None:
    """Without a terminal, a line of progress is printed every 30 seconds; with --quiet, none is printed."""
    events = (0, PLANNED), (29, BEGUN), (30, STEP), (31, STEP), (65, ENDED), (66, STEP)
    assert printed(*events) == "Grid: 0 of 3; hot: step 4 of 40, loss 1.25\nGrid: 1 of 3"
    assert printed(*events[:2]) == ""
    assert printed(*events, quiet=True) == ""
