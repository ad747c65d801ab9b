"""Finds or installs llama.cpp's converters to GGUF, and runs commands in a child process.

The converters, of models and of LoRA adapters, are in the source distribution of llama-cpp-python, but not in its
wheel. pip downloads the source once and checks its hash. llama.cpp's Python binding, which quantises and generates, is
built from the same source.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath

from harness.core import programs
from harness.core.errors import ExportError
from harness.hardware.doctor import LlamaCpp

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CONVERTER = "convert_hf_to_gguf.py"
LORA_CONVERTER = "convert_lora_to_gguf.py"
_CONVERTER_FILES = (CONVERTER, LORA_CONVERTER, "conversion", "gguf-py", "LICENSE")
_TOKENIZERS = "sentencepiece"
"""Package that the converter needs to read the tokenizers of Llama 2, Mistral and others."""
_SET_UP = "Install it with `harness doctor --install-llama-cpp` (building takes about 8 minutes on two cores)"

Run = Callable[[Sequence[str]], None]
"""A function that runs a command, and raises an ExportError if the command fails."""


def converter(given: Path | None = None, script: str = CONVERTER) -> Path:
    """Path of a converter of llama.cpp: in the folder `given`, else on PATH, else in `home()`.

    Raises:
        ExportError: the converter is not found.
    """
    if given is not None:
        if (given / script).is_file():
            return given / script
        remedy = "Name a checkout of llama.cpp. To make one: git clone https://github.com/ggml-org/llama.cpp"
        raise ExportError(f"there is no {script} in {given}", remedy=remedy)
    on_path = programs.which(script)
    found = Path(on_path) if on_path else home() / script
    if not found.is_file():
        remedy = f"{_SET_UP}, or name a checkout of llama.cpp with --llama-cpp."
        raise ExportError(f"llama.cpp's {script} is not on this machine", remedy=remedy)
    return found


def home() -> Path:
    """Folder in the user's cache where `install` stores the converter."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "qlora-harness" / f"llama-cpp-python-{VERSION}"


def found() -> LlamaCpp:
    """Say what of llama.cpp is on this machine, for `harness doctor`."""
    try:
        folders = {converter(script=script).parent for script in (CONVERTER, LORA_CONVERTER)}
    except ExportError:
        folders = set()
    version = _installed_version() or ("of an unknown version" if installed("llama_cpp") else "")
    return LlamaCpp(min(folders, default=None), version, VERSION)


def check_binding() -> None:
    """Check that llama.cpp's Python binding is installed.

    Raises:
        ExportError: the binding is missing.
    """
    if not installed("llama_cpp"):
        remedy = f"{_SET_UP}, or run `pip install '.[gguf]'` in a checkout of the harness."
        raise ExportError("llama.cpp's Python binding, llama-cpp-python, is not installed", remedy=remedy)


@contextmanager
def vocabulary(file: Path) -> Iterator[Callable[[str], list[int]]]:
    """Load the tokenizer of a GGUF file, without weights, and yield a function that tokenizes a text.

    Like llama.cpp's programs, it puts the token before the text that the file asks for, if any.

    Raises:
        ExportError: llama.cpp cannot read the file.
    """
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # the binding prints warnings as errors
    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
    if not model:
        raise ExportError(f"llama.cpp cannot read {file}", remedy="Delete its folder and export it again.")
    known = llama_cpp.llama_model_get_vocab(model)

    def tokenise(text: str) -> list[int]:
        given = text.encode()
        ids = (llama_cpp.llama_token * (len(given) + 8))()  # at most one for each byte, and those around the text
        count = llama_cpp.llama_tokenize(known, given, len(given), ids, len(ids), True, True)
        return list(ids[: max(0, count)])

    try:
        yield tokenise
    finally:
        llama_cpp.llama_model_free(model)


def installed(package: str) -> bool:
    """Whether a package is installed in this Python environment."""
    return importlib.util.find_spec(package) is not None


def check_tokenizer(folder: Path, installed: Callable[[str], bool] = installed) -> None:
    """Check that the converter can read the tokenizer in `folder`: a SentencePiece tokenizer needs a package.

    Raises:
        ExportError: the package is missing.
    """
    if (folder / "tokenizer.model").is_file() and not installed(_TOKENIZERS):
        remedy = f"Run `pip install {_TOKENIZERS}`."
        what = f"llama.cpp's converter needs {_TOKENIZERS} to read this model's tokenizer, and it is not installed"
        raise ExportError(what, remedy=remedy)


