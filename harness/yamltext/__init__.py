"""YAML as people write it by hand: 1.2 scalars, places kept for error messages, nothing that can blow up."""

from __future__ import annotations

from harness.yamltext.document import MAX_CHARACTERS, MAX_DEPTH, Document, Value, of_value, parse_yaml
from harness.yamltext.files import read_text
from harness.yamltext.forms import Count, Form, Line, Text, as_written, fit, nearest, raise_all, shown

__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "Count",
    "Document",
    "Form",
    "Line",
    "Text",
    "Value",
    "as_written",
    "fit",
    "nearest",
    "of_value",
    "parse_yaml",
    "raise_all",
    "read_text",
    "shown",
]
