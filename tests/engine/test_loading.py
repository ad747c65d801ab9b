"""A base can still be trained after it answered, and its precision and target modules are checked before training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EngineError, GridError, ModelError
from harness.core.settings import Quantization
from harness.engine.loading import Base, check_precision, check_targets, check_trainable, load_base, untouched
from harness.models.resolving import POCKET, resolve
from tests.support.architectures import made
from tests.support.short_trainings import (
    SHORT,
    ask,
    losses,
    one_core,
    trained_once,
    trainer_of,
    training,
)


@pytest.fixture
def own() -> Base:
    """Load a base that a test may damage."""
    return load_base(resolve("pocket"), Quantization.NF4, one_core())


def test_layers_that_do_not_exist_are_refused(base: Base) -> None:
    """A layer that the model does not have is refused with the numbers that it has; PEFT would ignore it."""
    check_targets(base.model, replace(SHORT, layers_to_transform=(0, 3)))
    with pytest.raises(GridError) as caught:
        check_targets(base.model, replace(SHORT, layers_to_transform=(0, 8)))
    assert "the model has no layer 8" in caught.value.message
    assert caught.value.remedy == "Choose from 0 to 7."


@pytest.mark.parametrize(
    ("pattern", "message", "remedy"),
    [
        (r"layers\.0\..*", "matches the whole name of no module", "such as model.layers.0.self_attn.q_proj"),
        (r"model\.layers\.0.*", "matches model.layers.0, which is no linear layer", "(down_proj|gate_proj|"),
    ],
)
def test_a_pattern_that_cannot_be_trained_is_refused(base: Base, pattern: str, message: str, remedy: str) -> None:
    """A pattern for target modules that matches nothing, or a whole block, is refused; others are not."""
    check_targets(base.model, replace(SHORT, target_modules=r"(?i).*\.0\..*Q_PROJ"))
    with pytest.raises(GridError) as caught:
        check_targets(base.model, replace(SHORT, target_modules=pattern))
    assert message in caught.value.message
    assert remedy in caught.value.remedy


# --- packing for inference on a CPU (bitsandbytes) ----------------------------------------------------------------


def unguard(base: Base) -> None:
    """Switch on again what `keep_trainable` switched off.

    bitsandbytes packs the 4-bit weights for inference on a CPU with AVX512-BF16.
    """
    for module in linear4bit(base):
        module.support_avx512bf16_for_cpu = True


def linear4bit(base: Base) -> list[Any]:
    from bitsandbytes.nn import Linear4bit

    return [module for module in base.model.modules() if isinstance(module, Linear4bit)]


def can_pack() -> bool:
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def test_answering_first_does_not_stop_training(own: Base) -> None:
    """A base that has answered prompts trains exactly like a newly loaded one."""
    fresh = losses(trained_once(own))
    ask(own)
    assert losses(trained_once(own)) == fresh


def test_no_layer_may_pack_itself(own: Base) -> None:
    """A loaded base lets no 4-bit layer pack its weights for inference, on any CPU."""
    assert len(linear4bit(own)) == 56
    assert not any(module.support_avx512bf16_for_cpu for module in linear4bit(own))


@pytest.mark.skipif(not can_pack(), reason="bitsandbytes packs on CPUs with AVX512-BF16 only")
def test_a_base_packed_by_bitsandbytes_is_refused(own: Base) -> None:
    """If bitsandbytes packed the weights of a base for inference, the base is refused before training."""
    unguard(own)
    ask(own)
    with pytest.raises(EngineError, match="was packed for inference"), training(own):
        pass


@pytest.mark.filterwarnings("ignore:.*gemv_4bit. an autograd kernel was not registered:UserWarning")
@pytest.mark.skipif(not can_pack(), reason="bitsandbytes packs on CPUs with AVX512-BF16 only")
def test_a_packed_base_gives_no_gradients_and_the_first_step_fails(own: Base, tmp_path: Path) -> None:
    """If a base with packed weights reaches the trainer, the first step fails, because adapters got no gradients."""
    unguard(own)
    ask(own)
    trainer = trainer_of(own, tmp_path)
    trainer.model.float()
    with pytest.raises(EngineError, match="got no gradient in the first step"):
        trainer.train()


def test_one_packed_layer_is_refused_on_any_cpu(own: Base) -> None:
    """A base with a single packed layer is refused, and the message names the layer."""
    linear4bit(own)[3].weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(EngineError, match=r"layers\.0\.self_attn\.o_proj was packed"):
        check_trainable(own.model)


def test_upcast_embeddings_are_refused() -> None:
    """A base whose embeddings and head were cast to fp32, as PEFT's preparation does, is refused before training."""
    from peft import prepare_model_for_kbit_training

    half = replace(one_core(), compute_dtype="float16")
    base = load_base(resolve("pocket"), Quantization.NF4, half)
    check_precision(base.model, half)
    prepare_model_for_kbit_training(base.model, use_gradient_checkpointing=False)
    with pytest.raises(EngineError, match=r"among them model.embed_tokens.weight \(torch.float32\)"):
        check_precision(base.model, half)


