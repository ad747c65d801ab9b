"""Kills a command at random moments, and gives it again until it completes."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.preloaded import Program, forked

LIMIT = 1800.0
"""Seconds after which a command hangs. Even on a busy machine, the commands of the studies take much less."""
GONE = 5.0
"""Seconds within which workers must be gone after their parent was killed."""
SAID = (2, 3)
"""Exit codes after a worker was killed: an error, or a failed trial. The next attempt repeats the work."""


@dataclass(frozen=True)
class Command:
    """A command that is killed and given again, in a folder: the words after `harness`, or those of another program."""

    words: Sequence[str]
    folder: Path
    program: Program | None = None

    def start(self) -> Running:
        """Start the command. `tests.support.preloaded.preload` must have been called."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - `Running` reads it
        return Running(forked(self.words, self.folder, file.fileno(), self.program), file)

    def complete(self) -> float:
        """Run the command without disturbing it, and return its seconds.

        Raises:
            RuntimeError: it failed.
        """
        began = time.monotonic()
        with closing(self.start()) as running:
            if code := running.wait():
                raise RuntimeError(f"{' '.join(self.words)} ended with {code}:\n{running.printed()}")
        return time.monotonic() - began


class Running:
    """A command that was started: a child process of this one."""

    def __init__(self, pid: int, output: object) -> None:
        self.pid, self._output = pid, output
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative after a signal, or None if the command is still running."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def wait(self, seconds: float = LIMIT) -> int:
        """Wait until the command ends, and return its exit code.

        Raises:
            TimeoutError: it hangs.
        """
        until = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError(self.printed())
            time.sleep(0.005)
        return code

    def printed(self) -> str:
        """Return what the command has printed."""
        self._output.seek(0)  # type: ignore[attr-defined]
        return bytes(self._output.read()).decode(errors="replace")  # type: ignore[attr-defined]

    def close(self) -> None:
        """Kill the command if it still runs, and close the file of what it has printed."""
        if self.poll() is None:
            self.kill("parent")
        self._output.close()  # type: ignore[attr-defined]

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the command has started."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, victim: str) -> int:
        """Kill the command (`parent`) or its worker (`worker`). Return how many processes outlive a killed parent."""
        workers = self.workers()
        if victim == "worker":
            workers[0].send_signal(signal.SIGKILL)
            return 0
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
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
    """Give a command and kill it at a random moment of `longest` seconds, until it completes. Yield each kill.

    `command` is called each time before the command is given, so it can change the folder. Nothing is killed after
    `enough`.

    Raises:
        RuntimeError: the command failed by itself.
    """
    struck = True
    while struck:
        struck = False
        with closing(command().start()) as running:
            moment = rng.uniform(0, longest)
            until = time.monotonic() + moment
            while running.poll() is None and time.monotonic() < until:
                time.sleep(min(0.01, longest / 100))
            if running.poll() is None and not enough():
                victim = "worker" if running.workers() and rng.random() < 1 / 3 else "parent"
                left, struck = running.kill(victim), True
                yield Kill(round(moment, 2), victim, left)
            code = running.wait()
            if code == 0:
                return
            if not struck or code not in (-signal.SIGKILL, *SAID):
                raise RuntimeError(f"the command ended with {code}:\n{running.printed()}")
