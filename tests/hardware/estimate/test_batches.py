"""Tests of the numbers of batches, padded tokens and optimizer steps, which are computed as transformers does."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.settings import Settings
from harness.hardware.estimate import batches, updates
from harness.hardware.estimate.batches import expected_longest, expected_most
from tests.support.model_shapes import QLORA


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.data())
def test_expected_longest_row_is_the_mean_over_all_batches(lengths: list[int], data: st.DataObject) -> None:
    """The expected length of a batch's longest row equals the mean over all possible batches."""
    size = data.draw(st.integers(1, len(lengths)))
    every = [max(batch) for batch in itertools.combinations(lengths, size)]
    assert expected_longest(sorted(lengths), size) == pytest.approx(sum(every) / len(every))


@pytest.mark.parametrize(("size", "count"), [(2, 20), (4, 8), (8, 5), (8, 1)])
def test_expected_most_is_the_mean_of_drawn_epochs(size: int, count: int) -> None:
    """The expected largest sum of a batch is within 12% of the mean of drawn epochs, also if rows differ much."""
    rng = random.Random(1)
    counts = [round(4 * 40 ** rng.random()) for _ in range(size * count)]
    drawn = [rng.sample(counts, len(counts)) for _ in range(2000)]
    most = [max(sum(rows[at : at + size]) for at in range(0, len(rows), size)) for rows in drawn]
    assert expected_most(counts, size, count) == pytest.approx(sum(most) / len(most), rel=0.12)


def test_labels_are_cut_with_their_rows() -> None:
    """Without numbers of labels, every token has one. `max_length` cuts the labels at the end of a row."""
    settings = replace(QLORA, max_length=100, batch_size=2, epochs=1)
    assert batches(settings, [90, 90]).labelled == 180
    assert batches(settings, [90, 90], [10, 20]).labelled == 30
    assert batches(settings, [110, 300], [30, 50]).labelled == 20


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
