"""The table of export targets, in the order of the command's help."""

from __future__ import annotations

from typing import Any

from harness.export import adapter, gguf, hub, merged, notebook
from harness.export.exporter import Exporter

EXPORTERS: tuple[Exporter[Any], ...] = (
    adapter.EXPORTER,
    merged.EXPORTER,
    gguf.EXPORTER,
    notebook.EXPORTER,
    hub.EXPORTER,
)
