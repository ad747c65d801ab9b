"""Computes every adapter for every row and masks all but the row's own, so that no shape depends on the rows.

Unlike in a `Stack`, the same kernels run whichever models the rows belong to. So a step of a batch can be a CUDA graph
that stays valid when other rows join. The inner products are small, so the additional arithmetic hardly takes time.
Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.engine.matrices import product
from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.stack import Adapter
from harness.engine.trainers.fused.vectors import pairs_of, shapes_of, size_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.engine.trainers.fused.layer import Pair


class MaskedAdapters:
    """Adapters on a base, each for some rows of a batch. A row's `slot` is the adapter's position, or negative."""

    def __init__(self, model: PreTrainedModel, adapters: Sequence[Adapter], rows: int) -> None:
        """Wrap every module that an adapter has weights for. A batch has at most `rows` rows."""
        self._model, self._slots = model, torch.full((rows,), -1, device=model.device)
        self._masks: dict[tuple[int, ...], _Mask] = {}
        self._layers: dict[str, _MaskedLinear] = {}
        moved, finite = zip(*(_moved(adapter, self._slots.device, model.dtype) for adapter in adapters), strict=True)
        self.finite = bool(torch.stack(finite).all())
        """Whether all weights are finite."""
        names = {name for adapter in adapters for name in adapter.weights}
        try:
            for name in [name for name, _ in model.named_modules() if name in names]:
                layer = self._layer(
                    model.get_submodule(name), {s: own[name] for s, own in enumerate(moved) if name in own}
                )
                self._layers[name] = layer
                model.set_submodule(name, layer)
        except BaseException:
            self.remove()  # the caller has nothing that it could remove
            raise

    def _layer(self, module: Any, pairs: Mapping[int, Pair]) -> _MaskedLinear:
        """Wrap a module; `pairs` has the matrices of each adapter that it has weights for, by position."""
        slots = tuple(slot for slot, (a, _) in pairs.items() for _ in range(len(a)))
        if slots not in self._masks:
            self._masks[slots] = _Mask(slots, self._slots)
        a, b = torch.cat([a for a, _ in pairs.values()]), torch.cat([b for _, b in pairs.values()], dim=1)
        return _MaskedLinear(module, a, b.T.contiguous(), self._masks[slots])

    def remove(self) -> None:
        """Unwrap every module of the base."""
        for name, layer in self._layers.items():
            self._model.set_submodule(name, layer.base_layer)
        self._layers = {}

    def enter(self, rows: Sequence[PassRow]) -> None:
        """Set the adapters of the rows of the next forward passes."""
        self._slots[: len(rows)] = torch.tensor([row.slot for row in rows], device=self._slots.device)
        for mask in self._masks.values():
            mask.set(self._slots)


class _Mask:
    """Which inner products of a module count for each row: those of the row's own adapter."""

    def __init__(self, slots: tuple[int, ...], rows: torch.Tensor) -> None:
        """`slots` has the adapter of each inner product, and `rows`, (rows,), that of each row."""
        self._slots = torch.tensor(slots, device=rows.device)
        self._others = torch.ones(len(rows), 1, len(slots), dtype=torch.bool, device=rows.device)

    def set(self, rows: torch.Tensor) -> None:
        """Set the adapter of each row, (rows,). The tensor stays the same: a CUDA graph reads it."""
        torch.ne(rows[:, None, None], self._slots, out=self._others)

    def __call__(self, inner: torch.Tensor) -> torch.Tensor:
        """Return `inner`, (rows, tokens, inner products), with zero for those of other adapters."""
        return inner.masked_fill(self._others[: len(inner)], 0.0)


class _MaskedLinear(torch.nn.Module):
    """A linear module of the base with adapters: `a` is (inner products, in), and `b` is (inner products, out)."""

    def __init__(self, base_layer: Any, a: torch.Tensor, b: torch.Tensor, mask: _Mask) -> None:
        super().__init__()
        self.base_layer, self._mask = base_layer, mask
        self._a, self._b = a, b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `x`, (rows, tokens, in), to (rows, tokens, out)."""
        result = product(self.base_layer, x)
        inner = self._mask(torch.nn.functional.linear(x.to(self._a.dtype), self._a))
        flat = torch.addmm(result.flatten(0, 1).to(inner.dtype), inner.flatten(0, 1), self._b)
        return flat.view(result.shape).to(result.dtype)


def _moved(adapter: Adapter, device: torch.device, dtype: torch.dtype) -> tuple[dict[str, Pair], torch.Tensor]:
    """Return `A` and the scaled `B` of an adapter's modules on a device, and whether all of them are finite.

    All are moved at once: hundreds of small copies from main memory take many times longer.
    """
    shapes = shapes_of(adapter.weights)
    vector = torch.empty(size_of(shapes), dtype=dtype, pin_memory=device.type == "cuda")
    for name, (a, b) in pairs_of(vector, shapes).items():
        given_a, given_b = adapter.weights[name]
        a.copy_(given_a)
        b.copy_(given_b * adapter.scaling[name])
    vector = vector.to(device, non_blocking=True)
    return pairs_of(vector, shapes), vector.isfinite().all()


def masked(model: PreTrainedModel, adapters: Sequence[Adapter], rows: int) -> MaskedAdapters | None:
    """Put adapters on a base for batches of at most `rows` rows; None if they cannot be masked.

    All weights must be finite in the model's precision, as the product of any other number with zero is NaN, which
    would spread to all rows. And if the adapters had more inner products than the model has hidden units, they would
    take longer than the base.
    """
    width = sum(max(len(a) for a, _ in adapter.weights.values()) for adapter in adapters)
    if not adapters or width > model.config.get_text_config().hidden_size:
        return None
    found = MaskedAdapters(model, adapters, rows)
    if found.finite:
        return found
    found.remove()
    return None
