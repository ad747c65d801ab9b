"""Parse hand-written YAML 1.2 safely, with the line and column of every value for error messages."""

from __future__ import annotations

from harness.core.yaml.document import MAX_CHARACTERS, MAX_DEPTH, Document, Node, Value, of_value, parse_yaml
from harness.core.yaml.files import decoded, read_bytes, read_text
from harness.core.yaml.forms import Form, Line, Text, as_written, fit, nearest, raise_all, shown

__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "Document",
    "Form",
    "Line",
    "Node",
    "Text",
    "Value",
    "as_written",
    "decoded",
    "fit",
    "nearest",
    "of_value",
    "parse_yaml",
    "raise_all",
    "read_bytes",
    "read_text",
    "shown",
]
