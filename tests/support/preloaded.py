"""Commands and workers that are forked from a process which has imported the libraries already.

Importing torch, transformers and TRL takes 10 seconds of a processor for each worker. Studies that kill commands a
hundred times would spend nearly all of their time on it, and nearly all of their kills would hit it. The processes run
the same code as `harness WORDS` and `python -m harness.engine.worker JOB`; only their start differs.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from harness.core import programs
from harness.core.errors import HarnessError
from harness.core.limited_process import LimitedProcess

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "pandas", "altair")
WORKER_NAME = "forked worker"
"""The name of a forked worker's process."""
_WORKER = "harness.engine.worker"
COMMANDS = ("harness.cli", "harness.runner.benchmark", "harness.export.registry", _WORKER, "trl.trainer.sft_trainer")
_SET_NAME = 15
"""PR_SET_NAME of Linux' prctl(2)."""
_exec = programs.start
_KEPT: list[object] = []
_FORKING = threading.Lock()
Program = Callable[[Sequence[str]], int]


def preload() -> None:
    """Import what commands and workers import. Call this once, before `forked`."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in (*LIBRARIES, *COMMANDS):
        importlib.import_module(name)


def forked(words: Sequence[str], folder: Path, output: int, program: Program | None = None) -> int:
    """Start `harness WORDS`, or another program, in a session of its own. Return its process id.

    `output` is the file of its standard output and standard error.
    """
    with _FORKING:  # filelock refuses a fork while another thread forks
        child = os.fork()
    if not child:
        become_command(words, folder, output, output, program)
    return child


def become_command(
    words: Sequence[str],
    folder: Path,
    output: int,
    error: int,
    program: Program | None = None,
    worker: Program | None = None,
) -> NoReturn:
    """Let this process, which was just forked, be `harness WORDS` or another program, in a session of its own.

    Its workers run `worker` with their arguments instead of `harness.engine.worker.main`.
    """
    _become(lambda: _command(words, folder, (output, error), program, worker))


def _command(
    words: Sequence[str], folder: Path, streams: tuple[int, int], program: Program | None, worker: Program | None
) -> int:
    from harness.cli import main

    os.setsid()
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, *streams)):
        os.dup2(source, target)
    gc.freeze()  # each collection would take 0.3 s for the objects of the libraries
    programs.start = partial(_start, worker)  # only in this process, which is the command
    _renew_streams()
    try:
        return (program or main)(list(words))
    except HarnessError as error:  # of a program that is not `harness`
        sys.stdout.write(f"Error: {error}\n")
        return 2


def _start(
    worker: Program | None, command: Sequence[str], *, changes: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program as `programs.start` does; a worker is forked from this process and imports nothing again."""
    if _WORKER not in command:
        return _exec(command, changes=changes, **streams)

    def work() -> NoReturn:
        from harness.engine.worker import main

        programs.end_with_parent()
        os.environ.update(changes or {})
        ctypes.CDLL(None).prctl(_SET_NAME, WORKER_NAME.encode(), 0, 0, 0)
        os.closerange(3, 4096)  # also tells `Popen` that the process was started
        _renew_streams()
        _forget_helpers()
        _become(lambda: (worker or main)(command[command.index(_WORKER) + 1 :]))

    return _exec(command, changes=changes, preexec_fn=work, **streams)


def _forget_helpers() -> None:
    """Let this process start helpers of its own, such as the one that renders chat templates."""
    for each in gc.get_objects():
        if type(each) is LimitedProcess:
            _KEPT.append(each._child)
            each._child = None


def _renew_streams() -> None:
    """Use the descriptors 0 to 2 from now on. The old streams are kept: as garbage they would close what they hold."""
    _KEPT.extend((sys.stdin, sys.stdout, sys.stderr))
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1, closefd=False)  # noqa: SIM115
        for number, mode in enumerate(("r", "w", "w"))
    )


def _become(run: Callable[[], int]) -> NoReturn:
    """Run a function as this process's program, and end the process with its result."""
    code = 70
    try:
        code = run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - nothing of the forking program may run in this process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
