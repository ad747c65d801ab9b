"""`harness export --to gguf`: converts a merged model, or the base model by itself, to one GGUF file for llama.cpp."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core import programs
from harness.core.errors import ExportError
from harness.core.export import ExportKind, ExportRecord, GgufType, MergeMode
from harness.export.llama_cpp import Run, check_binding, check_tokenizer, command, converter, installed
from harness.export.output_folders import RECORD, add, added, begin, commit, existing
from harness.export.protocol import Exporter, ExportRequest, option
from harness.export.source import Source, check_mergeable
from harness.export.targets.merged import MergeOptions, export_merged, merged_record, mode_of
from harness.storage.files import writing
from harness.storage.records import read_record

SHARED = "gguf-lora"
"""Folder in the run's exports with the GGUF file of the base model and those of adapters."""
_SIZE = {GgufType.F16: 1.0, GgufType.Q8_0: 0.55, GgufType.Q4_K_M: 1.35}
"""Disk space needed, relative to the merged model's size. Q4_K_M also needs a temporary f16 file."""
_FULL = 1 << 20
"""Bytes below which a disk is full: a program that failed for lack of space may leave less than one of its writes."""
_NOTES = {
    GgufType.F16: "as llama.cpp reads it, in half precision.",
    GgufType.Q8_0: "quantised again by llama.cpp, to 8 bits: close to what was evaluated.",
    GgufType.Q4_K_M: "quantised again by llama.cpp, to about 4.5 bits: not what was evaluated.",
}


_CONVERTING = "converting to GGUF in {} with llama.cpp (several minutes for a 7B model)"
INSTALL_HINT = (
    "`brew install llama.cpp` (Mac, Linux), `winget install llama.cpp` (Windows), or unpack a build from "
    "https://github.com/ggml-org/llama.cpp/releases"
)
CHAT_HINT = (
    "Type a question after `>`. Before the next question, type `/clear`, because the run asked each question in a new "
    "conversation. `/exit` quits."
)


LLAMA_CPP = option(
    "Checkout of llama.cpp, which contains the converters (default: the converters found on PATH, or those that "
    "`harness doctor --install-llama-cpp` installed).",
    metavar="DIR",
    is_path=True,
)


@dataclass(frozen=True)
class QuantOptions(MergeOptions):
    """Options of every target that makes a GGUF file of a whole model."""

    quant: GgufType = field(
        default=GgufType.Q8_0, metadata=option("Data type of the weights in the GGUF file.", choices=tuple(GgufType))
    )
    llama_cpp: Path | None = field(default=None, metadata=LLAMA_CPP)


@dataclass(frozen=True)
class GgufOptions(QuantOptions):
    """Command-line options of `--to gguf`."""

    base_only: bool = field(
        default=False,
        metadata=option("Convert the base model without the adapter, for adapters made with --to gguf-lora."),
    )


@dataclass(frozen=True)
class GgufRequest:
    """Options of a GGUF conversion. `llama_cpp` is the folder of the converter; None: search for the converter."""

    kind: GgufType = GgufType.F16
    output: Path | None = None
    llama_cpp: Path | None = None


def check_tools(source: Source, request: GgufRequest, installed: Callable[[str], bool] = installed) -> None:
    """Check that the tools of llama.cpp are installed. Call this before merging, which takes long.

    Raises:
        ExportError: a tool is missing.
    """
    converter(request.llama_cpp)
    check_tokenizer(Path(source.model.tokenizer or source.model.path), installed)
    if request.kind is GgufType.Q4_K_M:
        check_binding()


def to_gguf(source: Source, merged: Path, folder: Path, request: GgufRequest, *, run: Run | None = None) -> Path:
    """Convert a merged model to GGUF, in a folder with a record and a manifest, and return the file's path.

    Raises:
        ExportError: llama.cpp is not installed or does not support the model.
        StoreError: the disk is full, or the folder contains something else.
    """
    run = run or command
    final = request.output or folder / f"{source.label}-gguf-{request.kind}"
    name = f"{source.suite_label}-{source.label}-{request.kind}.gguf"
    record = _record_of(read_record(merged / RECORD, ExportRecord), request.kind, "The merged model")
    if existing(final, record):
        return final / name
    check_tools(source, request)
    made = begin(final, _needed(merged, request.kind))
    _convert(merged, made / name, request, run)
    commit(made, final, record, {})
    return final / name


def base_to_gguf(source: Source, merged: Path, folder: Path, request: GgufRequest, *, run: Run | None = None) -> Path:
    """Convert the base model without an adapter, `merged`, to a file in the folder that adapters share.

    `source` is `Source.bare` of a variant. The file is in `request.output`, or in a folder of its own in `folder`.

    Raises:
        ExportError: llama.cpp is not installed or does not support the model.
        StoreError: the disk is full, or the folder has another file of this name.
    """
    file, record = _base_file(source, folder, request, read_record(merged / RECORD, ExportRecord))
    if added(file, record):
        return file
    check_tools(source, request)
    return add(
        file, _needed(merged, request.kind), record, lambda path: _convert(merged, path, request, run or command)
    )


def _base_file(source: Source, folder: Path, request: GgufRequest, of: ExportRecord) -> tuple[Path, ExportRecord]:
    """Where the file of a base model with the record `of` belongs, and the record of this file."""
    file = (request.output or folder / SHARED) / base_name(source, of.mode, request.kind)
    return file, _record_of(of, request.kind, "The base model")


