"""Merges a base and an adapter into the weights of one plain model, one tensor in memory at a time.

The model that the run evaluated computes with dequantised NF4 weights and adds the adapter's update. So the exact
merge is `dequantise(quantise(W)) + scaling * B @ A`. PEFT's merge into a 4-bit base quantises this sum, which rounds a
typical update away. Adding the update to the original weights gives a model that was never evaluated.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import EngineError, ModelError
from harness.core.export import TensorSpec
from harness.core.model import ModelRef
from harness.engine.adapters import check_fit
from harness.engine.quantized_base import OpenBase, open_base
from harness.models.foreign_files import refusing

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

AT_ONCE = 1 << 20
"""Number of elements updated, cast and written at a time: 4 MiB in fp32, which fits in a processor's cache."""
FETCH_AGAIN = "Fetch or copy the base model again."


@dataclass(frozen=True)
class Update:
    """The update `scaling * B @ A` of one matrix: names of the tensors `A`, (rank, in), and `B`, (out, rank)."""

    a: str
    b: str
    scaling: float


@dataclass(frozen=True)
class Merge:
    """A merged model whose tensors are computed on request, in the form that `harness.export.shards` reads."""

    base: Path
    adapter: Path | None
    specs: tuple[TensorSpec, ...]
    sources: Mapping[str, str]
    """For every tensor of the result, the name of the base's tensor that it is made from.

    The names differ only for a head that shares the embedding's tensor in the base (a tied head)."""
    quantised: frozenset[str]
    """Names of the tensors that are in NF4 in the evaluated model."""
    updates: Mapping[str, Update]
    compute_dtype: str
    """Dtype of the unquantised weights in the evaluated model; empty to merge into the original weights."""
    saved: Path | None = None
    """Folder of the run's saved quantised base, if any: its weights are read, and none is quantised a second time."""
    untied: bool = False
    """Whether the adapter updates a tied head, so that head and embedding are two different tensors in the result."""

    def chunks(self, spec: TensorSpec) -> Iterator[memoryview]:
        """Yield the tensor's bytes, a few rows at a time.

        Raises:
            ModelError: the base's file is damaged.
            EngineError: a value is too large for the result's dtype.
        """
        import torch

        weight, update = self._weight(spec.name), self.updates.get(spec.name)
        a, b = (self._factor(update.a), self._factor(update.b)) if update else (None, None)
        dtype: torch.dtype = getattr(torch, spec.dtype)
        with _one_thread():
            for rows in _slices(weight):
                part = weight[rows] if weight.dim() else weight
                if update and a is not None and b is not None:
                    part = part.float().addmm(b[rows], a, alpha=update.scaling)
                made = part.to(dtype)
                # In 16 bits, testing only minimum and maximum is much faster than `isfinite` of all elements.
                if not all(torch.stack(made.aminmax()).isfinite()):
                    remedy = "Export with --dtype bfloat16, whose range is that of float32."
                    raise EngineError(f"{spec.name} has values that {spec.dtype} cannot hold", remedy=remedy)
                yield made.contiguous().reshape(-1).view(torch.uint8).numpy().data

    def _weight(self, name: str) -> torch.Tensor:
        """Return a weight, (out, in) or (size,), with the values that the evaluated model computes with."""
        import torch

        source = self.sources[name]
        if self._kept:
            return self._kept.weight(source)
        weight = self._shards[source].get_tensor(source)
        held: torch.Tensor = weight.to(getattr(torch, self.compute_dtype)) if self.compute_dtype else weight
        return through_nf4(held) if name in self.quantised else held

    def _factor(self, name: str) -> torch.Tensor:
        """Return the adapter's `A`, (rank, in), or `B`, (out, rank), in fp32."""
        factor: torch.Tensor = self._adapter.get_tensor(name).float()
        return factor

    @cached_property
    def _kept(self) -> OpenBase | None:
        return open_base(self.saved) if self.saved else None

    @cached_property
    def _shards(self) -> dict[str, Any]:
        return open_tensors(self.base)

    @cached_property
    def _adapter(self) -> Any:
        if self.adapter is None:
            raise TypeError("a base without an adapter has no updates")
        return _open(self.adapter / "adapter_model.safetensors")


