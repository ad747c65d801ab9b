"""From a run's variant to what leaves the harness: an adapter, a merged model, and what is made of those.

source   which adapter of which base        shards   tensors to safetensors files, resumable
folders  folders that appear whole          texts    configuration and tokenizer of the result
gguf     one file for llama.cpp             notebook the workshop, to be done by hand

What needs torch is handed in: this package writes what the engine computes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UsageError
from harness.export import shards
from harness.export.folders import begin, commit, copy, existing, staging
from harness.export.source import Source, check_base, saved_base
from harness.export.texts import config_of, generation_config_of, plain_files, tokenizer_config_of
from harness.provenance import stack_versions
from harness.records import FORMAT, ExportRecord, MergeMode, ModelRef
from harness.store import digest, write_text

SHARD_SIZE = 2_000_000_000
"""Bytes of one file: what a killed export has to do again at most."""

Tell = Callable[[str], None]


class Mergeable(shards.Tensors, Protocol):
    """What an engine's merge gives: tensors, and whether the head was untied from the embedding."""

    @property
    def untied(self) -> bool: ...


class Merger(Protocol):
    """`harness.engine.merging.merge`."""

    def __call__(
        self, model: ModelRef, adapter: Path, *, dtype: str, compute_dtype: str, nf4: bool, saved: Path | None
    ) -> Mergeable: ...


@dataclass(frozen=True)
class MergeRequest:
    """A merged model that is asked for. `mode` None: the model that was evaluated."""

    output: Path | None = None
    mode: MergeMode | None = None
    dtype: str = "float16"
    shard_size: int = SHARD_SIZE


def to_adapter(source: Source, folder: Path, *, output: Path | None, check: Callable[[ModelRef, Path], None]) -> Path:
    """The adapter as PEFT loads it, with a manifest; where it is there already, nothing is done.

    Raises:
        EngineError: `check` says that it does not fit its base.
    """
    final = output or folder / f"{source.label}-adapter"
    note = f"An adapter for {source.model.name}. The run evaluated it on that base {_as_held(source)}."
    record = record_of(source, "adapter", None, "float32", True, note)
    if existing(final, record):
        return final
    check(source.model, source.adapter)
    made = begin(final, sum(path.stat().st_size for path in source.adapter.iterdir()))
    copy([source.adapter / "adapter_model.safetensors"], made)
    config = json.loads((source.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": source.model.name, "revision": source.model.revision or None}
    _write_json(made / "adapter_config.json", config)
    commit(made, final, record, {})
    return final


def to_merged(source: Source, folder: Path, request: MergeRequest, *, merge: Merger, tell: Tell) -> Path:
    """One plain model of base and adapter, tensor by tensor; goes on where an earlier attempt was stopped.

    Raises:
        ModelError: the base's files are not those that the run was made with, or damaged.
        StoreError: the disk has no room, or the place is taken.
    """
    mode = mode_of(source, request.mode)
    final = request.output or folder / f"{source.label}-{mode}-{request.dtype}"
    again = mode is MergeMode.NF4_EXACT and source.run.provenance.machine.kind != "cpu" and saved_base(source) is None
    record = _merged_record(source, mode, request.dtype, again=again)
    if existing(final, record):
        return final
    check_base(source)
    merged = merge_of(source, request, merge=merge)
    parts = shards.split(merged.specs, request.shard_size)
    inputs = digest({"record": record, "base": source.model.digest, "shard_size": request.shard_size})
    done = shards.kept(staging(final), parts, inputs)
    left = sum(part.size for part in parts if part.name not in done)
    made = begin(final, left, keep=(*done, shards.PROGRESS) if done else ())
    known: dict[str, str] = {}
    for name, sha in shards.write(made, merged, parts, inputs):
        known[name] = sha
        tell(f"{len(known)} of {len(parts)} files: {name}")
    _write_texts(made, source, request.dtype, untied=merged.untied)
    commit(made, final, record, known)
    return final


def merge_of(source: Source, request: MergeRequest, *, merge: Merger) -> Mergeable:
    """The merged model's tensors, of which none is made yet."""
    mode = mode_of(source, request.mode)
    exact = mode is MergeMode.NF4_EXACT
    return merge(
        source.model,
        source.adapter,
        dtype=request.dtype,
        compute_dtype=source.run.provenance.machine.compute_dtype if evaluated(source, mode) else "",
        nf4=exact,
        saved=saved_base(source) if exact else None,
    )


def _write_texts(made: Path, source: Source, dtype: str, *, untied: bool) -> None:
    base = Path(source.model.path)
    copy(plain_files(base), made)
    _write_json(made / "tokenizer_config.json", tokenizer_config_of(base))
    _write_json(made / "generation_config.json", generation_config_of(base))
    _write_json(made / "config.json", config_of(base, dtype, untied=untied))


def mode_of(source: Source, asked: MergeMode | None) -> MergeMode:
    """The mode that was asked for, else the one that gives the model that was evaluated.

    Raises:
        UsageError: the exact NF4 merge of a variant that was not quantised.
    """
    if asked is MergeMode.NF4_EXACT and not source.quantised:
        what = f"{source.variant.name} was trained on the base as it is, not on NF4"
        raise UsageError(what, remedy="Leave --mode out: its merge onto that base is exact.")
    return asked or (MergeMode.NF4_EXACT if source.quantised else MergeMode.FP16_BASE)


def evaluated(source: Source, mode: MergeMode) -> bool:
    """Whether a merge in this mode computes what the run evaluated."""
    return source.quantised == (mode is MergeMode.NF4_EXACT)


def _merged_record(source: Source, mode: MergeMode, dtype: str, *, again: bool) -> ExportRecord:
    same = evaluated(source, mode) and not again
    return record_of(source, "merged", mode, dtype, same, _merged_note(source, mode, again))


def _merged_note(source: Source, mode: MergeMode, again: bool) -> str:
    if again:
        return (
            "Nearly the model that was evaluated: its NF4 base, made on a GPU, is no longer in the cache, so it was "
            "quantised again on a CPU, where single weights may be rounded otherwise."
        )
    if evaluated(source, mode):
        return f"The model that was evaluated: {source.model.name} {_as_held(source)} plus the adapter's update."
    return (
        "A different model than the one that was evaluated: the update is added to the original weights of "
        f"{source.model.name}, while the run evaluated it on the weights {_as_held(source)}."
    )


def _as_held(source: Source) -> str:
    return "as NF4 holds them" if source.quantised else "as they are"


def record_of(
    source: Source, kind: str, mode: MergeMode | None, dtype: str, as_evaluated: bool, note: str
) -> ExportRecord:
    """What is exported, of which run; nothing of it names a place of this machine."""
    return ExportRecord(
        format=FORMAT,
        kind=kind,
        suite=source.run.suite.name,
        variant=source.variant.name,
        seed=source.seed,
        training=source.training,
        # Where it lay on this machine is nobody's business where this goes.
        model=replace(source.model, path="", tokenizer=""),
        settings=source.settings,
        mode=mode,
        dtype=dtype,
        evaluated=as_evaluated,
        note=note,
        versions=stack_versions(),
    )


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


__all__ = ["MergeRequest", "Mergeable", "Merger", "Source", "merge_of", "record_of", "to_adapter", "to_merged"]
