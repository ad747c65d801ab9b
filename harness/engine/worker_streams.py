"""What a worker process exchanges with its parent: events on stdout, instructions on stdin, and its log."""

from __future__ import annotations

import os
import queue
import sys
from dataclasses import dataclass, field
from typing import Any

from harness.core.job import Instruction
from harness.storage.records import decode_line


def separate_streams() -> Any:
    """Return a stream that carries only events to the parent; redirect other output of stdout to stderr, the log."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def log_to(path: str) -> None:
    """Write further output of this process to another log."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


@dataclass
class Inbox:
    """What the parent has sent, for the main thread."""

    jobs: queue.Queue[Instruction] = field(default_factory=queue.Queue)
    threads: int = 0
    """The last number of threads; 0 if the parent has sent none."""

    def use_threads(self) -> None:
        """Compute with the last number of threads from now on, in the thread that calls this.

        With MKL, results are the same, bit for bit. Without it they might not be, and the number stays.
        """
        if self.threads and "torch" in sys.modules:
            import torch

            known: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
            if known and torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)


def listen(inbox: Inbox) -> None:
    """Receive what the parent sends, and exit when stdin is closed.

    Only the parent holds the other end of stdin, so it has then exited or has no further job.
    Where the kernel does not end this process with its parent (not on Linux), this thread does, unless native code
    keeps Python from running it.
    """
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            sent = decode_line(line.decode(), Instruction)
            inbox.threads = sent.threads or inbox.threads
            if sent.job:
                inbox.jobs.put(sent)
    os._exit(1)
