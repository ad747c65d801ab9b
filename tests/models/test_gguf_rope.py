"""Tests of recovering the scaling of position embeddings from GGUF files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from harness.models.gguf import ROPE_FACTORS, Header, read_header
from harness.models.gguf_rope import divisors, rope_scaling
from tests.models.test_gguf import LLAMA, TENSORS
from tests.support.gguf_files import header


def scaled(factors: tuple[float, ...], theta: float = 500000.0) -> Header:
    return Header({"general.architecture": "llama", "llama.rope.freq_base": theta}, {}, factors)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_recovered(factor: float) -> None:
    """The divisors in a GGUF file of Llama 3.1 or later give transformers' parameters, and those give the divisors."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stored = tuple(struct.unpack("<64f", struct.pack("<64f", *divisors(factor, 500000.0, 128))))
    found: Any = rope_scaling(scaled(stored))
    assert found["factor"] == factor
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters={"rope_theta": 500000.0, **found})
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = [500000.0 ** (-number / 128) for number in range(0, 128, 2)]
    assert [one / float(other) for one, other in zip(plain, frequencies, strict=True)] == pytest.approx(
        stored, rel=1e-4
    )


def test_another_scaling_is_not_recovered() -> None:
    """Divisors that are not those of a known model, or a file without divisors, give no parameters."""
    assert rope_scaling(scaled(tuple(divisors(16.0, 500000.0, 128)))) is None
    assert rope_scaling(scaled(tuple(divisors(8.0, 10000.0, 128)))) is None
    assert rope_scaling(scaled(())) is None


def test_the_divisors_are_read_from_the_file(tmp_path: Path) -> None:
    """The divisors are read from their place behind the header, and are not counted as weights."""
    content = header(LLAMA, {ROPE_FACTORS: (4,), **TENSORS})
    path = tmp_path / "model.gguf"
    path.write_bytes(content + bytes(-len(content) % 32) + struct.pack("<4f", 1.0, 2.0, 4.0, 8.0))
    found = read_header(path)
    assert found.rope_factors == (1.0, 2.0, 4.0, 8.0)
    assert found.weights == 6464
