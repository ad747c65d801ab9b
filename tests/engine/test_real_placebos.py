"""Tests of the random adapters of the study `tests/studies/real_placebos.py`."""

from __future__ import annotations

import numpy as np
import pytest

from harness.engine.loading import Base
from tests.studies.real_placebos import answers, changed, compared, guarded_cases, modules_of, placebo, summary


def test_a_placebo_has_the_wanted_strength(base: Base) -> None:
    """The update of each module has the norm of the module's weight times the strength; the head has no update."""
    modules = modules_of(base)
    made = placebo(modules, 3, 0.05)
    assert not [name for name in modules if "lm_head" in name]
    for name, (a, b) in made.weights.items():
        update = made.scaling[name] * (b @ a)
        assert float(update.norm()) == pytest.approx(0.05 * modules[name].norm, rel=1e-3)


def test_a_placebo_without_strength_changes_no_answer(base: Base) -> None:
    """With strength 0, an adapter answers as the base model does; with a large one, it does not."""
    asked, modules = guarded_cases(["workshop"]).first(6), modules_of(base)
    before, same, other = answers(base, asked, [None, placebo(modules, 1, 0.0), placebo(modules, 1, 1.0)])
    assert changed(before, same) == 0
    assert changed(before, other) > 0.5


def test_each_prompt_of_the_guarded_cases_is_asked_once() -> None:
    """The guarded cases of two suites that share a file have distinct prompts, and groups."""
    found = guarded_cases(["retention", "json-format"])
    prompts = [prompt.messages for prompt in found.prompts]
    assert len(set(prompts)) == len(prompts) == len(found.groups)


def test_the_summary_counts_intervals_that_contain_0() -> None:
    """Of two variants, one equal to the base model and one that fails everything, one interval contains 0."""
    base = np.array([[1.0, 0.0] * 40])
    rows = [compared(base, base, [""] * 80), compared(base, np.zeros((1, 80)), [""] * 80)]
    found = summary(rows)
    assert found["interval_contains_0"] == 0.5
    assert found["mean_old_loss"] == 50.0
