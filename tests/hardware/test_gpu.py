"""Tests of reading the memory of this process from the GPU's driver."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.hardware.gpu import bytes_of, visible


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([(7, 3000), (8, 5000)], 5000),  # beside another process
        ([(7, 3000), (31337, 5000)], None),  # in a container, the driver lists other ids
        ([(8, None)], None),  # the driver lists the process without its memory, as on Windows
        ([], None),
    ],
)
def test_only_memory_of_this_process_counts(listed: list[tuple[int, int | None]], expected: int | None) -> None:
    """The memory that NVML lists for another process, or for none that can be told apart, is not this process's."""
    assert bytes_of([SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed], pid=8) == expected


@pytest.mark.parametrize("word", ["9" * 5000, "\u00b2", "-1", "x"])
def test_a_word_that_names_no_gpu_hides_the_words_after_it(word: str) -> None:
    """In CUDA_VISIBLE_DEVICES, a number that no GPU can have ends the list, like any other word that names none."""
    assert visible(f"1,{word},2", 3) == [1]
