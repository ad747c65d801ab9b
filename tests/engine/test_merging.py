"""A merged model computes what NF4 + adapter computes, for every kind of base and adapter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EngineError, ModelError
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.engine.loading import Base
from harness.engine.merging import check_adapter, describe, merge
from harness.models.resolving import POCKET, resolve
from tests.studies.merges import FAMILIES, Behaviour, adapter_of, behaviour, loaded, merged, model_of, truth

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are trying to modify a model with PEFT for a second time:UserWarning"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRef, Base]:
    """Make a random Llama of two layers in several files, and load it in NF4."""
    ref = model_of("llama", tmp_path_factory.mktemp("tiny") / "base")
    return ref, loaded(ref, Quantization.NF4)


def as_merged(ref: ModelRef) -> Behaviour:
    return behaviour(loaded(ref, Quantization.NONE))


def exact(ref: ModelRef, nf4: Base, folder: Path, **options: Any) -> tuple[Behaviour, Behaviour, ModelRef]:
    """Merge exactly in fp32. Return the merged model's behaviour, that of NF4 + adapter, and the merged model."""
    adapter = adapter_of(nf4, folder / "adapter", 0.1, **options)
    made = merged(ref, adapter, folder / "merged", "float32")
    return as_merged(made), truth(nf4, adapter), made


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_merge_is_the_model_that_was_evaluated(family: str, tmp_path: Path) -> None:
    """An exactly merged model gives the answers of NF4 + adapter, with logits within 1e-5 in fp32 and 1e-3 in fp16."""
    ref = model_of(family, tmp_path / "base")
    nf4 = loaded(ref, Quantization.NF4)
    adapter = adapter_of(nf4, tmp_path / "adapter", 0.03)
    expected = truth(nf4, adapter)
    for dtype, limit in (("float32", 1e-5), ("float16", 1e-3)):
        found = as_merged(merged(ref, adapter, tmp_path / dtype, dtype))
        assert found.apart(expected) <= limit
        assert found.answers == expected.answers


def test_a_tensor_that_transformers_renames_is_copied(tmp_path: Path) -> None:
    """A base whose files have another name for a tensor, as GPT-NeoX's for its head, is merged like any other."""
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = GPTNeoXConfig(vocab_size=2048, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, **sizes)
    AutoModelForCausalLM.from_config(config).half().save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(POCKET / name, tmp_path / "base" / name)
    ref = resolve(str(tmp_path / "base"))
    found, expected, _ = exact(ref, loaded(ref, Quantization.NF4), tmp_path)
    assert found.apart(expected) <= 1e-5
    assert found.answers == expected.answers


def test_a_merge_into_original_weights_is_another_model(tiny: tuple[ModelRef, Base], tmp_path: Path) -> None:
    """A merge into the original weights differs more from NF4 + adapter than the NF4 base without an adapter does."""
    ref, nf4 = tiny
    adapter = adapter_of(nf4, tmp_path / "adapter", 0.03)
    found = as_merged(merged(ref, adapter, tmp_path / "merged", "float16", exact=False))
    assert found.missed(truth(nf4, adapter), behaviour(nf4)) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True, "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 4}},
        {"alpha_pattern": {"v_proj": 1}, "target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*layers\.[1]\..*\.(up|down)_proj"},
    ],
    ids=["rsLoRA and ranks", "alphas", "a pattern of modules"],
)
def test_every_layer_is_scaled_as_peft_scales_it(
    tiny: tuple[ModelRef, Base], options: dict[str, Any], tmp_path: Path
) -> None:
    """A merge scales updates as PEFT does, with rsLoRA, patterns of ranks and alphas, and any target modules."""
    found, expected, _ = exact(*tiny, tmp_path, **options)
    assert found.apart(expected) <= 1e-5


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_a_tied_head_with_an_update_of_its_own_is_untied(base: Base, tmp_path: Path) -> None:
    """If an adapter changes a tied head, the merged model has a head of its own, and the embedding stays unchanged."""
    found, expected, made = exact(resolve("pocket"), base, tmp_path, target_modules=["lm_head", "q_proj"])
    assert found.apart(expected) <= 1e-5
    assert not json.loads((Path(made.path) / "config.json").read_text())["tie_word_embeddings"]


