"""Works through items in batches; a batch that does not fit in the GPU's memory is halved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Sequence[Result]]
) -> Iterator[list[tuple[Item, Result]]]:
    """Yield each batch as (item, result) pairs, in the order of the items.

    Raises:
        torch.OutOfMemoryError: a single item does not fit in memory.
    """
    import torch

    done = 0
    while done < len(items):
        batch = items[done : done + size]
        try:
            made = work(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            size = len(batch) // 2
            continue
        yield list(zip(batch, made, strict=True))
        done += len(batch)