def merge(
    model: ModelRef, adapter: Path | None, *, dtype: str, compute_dtype: str, nf4: bool, saved: Path | None = None
) -> Merge:
    """Prepare the merge of `model` and `adapter` into one model with weights in `dtype`.

    If `compute_dtype` is the run's, and `nf4` is true if the run quantised the layers, the result is the model that the
    run evaluated. If `compute_dtype` is empty, the update is added to the published weights. `saved` is the folder of
    the run's saved quantised base; if it is given, the published weights are not read. Without an adapter, the result
    is the base with those weights.

    Raises:
        ModelError: the base's files do not have the tensors of its architecture.
        EngineError: the adapter does not fit the base, or cannot be merged.
    """
    described = describe(Path(model.path))
    saved = None if _has_experts(described) else saved
    names, shapes = _names(described, model, saved)
    matrices = _linear_names(described)
    tied = dict(described.all_tied_weights_keys)
    updates = _updates(described, adapter) if adapter else {}
    separate = [name for name in updates if name in tied]
    sources = {name: name for name in names} | {name: tied[name] for name in separate}
    return Merge(
        base=Path(model.path),
        adapter=adapter,
        specs=tuple(TensorSpec(name, dtype, shapes[source]) for name, source in sources.items()),
        sources=sources,
        quantised=frozenset(matrices & sources.keys()) if nf4 else frozenset(),
        updates=updates,
        compute_dtype=compute_dtype,
        saved=saved,
        untied=bool(separate),
    )


def check_adapter(model: ModelRef, adapter: Path) -> None:
    """Check that an adapter's tensors have the names and shapes that its configuration requires on this model.

    Raises:
        EngineError: the adapter does not fit the model.
    """
    from peft import get_peft_model_state_dict

    wanted = get_peft_model_state_dict(_with_adapter(describe(Path(model.path)), adapter))
    _fits(adapter, wanted)


def through_nf4(weight: torch.Tensor) -> torch.Tensor:
    """Quantise a weight, (out, in), to NF4 as transformers does, and dequantise it as bitsandbytes' layers do."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    back: torch.Tensor = dequantize_4bit(packed, state)
    return back


# --- tensors of the base and the adapter -------------------------------------------------------------------------


def describe(folder: Path) -> PreTrainedModel:
    """Return the model on the meta device: it has every tensor's name and shape, and takes no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # otherwise it would have the tensors of a quantised model
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def open_tensors(folder: Path) -> dict[str, Any]:
    """Return, for every tensor name, the open file that holds the tensor, without reading the tensor.

    Raises:
        ModelError: a file is damaged, or two files have the same tensor.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file = _open(path)
        twice = found.keys() & set(file.keys())
        if twice:
            what = f"{folder} holds {min(twice)} in two files"
            raise ModelError(what, remedy="Keep one set of weights in it, such as model-*.safetensors with its index.")
        found |= dict.fromkeys(file.keys(), file)
    return found


def _open(path: Path) -> Any:
    from safetensors import safe_open

    with refusing(f"{path} is damaged", FETCH_AGAIN):
        return safe_open(str(path), framework="pt")


def _names(model: PreTrainedModel, ref: ModelRef, saved: Path | None) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Return the names of the result's tensors in the architecture's order, and their shapes.

    Tensors in the base's files that loading the model would ignore are left out.
    """
    tied = set(model.all_tied_weights_keys)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    held = dict.fromkeys(open_base(saved).names) if saved else _held(Path(ref.path))
    missing = [name for name in wanted if name not in held]
    other_names = missing and (_has_experts(model) or _renamed(missing, wanted, held))
    if other_names and _linear_names(model) <= held.keys():
        # The files hold each expert's matrices, which transformers joins in memory, or tensors that it gives another
        # name, such as GPT-NeoX's head. They are copied as they are.
        shapes = {name: shape for name, shape in held.items() if shape is not None}
        return list(shapes), shapes
    if missing:
        what = f"{ref.name} lacks the tensor {missing[0]} of its architecture ({len(missing)} in all)"
        remedy = (
            "Save it again with AutoModelForCausalLM.from_pretrained(...).save_pretrained(NEW_FOLDER), unquantised."
        )
        raise ModelError(what, remedy=remedy)
    other = [name for name, shape in wanted.items() if held[name] not in (None, shape)]
    if other:
        what = f"{ref.name}: {other[0]} has shape {held[other[0]]}, and its config.json asks for {wanted[other[0]]}"
        raise ModelError(what, remedy=FETCH_AGAIN)
    return list(wanted), wanted


