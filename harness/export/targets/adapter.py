"""`harness export --to adapter`: copies the adapter in PEFT's format, with a record and a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.core.export import ExportKind
from harness.core.model import ModelRef
from harness.export.export_record import precision_words, record_of, write_json
from harness.export.output_folders import begin, commit, copy, existing
from harness.export.protocol import Exporter, ExportRequest, NoOptions
from harness.export.source import Source
from harness.models.foreign_files import read_object


def to_adapter(source: Source, folder: Path, *, output: Path | None, check: Callable[[ModelRef, Path], None]) -> Path:
    """Copy the adapter, unless the same export exists already, and return the folder of the copy.

    Raises:
        EngineError: the adapter does not fit its base model, according to `check`.
        StoreError: the disk is full, or the folder contains something else.
    """
    final = output or folder / f"{source.label}-adapter"
    note = f"An adapter for {source.model.name}. The run evaluated it on that base {precision_words(source)}."
    record = record_of(source, ExportKind.ADAPTER, None, "float32", True, note)
    if existing(final, record):
        return final
    check(source.model, source.adapter)
    made = begin(final, sum(path.stat().st_size for path in source.adapter.iterdir()))
    copy([source.adapter / "adapter_model.safetensors"], made)
    config = read_object(source.adapter / "adapter_config.json")
    config |= {"base_model_name_or_path": source.model.name, "revision": source.model.revision or None}
    write_json(made / "adapter_config.json", config)
    commit(made, final, record, {})
    return final


def export_adapter(request: ExportRequest) -> Path:
    """Export the adapter of a request, and return its folder."""
    return to_adapter(request.source, request.folder, output=request.output, check=request.engine.check_adapter)


def _make(request: ExportRequest, _options: NoOptions) -> str:
    return str(export_adapter(request))


EXPORTER = Exporter(ExportKind.ADAPTER, "the adapter, in PEFT's format", NoOptions, _make)
