"""The registry of export targets, in the order of `harness export --help`."""

from __future__ import annotations

from typing import Any

from harness.export.protocol import Exporter
from harness.export.targets import adapter, gguf, gguf_lora, hub, merged, ollama

EXPORTERS: tuple[Exporter[Any], ...] = (
    adapter.EXPORTER,
    merged.EXPORTER,
    gguf.EXPORTER,
    gguf_lora.EXPORTER,
    ollama.EXPORTER,
    hub.EXPORTER,
)
