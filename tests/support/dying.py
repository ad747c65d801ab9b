"""A worker that kills its own process at its first training step, but only the first time that it is started.

    python -m tests.support.dying FOLDER JOB

Otherwise it works like `python -m harness.engine.worker JOB`. Before it dies, it creates the file `died` in FOLDER.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from harness.core.job import Event, EventKind
from harness.engine.worker import main


def die_once(mark: Path, event: Event) -> None:
    """Kill this process at a training step, unless the file `mark` exists."""
    if event.kind is EventKind.STEP and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], lambda event: die_once(Path(sys.argv[1]) / "died", event)))
