"""The record `export.json` of an exported folder: its kind, its settings and the run it comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.export import ExportKind, ExportRecord, MergeMode
from harness.core.formats import FORMAT
from harness.export.source import Source
from harness.hardware.environment import stack_versions
from harness.storage.files import write_text


def record_of(
    source: Source, kind: ExportKind, mode: MergeMode | None, dtype: str, as_evaluated: bool, note: str
) -> ExportRecord:
    """Make the record of an export. Users publish exports, so the record contains no paths of this machine."""
    return ExportRecord(
        format=FORMAT,
        kind=kind,
        suite=source.run.suite.name,
        variant=source.variant.name,
        seed=source.seed,
        training=source.training,
        model=replace(source.model, path="", tokenizer=""),
        settings=source.settings if source.training else None,
        mode=mode,
        dtype=dtype,
        evaluated=as_evaluated,
        note=note,
        versions=stack_versions(),
    )


def precision_words(source: Source) -> str:
    """The precision of the base's weights in the run, as a phrase for the note of an export."""
    return "as NF4 holds them" if source.quantised else "as they are"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
