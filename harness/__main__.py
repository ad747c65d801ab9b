"""Run the command `harness`: as `python -m harness`, or as the installed command."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import harness

INTERRUPTED = 130
BROKEN = 70
"""Exit code of a bug. Python's own would be 1, with which `harness gate` says that something became worse."""


def run() -> int:
    """Run the command, and return its exit code, even if the package or one that it needs cannot be imported."""
    try:
        from harness.cli import main
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:  # noqa: BLE001 - an upgrade can break the import of a package in any way
        traceback.print_exc()
        return BROKEN
    return main()


if __name__ == "__main__":
    if Path(sys.path[0] or ".").resolve() not in Path(harness.__file__).resolve().parents:
        del sys.path[0]  # `-m` puts the current folder first, and nothing in it is run as code
    sys.exit(run())
