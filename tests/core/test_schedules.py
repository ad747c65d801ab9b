"""Tests that the table of schedules and their options is that of transformers."""

from __future__ import annotations

import inspect

from harness.core.schedules import OPTIONS, REFUSED, TAKES
from harness.core.settings import Scheduler

GIVEN = {"optimizer", "num_warmup_steps", "num_training_steps", "num_stable_steps", "last_epoch"}
"""Arguments of schedules that the trainer gives, or that follow from those."""


def test_every_schedule_of_transformers_is_known() -> None:
    """Each schedule of transformers can be trained, with all its options, or is refused with a reason."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
    from transformers.trainer_utils import SchedulerType

    assert {kind.value for kind in SchedulerType} == {*map(str, Scheduler), *REFUSED}
    for kind in Scheduler:
        signature = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind.value)])
        assert set(signature.parameters) - GIVEN == set(TAKES.get(kind, ()))
    assert {name for taken in TAKES.values() for name in taken} == set(OPTIONS)
