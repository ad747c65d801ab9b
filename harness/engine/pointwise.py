"""Replaces what decoder layers compute element by element with fused kernels, wherever these give the same result.

A module is known by its parts, not by its architecture. Before the first module of a class is replaced, both ways
compute a small random input, forward and backward. If they differ, all modules of the class stay as they are.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.units import DeviceKind

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from harness.engine.loading import Base

_ROTATION = "apply_rotary_pos_emb"
"""The function with which transformers rotates queries and keys in each modeling file."""
_TOKENS, _HEADS = 5, 3
"""Size of the random inputs that are compared."""


class Kernels(Protocol):
    """The functions of `harness.engine.kernels`."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor: ...

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor: ...

    def rotate(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor: ...


def compile_ahead(config: PretrainedConfig, dtype: torch.dtype) -> Future[None] | None:
    """Compile the kernels for a model's sizes in a thread, which takes seconds in which the model can be loaded.

    Returns the same future for the same sizes. Its exception says why the kernels cannot be compiled. For a model
    without attention heads, it returns None.
    """
    try:
        size, head = config.get_text_config().hidden_size, _head(config)
    except (AttributeError, TypeError):
        return None
    return _compiled(size, head, dtype)


def _head(config: PretrainedConfig) -> int:
    """Return the size of an attention head."""
    text = config.get_text_config()
    size: int = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return size


@cache
def _compiled(size: int, head: int, dtype: torch.dtype) -> Future[None]:
    return ThreadPoolExecutor(1, "kernels").submit(_compile, size, head, dtype)


def _compile(size: int, head: int, dtype: torch.dtype) -> None:
    """Run each kernel, forward and backward if it has one, once for this hidden size and size of a head."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    from harness.engine import kernels

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=dtype, device="cuda", requires_grad=True)

    angles = ones(1, 16, head).detach()
    for found in (
        kernels.rms_norm(ones(1, size), ones(size).detach(), 1e-5),
        kernels.swiglu(ones(1, size), ones(1, size)),
        kernels.rotate(ones(1, 16, 1, head).transpose(1, 2), angles, angles),
    ):
        torch.autograd.backward(found, torch.ones_like(found))
    kernels.dequantised(*quantize_4bit(ones(64, 64).detach(), compress_statistics=True, quant_type="nf4"))


@contextlib.contextmanager
def fused_pointwise(base: Base) -> Iterator[None]:
    """On a GPU, use fused kernels until the context ends; without Triton, or if a kernel fails, PyTorch's stay."""
    with contextlib.ExitStack() as undo:
        if base.machine.kind is DeviceKind.CUDA:
            try:
                from harness.engine import kernels

                if ahead := compile_ahead(base.model.config, base.model.dtype):
                    ahead.result()
                undo.enter_context(replaced(base.model, kernels))
            except Exception:  # noqa: BLE001 - the compiler or the GPU may lack anything; PyTorch can do the same
                traceback.print_exc()
        yield


@contextlib.contextmanager
def replaced(model: PreTrainedModel, kernels: Kernels) -> Iterator[int]:
    """Use these kernels in the model until the context ends; yield the number of modules and functions replaced."""
    same: dict[type, bool] = {}
    with contextlib.ExitStack() as undo:
        count = 0
        for module in model.modules():
            fused = _fused(module, kernels)
            if fused is None:
                continue
            own, size = fused
            if type(module) not in same:
                same[type(module)] = _same(module.forward, own, [(_TOKENS, size)], next(model.parameters()))
            if same[type(module)]:
                module.forward = own
                undo.callback(vars(module).pop, "forward")
                count += 1
        for file in {type(module).__module__ for module in model.modules()}:
            count += _replace_rotation(sys.modules[file], kernels, _head(model.config), next(model.parameters()), undo)
        yield count


def _fused(module: Any, kernels: Kernels) -> tuple[Callable[[torch.Tensor], torch.Tensor], int] | None:
    """Return a fused `forward` of a module and the size of its input; None if it is no RMS norm and no gated MLP."""
    import torch

    if "forward" in vars(module):
        return None
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if type(module).__name__.endswith("RMSNorm") and isinstance(getattr(module, "weight", None), torch.nn.Parameter):
        weight, epsilon = module.weight, getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if isinstance(epsilon, float):
            return lambda x: kernels.rms_norm(x, weight, epsilon), len(weight)
    if all(isinstance(part, torch.nn.Module) for part in parts) and hasattr(module, "act_fn"):
        size = getattr(parts[0], "in_features", None)
        if isinstance(size, int):
            return lambda x: module.down_proj(kernels.swiglu(module.gate_proj(x), module.up_proj(x))), size
    return None


def _replace_rotation(file: Any, kernels: Kernels, head: int, like: torch.Tensor, undo: contextlib.ExitStack) -> bool:
    """Replace the function of a modeling file that rotates queries and keys; return whether this was possible.

    `head` is the size of a head; the rotation is tried with the dtype and on the device of `like`.
    """
    rotation = vars(file).get(_ROTATION)
    if rotation is None:
        return False

    def rotated(q: Any, k: Any, cos: Any, sin: Any, *given: Any, **options: Any) -> Any:
        halves = cos.ndim == 3 and cos.shape[-1] == q.shape[-1] and not cos.shape[-1] & (cos.shape[-1] - 1)
        if given or options or not halves:
            return rotation(q, k, cos, sin, *given, **options)
        return kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)

    def both(function: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        def joined(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
            q = x.transpose(1, 2)
            return torch.cat(function(q, q[:, :1], angles.cos(), angles.sin()), dim=1)

        return joined

    if not _same(both(rotation), both(rotated), [(1, _TOKENS, _HEADS, head), (1, _TOKENS, head)], like):
        return False
    setattr(file, _ROTATION, rotated)
    undo.callback(setattr, file, _ROTATION, rotation)
    return True


def _same(
    one: Callable[..., Any], other: Callable[..., Any], shapes: Sequence[tuple[int, ...]], like: torch.Tensor
) -> bool:
    """Whether two functions give the same values and gradients of their first input, up to rounding.

    The inputs are random tensors of these shapes, on the device and in the dtype of `like`.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    x, *others = (torch.randn(shape, generator=generator).to(like.device, like.dtype) for shape in shapes)
    found = []
    for function in (one, other):
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            value = function(leaf, *others)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        found.append((value.detach().float(), gradient.float()))
    tolerance = 8 * torch.finfo(like.dtype).eps
    return all(
        mine.shape == theirs.shape and float((mine - theirs).abs().max()) <= tolerance * (1 + float(theirs.abs().max()))
        for mine, theirs in zip(*found, strict=True)
    )
