"""A real worker that kills itself at its first step of training, once: a death that no test has to time.

    python -m tests.support.dying FOLDER JOB

The file `died` in FOLDER says that a worker died already.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from harness.core.job import Event, EventKind
from harness.engine.worker import main


def die_once(mark: Path, event: Event) -> None:
    if event.kind is EventKind.STEP and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], lambda event: die_once(Path(sys.argv[1]) / "died", event)))
