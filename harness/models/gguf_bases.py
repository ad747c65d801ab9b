"""Make base models of GGUF files: check the file, and convert it once, in a process of its own, into the cache.

The model is stored under the digest of the file, so later runs read what the first one wrote.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.core import programs
from harness.core.errors import ModelError
from harness.core.hashing import digest, file_digest
from harness.core.model import ConvertedModel, ModelRef
from harness.models import smollm2
from harness.models.gguf import ROPE_FACTORS, Header, read_header
from harness.models.gguf_facts import facts
from harness.models.gguf_rope import rope_scaling
from harness.models.peculiarities import peculiarities
from harness.storage.cache import Cache
from harness.storage.locations import CACHE

_RECIPE = 1
"""Version of the conversion. Increase it if the code then makes other weights or tokens of the same file."""
_NOT_THIS_FILE = (
    "Name the model that it was made from: its folder with config.json and .safetensors files, or its Hub name, for "
    "example meta-llama/Llama-2-7b-chat-hf instead of TheBloke/Llama-2-7B-Chat-GGUF."
)

_NOTE = (
    "The weights of the base model were rounded to {} before this run. Results hold for these weights, not for the "
    "published model."
)

Convert = Callable[[Path, Header, Path], None]
"""Converts a GGUF file with this header to a model in an existing folder."""
Fetch = Callable[[Path], Path]
"""Downloads the GGUF file of `smollm2` into a folder, and returns its path."""


def check_header(name: str, header: Header) -> None:
    """Check that the model in a GGUF file can be a base model.

    Raises:
        ModelError: the file holds part of a model, or a model that transformers would read incorrectly, or has no chat
            template.
    """
    if isinstance(parts := header.metadata.get("split.count"), int) and parts > 1:
        remedy = "Join the parts with llama.cpp: llama-gguf-split --merge FIRST_PART WHOLE.gguf; then name the whole."
        raise ModelError(f"{name} is one of {parts} parts of a model", remedy=remedy)
    if reason := _misread(header):
        raise ModelError(f"{name} {reason}", remedy=_NOT_THIS_FILE)
    if not header.chat_template:
        remedy = "Name a GGUF file of the chat version of the model (often NAME-chat, NAME-Instruct or NAME-it)."
        raise ModelError(f"{name} has no chat template, so prompts cannot be rendered", remedy=remedy)


def _misread(header: Header) -> str:
    """Return why transformers would read another model than the file holds; empty if there is no such reason."""
    if not header.architecture or not header.tensors:
        return "holds no model"
    scaled = any(name.startswith("rope_f") and name != ROPE_FACTORS for name in header.tensors)
    unknown = header.rope_factors and rope_scaling(header) is None
    if scaled or unknown or header.of_model("rope.scaling.type"):
        return "scales its position embeddings (RoPE) in a way that transformers does not read from a GGUF file"
    return ""


def weights_words(header: Header) -> str:
    """Describe what the weights of a base model from a GGUF file have been through."""
    return f"{header.quantisation}, dequantised" if header.quantised else f"{header.quantisation}, from a GGUF file"


def note_of(header: Header) -> str:
    """Return a sentence for reports, if the weights in the file are quantised."""
    return _NOTE.format(header.quantisation) if header.quantised else ""


def convert(file: Path, header: Header, folder: Path) -> None:
    """Convert a GGUF file to a model in `folder`, in a process of its own, since only the engine imports torch.

    Raises:
        ModelError: the file cannot be converted.
    """
    if (size := file.stat().st_size) < header.least_size:
        what = f"{file} is not complete: it has {size:,} bytes, and its header describes {header.least_size:,} or more"
        raise ModelError(what, remedy="Download or copy the file again.")
    command = programs.module("harness.engine.gguf_conversion", str(file.resolve()), str(folder.resolve()))
    done = programs.run(command, changes={"HF_HUB_OFFLINE": "1"}, given=json.dumps(facts(header)))
    if done.returncode:
        raise _refusal(file, done)


def _refusal(file: Path, done: subprocess.CompletedProcess[str]) -> ModelError:
    try:
        return ModelError(**json.loads(done.stdout))
    except (ValueError, TypeError):
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        what = f"{file} could not be converted: {last.strip()}"
        return ModelError(what, remedy="Close other programs if main memory is short, then run the same command again.")


def _silent(_message: str) -> None:
    pass


@dataclass(frozen=True)
class Conversions:
    """Base models from GGUF files in a cache. Missing ones are made; `report` is then called with a message."""

    cache: Cache = field(default_factory=lambda: Cache(CACHE))
    report: Callable[[str], None] = _silent
    convert: Convert = convert
    fetch: Fetch = smollm2.fetch
    smollm2_file: str = smollm2.FILE
    """SHA-256 of the file that `fetch` gets."""

    def of_file(self, file: Path) -> ModelRef:
        """Return the model in a GGUF file, converted.

        Raises:
            ModelError: the file cannot be converted.
            StoreError: the disk has too little space.
        """
        header = read_header(file)
        check_header(str(file), header)
        content = file_digest(file)
        note = " ".join(filter(None, (note_of(header), *peculiarities(header.config))))
        folder = self.existing(content) or self._made(file, header, content)
        return _ref(file.name, folder, content, weights_words(header), note)

    def smollm2(self) -> ModelRef:
        """Return the model `smollm2`, which is downloaded and converted if the cache lacks it.

        Raises:
            ModelError: the model cannot be downloaded.
            StoreError: the disk has too little space.
        """
        folder = self.existing(self.smollm2_file) or self._fetched()
        return _ref(smollm2.NAME, folder, self.smollm2_file, smollm2.WEIGHTS, smollm2.NOTE)

    def existing(self, content: str) -> Path | None:
        """Return the folder of the model made of the GGUF file with this SHA-256, or None."""
        return self.cache.converted(_key(content))

    def _fetched(self) -> Path:
        self.report(f"downloading {smollm2.NAME} (93 MB), once")
        with tempfile.TemporaryDirectory() as folder:
            file = self.fetch(Path(folder))
            return self._made(file, read_header(file), file_digest(file))

    def _made(self, file: Path, header: Header, content: str) -> Path:
        self.report(f"converting {file.name} ({header.weights / 1e6:,.0f}M weights, {weights_words(header)}), once")
        record = ConvertedModel(_key(content), file.name, content, weights_words(header))
        return self.cache.commit_converted(record, 2 * header.weights, partial(self.convert, file, header))


def _key(content: str) -> str:
    return digest({"gguf": content, "recipe": _RECIPE})


def _ref(name: str, folder: Path, content: str, weights: str, note: str = "") -> ModelRef:
    """Return the model in `folder`. Its digest depends on the GGUF file only, and so not on transformers' version."""
    return ModelRef(name, str(folder.resolve()), _key(content), note=note, weights=weights)