def test_a_norm_in_bf16_is_refused(own: Base) -> None:
    """A base with one norm in bf16 is refused before training if the compute dtype is not bf16."""
    import torch

    own.model.model.norm.to(torch.bfloat16)
    with pytest.raises(EngineError, match=r"model.norm.weight \(torch.bfloat16\)"):
        trained_once(own)


def test_a_target_that_the_model_lacks_is_refused() -> None:
    """A target module that the model lacks is refused, and the message lists the model's modules."""
    bare = load_base(resolve("pocket"), Quantization.NF4, one_core())
    for fitting in ("all-linear", ("q_proj",), ("self_attn.q_proj", "mlp.up_proj")):
        check_targets(bare.model, replace(SHORT, target_modules=fitting))
    with pytest.raises(GridError, match=r"no module 'vproj'\nChoose from down_proj, gate_proj, .* v_proj; or"):
        check_targets(bare.model, replace(SHORT, target_modules=("q_proj", "vproj")))


def test_generation_stops_where_the_template_closes_answers(tmp_path: Path) -> None:
    """A base whose configuration names another end token also stops at the token that closes the template's answers."""
    folder = tmp_path / "other-end"
    shutil.copytree(POCKET, folder)
    for name in ("config.json", "generation_config.json"):
        given = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(given | {"eos_token_id": 3}), encoding="utf-8")
    given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(given | {"eos_token": "<pad>"}), encoding="utf-8")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template.replace("eos_token", "'</s>'"), encoding="utf-8")
    loaded = load_base(resolve(str(folder)), Quantization.NONE, one_core())
    assert loaded.model.generation_config is not None
    assert loaded.model.generation_config.eos_token_id == [2, 3]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_act": 5},
        {"hidden_size": 128},
        {"num_key_value_heads": 0},
        {"rms_norm_eps": "x"},
        {"model_type": "none", "architectures": [3]},
        {"max_position_embeddings": []},
    ],
    ids=str,
)
def test_a_configuration_that_transformers_cannot_use_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Every error of transformers for a model's files is a `ModelError` that names the model."""
    folder = tmp_path / "damaged"
    shutil.copytree(POCKET, folder)
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(given | changed), encoding="utf-8")
    with pytest.raises(ModelError, match=r"damaged(/config.json is damaged| cannot be loaded): ") as caught:
        load_base(resolve(str(folder)), Quantization.NONE, one_core())
    assert caught.value.remedy


# --- mixtures of experts ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")
def test_an_adapter_on_experts_is_removed(tmp_path: Path) -> None:
    """If PEFT wrapped the experts of a layer twice, the base is restored, and answers as before."""
    from peft import LoraConfig, get_peft_model

    base = load_base(made("Mixtral", tmp_path / "base"), Quantization.NF4, one_core())
    modules, before = dict(base.model.named_modules()), ask(base, texts=("Say hello.",))
    with untouched(base.model):
        get_peft_model(base.model, LoraConfig(target_modules="all-linear"))
    assert dict(base.model.named_modules()) == modules
    assert ask(base, texts=("Say hello.",)) == before


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "w1")])
def test_experts_are_refused_as_targets(tmp_path: Path, targets: str | tuple[str, ...]) -> None:
    """Target modules that include experts are refused before training; the remedy names the others."""
    base = load_base(made("Mixtral", tmp_path / "base"), Quantization.NF4, one_core())
    with pytest.raises(GridError) as caught:
        check_targets(base.model, replace(SHORT, target_modules=targets))
    assert "k_proj, o_proj, q_proj, v_proj" in caught.value.remedy
    check_targets(base.model, replace(SHORT, target_modules=("k_proj", "o_proj", "q_proj", "v_proj")))


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "router"), r".*\.(q_proj|router)"])
@pytest.mark.parametrize("kind", ["PhimoeConfig", "Llama4TextConfig"])
def test_routers_are_refused_as_targets(kind: str, targets: str | tuple[str, ...]) -> None:
    """A linear layer that returns the chosen experts, too, is refused as a target; the remedy names other matrices."""
    import torch
    import transformers

    config = getattr(transformers, kind)(
        hidden_size=16, intermediate_size=16, intermediate_size_mlp=16, num_hidden_layers=1, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2, vocab_size=8, pad_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(GridError, match=r"would train model\..*router, which chooses experts") as caught:
        check_targets(model, replace(SHORT, target_modules=targets))
    named = caught.value.remedy.partition("[")[2].rstrip("].").split(", ")
    assert {"q_proj", "v_proj"} <= set(named)
    check_targets(model, replace(SHORT, target_modules=tuple(named)))


def test_other_linear_layers_of_transformers_are_targets() -> None:
    """A linear layer of a class of transformers, such as Falcon's, is a target like any other."""
    import torch
    from transformers import AutoModelForCausalLM, FalconConfig

    config = FalconConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    check_targets(model, replace(SHORT, target_modules="all-linear"))


def test_routers_add_no_loss(tmp_path: Path) -> None:
    """The training loss is that of the answers, also if the configuration of a model weights a loss of its routers."""
    base = load_base(made("Mixtral", tmp_path / "base"), Quantization.NF4, one_core())
    base.model.config.router_aux_loss_coef = 1e6
    found = trained_once(base, replace(SHORT, target_modules=("q_proj",)))
    assert found.steps[0].loss is not None
    assert found.steps[0].loss < 20
