"""Loads a frozen base model, in NF4 if required, so that adapters on it can be trained."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.device_profiles import profile_of
from harness.core.errors import EngineError, GridError, ModelError
from harness.core.machine import Machine
from harness.core.model import TEMPLATE_DATE, ModelRef
from harness.core.settings import ALL_LINEAR, Quantization, Settings
from harness.core.trainer_arguments import NF4
from harness.core.units import DeviceKind
from harness.engine.log_filters import hide_kernel_advice
from harness.engine.meter import out_of_memory
from harness.engine.pointwise import compile_ahead
from harness.engine.tokenization import conversations_of
from harness.models.adapter_config import matching_modules
from harness.models.foreign_files import refusing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EAGER = "eager"
"""transformers' name for attention that computes the whole matrix of scores."""
REPORT_BUG = "This is a bug of the harness with these library versions: please report it with this log."


@dataclass(frozen=True)
class Base:
    """A frozen base model with its tokenizer. Adapters are attached to `model` for a while, then removed."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    machine: Machine
    quantization: Quantization

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        device: torch.device = self.model.device
        return device


def import_libraries() -> None:
    """Import the libraries that load a base model, which takes seconds."""
    hide_kernel_advice()
    import bitsandbytes  # noqa: F401
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: F401


def load_base(ref: ModelRef, quantization: Quantization, machine: Machine, *, saved: Path | None = None) -> Base:
    """Load the model in `ref.path` onto the machine's device, quantised, frozen and in eval mode.

    `saved` is a folder that `quantized_base.save_base` or `random_weights.make_base` wrote for this model.

    Raises:
        ModelError: the files are not a complete causal language model, or the tokenizer has no chat template.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    hide_kernel_advice()
    keep_to(machine)
    dtype: torch.dtype = getattr(torch, machine.compute_dtype)
    quantise = quantization is Quantization.NF4
    # A saved base's config has its quantisation. transformers ignores that if the argument is passed, even as None.
    how = {"quantization_config": quantization_config(dtype)} if quantise and not saved else {}
    remedy = "It must be a causal language model that transformers knows, saved with save_pretrained."
    with refusing(f"{ref.name} cannot be loaded", remedy, passed=out_of_memory):
        tokenizer = AutoTokenizer.from_pretrained(ref.tokenizer or ref.path, local_files_only=True)
        config = AutoConfig.from_pretrained(str(saved or ref.path), local_files_only=True)
        if machine.kind is DeviceKind.CUDA:
            compile_ahead(config, dtype)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(saved or ref.path),
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=attention_for(config),
            device_map={"": 0 if machine.kind is DeviceKind.CUDA else "cpu"},
            output_loading_info=True,
            **how,
        )
    if missing := loaded["missing_keys"]:
        what = f"{ref.name} lacks {len(missing)} of its weights, among them {min(missing)}"
        raise ModelError(f"{what}: random values would replace them", remedy="Download or save the whole model again.")
    _prepare_tokenizer(ref, tokenizer)
    model.eval()
    model.requires_grad_(False)
    # Replace the model's own sampling options, which would be used or cause warnings. Set all end tokens now:
    # otherwise SFTTrainer adds the tokenizer's, and the base answers differently after the first training.
    model.generation_config = GenerationConfig(
        eos_token_id=_end_tokens(model.generation_config.eos_token_id, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    if quantise:
        keep_trainable(model)
    return Base(model, tokenizer, machine, quantization)


def keep_to(machine: Machine) -> None:
    """Apply the machine's limits to this process: the number of threads, and the limits of a profile's GPU.

    The memory of PyTorch's allocator is capped. Under the profile of a GPU such as the T4, attention kernels that need
    compute capability 8.0 (FlashAttention and cuDNN attention, not memory-efficient attention) are switched off.
    """
    import torch

    if machine.threads:
        torch.set_num_threads(machine.threads)
    held = profile_of(machine)
    if machine.kind is DeviceKind.CUDA and machine.memory_cap:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, machine.memory_cap / total))
        # A cap that no profile has comes from a record of an earlier version (it is a T4's), or from a test.
        if held is None or not held.flash_attention:
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)


