"""Finds llama.cpp's converter, sets it up, and runs it in a process of its own.

The converter is in the source distribution of llama-cpp-python and not in its wheel. So that source is fetched once, by
pip and held to its hash; its Python binding is built from the same source and does the rest: it quantises and answers.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from harness.errors import ExportError

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CONVERTER = "convert_hf_to_gguf.py"
_KEPT = (CONVERTER, "conversion", "gguf-py", "LICENSE")
_TOKENIZERS = "sentencepiece"
"""What Llama 2's, Mistral's and others' tokenizers are read with; the converter asks for it when all is merged."""
_SET_UP = "Set it up with `harness doctor --install-llama-cpp` (it builds for about 8 minutes on two cores)"

Run = Callable[[Sequence[str]], None]
"""Runs a command; an ExportError where it fails."""


def converter(given: Path | None = None) -> Path:
    """llama.cpp's converter: in the folder that was given, else on PATH, else where `install` puts it.

    Raises:
        ExportError: it is in none of them.
    """
    if given is not None:
        if (given / CONVERTER).is_file():
            return given / CONVERTER
        remedy = "Name a checkout of llama.cpp: git clone https://github.com/ggml-org/llama.cpp"
        raise ExportError(f"there is no {CONVERTER} in {given}", remedy=remedy)
    on_path = shutil.which(CONVERTER)
    found = Path(on_path) if on_path else home() / CONVERTER
    if not found.is_file():
        remedy = f"{_SET_UP}, or name a checkout of llama.cpp with --llama-cpp."
        raise ExportError("llama.cpp's converter is not on this machine", remedy=remedy)
    return found


def home() -> Path:
    """Where `install` puts the converter."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "qlora-harness" / f"llama-cpp-python-{VERSION}"


def check_binding() -> None:
    """Hold this Python to having llama.cpp's binding.

    Raises:
        ExportError: it has not.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        remedy = f"{_SET_UP}, or: pip install 'qlora-harness[gguf]'."
        raise ExportError("this needs llama.cpp's Python binding, llama-cpp-python", remedy=remedy)


def check_tokenizer(folder: Path) -> None:
    """Hold this Python to having what the converter reads a model's tokenizer with.

    Raises:
        ExportError: it has not.
    """
    if (folder / "tokenizer.model").is_file() and importlib.util.find_spec(_TOKENIZERS) is None:
        remedy = f"pip install {_TOKENIZERS}, or: pip install 'qlora-harness[gguf]'."
        raise ExportError(f"llama.cpp's converter reads this model's tokenizer with {_TOKENIZERS}", remedy=remedy)


def install(tell: Callable[[str], None], *, run: Run | None = None) -> Path:
    """Fetch the pinned source, keep the converter of it, and build the binding, unless they are there; gives `home()`.

    What the converter needs besides comes with the binding.

    Raises:
        ExportError: there is no compiler, or pip cannot fetch or build it.
    """
    run = run or command
    there = (home() / CONVERTER).is_file() and importlib.util.find_spec(_TOKENIZERS) is not None
    if there and _installed() == VERSION:
        tell(f"llama.cpp is set up: {home()}")
        return home()
    _check_compiler()
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        tell(f"fetching the source of llama-cpp-python {VERSION}")
        source = _fetch(Path(folder), run)
        _keep_converter(source, Path(folder))
        tell("building its binding (about 8 minutes on two cores)")
        run([sys.executable, "-m", "pip", "install", _TOKENIZERS, str(source)])
    tell(f"llama.cpp is set up: {home()}")
    return home()


def _check_compiler() -> None:
    """What else a build needs, CMake and Ninja, pip fetches where they are not."""
    if not os.environ.get("CXX") and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        remedy = (
            "Install one (Debian, Ubuntu: `apt-get install build-essential`; Fedora: `dnf install gcc-c++`), then run "
            "the same command again."
        )
        raise ExportError("there is no C++ compiler on this machine, and llama.cpp is built from source", remedy=remedy)


def _installed() -> str:
    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return ""


def _fetch(folder: Path, run: Run) -> Path:
    """pip holds what it fetches to the hash."""
    pinned = folder / "pinned.txt"
    pinned.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    words = ["download", "--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
    run([sys.executable, "-m", "pip", *words, "--dest", str(folder), "--requirement", str(pinned)])
    found = sorted(folder.glob("llama_cpp_python-*.tar.gz"))
    if not found:
        raise ExportError("pip fetched no source of llama-cpp-python", remedy="Try again later.")
    return found[0]


def _keep_converter(source: Path, folder: Path) -> None:
    """Of the source, what converts; it appears in `home()` whole."""
    out = folder / "source"
    with tarfile.open(source) as archive:
        archive.extractall(out, filter="data")
    (made,) = out.glob("*/vendor/llama.cpp")
    home().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home().parent, prefix=".partial-") as beside:
        partial = Path(beside) / "made"
        partial.mkdir()
        for name in _KEPT:
            shutil.move(made / name, partial / name)
        shutil.rmtree(home(), ignore_errors=True)
        os.replace(partial, home())


def command(words: Sequence[str]) -> None:
    """Run a command that says nothing unless it fails.

    Raises:
        ExportError: it failed; the last lines of what it said are the message.
    """
    # A proxy for models is none for what is on this disk: nothing here may reach for the Hub.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, env=environment)
    if done.returncode:
        raise ExportError(f"{Path(words[0]).name} {_told(words)} failed: {_end_of(done)}", remedy=_remedy(done.stderr))


def _told(words: Sequence[str]) -> str:
    return " ".join(Path(word).name if "/" in word else word for word in words[1:4])


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"it ended with {done.returncode}"


def _remedy(said: str) -> str:
    if "pre-tokenizer was not recognized" in said:
        return "llama.cpp does not know this model's tokenizer; use the merged model with transformers instead."
    if "is not supported" in said:
        return "llama.cpp does not know this model's architecture; use the merged model with transformers instead."
    if "No module named" in said:
        return "Install what it names, or: pip install 'qlora-harness[gguf]'."
    if "Failed building wheel" in said:
        return f"To see why: {Path(sys.executable).name} -m pip install llama-cpp-python=={VERSION}"
    if "No matching distribution" in said:
        return "pip found no package index, or not this version in it: check the connection."
    if "No space left" in said:
        return "Free some space, then run the same command again."
    return "Use a newer checkout of llama.cpp with --llama-cpp, if the model is newer than this one."
