"""Changes files of older formats into the newest shape, after parsing and before validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.core.formats import FORMAT, RESULTS_FORMAT
from harness.core.results import Results


def newest(kind: type) -> int:
    """Return the newest format of files that hold a record of this kind."""
    return RESULTS_FORMAT if kind is Results else FORMAT


def upgraded(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return parsed JSON of any older format in the shape of the newest one.

    Args:
        data: the file's content; its `format` is a number that is not newer than `newest(kind)`.
        kind: the record that the file holds.
    """
    for version in range(max(1, data["format"]), newest(kind)):
        data = _STEPS[kind, version](data) | {"format": version + 1}
    return data


_FLAT = ("tokens", "truncated", "likelihood", "reference", "choices")


def _answers_in_samples(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 of results.json stored the fields of a sample's answer beside the sample's own fields, without a key."""
    found = {name: data[name] for name in ("samples", "confirmed_samples") if isinstance(data.get(name), list)}
    return data | {name: [_nested(sample) for sample in samples] for name, samples in found.items()}


def _nested(sample: Any) -> Any:
    if not isinstance(sample, dict) or "answer" not in sample:
        return sample  # validation names what is wrong with it
    answer = {"key": "", "text": sample["answer"]} | {name: sample[name] for name in _FLAT if name in sample}
    return {name: value for name, value in sample.items() if name not in _FLAT} | {"answer": answer}


_STEPS: dict[tuple[type, int], Callable[[dict[str, Any]], dict[str, Any]]] = {(Results, 1): _answers_in_samples}
"""One step for each kind of record and older format."""