def attention_for(config: PretrainedConfig) -> str:
    """Return the attention to load a model with: SDPA, or eager if transformers has no SDPA for the architecture."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(config)
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING
    return EAGER if known and not MODEL_FOR_CAUSAL_LM_MAPPING[kind]._supports_sdpa else "sdpa"


def attention_of(model: PreTrainedModel) -> str:
    """Return the attention of a loaded model if it is not SDPA, such as `eager`; else an empty text."""
    found: str = model.config.get_text_config()._attn_implementation
    return "" if found == "sdpa" else found


def _end_tokens(of_model: int | list[int] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the end tokens of the model and the tokenizer, and the token with which the chat template closes turns."""
    listed = of_model if isinstance(of_model, list) else [of_model]
    return sorted({token for token in (*listed, *conversations_of(tokenizer).ends) if token is not None})


def quantization_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return QLoRA's quantisation (Dettmers et al., arXiv:2305.14314): NF4, double quantised, computing in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype)


def _prepare_tokenizer(ref: ModelRef, tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        remedy = "Use the chat version of the model, or add a chat template to its tokenizer."
        raise ModelError(f"{ref.name} has no chat template, so its prompts cannot be rendered", remedy=remedy)
    if tokenizer.pad_token is None:
        # Padding is always masked, so any token works. Prefer the unknown token to the end token, which is learned.
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = without_today(tokenizer.chat_template)


def without_today(template: str) -> str:
    """Return the chat template with a fixed date in place of today's.

    With today's date, a row would have other tokens tomorrow, although its training has the same id in the cache.
    """
    dated = f"{{% macro strftime_now(format) %}}{TEMPLATE_DATE}{{% endmacro %}}"
    return dated + template if "strftime_now" in template else template


def keep_trainable(model: PreTrainedModel) -> None:
    """Switch off bitsandbytes' packing of 4-bit weights for inference on CPUs with AVX512-BF16.

    bitsandbytes packs a layer when the base first answers a prompt. A packed layer is not differentiable, so adapters
    below it would silently get no gradient. A packed layer also computes in bf16 although the model is in fp32.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def check_trainable(model: PreTrainedModel) -> None:
    """Check that no 4-bit layer is packed for inference.

    Raises:
        EngineError: a layer is packed; gradients do not pass through it, so adapters below it would not be trained.
    """
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit) and getattr(module.weight.quant_state, "packing_format_for_cpu", False):
            raise EngineError(
                f"the 4-bit layer {name} was packed for inference and cannot be trained through",
                remedy=REPORT_BUG,
            )


def check_precision(model: PreTrainedModel, machine: Machine) -> None:
    """Check every weight's precision: adapters in fp32, embeddings and head in the compute dtype, others in either.

    PEFT's `prepare_model_for_kbit_training` would cast embeddings and head to fp32: 0.49 GiB more for a 7B model.

    Raises:
        EngineError: a weight is in another precision.
    """
    import torch

    dtype: torch.dtype = getattr(torch, machine.compute_dtype)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    large = {id(parameter) for end in ends for parameter in end.parameters()}
    other = []
    for name, parameter in model.named_parameters():
        narrow = {dtype} if id(parameter) in large else {dtype, torch.float32}
        allowed = {torch.float32} if parameter.requires_grad else narrow
        if parameter.is_floating_point() and parameter.dtype not in allowed:
            other.append(f"{name} ({parameter.dtype})")
    if other:
        message = f"{len(other)} weights are in an unexpected precision, among them {other[0]}"
        raise EngineError(message, remedy=REPORT_BUG)


def check_targets(model: PreTrainedModel, settings: Settings) -> None:
    """Check that every target module exists: if some names match modules, PEFT silently ignores those that do not.

    Raises:
        GridError: the model has no module with the name of one of the target modules, a pattern matches none or others
            than matrices, or the target modules include experts.
    """
    targets = settings.target_modules
    if isinstance(targets, str) and targets != ALL_LINEAR:
        _check_pattern(model, targets)
    names = ["." + name for name, _ in model.named_modules()]
    for target in () if isinstance(targets, str) else targets:
        if not any(name.endswith("." + target) for name in names):
            remedy = f"Choose from {', '.join(_linear_names(model))}; or write all-linear for all of them."
            raise GridError(f"target_modules: the model has no module {target!r}", remedy=remedy)
    _check_layers(model, settings)
    if routers := _routers(model, targets):
        own = {name.rpartition(".")[2] for name in _routers(model, ALL_LINEAR)}
        others = [name for name in _linear_names(model) if name not in own and not _experts(model, (name,))]
        remedy = f"Name other matrices: target_modules: [{', '.join(others)}]."
        what = f"target_modules: {_named(targets)} would train {routers[0]}, which chooses experts"
        raise GridError(f"{what}. PEFT cannot adapt it, because it returns more than a product", remedy=remedy)
    if experts := _experts(model, targets):
        others = [name for name in _linear_names(model) if not _experts(model, (name,))]
        remedy = f"Name other matrices: target_modules: [{', '.join(others)}]."
        what = f"target_modules: {_named(targets)} would train the model's experts ({', '.join(sorted(experts))})"
        raise GridError(f"{what}. PEFT adapts them as bare parameters, which cannot be merged", remedy=remedy)


def _check_pattern(model: PreTrainedModel, pattern: str) -> None:
    """Check that a pattern matches linear layers and nothing else: PEFT has no adapter for a whole block."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in model.named_modules() if name}
    matrices = [name for name, module in modules.items() if isinstance(module, Linear | Conv1D)]
    found = matching_modules(pattern, modules)
    if not found:
        example = f"such as {matrices[0]}" if matrices else "in this model"
        what = f"target_modules: the pattern '{pattern}' matches the whole name of no module"
        raise GridError(what, remedy=f"Write a pattern for names {example}, or a list of the names' last parts.")
    if others := [name for name in modules if name in found.difference(matrices)]:
        what = f"target_modules: the pattern '{pattern}' matches {others[0]}, which is no linear layer"
        remedy = f"Let it end with the names of matrices, such as ({'|'.join(_linear_names(model))})."
        raise GridError(what, remedy=remedy)


def _check_layers(model: PreTrainedModel, settings: Settings) -> None:
    """Check that every layer exists: PEFT silently ignores those that do not, unless none does."""
    count = model.config.get_text_config().num_hidden_layers
    if missing := [number for number in settings.layers_to_transform if number >= count]:
        raise GridError(
            f"layers_to_transform: the model has no layer {missing[0]}", remedy=f"Choose from 0 to {count - 1}."
        )


def _routers(model: PreTrainedModel, targets: str | tuple[str, ...]) -> list[str]:
    """Return the targeted routers of a mixture of experts that PEFT takes for linear layers.

    The routers of Phi-3.5-MoE and Llama 4 are subclasses of such layers, but return the chosen experts, too.
    """
    from torch.nn import Linear

    own = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and "Router" in type(module).__name__
    }
    if targets == ALL_LINEAR:
        return list(own)
    if isinstance(targets, str):
        return sorted(matching_modules(targets, own)) if own else []
    return [name for name in own if any(f".{name}".endswith(f".{target}") for target in targets)]


