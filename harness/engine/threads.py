"""Calls a function for many items in threads, for work that releases Python's lock: files, hashes, random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.hardware.environment import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the results in the order of the items, with one thread for each core that this process may use.

    If calls raise, the error of the first of these items is raised when all calls have ended.
    """
    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(function, items))
