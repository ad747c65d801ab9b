"""A worker that kills its own process at its first training step, but only the first time that it is started."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from harness.core.job import Event, EventKind
from harness.engine.worker import main


def die_once(mark: Path, arguments: Sequence[str]) -> int:
    """Work like `harness.engine.worker.main`; at a training step, create the file `mark` and die, unless it exists."""

    def die(event: Event) -> None:
        if event.kind is EventKind.STEP and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return main(arguments, die)
