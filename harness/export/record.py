"""export.json: what an exported folder is and which run it comes from."""

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
    """The record of an export. It holds no path of this machine, since exports are published."""
    return ExportRecord(
        format=FORMAT,
        kind=kind,
        suite=source.run.suite.name,
        variant=source.variant.name,
        seed=source.seed,
        training=source.training,
        model=replace(source.model, path="", tokenizer=""),
        settings=source.settings,
        mode=mode,
        dtype=dtype,
        evaluated=as_evaluated,
        note=note,
        versions=stack_versions(),
    )


def precision_words(source: Source) -> str:
    """How the run held the base's weights, in words."""
    return "as NF4 holds them" if source.quantised else "as they are"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
