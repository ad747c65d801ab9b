"""What is shown of a run while it goes on."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from harness.cli.progress import Display
from harness.core.job import Event, EventKind
from harness.core.training import Status

PLANNED = Event(EventKind.PLANNED, message="grid", total=3)
BEGUN = Event(EventKind.STARTED, "hot")
STEP = Event(EventKind.STEP, "hot", done=4, total=40, loss=1.25)
ENDED = Event(EventKind.FINISHED, "hot", Status.SUCCEEDED)


def said(*given: tuple[float, Event], quiet: bool = False) -> str:
    """What is written where there is no terminal, of events at given seconds."""
    console, now = Console(file=StringIO(), width=200), [0.0]
    with Display(quiet=quiet, console=console, clock=lambda: now[0]) as display:
        for at, event in given:
            now[0] = at
            display.on_event(event)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


def test_a_run_shows_notices() -> None:
    """Even where there is no progress to be seen."""
    assert said((0, Event(EventKind.NOTICED, message="Ignored: [providers].")), quiet=True) == "Ignored: [providers]."


def test_a_log_has_a_line_now_and_then() -> None:
    """Twice a minute at most, of where the run is; nothing of a run that is over sooner, and nothing with --quiet."""
    events = (0, PLANNED), (29, BEGUN), (30, STEP), (31, STEP), (65, ENDED), (66, STEP)
    assert said(*events) == "Grid: 0 of 3; hot: step 4 of 40, loss 1.25\nGrid: 1 of 3"
    assert said(*events[:2]) == ""
    assert said(*events, quiet=True) == ""
