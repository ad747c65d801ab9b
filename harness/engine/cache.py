"""Keys and values of rows in flight. Each row has its own place to grow in: rows come and go, and nothing is moved."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class Seating:
    """Which rows the next tokens belong to, and where those go: said before each forward, read by every layer."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns, self.device = rows, columns, device
        self._every = torch.arange(rows, device=device)
        self._joining: torch.Tensor | None = None
        self._next = self._every
        self._reach = 0

    def join(self, rows: torch.Tensor) -> None:
        """Some rows begin: what is forwarded next are their tokens from the first column on, and of further rows,
        which have no place here."""
        self._joining = rows

    def step(self, columns: torch.Tensor, reach: int) -> None:
        """Every row takes one token, in a column of its own; nobody has used a column from `reach` on."""
        self._joining, self._next, self._reach = None, columns, reach

    def keep(self, rows: torch.Tensor) -> None:
        """Only these stay, in this order."""
        self.rows, self._every = len(rows), torch.arange(len(rows), device=self.device)

    @property
    def past(self) -> int:
        """Columns before the tokens that are forwarded next."""
        return 0 if self._joining is not None else self._reach - 1

    def put(self, buffer: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Takes keys or values, (rows, heads, tokens, features); returns those that the tokens may look at."""
        if self._joining is not None:
            # What another row has left may be infinite, which a mask's zero would not hide.
            buffer.index_fill_(0, self._joining, 0)
            buffer[self._joining, :, : given.shape[2]] = given[: len(self._joining)]
            return given
        buffer[self._every, :, self._next] = given[:, :, 0]
        return buffer[:, :, : self._reach]


class SeatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, columns, features)."""

    is_initialized: bool

    def __init__(self, seating: Seating) -> None:
        super().__init__()
        self._seating = seating

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = self._room_for(key_states), self._room_for(value_states)
        return self._seating.put(self.keys, key_states), self._seating.put(self.values, value_states)

    def _room_for(self, given: torch.Tensor) -> torch.Tensor:
        return given.new_zeros(self._seating.rows, given.shape[1], self._seating.columns, given.shape[3])

    def get_seq_length(self) -> int:
        return self._seating.past


def seated_cache(layers: int, seating: Seating) -> Cache:
    return Cache(layers=[SeatedLayer(seating) for _ in range(layers)])


def keep(cache: Cache, rows: torch.Tensor) -> None:
    """Only these rows stay, in this order."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
