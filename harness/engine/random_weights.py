"""Makes a base with random weights and the tensor shapes of a model's configuration, one tensor after another.

Memory and time of a training depend on shapes, not on values. So they can be measured without downloading the model or
accepting its licence. The device holds at most one tensor, and main memory those of one file, never the whole model.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import ModelError
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.engine.loading import quantization_config
from harness.engine.quantized_base import INDEX, SHARD_BYTES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SEED = 0
"""Seed of the random weights; each tensor's seed is derived from it and from the tensor's name."""
_STANDARD_DEVIATION = 0.02


def make_base(ref: ModelRef, quantization: Quantization, machine: Machine, folder: Path) -> None:
    """Write a base with the configuration in `ref.path` and random weights into `folder`, as `save_base` would.

    In the output head, the rows of end tokens, and of ids that the tokenizer lacks, are zero. The base's answers
    therefore consist of known tokens and have the maximum length.

    Raises:
        ModelError: transformers does not know the model.
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
    """Return the bytes that `make_base` will write, within a few percent; NF4 takes 4.13 bits per weight."""
    import torch

    skeleton = _skeleton(ref, getattr(torch, machine.compute_dtype))
    packed = _linear(skeleton) if quantization is Quantization.NF4 else set()
    sizes = ((name, p.numel() * p.element_size()) for name, p in skeleton.named_parameters())
    per_weight = 4.13 / 8 / skeleton.dtype.itemsize
    return int(sum(size * (per_weight if name in packed else 1) for name, size in sizes))


def _skeleton(ref: ModelRef, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model on the meta device, without weights."""
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
    """Return the names of the weights that bitsandbytes quantises: every linear layer's except the head's."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    return {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, Linear) and m is not head}


def _tensors(
    model: PreTrainedModel, quantization: Quantization, device: torch.device, never: list[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the name and value of every tensor of a saved base; each is made on `device` and moved to the CPU.

    `never` lists token ids whose rows of the output head are set to zero.
    """
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
    """Return a tensor of the shape and dtype of `like`: normally distributed values, 0 for a bias, 1 for a norm."""
    import torch

    if like.dim() == 1:
        return torch.full(like.shape, 0.0 if name.endswith("bias") else 1.0, dtype=like.dtype, device=device)
    generator = torch.Generator(device).manual_seed(SEED + zlib.crc32(name.encode()))
    return torch.empty(like.shape, dtype=like.dtype, device=device).normal_(0, _STANDARD_DEVIATION, generator=generator)


def _quantised(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    from bitsandbytes.functional import quantize_4bit

    data, state = quantize_4bit(tensor, compress_statistics=True, quant_type="nf4")
    yield name, data.cpu()
    for constant, value in state.as_dict(packed=True).items():
        yield f"{name}.{constant}", value.cpu()


def write_shards(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, limit: int = SHARD_BYTES) -> None:
    """Write tensors to files of about `limit` bytes, and an index; at most the tensors of one file are in memory."""
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