def base_name(source: Source, mode: MergeMode | None, kind: GgufType) -> str:
    """File name of the base model in this number format, such as `smollm2-base-nf4-f16.gguf`."""
    weights = "nf4-" if mode is MergeMode.NF4_EXACT else ""
    return f"{source.model_label}-base-{weights}{kind}.gguf"


def _record_of(of: ExportRecord, kind: GgufType, what: str) -> ExportRecord:
    """The record of a GGUF file that is made from a model with the record `of`."""
    same = of.evaluated and kind is GgufType.F16
    before = of.note if kind is GgufType.F16 else f"Before that: {of.note[:1].lower()}{of.note[1:]}"
    note = f"{what} {_NOTES[kind]} {before}"
    return replace(of, kind=ExportKind.GGUF, dtype=str(kind), evaluated=same, note=note)


def _needed(merged: Path, kind: GgufType) -> int:
    """Bytes of disk space that converting a model takes."""
    return int(sum(path.stat().st_size for path in merged.glob("*.safetensors")) * _SIZE[kind])


def _convert(merged: Path, file: Path, request: GgufRequest, run: Run) -> None:
    convert = programs.script(converter(request.llama_cpp), str(merged.resolve()), "--outtype")
    partial = file.with_name(f".partial-{file.name}")
    if request.kind is GgufType.Q4_K_M:
        whole = file.with_name(".partial-f16.gguf")
        run_for(file, run, [*convert, "f16", "--outfile", str(whole.resolve())])
        words = programs.module("harness.export.requantise", str(whole.resolve()), str(partial.resolve()))
        run_for(file, run, words)
    else:
        run_for(file, run, [*convert, str(request.kind), "--outfile", str(partial.resolve())])
    partial.replace(file)


def run_for(file: Path, run: Run, words: Sequence[str]) -> None:
    """Run a command that writes `file`.

    Raises:
        StoreError: it failed, and the disk is full. What the command prints then does not always say so.
        ExportError: it failed.
    """
    try:
        run(words)
    except ExportError as error:
        if shutil.disk_usage(file.parent).free < _FULL:
            with writing(file):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def instructions(run: Path, source: Source, file: Path) -> str:
    """Instructions for chatting with the GGUF file on this machine and on another. `run` is the run's directory."""
    named = [str(run), source.variant.name]
    named += ["--seed", str(source.seed)] if source.seed != source.run.plan.seeds[0] else []
    return "\n".join(
        (
            f"Chat here:             {shlex.join(['harness', 'chat', *named, '--gguf', str(file)])}",
            f"Check for changes:     {shlex.join(['harness', 'parity', *named])}",
            "Chat on another machine, without Python or a GPU:",
            f"  1. Install llama.cpp: {INSTALL_HINT}",
            f"  2. Copy {file.name} there ({file.stat().st_size / 1e6:,.0f} MB; its path is below)",
            f"  3. In its folder, run: {llama_cli_command(source, file)}",
            f"  4. {CHAT_HINT}",
        )
    )


def llama_cli_command(source: Source, file: Path, lora: Path | None = None) -> str:
    """The llama-cli command that chats with the file and an adapter, with the run's system prompt and temperature."""
    system = source.run.suite.system_prompt
    words = ["llama-cli", "-m", file.name, *(["--lora", lora.name] if lora else [])]
    words += ["--temp", f"{source.run.suite.decoding.temperature:g}"]
    return shlex.join([*words, *(["-sys", system] if system else [])])


def _make(request: ExportRequest, options: GgufOptions) -> str:
    if options.base_only:
        return str(export_base(request, options))
    made = export_gguf(request, options, output=request.output)
    request.show_progress(instructions(request.run, request.source, made))
    return str(made)


def export_gguf(request: ExportRequest, options: QuantOptions, *, output: Path | None) -> Path:
    """Merge and convert as the command-line options say, and return the path of the GGUF file."""
    wanted = GgufRequest(options.quant, output, options.llama_cpp)
    check_tools(request.source, wanted)
    merged = export_merged(request, options, output=None)
    request.show_progress(_CONVERTING.format(options.quant))
    return to_gguf(request.source, merged, request.folder, wanted)


def export_base(request: ExportRequest, options: QuantOptions) -> Path:
    """Convert the base model without the adapter as the command-line options say, and return the file's path.

    A file that an earlier export made of the same weights, also for another suite's run, is used as it is: the base is
    not merged for it.
    """
    bare, wanted = request.source.bare, GgufRequest(options.quant, request.output, options.llama_cpp)
    of = merged_record(bare, mode_of(bare, options.mode), options.dtype)
    file, record = _base_file(bare, request.folder, wanted, of)
    if added(file, record):
        request.show_progress(f"{file.name} is there already")
        return file
    check_tools(bare, wanted)
    merged = export_merged(replace(request, source=bare), options, output=None)
    request.show_progress(_CONVERTING.format(options.quant))
    return base_to_gguf(bare, merged, request.folder, wanted)


def _check(source: Source, options: GgufOptions) -> None:
    if not options.base_only:
        check_mergeable(source.variant)


EXPORTER = Exporter(
    ExportKind.GGUF,
    "the merged model as one GGUF file for llama.cpp; with --base-only the base model, for --to gguf-lora",
    GgufOptions,
    _make,
    _check,
)
