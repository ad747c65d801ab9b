"""Upgrade parsed JSON from older formats to the newest format, before it is validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.core.formats import FORMAT, RESULTS_FORMAT
from harness.core.run_results import Results


def newest(kind: type) -> int:
    """Return the newest format version of files that contain a record of type `kind`."""
    return RESULTS_FORMAT if kind is Results else FORMAT


def upgraded(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """Convert the parsed JSON of a file to the newest format.

    Args:
        data: the file's content; its `format` is at most `newest(kind)`.
        kind: the type of the record in the file.
    """
    for version in range(max(1, data["format"]), newest(kind)):
        data = _STEPS[kind, version](data) | {"format": version + 1}
    return data


_FLAT = ("tokens", "truncated", "likelihood", "reference", "choices")


def _answers_in_samples(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade results.json from format 1. In that format, a sample held the fields of its answer, except the key."""
    found = {name: data[name] for name in ("samples", "confirmed_samples") if isinstance(data.get(name), list)}
    return data | {name: [_nested(sample) for sample in samples] for name, samples in found.items()}


def _nested(sample: Any) -> Any:
    if not isinstance(sample, dict) or "answer" not in sample:
        return sample  # validation reports the mistake
    answer = {"key": "", "text": sample["answer"]} | {name: sample[name] for name in _FLAT if name in sample}
    return {name: value for name, value in sample.items() if name not in _FLAT} | {"answer": answer}


_STEPS: dict[tuple[type, int], Callable[[dict[str, Any]], dict[str, Any]]] = {(Results, 1): _answers_in_samples}
"""Functions that upgrade parsed JSON by one version. Keys: type of the record, and version before the upgrade."""
