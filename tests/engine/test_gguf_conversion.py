"""Tests of converting GGUF files with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ModelError
from harness.engine.gguf_conversion import convert
from harness.models.gguf import read_header
from harness.models.gguf_facts import facts
from harness.models.resolving import POCKET
from tests.support.gguf_files import pocket_as_gguf

pytestmark = pytest.mark.slow
TEXTS = ("What is 4 times 6?", "<s><|user|> Hi ü ☃</s>", "  two  spaces", "\nnew line")


def converted(file: Path, folder: Path, **changed: Any) -> Path:
    folder.mkdir()
    convert(file, folder, **(facts(read_header(file)) | changed))
    return folder


@pytest.mark.parametrize(("kind", "most"), [("F16", 0.0), ("Q8_0", 0.002), ("Q4_1", 0.03)])
def test_weights_and_tokens_of_a_gguf_file(kind: str, most: float, tmp_path: Path) -> None:
    """A GGUF file of the pocket model is converted to the pocket model's tokens, and its weights up to rounding."""
    from safetensors.numpy import load_file
    from transformers import AutoTokenizer, GenerationConfig

    made = converted(pocket_as_gguf(tmp_path / "pocket.gguf", kind), tmp_path / "made")
    before, after = (load_file(folder / "model.safetensors") for folder in (POCKET, made))
    assert before.keys() == after.keys()
    assert max(abs(before[name].astype("f4") - after[name].astype("f4")).max() for name in before) <= most
    given, own = (AutoTokenizer.from_pretrained(folder) for folder in (made, POCKET))
    for text in TEXTS:
        ids = own(text, add_special_tokens=False).input_ids
        assert given(text, add_special_tokens=False).input_ids == ids
        assert given.decode(ids) == own.decode(ids)
    assert GenerationConfig.from_pretrained(made).eos_token_id == [own.eos_token_id]
    assert given.special_tokens_map == own.special_tokens_map
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert given.apply_chat_template(conversation, tokenize=False) == own.apply_chat_template(
        conversation, tokenize=False
    )


def test_the_scaling_of_position_embeddings_is_added(tmp_path: Path) -> None:
    """The scaling of RoPE that the header gives is in the configuration, beside the base that transformers reads."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }  # fmt: skip
    made = converted(pocket_as_gguf(tmp_path / "pocket.gguf"), tmp_path / "made", rope_scaling=scaling)
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    assert config["rope_parameters"] == {"rope_theta": 10000.0, **scaling}


def test_a_file_with_weights_that_transformers_does_not_read(tmp_path: Path) -> None:
    """If the file has more weights than the model that transformers makes of it, the conversion is refused."""
    file = pocket_as_gguf(tmp_path / "pocket.gguf")
    with pytest.raises(ModelError, match="it would be another model"):
        converted(file, tmp_path / "made", weights=read_header(file).weights + 1)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """If the weights in a GGUF file are cut off, the error names the file."""
    file = pocket_as_gguf(tmp_path / "pocket.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match=f"transformers cannot read {cut}"):
        converted(cut, tmp_path / "made")
