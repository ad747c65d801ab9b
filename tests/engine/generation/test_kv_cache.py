"""A row that joins a continuous batch reads no keys and values of the row before it."""

from __future__ import annotations

import math

from harness.engine.generation.kv_cache import Slots


def test_a_joining_row_overwrites_the_one_before() -> None:
    """A joining row overwrites all keys and values of the previous row, also infinite ones, and no other row's."""
    import torch

    seating = Slots(rows=3, columns=5, device=torch.device("cpu"))
    buffer = torch.full((3, 1, 5, 2), math.inf)
    seating.join(torch.tensor([1]))
    seating.put(buffer, torch.ones(4, 1, 2, 2))
    assert buffer[1].tolist() == [[[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 3]
    assert buffer[[0, 2]].isinf().all()
