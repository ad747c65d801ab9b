"""A row that joins a continuous batch never reads keys and values of the row that had its place before."""

from __future__ import annotations

import math

from harness.engine.generation.kv_cache import Slots


def test_a_joining_row_overwrites_the_one_before() -> None:
    """A joining row overwrites every key and value of the row whose place it takes, and none of any other row."""
    import torch

    seating = Slots(rows=3, columns=5, device=torch.device("cpu"))
    buffer = torch.full((3, 1, 5, 2), math.inf)
    seating.join(torch.tensor([1]))
    seating.put(buffer, torch.ones(4, 1, 2, 2))
    assert buffer[1].tolist() == [[[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 3]
    assert buffer[[0, 2]].isinf().all()
