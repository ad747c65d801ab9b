"""Start other programs: every process that the harness starts gets its command and environment from here.

The current folder may be a suite that somebody else wrote, or an unpacked archive. Nothing in it is run as code: Python
does not import modules from it (`-P`), no program is looked up in it, and git runs no command that the configuration of
a repository names.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux' prctl(2)."""
_PACKAGE = str(Path(__file__).resolve().parents[2])
"""The folder that holds this package, which may not be installed."""
_GIT_SECONDS = 10.0
_GIT = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
"""Options with which git starts no program that a repository's configuration names."""


def python(*arguments: str) -> tuple[str, ...]:
    """Return a command that runs this Python with `arguments`, without importing modules of the current folder."""
    return (sys.executable, "-P", *arguments)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs a module of this package, in a process that ends with its parent."""
    return python("-m", "harness.core.child", name, *arguments)


def script(file: Path, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs the Python script `file`, which may import modules from its own folder."""
    return (sys.executable, str(file.resolve()), *arguments)


def environment(changes: Mapping[str, str] | None = None, *, without: str | None = None) -> dict[str, str]:
    """Return this process's environment with `changes`, and without variables whose names begin with `without`.

    A Python program can import this package.

    Relative folders are removed from the paths in which programs and Python modules are looked up, because they lie in
    the current folder.
    """
    known = {**os.environ, **(changes or {})}
    known["PYTHONPATH"] = os.pathsep.join((_PACKAGE, known.get("PYTHONPATH", "")))
    return {
        name: _absolute(text) if name in ("PATH", "PYTHONPATH") else text
        for name, text in known.items()
        if without is None or not name.startswith(without)
    }


def _absolute(folders: str) -> str:
    return os.pathsep.join(folder for folder in folders.split(os.pathsep) if Path(folder).is_absolute())


def which(program: str) -> str | None:
    """Return the absolute path of a program on PATH, or None. Relative folders on PATH are skipped."""
    return shutil.which(program, path=_absolute(os.environ.get("PATH", os.defpath)))


def start(
    command: Sequence[str], *, changes: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program and return its process. `streams` are the arguments of `Popen` for pipes and sessions.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(command, env=environment(changes), **streams)


def run(
    command: Sequence[str],
    *,
    changes: Mapping[str, str] | None = None,
    without: str | None = None,
    seconds: float | None = None,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program until it ends, and return its exit code and output.

    Its environment variables are those of `environment(changes, without=without)`.

    The program reads `given` from its standard input.

    Raises:
        subprocess.TimeoutExpired: it takes longer than `seconds`.
        OSError: it cannot be started.
    """
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        input=given,
        timeout=seconds,
        env=environment(changes, without=without),
    )


def git(folder: Path, *words: str) -> str:
    """Return what a git command prints about the repository of `folder`, or an empty text if it fails."""
    program = which("git")
    if program is None:
        return ""
    with suppress(OSError, subprocess.TimeoutExpired):
        # In a hook of git, GIT_DIR and other variables name the repository of the hook instead of the one of `folder`.
        done = run((program, *_GIT, "-C", str(folder), *words), without="GIT_", seconds=_GIT_SECONDS)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def end_with_parent() -> None:
    """Let the kernel kill this process as soon as its parent has ended (Linux), even while it runs native code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
