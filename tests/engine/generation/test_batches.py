"""Batches are halved when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.engine.generation.batches import in_batches


def test_batches_are_halved_until_they_fit() -> None:
    """A batch that runs out of memory is halved until it fits, and results keep the order of the items.

    If a single item does not fit, the error is raised.
    """
    import torch

    sizes: list[int] = []

    def work(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return [10 * item for item in batch]

    found = [pair for batch in in_batches(range(7), 8, work) for pair in batch]
    assert found == [(n, 10 * n) for n in range(7)]
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    with pytest.raises(torch.OutOfMemoryError):
        list(in_batches([1], 1, lambda batch: _no_room()))


def _no_room() -> list[int]:
    import torch

    raise torch.OutOfMemoryError
