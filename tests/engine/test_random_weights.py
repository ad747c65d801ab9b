"""Bases with random weights, in the shape of a known model's configuration, can be loaded, asked and trained."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ModelError
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.engine.loading import Base, load_base
from harness.engine.quantized_base import open_base
from harness.engine.random_weights import bytes_of, make_base, write_shards
from harness.models.resolving import POCKET, SHAPES, resolve
from harness.storage.cache import Cache
from tests.support.jobs import done, job, task
from tests.support.short_trainings import ask, losses, one_core, trained_once

TINY = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False},
    "qwen": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True},
}
SIZES = {
    "vocab_size": 5000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the configurations of two tiny models."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, config in TINY.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | SIZES), encoding="utf-8")
    return folder


def tiny(shapes: Path, name: str = "llama") -> ModelRef:
    return resolve(f"shape:{name}", shapes=shapes)


@pytest.fixture(scope="module", params=sorted(TINY))
def made(request: pytest.FixtureRequest, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Path]:
    ref, folder = tiny(shapes, request.param), tmp_path_factory.mktemp("made")
    make_base(ref, Quantization.NF4, one_core(), folder)
    return load_base(ref, Quantization.NF4, one_core(), saved=folder), folder


def test_every_linear_layer_but_the_head_is_in_four_bits(made: tuple[Base, Path]) -> None:
    """A base with random weights has the same quantised layers, types and constants as a base that was loaded."""
    from bitsandbytes.nn import Linear4bit

    base, _ = made
    reference = load_base(resolve("pocket"), Quantization.NF4, one_core()).model
    known = reference.model.layers[0].mlp.down_proj.weight
    layers = {n.rpartition(".")[2] for n, m in base.model.named_modules() if isinstance(m, Linear4bit)}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    own = base.model.model.layers[1].mlp.down_proj.weight
    for attribute in ("blocksize", "compress_statistics", "quant_type", "quant_storage", "dtype"):
        assert getattr(own, attribute) == getattr(known, attribute), attribute
    assert own.quant_state.nested
    assert own.quant_state.state2.blocksize == known.quant_state.state2.blocksize
    assert own.quant_state.dtype == known.quant_state.dtype


def test_weights_are_random(made: tuple[Base, Path]) -> None:
    """Matrices have a standard deviation of 0.02 and differ from each other; norms are 1 and biases 0."""
    _, folder = made
    saved = open_base(folder)
    found = {name: saved.weight(name) for name in saved.names}
    gates = [tensor for name, tensor in found.items() if name.endswith("gate_proj.weight")]
    assert gates[0].std().item() == pytest.approx(0.02, rel=0.1)
    assert not gates[0].equal(gates[1])
    assert {tensor.mean().item() for name, tensor in found.items() if "norm" in name} == {1.0}
    assert {tensor.abs().max().item() for name, tensor in found.items() if name.endswith("bias")} <= {0.0}


def test_answers_are_of_known_tokens_and_long(made: tuple[Base, Path]) -> None:
    """Answers of random weights have the maximum length, because they contain no end token, and no unknown token."""
    base, _ = made
    known = len(base.tokenizer)
    head: Any = base.model.get_output_embeddings()
    assert head.weight.shape[0] > known
    assert not head.weight[known:].any()
    assert not head.weight[base.tokenizer.eos_token_id].any()
    given = ask(base, texts=("Hello there", "What is 3 plus 4?"), decoding=Decoding(8))
    assert [(answer.tokens, answer.truncated) for answer in given] == [(8, True)] * 2


def test_random_weights_can_be_trained(made: tuple[Base, Path]) -> None:
    """The reference trainer trains an adapter on a base with random weights, with finite losses."""
    base, _ = made
    found = trained_once(base)
    assert len(found.steps) == 4
    assert all(loss is not None and 5 < loss < 12 for loss in losses(found))


@pytest.mark.parametrize("quantization", Quantization)
def test_the_size_on_disk_is_predicted(shapes: Path, tmp_path: Path, quantization: Quantization) -> None:
    """`bytes_of` predicts the size of the written files to within a tenth."""
    make_base(tiny(shapes), quantization, one_core(), tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert bytes_of(tiny(shapes), quantization, one_core()) == pytest.approx(written, rel=0.1)


def test_random_weights_are_reproducible(shapes: Path, tmp_path: Path) -> None:
    """If a base with random weights is made twice, its files are identical."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_base(tiny(shapes), Quantization.NF4, one_core(), tmp_path / name)
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_worker_makes_a_random_base_once(shapes: Path, tmp_path: Path) -> None:
    """A worker makes a base with random weights once, and a later worker takes the base from the cache."""
    asked = replace(job(tmp_path, task("base", None), model=tiny(shapes)), base="key")
    well, events = done(asked)
    assert well, events[-1].message
    cache = Cache(tmp_path)
    folder = cache.base("key")
    assert folder is not None
    before = folder.stat().st_ino
    cache.forget("training-base")
    assert done(asked)[0]
    assert folder.stat().st_ino == before


def test_no_more_than_one_file_is_in_memory(tmp_path: Path) -> None:
    """`write_shards` holds the tensors of at most one file in memory, and every tensor can be read from the files."""
    import torch
    from safetensors.torch import load_file

    there: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def given() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal most
        for n in range(20):
            tensor = torch.full((1000,), float(n))
            there.append(weakref.ref(tensor))
            most = max(most, sum(ref() is not None for ref in there))
            yield str(n), tensor
            del tensor

    write_shards(given(), tmp_path, limit=12_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files), most) == (7, 3)
    found = {name: tensor for file in files for name, tensor in load_file(str(file)).items()}
    assert {int(name): tensor[0].item() for name, tensor in found.items()} == {n: float(n) for n in range(20)}
    listed = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert listed["metadata"]["total_size"] == 80_000
    assert {name: file.name for file in files for name in load_file(str(file))} == listed["weight_map"]


# --- by name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-2-7b", 6.738), ("tinyllama-1.1b", 1.100), ("qwen2.5-1.5b", 1.544), ("llama-3.1-8b", 8.030)],
)
def test_known_shapes_have_the_published_sizes(name: str, billions: float) -> None:
    """Each known shape has as many parameters as were published for its model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve(f"shape:{name}").path))
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.0005)


def test_a_known_shape_is_resolved_with_a_note() -> None:
    """A known shape has its own digest, the pocket model's tokenizer, and a note that its answers mean nothing."""
    found = [resolve(f"shape:{path.name}") for path in sorted(SHAPES.iterdir())]
    assert len({ref.digest for ref in found}) == len(found) == 5
    for ref in found:
        assert (ref.shape_only, ref.toy, ref.tokenizer) == (True, False, str(POCKET))
        assert "answers mean nothing" in ref.note


@pytest.mark.parametrize("name", ["shape:", "shape:llama", "shape:../pocket", "shape:tinyllama-1.1b/"])
def test_an_unknown_shape_is_refused(name: str) -> None:
    """An unknown shape, or a path instead of a name, is refused, and the message lists the known shapes."""
    with pytest.raises(ModelError, match="there is no shape") as refused:
        resolve(name)
    assert "shape:llama-2-7b" in refused.value.remedy
