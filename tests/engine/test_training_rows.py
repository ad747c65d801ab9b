"""The training rows of a job: the suite's rows, and those that each trial adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.core.engines import Engine
from harness.core.job import Job, Task
from harness.core.settings import Quantization, Settings
from harness.core.suite import Decoding, Example, Message
from harness.engine.tokenization import Row
from harness.engine.training_rows import TrainingRows
from harness.models.resolving import resolve
from tests.support.short_trainings import one_core


def example(length: int, line: int = 0) -> Example:
    return Example((Message("user", "x" * length),), line)


def task(trial: str, max_length: int, *rehearsal: int, train: bool = True) -> Task:
    return Task(trial, trial, Settings(max_length=max_length), 0, train, (), rehearsal=rehearsal)


class Tokenizer:
    """A tokenizer for which every character is a token; it records the lengths of all rows that it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, list[int]]] = []

    def __call__(self, examples: Sequence[Example], max_length: int) -> list[Row]:
        sizes = [len(each.messages[0].content) for each in examples]
        self.given.append((max_length, sizes))
        return [Row([size] * min(size, max_length), [size] * min(size, max_length)) for size in sizes]


def rows(*tasks: Task) -> tuple[TrainingRows, Tokenizer]:
    tokenizer = Tokenizer()
    job = Job(
        resolve("pocket"), one_core(), Quantization.NF4, Engine.REFERENCE, "", (example(3, 1), example(9, 2)),
        Decoding(), tasks, rehearsal=tuple(example(size) for size in (20, 21, 22, 40)),
    )  # fmt: skip
    return TrainingRows(job, tokenizer), tokenizer


def lengths(found: Sequence[Row]) -> list[int]:
    return [len(row.input_ids) for row in found]


def test_a_trial_adds_its_own_rehearsal_rows() -> None:
    """A trial trains on the suite's rows and then on the rehearsal rows that it names, in that order."""
    one, two, none = task("one", 64, 2, 0), task("two", 64, 1), task("none", 64)
    found, _ = rows(one, two, none)
    assert [lengths(found.of(each)) for each in (one, two, none)] == [[3, 9, 22, 20], [3, 9, 21], [3, 9]]


def test_each_row_is_tokenized_once_and_only_where_it_is_used() -> None:
    """Rows are tokenized once for each `max_length`, and rehearsal rows only for the trials that name them."""
    tasks = (task("a", 32, 0, 1), task("b", 32, 1), task("c", 64, 3), task("d", 16, train=False))
    _, tokenizer = rows(*tasks)
    assert tokenizer.given == [(32, [3, 9]), (32, [20, 21]), (64, [3, 9]), (64, [40])]


def test_trials_that_differ_only_in_their_seed_have_the_same_longest_row() -> None:
    """The longest row of a kind of trial is that of any of its seeds, and of the suite's rows without rehearsal."""
    one, two, none = task("one", 64, 0), task("two", 64, 2), task("none", 64)
    found, _ = rows(one, two, none)
    assert [found.longest(each) for each in (one, two, none)] == [22, 22, 9]


def test_the_base_has_no_training_rows() -> None:
    """A task without settings has no training rows."""
    found, _ = rows(task("one", 64))
    with pytest.raises(ValueError, match="not trained"):
        found.of(replace(task("base", 64), settings=None))
