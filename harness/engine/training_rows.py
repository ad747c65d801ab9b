"""The tokens of the training rows of a job: the suite's rows, and the rehearsal rows that each trial adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.core.job import Job, Task
from harness.core.suite import Example
from harness.engine.tokenization import Row

Tokenize = Callable[[Sequence[Example], int], list[Row]]
"""Returns one row per example, cut at a `max_length`."""


class TrainingRows:
    """The training rows of the tasks of a job, each row tokenized once for every `max_length` that needs it."""

    def __init__(self, job: Job, tokenize: Tokenize) -> None:
        trained = [(task, task.settings.max_length) for task in job.tasks if task.settings and task.train]
        self._own: dict[int, list[Row]] = {}
        self._added: dict[int, dict[int, Row]] = {}
        for length in sorted({length for _, length in trained}):
            self._own[length] = tokenize(job.examples, length)
            places = sorted({place for task, own in trained if own == length for place in task.rehearsal})
            rows = tokenize([job.rehearsal[place] for place in places], length)
            self._added[length] = dict(zip(places, rows, strict=True))

    def of(self, task: Task) -> list[Row]:
        """Return the rows of a task: those of the suite, then the trial's rehearsal rows."""
        length = _max_length(task)
        return [*self._own[length], *(self._added[length][place] for place in task.rehearsal)]

    def longest(self, task: Task) -> int:
        """Return the tokens of the longest row of any task with the same `max_length` and as many rehearsal rows.

        Trials that differ only in the rows that their seeds drew need the same memory by this measure.
        """
        length = _max_length(task)
        added = self._added[length].values() if task.rehearsal else ()
        return max((len(row.input_ids) for row in (*self._own[length], *added)), default=length)

    def __iter__(self) -> Iterator[Row]:
        for length, rows in self._own.items():
            yield from rows
            yield from self._added[length].values()


def _max_length(task: Task) -> int:
    if task.settings is None:
        raise ValueError("the base is not trained")
    return task.settings.max_length
