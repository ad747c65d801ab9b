"""Recover the scaling of position embeddings (RoPE) in GGUF files of Llama 3.1 and later.

llama.cpp stores one divisor for each frequency. transformers computes the divisors from a few numbers, which GGUF files
do not hold, and which are therefore found among the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.models.gguf import Header

_FACTORS = (8.0, 32.0)
"""Factors of Llama 3.1 and 3.3, and of Llama 3.2."""
_LOW, _HIGH, _TRAINED_LENGTH = 1.0, 4.0, 8192
"""The other numbers of these models: the limits of the frequencies to scale, and the original context length."""
_CLOSE = 1e-3
"""Largest relative difference of a stored divisor, which is in fp32."""


def rope_scaling(header: Header) -> Mapping[str, Any] | None:
    """Return the entries of transformers' `rope_parameters` that give the file's divisors; None if there are none."""
    theta, stored = header.of_model("rope.freq_base"), header.rope_factors
    if not stored or not isinstance(theta, float) or theta <= 1:
        return None
    for factor in _FACTORS:
        own = divisors(factor, theta, 2 * len(stored))
        if all(abs(one - other) <= _CLOSE * one for one, other in zip(own, stored, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": _TRAINED_LENGTH,
            }
    return None


def divisors(factor: float, theta: float, dimensions: int) -> list[float]:
    """Return the divisor of each frequency, as Llama 3.1's model code computes them.

    High frequencies are kept and low ones are divided by `factor`; between the limits, the inverse divisor is
    interpolated. `dimensions` is the size of an attention head.
    """
    return [_divisor(factor, 2 * math.pi * theta ** (number / dimensions)) for number in range(0, dimensions, 2)]


def _divisor(factor: float, wavelength: float) -> float:
    if wavelength < _TRAINED_LENGTH / _HIGH:
        return 1.0
    if wavelength > _TRAINED_LENGTH / _LOW:
        return factor
    smooth = (_TRAINED_LENGTH / wavelength - _LOW) / (_HIGH - _LOW)
    return 1 / ((1 - smooth) / factor + smooth)