def test_a_stale_quantization_config_is_removed(base: Base, tmp_path: Path) -> None:
    """If config.json of plain weights names a quantisation, it is ignored and left out of the merged model."""
    folder = tmp_path / "base"
    shutil.copytree(POCKET, folder)
    ref = resolve(str(folder))  # resolved first, since `resolve` would refuse the stale configuration
    config = json.loads((folder / "config.json").read_text())
    stale = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stale, "torch_dtype": "float16"}))
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    made = merged(ref, adapter, tmp_path / "merged", "float32")
    assert as_merged(made).apart(truth(base, adapter)) <= 1e-5
    said = json.loads((Path(made.path) / "config.json").read_text())
    assert (said["dtype"], "quantization_config" in said, "torch_dtype" in said) == ("float32", False, False)


def broken(folder: Path, change: Any) -> ModelRef:
    """Make a copy of the pocket model with a changed weights file."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(POCKET, folder)
    tensors = load_file(str(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, str(folder / "model.safetensors"))
    return resolve(str(folder))


def test_what_loading_ignores_is_left_out(base: Base, tmp_path: Path) -> None:
    """Tensors that transformers ignores when it loads a model, such as Llama-2's rotary frequencies, are not merged."""
    import torch

    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    ref = broken(tmp_path / "base", lambda tensors: tensors.update({name: torch.ones(16)}))
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    made = merge(ref, adapter, dtype="float16", compute_dtype="float32", nf4=True)
    assert name not in {spec.name for spec in made.specs}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks the tensor model.norm.weight"),
        (lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:8].clone()}), "model.norm.weight has shape"),
    ],
)
def test_a_base_with_other_tensors_is_refused(base: Base, change: Any, message: str, tmp_path: Path) -> None:
    """A base that lacks a tensor, or has one of another shape, is refused, and the message names the tensor."""
    ref = broken(tmp_path / "base", change)
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    with pytest.raises(ModelError, match=message):
        merge(ref, adapter, dtype="float16", compute_dtype="float32", nf4=True)


def test_a_shard_that_was_cut_is_refused(base: Base, tmp_path: Path) -> None:
    """If a weights file of the base is truncated, the merge is refused, and the message names the file."""
    shutil.copytree(POCKET, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    ref = resolve(str(path.parent))
    path.write_bytes(path.read_bytes()[:-1000])
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    with pytest.raises(ModelError, match=re.escape(f"{path} is damaged")):
        merge(ref, adapter, dtype="float16", compute_dtype="float32", nf4=True)


def test_an_adapter_of_another_rank_is_refused(base: Base, tmp_path: Path) -> None:
    """An adapter that does not match its configuration is refused, although PEFT would load it without an error."""
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    with pytest.raises(EngineError, match=r"these have another shape: base_model\.model\.model\.layers\.0"):
        check_adapter(resolve("pocket"), adapter)


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"use_dora": True}, "DoRA"), ({"bias": "all"}, "biases"), ({"modules_to_save": ["norm"]}, "modules")],
)
def test_what_cannot_be_merged_is_refused(base: Base, changed: dict[str, Any], what: str, tmp_path: Path) -> None:
    """An adapter with DoRA, trained biases or fully trained modules is refused: a merge would lose these parts."""
    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(EngineError, match=what):
        merge(resolve("pocket"), adapter, dtype="float16", compute_dtype="float32", nf4=True)


def test_an_adapter_with_dora_fits_its_base(base: Base, tmp_path: Path) -> None:
    """What a merge refuses, `--to adapter` exports: DoRA's magnitudes are checked as the other tensors are."""
    adapter = adapter_of(base, tmp_path / "adapter", 0.03, use_dora=True)
    check_adapter(resolve("pocket"), adapter)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_dora": False}))
    with pytest.raises(EngineError, match="lora_magnitude_vector"):
        check_adapter(resolve("pocket"), adapter)


def test_a_value_that_fp16_cannot_hold_is_refused(base: Base, tmp_path: Path) -> None:
    """If a merged value is outside fp16's range, the merge is refused, and the message suggests another dtype."""
    adapter = adapter_of(base, tmp_path / "adapter", 1e8)
    with pytest.raises(EngineError, match="that float16 cannot hold"):
        merged(resolve("pocket"), adapter, tmp_path / "merged", "float16")


def test_threads_are_left_as_they_were(base: Base, tmp_path: Path) -> None:
    """A merge computes with one thread, and afterwards restores PyTorch's number of threads."""
    import torch

    adapter = adapter_of(base, tmp_path / "adapter", 0.03)
    tensors = merge(resolve("pocket"), adapter, dtype="float16", compute_dtype="float32", nf4=True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert {torch.get_num_threads() for _ in tensors.chunks(tensors.specs[1])} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_architecture_alone_takes_no_memory() -> None:
    """`describe` returns a model with all tensors on the meta device."""
    assert {tensor.device.type for tensor in describe(POCKET).state_dict().values()} == {"meta"}
