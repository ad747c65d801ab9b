"""Passes of a shape that has been seen before are captured once and replayed with new values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.core.settings import Quantization
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.batch import Batch, batch_of
from harness.engine.trainers.fused.graphs import PassGraphs, padded_targets, padded_tokens
from harness.engine.trainers.fused.training import WORTHWHILE
from tests.support.cuda_graphs import Recorder
from tests.support.exact_trainings import Tiny, exact
from tests.support.fused_passes import distance, figures, named, together
from tests.support.short_trainings import SHORT


def batch(*ids: int, weight: float = 1.0) -> Batch:
    return batch_of([Row(list(ids), list(ids))], [weight], torch.empty(0), pad=0)


def test_a_shape_is_captured_when_it_is_seen_again() -> None:
    """The first batch of a shape runs directly, and later ones are replayed with their own tokens and weights."""
    capture = Recorder()
    graphs = PassGraphs(lambda given: given.targets * given.weights, capture)
    found = [
        graphs.run(each).tolist() for each in (batch(1, 2, 3), batch(4, 5), batch(1, 6, 7, weight=2.0), batch(9, 8, 8))
    ]
    assert found == [[2, 3], [5], [12, 14], [8, 8]]
    assert (capture.captured, capture.replayed) == (1, 2)


def test_a_dropped_graph_is_captured_again() -> None:
    """After its graphs were dropped, a shape is captured anew."""
    capture = Recorder()
    graphs = PassGraphs(lambda given: given.targets * given.weights, capture)
    for _ in range(2):
        graphs.run(batch(1, 2))
    assert graphs.drop()
    assert not graphs.drop()
    assert graphs.run(batch(1, 3)).tolist() == [3]
    assert (capture.captured, capture.replayed) == (2, 2)


def test_without_graphs_if_capturing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """If a pass cannot be captured, all passes run directly, and capturing is not tried again."""
    capture = Recorder(broken=True)
    graphs = PassGraphs(lambda given: given.targets * given.weights, capture)
    assert [graphs.run(batch(1, 2)).tolist() for _ in range(4)] == [[2]] * 4
    assert capture.captured == 1
    assert "operation not permitted" in capsys.readouterr().err


@pytest.mark.parametrize(("targets", "tokens", "expected"), [(1, 16, 4), (4, 16, 4), (5, 16, 8), (16, 16, 16)])
def test_shapes_are_padded_to_a_few(targets: int, tokens: int, expected: int) -> None:
    """Targets are padded to a quarter of a pass's tokens, and rows to multiples of sixteen tokens."""
    assert padded_targets(targets, tokens) == expected
    assert [padded_tokens(length) for length in (1, 16, 17)] == [16, 16, 32]


def test_a_training_with_graphs_equals_one_without(tiny: Tiny) -> None:
    """Trainings whose passes are padded and replayed equal those without, also when one diverges or leaves early.

    So do trainings of trials with different modules, ranks and batch sizes. Trials with dropout run without graphs.
    """
    one = replace(SHORT, quantization=Quantization.NONE, batch_size=1)
    for sweep, used in (
        ([replace(one, learning_rate=1e-3), one, replace(one, epochs=1), replace(one, learning_rate=1e30)], True),
        ([one, replace(one, target_modules="all-linear", rank=2)], True),
        ([one, replace(one, batch_size=2, epochs=4)], True),
        ([one, replace(one, dropout=0.1)], False),
    ):
        capture = Recorder()
        expected = together(tiny.base, *sweep, rows=tiny.rows, log_probabilities=exact)
        found = together(tiny.base, *sweep, rows=tiny.rows, log_probabilities=exact, capture=capture)
        assert bool(capture.replayed) == used
        for name, own in expected.items():
            assert found[name].status == own.status
            assert len(found[name].steps) == len(own.steps)
            if not own.message:
                assert figures(found[name].steps) == pytest.approx(figures(own.steps), rel=1e-9)
                assert distance(named(found[name]), named(own)) < 1e-9


def test_graphs_are_used_until_the_last_step(tiny: Tiny) -> None:
    """No graph is captured for the last few steps, but those that exist are replayed in them, too."""
    steps, capture = WORTHWHILE + 4, Recorder()
    one = replace(SHORT, quantization=Quantization.NONE, batch_size=1, epochs=steps)
    together(tiny.base, one, one, rows=tiny.rows[:1], log_probabilities=exact, capture=capture)
    assert (capture.captured, capture.replayed) == (1, steps - 2)
