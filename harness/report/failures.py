"""The section of the report about trials that did not finish."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.run_results import Results
from harness.core.training_outcome import Status
from harness.report import formatting


@dataclass(frozen=True)
class Failure:
    """A trial that did not finish."""

    variant: str
    seed: int
    status: str
    message: str
    log: str


def failures(results: Results) -> tuple[Failure, ...]:
    """Return the trials that did not finish, including those of the confirmation."""
    rows = (*results.every_base, *results.variants, results.confirmed_base, results.confirmed)
    return tuple(
        Failure(row.name, seed, formatting.status(status) + (" (predicted)" if predicted else ""), message, log)
        for row in rows
        if row
        for seed, status, predicted, message, log in zip(
            row.seeds, row.statuses, row.predicted, row.messages, row.logs, strict=True
        )
        if status is not Status.SUCCEEDED
    )