def has_binding() -> bool:
    """Whether the binding's pinned version and the package for tokenizers are installed."""
    return installed(_TOKENIZERS) and _installed_version() == VERSION


def install(
    show_progress: Callable[[str], None], *, run: Run | None = None, has_binding: Callable[[], bool] = has_binding
) -> Path:
    """Install llama.cpp's converters and Python binding from the pinned source, what is missing of them.

    Returns `home()`. The converter's other dependencies are installed with the binding.

    Raises:
        ExportError: there is no C++ compiler, or pip cannot download or build the source.
    """
    run = run or command
    built = has_binding()
    if built and all((home() / script).is_file() for script in (CONVERTER, LORA_CONVERTER)):
        show_progress(f"llama.cpp is set up: {home()}")
        return home()
    if not built:
        _check_compiler()
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        show_progress(f"downloading the source of llama-cpp-python {VERSION}")
        source = _fetch(Path(folder), run)
        _keep_converter(source)
        if not built:
            show_progress("building its binding (about 8 minutes on two cores)")
            run(programs.python("-m", "pip", "install", _TOKENIZERS, str(source)))
    show_progress(f"llama.cpp is set up: {home()}")
    return home()


def _check_compiler() -> None:
    """Check that there is a C++ compiler. The other build tools (CMake, Ninja) are downloaded by pip."""
    if not os.environ.get("CXX") and not any(map(programs.which, ("c++", "g++", "clang++"))):
        remedy = (
            "Install one (Debian, Ubuntu: `apt-get install build-essential`; Fedora: `dnf install gcc-c++`), then run "
            "the same command again."
        )
        raise ExportError("there is no C++ compiler on this machine, and llama.cpp is built from source", remedy=remedy)


def _installed_version() -> str:
    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return ""


def _fetch(folder: Path, run: Run) -> Path:
    """Download the source with pip, which checks its hash, and return the path of the archive."""
    pinned = folder / "pinned.txt"
    pinned.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    words = ["download", "--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
    run(programs.python("-m", "pip", *words, "--dest", str(folder), "--requirement", str(pinned)))
    found = sorted(folder.glob("llama_cpp_python-*.tar.gz"))
    if not found:
        raise ExportError("pip did not download the source of llama-cpp-python", remedy="Try again later.")
    return found[0]


def _keep_converter(source: Path) -> None:
    """Copy the converters' files from the source archive to `home()`, in one step."""
    home().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home().parent, prefix=".partial-") as beside, tarfile.open(source) as archive:
        partial = Path(beside) / "made"
        for member in archive:
            file = archive.extractfile(member) if (name := _converter_file(member)) else None
            if name and file:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(file.read())
        shutil.rmtree(home(), ignore_errors=True)
        os.replace(partial, home())


def _converter_file(member: tarfile.TarInfo) -> str:
    """Return the path of a member of the archive below `home()`, or an empty text if it is not kept.

    Only regular files are kept, and none whose path could lead out of the folder.
    """
    parts = PurePosixPath(member.name).parts
    kept = member.isfile() and ".." not in parts and parts[1:3] == ("vendor", "llama.cpp")
    return "/".join(parts[3:]) if kept and parts[3:4] and parts[3] in _CONVERTER_FILES else ""


def command(words: Sequence[str]) -> None:
    """Run a command and hide its output.

    Raises:
        ExportError: the command failed; the message contains the last lines of its output.
    """
    # All files are local, so network requests to the Hub are disabled.
    done = programs.run(words, changes={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    if done.returncode:
        raise ExportError(f"{Path(words[0]).name} {_shown(words)} failed: {_end_of(done)}", remedy=_remedy(done.stderr))


def _shown(words: Sequence[str]) -> str:
    return " ".join(Path(word).name if "/" in word else word for word in words[1:4])


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"it ended with {done.returncode}"


def _remedy(output: str) -> str:
    if "pre-tokenizer was not recognized" in output:
        return "Use the merged model with transformers: llama.cpp does not support this model's tokenizer."
    if "is not supported" in output:
        return "Use the merged model with transformers: llama.cpp does not support this model's architecture."
    if "No module named" in output:
        return "Install the package that the message names."
    if "Failed building wheel" in output:
        return f"To see why: {Path(sys.executable).name} -m pip install llama-cpp-python=={VERSION}"
    if "No matching distribution" in output:
        return "Check the connection: pip found no package index, or the index does not have this version."
    if "No space left" in output:
        return "Free some space, then run the same command again."
    return "If the model is newer than this version of llama.cpp, pass a newer checkout with --llama-cpp."
