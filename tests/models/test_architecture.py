"""Tests of model shapes: the sizes of a model, read from config.json, from which memory and time are predicted."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from harness.core.errors import ModelError
from harness.models.architecture import shape_of
from harness.models.resolving import POCKET
from tests.support.model_shapes import LLAMA, shape


def test_a_shape_has_the_parameters_of_the_weights_file() -> None:
    """The number of parameters that follows from the pocket model's shape is that of its weights file."""
    pocket = shape_of(json.loads((POCKET / "config.json").read_text(encoding="utf-8")))
    with (POCKET / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    stored = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    assert pocket.parameters == sum(size[0] * (size[1] if len(size) > 1 else 1) for size in stored)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-2-7b", 6.738), ("tinyllama-1.1b", 1.100), ("qwen2.5-1.5b", 1.544), ("llama-3.1-8b", 8.030)],
)
def test_public_shapes_have_their_published_size(name: str, billions: float) -> None:
    """The number of parameters that follows from a public model's shape is the published one."""
    assert shape(name).parameters / 1e9 == pytest.approx(billions, abs=0.001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "cannot be predicted for models of type 'gpt2'"),
        ({"model_type": None}, "cannot be predicted for models of type None"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
    ],
)
def test_an_unusable_config_is_refused(change: dict[str, Any], message: str) -> None:
    """If a config.json has an unsupported architecture, or a size that is missing or invalid, an error names it."""
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(ModelError, match=message):
        shape_of(config | change)


def test_unknown_target_modules_are_refused() -> None:
    """If a target module does not exist in the model, the error lists the modules of the model."""
    with pytest.raises(ModelError, match="no module 'query'") as caught:
        LLAMA.trainable(8, ("query",))
    assert "q_proj, k_proj" in caught.value.remedy
