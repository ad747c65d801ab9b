"""Dropout of adapters in a pass has the distribution of SFTTrainer's, and does not depend on other trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.settings import Quantization, Scheduler
from tests.support.exact_trainings import Tiny, exact, exactly_alone
from tests.support.fused_passes import figures, together
from tests.support.short_trainings import SHORT


def test_dropout_is_that_of_sfttrainer_in_distribution(tiny: Tiny, tmp_path: Path) -> None:
    """Under 45 dropout masks, losses have SFTTrainer's mean and variance, by the tests of Welch and Levene."""
    from scipy import stats

    settings = replace(
        SHORT, quantization=Quantization.NONE, dropout=0.5, batch_size=11, epochs=60, learning_rate=0.05,
        scheduler=Scheduler.CONSTANT, target_modules="all-linear",
    )  # fmt: skip
    ((own,), (_, alone)) = (
        tuple(together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()),
        exactly_alone(tiny, settings, 0, tmp_path),
    )
    mine, theirs = ([step.loss for step in steps[-45:]] for steps in (own.steps, alone))
    assert own.steps[0].loss == pytest.approx(alone[0].loss, rel=1e-9)
    assert own.steps[5].loss != pytest.approx(alone[5].loss, rel=1e-9)
    assert stats.ttest_ind(mine, theirs, equal_var=False).pvalue > 0.001
    assert stats.levene(mine, theirs).pvalue > 0.001


def test_dropout_masks_do_not_depend_on_other_trials(tiny: Tiny) -> None:
    """A trial's dropout masks do not depend on the other trials of the pass."""
    settings = replace(SHORT, quantization=Quantization.NONE, dropout=0.3, batch_size=3)
    (alone,) = together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()
    beside = together(tiny.base, settings, replace(settings, batch_size=9), rows=tiny.rows, log_probabilities=exact)
    assert figures(beside["0"].steps) == pytest.approx(figures(alone.steps), rel=1e-12, abs=0)
