"""`harness export --to gguf-lora`: converts the adapter to a small GGUF file, for llama.cpp with the base model's file.

The files of several variants lie in one folder, with one file of the base model (`--to gguf --base-only`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.core import programs
from harness.core.errors import ExportError, UsageError
from harness.core.export import ExportKind, ExportRecord, GgufType, MergeMode
from harness.core.model import ModelRef
from harness.export.config_files import config_of
from harness.export.export_record import precision_words, record_of, write_json
from harness.export.llama_cpp import LORA_CONVERTER, Run, command, converter
from harness.export.output_folders import RECORD, add, copy
from harness.export.protocol import Exporter, ExportRequest
from harness.export.source import Source, check_merged, check_weights
from harness.export.targets.gguf import LLAMA_CPP, SHARED, base_name, llama_cli_command, run_for
from harness.models.foreign_files import read_object
from harness.storage.records import read_record

_DTYPE = "f16"
_USE_MERGED = "Export the merged model instead: --to gguf."


@dataclass(frozen=True)
class GgufLoraOptions:
    """Command-line options of `--to gguf-lora`."""

    llama_cpp: Path | None = field(default=None, metadata=LLAMA_CPP)


def to_gguf_lora(
    source: Source,
    folder: Path,
    *,
    output: Path | None = None,
    llama_cpp: Path | None = None,
    check: Callable[[ModelRef, Path], None],
    run: Run = command,
) -> Path:
    """Convert the adapter to a file in the folder that adapters share, and return its path.

    `output` replaces this folder, which lies in `folder`. No weight of the base model is read.

    Raises:
        EngineError: the adapter does not fit its base model, according to `check`.
        ExportError: llama.cpp is not installed, or cannot represent the adapter.
        StoreError: the disk is full, or the folder has another file of this name.
    """
    check_weights(source.model)
    script = converter(llama_cpp, LORA_CONVERTER)
    base = base_of(source)
    note = f"An adapter for llama.cpp. Together with {base} it is the model that was evaluated: {source.model.name} "
    note += f"{precision_words(source)} plus the adapter's update. Over a base in 8 or 4 bits it is another model."
    record = record_of(source, ExportKind.GGUF_LORA, None, _DTYPE, True, note)
    weights, config = source.adapter / "adapter_model.safetensors", _config_of(source.adapter)

    def write(file: Path) -> None:
        check(source.model, source.adapter)
        with TemporaryDirectory(dir=file.parent) as made:
            described, adapter = Path(made) / "base", Path(made) / "adapter"
            described.mkdir()
            adapter.mkdir()
            write_json(described / "config.json", config_of(Path(source.model.path), "float16", untied=False))
            write_json(adapter / "adapter_config.json", config)
            copy([weights], adapter)
            words = ("--base", str(described), "--outtype", _DTYPE, "--outfile", str(file.resolve()), str(adapter))
            run_for(file, run, programs.script(script, *words))

    name = f"{source.suite_label}-{source.label}-lora.gguf"
    return add((output or folder / SHARED) / name, 2 * weights.stat().st_size, record, write)


def base_of(source: Source) -> str:
    """File name of the base model in half precision, over which the adapter is the evaluated model."""
    return base_name(source, MergeMode.NF4_EXACT if source.quantised else MergeMode.FP16_BASE, GgufType.F16)


def _config_of(adapter: Path) -> dict[str, Any]:
    """Return the adapter's configuration as llama.cpp's converter understands it.

    llama.cpp scales every update by alpha divided by its rank. rsLoRA's scaling, alpha divided by the root of the rank,
    takes another alpha.

    Raises:
        ExportError: the matrices of the adapter are scaled in ways that one alpha cannot express.
    """
    config = read_object(adapter / "adapter_config.json")
    rslora = bool(config.get("use_rslora"))
    if config.get("alpha_pattern") or (rslora and config.get("rank_pattern")):
        what = f"{adapter} scales its matrices differently (alpha_pattern, or rank_pattern with rsLoRA)"
        raise ExportError(f"{what}, and a GGUF file has one alpha for all", remedy=_USE_MERGED)
    if rslora:
        config |= {"lora_alpha": config["lora_alpha"] * math.sqrt(config["r"]), "use_rslora": False}
    return config


def instructions(run: Path, source: Source, file: Path) -> str:
    """Instructions for chatting with the adapter on this machine and on another. `run` is the run's directory."""
    named, base = [str(run), source.variant.name, *_seed_words(source)], file.with_name(base_of(source))
    lines = [
        f"Chat here:      {shlex.join(['harness', 'chat', *named, '--gguf', str(base), '--lora', str(file)])}",
        f"With llama.cpp: {llama_cli_command(source, base, file)}",
    ]
    if not base.exists():
        words = [*_base_words(run, source), "--output", str(file.parent)]
        lines.insert(0, f"First, make {base.name}: {shlex.join(words)}")
    return "\n".join(lines)


def _base_words(run: Path, source: Source) -> list[str]:
    return ["harness", "export", str(run), source.variant.name, *_seed_words(source), *_BASE_OPTIONS]


def _seed_words(source: Source) -> list[str]:
    return ["--seed", str(source.seed)] if source.seed != source.run.plan.seeds[0] else []


_BASE_OPTIONS = ("--to", "gguf", "--base-only", "--quant", "f16")


def check_base_file(run: Path, source: Source, file: Path) -> None:
    """Check that a GGUF file, to which an adapter is to be added, has none inside, as far as its record says.

    Raises:
        UsageError: the file was made of a merged model.
    """
    records = (file.with_name(f"{file.name}.json"), file.with_name(RECORD))
    found = next((path for path in records if path.is_file()), None)
    if found and (record := read_record(found, ExportRecord)).training:
        what = f"{file} has the adapter of {record.variant} inside already, so --lora would add another"
        remedy = f"Give the base model's file with --gguf: `{shlex.join(_base_words(run, source))}` makes it."
        raise UsageError(what, remedy=remedy)


def export_gguf_lora(request: ExportRequest, llama_cpp: Path | None) -> Path:
    """Convert the adapter of a request, and return the file's path."""
    check = request.engine.check_adapter
    return to_gguf_lora(request.source, request.folder, output=request.output, llama_cpp=llama_cpp, check=check)


def _make(request: ExportRequest, options: GgufLoraOptions) -> str:
    made = export_gguf_lora(request, options.llama_cpp)
    request.show_progress(instructions(request.run, request.source, made))
    return str(made)


EXPORTER = Exporter(
    ExportKind.GGUF_LORA,
    "the adapter as a small GGUF file, for llama.cpp with one file of the base model for all variants",
    GgufLoraOptions,
    _make,
    check_merged,
)
