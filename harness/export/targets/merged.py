"""`harness export --to merged`: merges the adapter into the base model. An interrupted export can be resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.export import ExportKind, ExportRecord, MergeMode
from harness.core.hashing import digest
from harness.core.units import DeviceKind
from harness.export import shards
from harness.export.config_files import config_of, generation_config_of, plain_files, tokenizer_config_of
from harness.export.export_record import precision_words, record_of, write_json
from harness.export.output_folders import begin, commit, copy, existing, staging
from harness.export.protocol import Exporter, ExportRequest, Mergeable, Merger, Printer, option
from harness.export.source import Source, check_base, check_merged, saved_base

SHARD_SIZE = 2_000_000_000
"""Largest size of one file in bytes. If an export was killed, at most one file must be written again."""


DTYPE = option("Data type of the exported weights.", choices=("float16", "bfloat16", "float32"))


@dataclass(frozen=True)
class MergeOptions:
    """Options of every target that merges the adapter into the base model."""

    mode: MergeMode | None = field(
        default=None,
        metadata=option(
            "Base weights to merge the adapter into: the dequantised NF4 weights or the original weights (default: the "
            "weights that the run evaluated).",
            choices=tuple(MergeMode),
        ),
    )
    dtype: str = field(default="float16", metadata=DTYPE)


@dataclass(frozen=True)
class MergeRequest:
    """Options of a merge. If `mode` is None, the result is the model that the run evaluated."""

    output: Path | None = None
    mode: MergeMode | None = None
    dtype: str = "float16"
    shard_size: int = SHARD_SIZE


def to_merged(source: Source, folder: Path, request: MergeRequest, *, merge: Merger, show_progress: Printer) -> Path:
    """Write the merged model, or complete an interrupted attempt, and return its folder.

    A source without an adapter (`Source.bare`) gives the base model with the weights of `mode`.

    Raises:
        ModelError: the base model's files are damaged, or have changed since the run.
        StoreError: the disk is full, or the folder contains something else.
    """
    mode = mode_of(source, request.mode)
    final = request.output or folder / f"{source.label}-{mode}-{request.dtype}"
    record = merged_record(source, mode, request.dtype)
    if existing(final, record):
        return final
    check_base(source)
    merged = merge_of(source, request, merge=merge)
    parts = shards.split(merged.specs, request.shard_size)
    inputs = digest({"record": record, "base": source.model.digest, "shard_size": request.shard_size})
    done = shards.completed(staging(final), parts, inputs)
    left = sum(part.size for part in parts if part.name not in done)
    made = begin(final, left, keep=(*done, shards.PROGRESS) if done else ())
    known: dict[str, str] = {}
    for name, sha in shards.write(made, merged, parts, inputs):
        known[name] = sha
        show_progress(f"{len(known)} of {len(parts)} files: {name}")
    _write_texts(made, source, request.dtype, untied=merged.untied)
    commit(made, final, record, known)
    return final


def merge_of(source: Source, request: MergeRequest, *, merge: Merger) -> Mergeable:
    """The tensors of the merged model. Each tensor is computed when it is read."""
    mode = mode_of(source, request.mode)
    exact = mode is MergeMode.NF4_EXACT
    return merge(
        source.model,
        source.adapter if source.training else None,
        dtype=request.dtype,
        compute_dtype=source.run.provenance.machine.compute_dtype if evaluated(source, mode) else "",
        nf4=exact,
        saved=saved_base(source) if exact else None,
    )


def _write_texts(made: Path, source: Source, dtype: str, *, untied: bool) -> None:
    base = Path(source.model.path)
    copy(plain_files(base), made)
    write_json(made / "tokenizer_config.json", tokenizer_config_of(base))
    write_json(made / "generation_config.json", generation_config_of(base))
    write_json(made / "config.json", config_of(base, dtype, untied=untied))


def mode_of(source: Source, requested: MergeMode | None) -> MergeMode:
    """The requested mode; if none is requested, the mode that reproduces the evaluated model.

    Raises:
        UsageError: `nf4-exact` is requested for a variant that was trained without quantisation.
    """
    if requested is MergeMode.NF4_EXACT and not source.quantised:
        what = f"{source.variant.name} was trained on the unquantised base model, not on NF4 weights"
        raise UsageError(what, remedy="Leave --mode out: a merge into the unquantised base model is exact.")
    return requested or (MergeMode.NF4_EXACT if source.quantised else MergeMode.FP16_BASE)


def evaluated(source: Source, mode: MergeMode) -> bool:
    """Whether a merge in this mode gives the model that the run evaluated."""
    return source.quantised == (mode is MergeMode.NF4_EXACT)


def merged_record(source: Source, mode: MergeMode, dtype: str) -> ExportRecord:
    """The record of the merged model, which need not exist yet."""
    requantised = (
        mode is MergeMode.NF4_EXACT
        and source.run.provenance.machine.kind is not DeviceKind.CPU
        and saved_base(source) is None
    )
    same = evaluated(source, mode) and not requantised
    return record_of(source, ExportKind.MERGED, mode, dtype, same, _merged_note(source, mode, requantised))


def _merged_note(source: Source, mode: MergeMode, requantised: bool) -> str:
    if requantised:
        return (
            "Nearly the model that was evaluated: its NF4 base, made on a GPU, is no longer in the cache, so it was "
            "quantised again on a CPU, where single weights may be rounded otherwise."
        )
    if evaluated(source, mode):
        update = " plus the adapter's update" if source.training else ", without an adapter"
        return f"The model that was evaluated: {source.model.name} {precision_words(source)}{update}."
    if not source.training:
        return f"The original weights of {source.model.name}, while the run evaluated them {precision_words(source)}."
    return (
        "A different model than the one that was evaluated: the update is added to the original weights of "
        f"{source.model.name}, while the run evaluated it on the weights {precision_words(source)}."
    )


def export_merged(request: ExportRequest, options: MergeOptions, *, output: Path | None) -> Path:
    """Merge as the command-line options say, and return the folder of the merged model."""
    wanted = MergeRequest(output, options.mode, options.dtype)
    return to_merged(
        request.source, request.folder, wanted, merge=request.engine.merge, show_progress=request.show_progress
    )


def _make(request: ExportRequest, options: MergeOptions) -> str:
    return str(export_merged(request, options, output=request.output))


EXPORTER = Exporter(
    ExportKind.MERGED,
    "base model and adapter merged into one model; by default exactly the evaluated model",
    MergeOptions,
    _make,
    check_merged,
)
