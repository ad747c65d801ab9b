"""Run Python in a child process, for work that the parent process must not do itself, such as importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_python(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments and `given` as its standard input, and return its exit code and output.

    The process can import this package, and its libraries send no request to the Hub.
    """
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = (sys.executable, *words)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
        input=given,
    )