def _renamed(
    missing: Sequence[str], wanted: Mapping[str, tuple[int, ...]], held: Mapping[str, tuple[int, ...] | None]
) -> bool:
    """Whether the files hold as many tensors under other names as names are missing, and of the same shapes."""
    others = [shape for name, shape in held.items() if name not in wanted]
    return Counter(wanted[name] for name in missing) == Counter(others)


def _has_experts(model: PreTrainedModel) -> bool:
    """Whether the model is a mixture of experts: transformers keeps the experts of a layer as one tensor."""
    return any(parameter.dim() == 3 for parameter in model.parameters())


def _held(folder: Path) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of every tensor in a folder."""
    return {name: tuple(file.get_slice(name).get_shape()) for name, file in open_tensors(folder).items()}


def _linear_names(model: PreTrainedModel) -> set[str]:
    """Return the names of the weights that loading in 4 bits quantises: every linear layer's except the head's."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    return {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, Linear) and m is not head}


def _with_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Attach an untrained adapter of the same configuration with PEFT, to find its layers, ranks and scaling."""
    import torch
    from peft import LoraConfig, PeftModel

    config = LoraConfig.from_pretrained(str(adapter), inference_mode=True)
    with torch.device("meta"), warnings.catch_warnings():
        # PEFT warns if a tied head has an update, but this merge makes such a head a tensor of its own.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # GPT-2, which `_updates` refuses
        return PeftModel(model, config)


def _check_mergeable(adapter: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(str(adapter), inference_mode=True)
    refused = {"use_dora": "DoRA", "modules_to_save": "fully trained modules", "lora_bias": "biases in B"}
    refused |= {"target_parameters": "adapters on bare parameters", "trainable_token_indices": "trained tokens"}
    for name, what in refused.items():
        if getattr(config, name, None):
            raise EngineError(f"{adapter} has {what} ({name}), which this merge cannot add", remedy=_USE_PEFT)
    if config.bias != "none":
        raise EngineError(f"{adapter} has trained biases, which this merge cannot add", remedy=_USE_PEFT)


_USE_PEFT = "Export it with `--to adapter` and load it with PEFT."


def _updates(described: PreTrainedModel, adapter: Path) -> dict[str, Update]:
    """Return the update of every matrix that the adapter changes, after checking the adapter's files."""
    from peft import get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from torch.nn import Linear

    _check_mergeable(adapter)
    model = _with_adapter(described, adapter)
    _fits(adapter, get_peft_model_state_dict(model))
    found: dict[str, Update] = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        plain = name.removeprefix("base_model.model.")
        if type(module.get_base_layer()) is not Linear:
            what = f"{plain} is a {type(module.get_base_layer()).__name__}, and only Linear layers can be merged"
            raise EngineError(what, remedy=_USE_PEFT)
        (which,) = module.scaling
        update = Update(f"{name}.lora_A.weight", f"{name}.lora_B.weight", module.scaling[which])
        found[f"{plain}.weight"] = update
    return found


def _fits(adapter: Path, wanted: Mapping[str, torch.Tensor]) -> None:
    path = adapter / "adapter_model.safetensors"
    file = _open(path)
    held = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - it is no dict
    check_fit(path, held, {name: tuple(tensor.shape) for name, tensor in wanted.items()})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: slices are small, and waiting threads would slow down the writing of the file."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _slices(weight: torch.Tensor) -> Iterator[slice]:
    """Yield slices of the weight's rows, with about `AT_ONCE` elements each."""
    if not weight.dim():
        yield slice(0, 1)
        return
    rows = weight.shape[0]
    step = max(1, AT_ONCE * rows // max(1, weight.numel()))
    yield from (slice(at, min(at + step, rows)) for at in range(0, rows, step))
