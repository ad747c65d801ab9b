"""Tests of the numbers of batches, padded tokens and optimizer steps, which are computed as transformers does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.settings import Settings
from harness.hardware.estimate import batches, updates
from harness.hardware.estimate.batches import expected_longest
from tests.support.model_shapes import QLORA


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.data())
def test_expected_longest_row_is_the_mean_over_all_batches(lengths: list[int], data: st.DataObject) -> None:
    """The expected length of a batch's longest row equals the mean over all possible batches."""
    size = data.draw(st.integers(1, len(lengths)))
    every = [max(batch) for batch in itertools.combinations(lengths, size)]
    assert expected_longest(sorted(lengths), size) == pytest.approx(sum(every) / len(every))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=7), st.data())
def test_expected_labels_are_the_mean_over_all_batches(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    """The expected number of labels equals the mean over all possible batches that hold the longest row."""
    rows = [(length, min(length, labels)) for length, labels in rows]
    size = data.draw(st.integers(1, len(rows)))
    *others, (_, last) = sorted(rows)
    every = [last + sum(labels for _, labels in batch) for batch in itertools.combinations(others, size - 1)]
    found = batches(replace(QLORA, batch_size=size), *zip(*rows, strict=True))
    assert found.supervised == pytest.approx(sum(every) / len(every))


def test_labels_are_truncated_with_their_row() -> None:
    """A row has at most as many labels as tokens up to `max_length`; packed rows have the average share of labels."""
    settings = replace(QLORA, max_length=100, batch_size=2)
    assert batches(settings, [300, 40], [250, 10]).supervised == 100 + 10
    assert batches(settings, [300, 40]).supervised == 100 + 40
    assert batches(replace(settings, packing=True), [50] * 8, [10] * 8).supervised == 2 * 20


def test_rows_are_truncated_and_padded() -> None:
    """Rows longer than `max_length` are truncated, and a batch never has more rows than the training set."""
    made = batches(replace(QLORA, max_length=100, batch_size=8, epochs=2), [40, 300, 60])
    assert (made.rows, made.longest, made.tokens, made.forwards, made.updates) == (3, 100, 600, 2, 2)


def test_packed_rows_are_full() -> None:
    """With `packing`, rows are joined up to `max_length`, so that there are fewer rows and no padding."""
    made = batches(replace(QLORA, max_length=100, packing=True, batch_size=2, epochs=1), [30] * 10)
    assert (made.longest, made.tokens, made.updates) == (100, 300, 2)


def test_epochs_are_whole_steps() -> None:
    """The last step of an epoch may have fewer batches, and part of an epoch is rounded up to whole steps."""
    made = batches(replace(QLORA, batch_size=8, gradient_accumulation=2, epochs=8 / 3, max_length=256), [900] * 24)
    assert (made.updates, made.forwards, made.tokens) == (6, 9, 9 * 8 * 256)
    part = batches(replace(QLORA, batch_size=4, epochs=1 / 3, max_length=256), [900] * 24)
    assert (part.updates, part.forwards, part.tokens) == (2, 2, 2 * 4 * 256)


def test_optimizer_steps_of_the_workshop() -> None:
    """With 30 rows and 10 rows per optimizer step (2 x 5), 10 epochs are 30 optimizer steps."""
    assert updates(Settings(batch_size=2, gradient_accumulation=5, epochs=10), 30) == 30
