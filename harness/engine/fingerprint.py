"""What was really trained, in a few words and digests: drift that pass rates do not see is seen here.

An adapter saved in bf16 answered 53 of 53 questions alike, and a loss on all tokens scores like one on the assistant's.
So an engine says, of every training, what reached its optimizer and its file, not what was asked of it. A fingerprint
depends on no seed and on no machine. An engine builds one with `trained_on` and adds, once the adapter is saved, what
the file holds with `with_saved`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engine.rows import IGNORED
from harness.records import Fingerprint

WEIGHTS = "adapter_model.safetensors"
_LEFT_OUT = ("lr", "initial_lr")
"""The schedule says them."""


def trained_on(
    rows: Iterable[tuple[Sequence[int], Sequence[int]]],
    *,
    template: str,
    trainable: Iterable[str],
    optimizer: str,
    rates: Sequence[float],
) -> Fingerprint:
    """A fingerprint that lacks what only the saved file shows.

    `rows` are token ids and labels as the loss sees them, each row once; `trainable` the names of the parameters that
    the optimizer moves; `rates` the learning rate of every step.
    """
    given = [(list(ids), list(labels)) for ids, labels in rows]
    names = sorted(trainable)
    return Fingerprint(
        rows=len(given),
        tokens=sum(len(ids) for ids, _ in given),
        supervised_tokens=sum(label != IGNORED for _, labels in given for label in labels),
        labels=_digest(given),
        chat_template=_digest(template),
        trainable=f"{len(names)} parameters, {_digest(names)}",
        optimizer=optimizer,
        schedule=_schedule(rates),
    )


def with_saved(fingerprint: Fingerprint, folder: Path) -> Fingerprint:
    """The same with the dtype, names and shapes of the tensors in a saved adapter's file."""
    from safetensors import safe_open

    with safe_open(str(folder / WEIGHTS), framework="np") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        shapes = {name: list(part.get_shape()) for name, part in slices.items()}
        dtypes = sorted({str(part.get_dtype()) for part in slices.values()})
    return replace(fingerprint, saved_dtype=", ".join(dtypes), saved_shapes=f"{len(shapes)} tensors, {_digest(shapes)}")


def described(name: str, values: Mapping[str, Any]) -> str:
    """An optimizer in words: its class with what it was given, less what is off and what the schedule says."""
    told = {key: value for key, value in values.items() if key not in _LEFT_OUT and value not in (None, False)}
    return f"{name}({', '.join(f'{key}={_plain(value)}' for key, value in sorted(told.items()))})"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _schedule(rates: Sequence[float]) -> str:
    """Six digits of each rate: what is computed in another order may differ in the last of a double."""
    if not rates:
        return "no steps"
    told = [f"{rate:.6g}" for rate in rates]
    peak = max(range(len(rates)), key=lambda step: rates[step])
    return f"{len(rates)} steps, highest {told[peak]} at step {peak + 1}, last {told[-1]}, {_digest(told)}"


def _digest(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:12]