def _named(targets: str | tuple[str, ...]) -> str:
    return targets if isinstance(targets, str) else ", ".join(targets)


def _experts(model: PreTrainedModel, targets: str | tuple[str, ...]) -> set[str]:
    """Return the names of the parameters of experts that PEFT would adapt for these target modules.

    transformers keeps the experts of a layer as one tensor. PEFT knows which of the experts' former matrices it holds.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=targets if isinstance(targets, str) else list(targets))
    try:
        convert_peft_config_for_transformers(config, model=model, conversions=None)
    except ValueError:  # only some of the matrices that one tensor holds are named
        return set(targets)
    return set(config.target_parameters or ())


def _linear_names(model: PreTrainedModel) -> list[str]:
    from torch.nn import Linear

    head = model.get_output_embeddings()
    modules = model.named_modules()
    return sorted({name.rpartition(".")[2] for name, m in modules if isinstance(m, Linear) and m is not head})


def check_quantization(base: Base, settings: Settings) -> None:
    """Check that the base is in the quantisation that a trial's settings name.

    Raises:
        EngineError: the base is in another quantisation.
    """
    if base.quantization is not settings.quantization:
        raise EngineError(f"the base is {base.quantization} and the trial asks for {settings.quantization}")


@contextlib.contextmanager
def untouched(model: PreTrainedModel) -> Iterator[None]:
    """Restore the model when the context ends, also after an error.

    This removes adapter layers, a replaced `forward`, gradient checkpointing, hooks, new settings and training mode.
    """
    attributes, config = dict(vars(model)), dict(vars(model.config))
    try:
        yield
    finally:
        _remove_adapter(model)
        if model.is_gradient_checkpointing:
            # Newer versions of transformers call it activation checkpointing and warn about the old name.
            getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
        if hasattr(model, "_require_grads_hook"):
            with contextlib.suppress(AttributeError):
                model.disable_input_require_grads()
        for holder, before in ((model, attributes), (model.config, config)):
            vars(holder).clear()
            vars(holder).update(before)
        model.eval()
        model.requires_grad_(False)


@contextlib.contextmanager
def dequantised(base: Base) -> Iterator[None]:
    """On a CPU with enough memory, keep a dequantised copy of every 4-bit weight until the context ends.

    Many small products are then faster. Their results are the same bit for bit, since a 4-bit layer would dequantise
    its weight to the same values in every product.
    """
    layers = _dequantised_layers(base)
    try:
        for layer, weight in layers:
            layer.forward = partial(_product, weight, layer.bias)
            layer.plain_weight = weight
        yield
    finally:
        for layer, _ in layers:
            for name in ("forward", "plain_weight"):
                vars(layer).pop(name, None)


def _dequantised_layers(base: Base) -> list[tuple[Any, torch.Tensor]]:
    """Return each 4-bit layer with its dequantised weight, (out, in); none on a GPU or without enough memory."""
    import psutil
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in base.model.modules() if isinstance(module, Linear4bit)]
    size = sum(layer.in_features * layer.out_features for layer in layers) * base.model.dtype.itemsize
    if base.machine.kind is not DeviceKind.CPU or 4 * size > psutil.virtual_memory().available:
        return []
    return [(layer, dequantize_4bit(layer.weight, layer.weight.quant_state).to(base.model.dtype)) for layer in layers]


def _product(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.linear(x, weight, bias)


def checkpoint(model: PreTrainedModel) -> None:
    """Switch gradient checkpointing on: keep only each layer's input, and recompute the rest in the backward pass."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    # Keeping the state of random numbers for every layer takes time, and no CUDA graph can hold it.
    enable({"use_reentrant": False, "preserve_rng_state": drops(model)})


def drops(model: PreTrainedModel) -> bool:
    """Whether the model itself has dropout, by its configuration."""
    config = model.config.get_text_config().to_dict()
    return any(isinstance(value, float) and value > 0 for name, value in config.items() if "drop" in name)


def _remove_adapter(model: PreTrainedModel) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    outer = ""
    for name, module in list(model.named_modules()):
        # PEFT can wrap a module several times. The outer layer then stands for all of them.
        if isinstance(module, BaseTunerLayer) and not (outer and name.startswith(f"{outer}.base_layer")):
            model.set_submodule(name, module.get_base_layer())
            outer = name
