"""Commands that are forked from a server process which has imported the libraries, for tests that start many commands.

A process that has trained cannot be forked into one that trains, so commands are not forked from pytest's processes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.preloaded import COMMANDS, LIBRARIES, Program, become_command

_CONTEXT = multiprocessing.get_context("forkserver")


class ForkedCommand:
    """`harness WORDS` in a folder, with the methods of `subprocess.Popen` that the tests use.

    Its workers run `worker` instead of `harness.engine.worker.main`, if `worker` is given.
    """

    def __init__(self, words: Sequence[str], folder: Path, worker: Program | None = None) -> None:
        _CONTEXT.set_forkserver_preload([*LIBRARIES, *COMMANDS])  # the first command starts the server
        self._words, self._output = words, Path(tempfile.mkdtemp())
        arguments = (words, folder, self._output, dict(os.environ), worker)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """The id of the command's process."""
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative after a signal; None while the command runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until the command ends, and return what it printed to stdout and to stderr.

        Raises:
            subprocess.TimeoutExpired: the command is still running after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout
            raise subprocess.TimeoutExpired(self._words, timeout)
        if not self._output.exists():
            return "", ""  # an earlier call has returned it
        printed = tuple((self._output / name).read_text(encoding="utf-8") for name in ("out", "error"))
        shutil.rmtree(self._output)
        return printed


def _run(
    words: Sequence[str], folder: Path, output: Path, environment: Mapping[str, str], worker: Program | None
) -> None:
    """Be the command, in a process that the server has forked."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    streams = [os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for name in ("out", "error")]
    become_command(words, folder, *streams, worker=worker)
