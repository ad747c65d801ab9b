"""Measures how long a worker that hangs in native code outlives its parent.

    python -m tests.studies.hung_worker [--repeats 3] [--output FILE]

In each trial, `harness run` starts its worker, and a pattern without end then blocks the whole worker: it runs no line
of Python any more. Then the command gets SIGTERM, SIGHUP or SIGKILL. Exits with 1 if the command or its worker is
still there 5 s later.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from harness.core import programs
from tests.support.interruptions import GONE
from tests.support.small_suite import SHORT, small_suite

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
START = 300.0
"""Seconds within which the worker must have started, even on a busy machine."""
HANGING = """\
import sys, threading
def hang():
    import pathlib, re
    pathlib.Path({file!r}).touch()
    re.match("(a*)*b", "a" * 60)
if "harness.engine.worker" in sys.orig_argv:
    threading.Timer(1, hang).start()
"""
"""A module that Python imports at its start. `re` holds Python's lock, so that no other thread runs."""


def processor_seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def measured(number: signal.Signals, folder: Path) -> tuple[float, float]:
    """Return the seconds from the signal until the command has ended, and until its worker is gone."""
    small_suite(folder, grid=SHORT, tokens=6)
    (folder / "start").mkdir()
    hung = folder / "hung"
    (folder / "start" / "sitecustomize.py").write_text(HANGING.format(file=str(hung)), encoding="utf-8")
    environment = programs.environment({"HF_HUB_OFFLINE": "1"})
    environment["PYTHONPATH"] += os.pathsep + str(folder / "start")
    words = ("run", "small", "--profile", "cpu", "--confirm-seeds", "0")
    with subprocess.Popen(
        programs.python("-m", "harness", *words), cwd=folder, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as command:  # fmt: skip
        worker = _hung(psutil.Process(command.pid), hung)
        began = time.monotonic()
        command.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            command.wait(2 * GONE)
        ended = time.monotonic() - began
        psutil.wait_procs([worker], timeout=2 * GONE)
        gone = time.monotonic() - began
        for process in (worker, psutil.Process(command.pid) if command.poll() is None else worker):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return ended, gone


def _hung(command: psutil.Process, hung: Path) -> psutil.Process:
    """Return the worker once it hangs and uses a processor."""
    until = time.monotonic() + START
    while not hung.exists():
        if time.monotonic() > until:
            raise TimeoutError("no worker was started")
        time.sleep(0.05)
    (worker,) = [each for each in command.children() if "harness.engine.worker" in each.cmdline()]
    before = processor_seconds(worker)
    while processor_seconds(worker) < before + 1:
        time.sleep(0.05)
    return worker


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    outcomes = []
    for number in SIGNALS:
        for _ in range(given.repeats):
            with tempfile.TemporaryDirectory() as folder:
                ended, gone = measured(number, Path(folder))
            outcomes.append({"signal": number.name, "command_ended": round(ended, 2), "worker_gone": round(gone, 2)})
            print(outcomes[-1], flush=True)
    longest = max(max(each["command_ended"], each["worker_gone"]) for each in outcomes)  # type: ignore[type-var]
    report = {
        "command": f"python -m tests.studies.hung_worker --repeats {given.repeats} --output FILE",
        "longest_seconds": longest,
        "bound_seconds": GONE,
        "outcomes": outcomes,
    }
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(longest > GONE)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
