"""Fingerprints of trainings: a few words and digests that describe what was really trained.

They show changes that pass rates do not show: an adapter saved in bf16 gave the same 53 answers as in fp32, and
training on all tokens scored like training on the assistant's tokens only. A fingerprint describes what the optimizer
and the adapter's file really received, not the settings. It does not depend on seed or machine. `trained_on` builds it,
and `with_saved` adds the fields of the saved file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.training_outcome import Fingerprint
from harness.engine.tokenization import IGNORED

WEIGHTS = "adapter_model.safetensors"
_LEFT_OUT = ("lr", "initial_lr")
"""Arguments that the description of an optimizer leaves out, because the schedule shows them."""


def trained_on(
    rows: Iterable[tuple[Sequence[int], Sequence[int]]],
    *,
    template: str,
    trainable: Iterable[str],
    optimizer: str,
    rates: Sequence[float],
    attention: str = "",
) -> Fingerprint:
    """Return a fingerprint that lacks only the fields of the saved file.

    `rows` are the token ids and labels that the loss gets, each row once. `trainable` are the names of the parameters
    that the optimizer updates, and `rates` is the learning rate of every step.
    `attention` is empty for SDPA.
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
        attention=attention,
    )


def with_saved(fingerprint: Fingerprint, folder: Path) -> Fingerprint:
    """Return the fingerprint with the dtype, names and shapes of the tensors in the adapter file in `folder`."""
    from safetensors import safe_open

    with safe_open(str(folder / WEIGHTS), framework="np") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        shapes = {name: list(part.get_shape()) for name, part in slices.items()}
        dtypes = sorted({str(part.get_dtype()) for part in slices.values()})
    return replace(fingerprint, saved_dtype=", ".join(dtypes), saved_shapes=f"{len(shapes)} tensors, {_digest(shapes)}")


def described(name: str, values: Mapping[str, Any]) -> str:
    """Describe an optimizer by its class and its arguments, except those that are off or that the schedule shows."""
    given = {key: value for key, value in values.items() if key not in _LEFT_OUT and value not in (None, False)}
    return f"{name}({', '.join(f'{key}={_plain(value)}' for key, value in sorted(given.items()))})"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _schedule(rates: Sequence[float]) -> str:
    """Describe the learning rates by six significant digits; further ones depend on the order of operations."""
    if not rates:
        return "no steps"
    shown = [f"{rate:.6g}" for rate in rates]
    peak = max(range(len(rates)), key=lambda step: rates[step])
    return f"{len(rates)} steps, highest {shown[peak]} at step {peak + 1}, last {shown[-1]}, {_digest(shown)}"


def _digest(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:12]
