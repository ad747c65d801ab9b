"""Kills a command at random moments, and gives it again until it completes."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.core import programs

LIMIT = 1800.0
"""Seconds after which a command hangs. Even on a busy machine, the commands of the studies take much less."""
GONE = 5.0
"""Seconds within which workers must be gone after their parent was killed."""
SAID = (2, 3)
"""Exit codes after a worker was killed: an error, or a failed trial. The next attempt repeats the work."""


@dataclass(frozen=True)
class Command:
    """A command that is killed and given again, in a folder."""

    words: Sequence[str]
    folder: Path
    module: str = "harness"
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> Running:
        """Start the command in a session of its own."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - `Running` reads it
        process = programs.start(
            programs.python("-W", "ignore", "-m", self.module, *self.words),
            cwd=self.folder, changes={"HF_HUB_OFFLINE": "1", **self.environment},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        return Running(process, output)

    def complete(self) -> float:
        """Run the command without disturbing it, and return its seconds.

        Raises:
            RuntimeError: it failed.
        """
        began, running = time.monotonic(), self.start()
        if code := running.wait():
            raise RuntimeError(f"{' '.join(self.words)} ended with {code}:\n{running.printed()}")
        return time.monotonic() - began


class Running:
    """A command that was started."""

    def __init__(self, process: subprocess.Popen[bytes], output: object) -> None:
        self.process, self._output = process, output

    def wait(self, seconds: float = LIMIT) -> int:
        """Wait until the command ends, and return its exit code."""
        return self.process.wait(seconds)

    def printed(self) -> str:
        """Return what the command has printed."""
        self._output.seek(0)  # type: ignore[attr-defined]
        return bytes(self._output.read()).decode(errors="replace")  # type: ignore[attr-defined]

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the command has started."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, victim: str) -> int:
        """Kill the command (`parent`) or one of its processes (`worker`). Return how many outlive a killed parent."""
        workers = self.workers()
        if victim == "worker":
            workers[0].send_signal(signal.SIGKILL)
            return 0
        self.process.kill()
        return len(psutil.wait_procs(workers, timeout=GONE)[1])


@dataclass(frozen=True)
class Kill:
    """One kill: after how many seconds, of which process, and how many workers were left 5 s later."""

    seconds: float
    victim: str
    left: int


def kills_until_complete(
    command: Callable[[], Command], rng: random.Random, longest: float, *, enough: Callable[[], bool] = lambda: False
) -> Iterator[Kill]:
    """Give a command and kill it at random moments, until it completes. Yield each kill.

    `command` is called each time before the command is given, so it can change the folder. Two of three moments are in
    the second half of `longest` seconds, because the first half goes by with imports. Nothing is killed after `enough`.

    Raises:
        RuntimeError: the command failed by itself.
    """
    while True:
        running, struck = command().start(), False
        moment = rng.uniform(0.0 if rng.random() < 1 / 3 else longest / 2, longest)
        until = time.monotonic() + moment
        while running.process.poll() is None and time.monotonic() < until:
            time.sleep(min(0.01, longest / 100))
        if running.process.poll() is None and not enough():
            victim = "worker" if running.workers() and rng.random() < 1 / 3 else "parent"
            left = running.kill(victim)
            struck = True
            yield Kill(round(moment, 2), victim, left)
        code = running.wait()
        if code == 0:
            return
        if not struck or code not in (-signal.SIGKILL, *SAID):
            raise RuntimeError(f"the command ended with {code}:\n{running.printed()}")
