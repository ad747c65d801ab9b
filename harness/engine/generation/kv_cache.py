"""The attention keys and values of a continuous batch: a row for each answer, a column for each of its tokens.

Every row counts its own columns, so a row can be replaced without copying the others.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class Slots:
    """The rows and columns to which the next tokens are written: set before each forward pass, read by every layer."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns, self.device = rows, columns, device
        self._every = torch.arange(rows, device=device)
        self._joining: torch.Tensor | None = None
        self._next = self._every
        self._reach = 0

    def join(self, rows: torch.Tensor) -> None:
        """Prepare for a forward pass with the prompts of new rows, which start at column 0.

        `rows`, (new rows,), are their places in the batch. Rows of the forward pass after these are not stored.
        """
        self._joining = rows

    def step(self, columns: torch.Tensor, reach: int) -> None:
        """Prepare for a forward pass with one token per row, at `columns`, (rows,).

        Columns from `reach` on are unused in every row.
        """
        self._joining, self._next, self._reach = None, columns, reach

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only the rows with these indices, (kept rows,), in this order."""
        self.rows, self._every = len(rows), torch.arange(len(rows), device=self.device)

    @property
    def past(self) -> int:
        """Number of columns that are in use before the next tokens are written."""
        return 0 if self._joining is not None else self._reach - 1

    def put(self, buffer: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Write keys or values to `buffer`, and return all keys or values that the new tokens attend to.

        `given` is (rows, heads, tokens, features); `buffer` and the result are (rows, heads, columns, features).
        """
        if self._joining is not None:
            # The row that was here before may have left infinite values, which a mask would turn into NaN.
            buffer.index_fill_(0, self._joining, 0)
            buffer[self._joining, :, : given.shape[2]] = given[: len(self._joining)]
            return given
        buffer[self._every, :, self._next] = given[:, :, 0]
        return buffer[:, :, : self._reach]


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of one layer, both (rows, heads, columns, features)."""

    is_initialized: bool

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = self._empty_buffer(key_states), self._empty_buffer(value_states)
        return self._slots.put(self.keys, key_states), self._slots.put(self.values, value_states)

    def _empty_buffer(self, given: torch.Tensor) -> torch.Tensor:
        return given.new_zeros(self._slots.rows, given.shape[1], self._slots.columns, given.shape[3])

    def get_seq_length(self) -> int:
        return self._slots.past


def slot_cache(layers: int, slots: Slots) -> Cache:
    """Return an empty cache of `layers` layers."""
    return Cache(layers=[SlotLayer(slots) for _ in range(layers)])


def keep(cache: Cache, rows: torch.Tensor) -> None:
    """Keep only the rows with these indices, (kept rows,), in every layer and in this order."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
