"""Tests, by simulation, of how often the gate's statistical tests raise a false alarm and which losses they find."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis import statistics
from harness.analysis.regression import statistical_tests
from tests.analysis.test_statistics import trainings


@pytest.mark.parametrize("spread", [0.0, 0.7])
@pytest.mark.parametrize(("seeds", "cases"), [(5, 25), (3, 60)])
def test_decline_alarms_seldom(spread: float, seeds: int, cases: int) -> None:
    """If two runs differ only in their seeds, `decline` gives a p-value of at most 0.05 for at most 5% of pairs."""
    rng = np.random.default_rng([seeds, int(10 * spread)])
    shares = rng.beta(6, 1, size=cases).clip(0.02, 0.98)
    pairs = 400
    alarms = sum(
        statistical_tests.decline(*(trainings(rng, seeds, shares, spread) for _ in range(2)), rng) <= 0.05
        for _ in range(pairs)
    )
    assert alarms / pairs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / pairs)


@pytest.mark.parametrize("test", statistical_tests.DECLINE_TESTS)
def test_each_test_of_the_gate_alarms_seldom(test: Callable[..., float]) -> None:
    """If two runs differ only in their seeds, each test of the gate gives p <= 0.05 for at most 5% of pairs."""
    rng, shares = np.random.default_rng(11), np.random.default_rng(5).uniform(0.2, 0.95, 60)
    alarms = sum(test(*(trainings(rng, 5, shares, 0.3) for _ in range(2)), rng, None) <= 0.05 for _ in range(200))
    assert alarms / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_decline_sees_few_whole_cases_and_many_small_ones() -> None:
    """`decline` detects a loss of 3 of 25 cases under every seed, and of 20 cases under one of five seeds each."""
    rng = np.random.default_rng(1)
    before = np.ones((5, 25))
    whole, diffuse = before.copy(), before.copy()
    whole[:, :3] = 0
    diffuse[np.arange(20) % 5, np.arange(20)] = 0
    assert statistical_tests.decline(before, whole, rng) < 0.001
    assert statistical_tests.decline(before, diffuse, rng) < 0.001
    assert statistical_tests.decline(whole, before, rng) == 1.0


def test_decline_does_not_trust_one_bad_seed() -> None:
    """If one of five trainings fails every case, `decline` does not report a loss, although the sign-flip test does."""
    rng = np.random.default_rng(2)
    before = np.ones((5, 25))
    after = before.copy()
    after[0] = 0
    assert statistics.sign_flip(before, after, rng) < 0.001
    assert statistical_tests.decline(before, after, rng) > 0.1


def test_what_decline_can_detect_it_does() -> None:
    """If the true loss is as large as `detectable_loss` says, `decline` finds it in about 80% of simulated pairs."""
    rng = np.random.default_rng(5)
    shares = np.full(25, 0.9)
    sizes = [statistical_tests.detectable_loss(*(trainings(rng, 5, shares, 0.3) for _ in range(2))) for _ in range(100)]
    drop = float(np.median(sizes))
    found = 0
    for _ in range(200):
        before, after = trainings(rng, 5, shares, 0.3), trainings(rng, 5, shares - drop, 0.3)
        found += statistical_tests.decline(before, after, rng) <= 0.05
    assert 0.7 <= found / 200 <= 0.98


def test_one_seed_per_side_makes_only_a_large_loss_detectable() -> None:
    """If both sides have one seed and 20 cases, only a loss of more than 20 points is detectable."""
    one = np.array([[1.0] * 18 + [0.0] * 2])
    assert statistical_tests.detectable_loss(one, one) > 0.2
