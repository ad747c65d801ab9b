"""Keys and values of rows in flight, with room to grow: rows come and go, and a token more copies nothing."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Tokens by which the room grows when it is used up."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, tokens, features), at the front of a larger buffer."""

    is_initialized: bool

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = self._buffers = (key_states[:, :, :0], value_states[:, :, :0])
        used, more = self.get_seq_length(), key_states.shape[2]
        if used + more > self._buffers[0].shape[2]:
            keys, values = (_larger(one, used, used + more + _ROOM) for one in self._buffers)
            self._buffers = (keys, values)
        for buffer, given in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, used : used + more] = given
        self.keys, self.values = (buffer[:, :, : used + more] for buffer in self._buffers)
        return self.keys, self.values

    def put(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        """Hold these instead of what was held; behind `used` tokens there is room."""
        self._buffers = (keys, values)
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]


def _larger(buffer: torch.Tensor, used: int, size: int) -> torch.Tensor:
    grown = buffer.new_empty(*buffer.shape[:2], size, buffer.shape[3])
    grown[:, :, :used] = buffer[:, :, :used]
    return grown


def roomy_cache(layers: int) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [RoomyLayer() for _ in range(layers)]
    return cache


def select(cache: DynamicCache, rows: torch.Tensor, start: int) -> None:
    """Keep some rows, from a token on."""
    for layer in cache.layers:
        kept = layer.keys[rows, :, start:], layer.values[rows, :, start:]
        layer.put(*kept, used=kept[0].shape[2])


def replace_rows(cache: DynamicCache, rows: torch.Tensor, others: DynamicCache) -> None:
    """Put other rows in the place of some, at the end of what is used; a mask must hide what is left before them."""
    for one, other in zip(cache.layers, others.layers, strict=True):
        start = one.keys.shape[2] - other.keys.shape[2]
        one.keys[rows, :, start:] = other.keys[: len(rows)]
        one.values[rows, :, start:] = other.values[: len(rows)]


def join(cache: DynamicCache, others: DynamicCache) -> None:
    """Put other rows behind; the shorter of both are filled up on the left, where a mask must hide it."""
    for one, other in zip(cache.layers, others.layers, strict=True):
        width = max(one.keys.shape[2], other.keys.shape[2])
        one.put(_joined(one.keys, other.keys, width), _joined(one.values, other.values, width), used=width)


def _joined(one: torch.Tensor, other: torch.Tensor, width: int) -> torch.Tensor:
    rows = one.shape[0] + other.shape[0]
    made = one.new_zeros(rows, one.shape[1], width + _ROOM, one.shape[3])
    made[: one.shape[0], :, width - one.shape[2] : width] = one
    made[one.shape[0] :, :, width - other.shape[2] : width] = other
    return made
