"""Random weights in the shape of a model whose configuration alone is known, made and quantised tensor by tensor.

Memory and time of a training depend on shapes, not on values, so that both can be found out without a download and
without a licence. Neither the host nor the GPU ever holds the model in fp16: the largest of its tensors is all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.base import quantization_config
from harness.engine.quantized import INDEX, SHARD_BYTES
from harness.errors import ModelError
from harness.records import Machine, ModelRef, Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SEED = 0
"""Of the random weights; a tensor's own seed comes from it and from the tensor's name."""
_SPREAD = 0.02


def make_base(ref: ModelRef, quantization: Quantization, machine: Machine, folder: Path) -> None:
    """Write a base with the configuration in `ref.path` and random weights into `folder`, as `save_base` would.

    Rows of the output head are zero where they stand for no token of the tokenizer or for the end of an answer, so that
    answers are of known tokens and as long as they may be.

    Raises:
        ModelError: transformers does not know such a model.
    """
    import torch
    from transformers import AutoTokenizer

    skeleton = _skeleton(ref, getattr(torch, machine.compute_dtype))
    tokenizer = AutoTokenizer.from_pretrained(ref.tokenizer or ref.path, local_files_only=True)
    never = [tokenizer.eos_token_id, skeleton.config.eos_token_id, *range(len(tokenizer), skeleton.config.vocab_size)]
    device = torch.device(machine.kind.value)
    write_shards(_tensors(skeleton, quantization, device, never), folder)
    config = skeleton.config
    if quantization is Quantization.NF4:
        config.quantization_config = quantization_config(skeleton.dtype)
    config.save_pretrained(str(folder))


def bytes_of(ref: ModelRef, quantization: Quantization, machine: Machine) -> int:
    """Bytes that `make_base` will write, to a few percent: 4.13 bits for a weight in NF4 with its constants."""
    import torch

    skeleton = _skeleton(ref, getattr(torch, machine.compute_dtype))
    packed = _linear(skeleton) if quantization is Quantization.NF4 else set()
    sizes = ((name, p.numel() * p.element_size()) for name, p in skeleton.named_parameters())
    per_weight = 4.13 / 8 / skeleton.dtype.itemsize
    return int(sum(size * (per_weight if name in packed else 1) for name, size in sizes))


def _skeleton(ref: ModelRef, dtype: torch.dtype) -> PreTrainedModel:
    """The model without any weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(ref.path, local_files_only=True)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (ValueError, KeyError, OSError) as error:
        remedy = "It must be the configuration of a causal language model that transformers knows."
        raise ModelError(f"{ref.name} has no usable config.json: {error}", remedy=remedy) from error
    return model


def _linear(model: PreTrainedModel) -> set[str]:
    """The weights that bitsandbytes quantises when a model is loaded: of every linear layer but the head."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    return {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, Linear) and m is not head}


def _tensors(
    model: PreTrainedModel, quantization: Quantization, device: torch.device, never: list[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and content of all that the file of such a model holds, on the CPU."""
    packed = _linear(model) if quantization is Quantization.NF4 else set()
    head = model.get_output_embeddings().weight
    for name, like in model.named_parameters():
        tensor = _random(name, like, device)
        if like is head:
            tensor[never] = 0
        if name in packed:
            yield from _quantised(name, tensor)
        else:
            yield name, tensor.cpu()


def _random(name: str, like: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Normally distributed, as models are initialised; a norm's weights are 1, a bias is 0."""
    import torch

    if like.dim() == 1:
        return torch.full(like.shape, 0.0 if name.endswith("bias") else 1.0, dtype=like.dtype, device=device)
    generator = torch.Generator(device).manual_seed(SEED + zlib.crc32(name.encode()))
    return torch.empty(like.shape, dtype=like.dtype, device=device).normal_(0, _SPREAD, generator=generator)


def _quantised(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    from bitsandbytes.functional import quantize_4bit

    data, state = quantize_4bit(tensor, compress_statistics=True, quant_type="nf4")
    yield name, data.cpu()
    for constant, value in state.as_dict(packed=True).items():
        yield f"{name}.{constant}", value.cpu()


def write_shards(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, limit: int = SHARD_BYTES) -> None:
    """Files of about `limit` bytes each with their index; no more than one of them is in memory."""
    from safetensors.torch import save_file

    shard: dict[str, torch.Tensor] = {}
    where: dict[str, str] = {}
    total = size = 0

    def flush() -> None:
        nonlocal size
        file = f"model-{len(set(where.values())) + 1:05}.safetensors"
        save_file(shard, str(folder / file), metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, file))
        shard.clear()
        size = 0

    for name, tensor in tensors:
        shard[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
        del tensor
        if size >= limit:
            flush()
    if shard:
        flush()
    described = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(described, indent=1), encoding="utf-8")
