"""Run the command `harness` as `python -m harness`."""

import sys
from pathlib import Path

import harness

if Path(sys.path[0] or ".").resolve() not in Path(harness.__file__).resolve().parents:
    del sys.path[0]  # `-m` puts the current folder first, and nothing in it is run as code

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
