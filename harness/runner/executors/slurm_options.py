"""The options of `harness run` that begin with `--slurm-`: options of Slurm's program `sbatch`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.errors import UsageError

MOST_JOBS = 100
"""Largest number of jobs that a run has in Slurm's queue at the same time, unless the user says otherwise."""
_OWN = {
    *("array", "chdir", "error", "job-name", "no-requeue", "nodes", "ntasks", "ntasks-per-node"),
    *("open-mode", "output", "parsable", "requeue", "signal", "wait", "wrap"),
}
"""Options that the harness or submitit sets."""
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


@dataclass(frozen=True)
class SlurmOptions:
    """Options for the jobs of a run."""

    minutes: int
    """Time limit of a job."""
    most_jobs: int = MOST_JOBS
    cores: int = 1
    """Number of CPU cores of a job."""
    sbatch: Mapping[str, str | bool] = field(default_factory=dict)
    """Options of `sbatch` by name, without the first dashes. An option without a value is True."""

    @property
    def requests_gpu(self) -> bool:
        """Whether an option requests a GPU."""
        return "gpu" in str(self.sbatch.get("gres", "")) or any(name.startswith("gpus") for name in self.sbatch)


def slurm_options(words: Sequence[str]) -> SlurmOptions:
    """Parse options such as `partition=gpu` or `exclusive`.

    Raises:
        UsageError: an option has a wrong value, belongs to the harness, or the time limit is missing.
    """
    given: dict[str, str | bool] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not value.isprintable() or (equals and not value):
            remedy = "Write --slurm-OPTION=VALUE, where OPTION is a long option of sbatch: --slurm-partition=gpu"
            raise UsageError(f"--slurm-{word!r} is not an option of sbatch", remedy=remedy)
        if name in _OWN:
            raise UsageError(
                f"--slurm-{name}: the harness sets this option itself", remedy=f"Leave out --slurm-{name}."
            )
        given[name] = value if equals else True
    if "time" not in given:
        remedy = "Pass --slurm-time=4:00:00, or another limit that is longer than the longest pass takes."
        raise UsageError("--executor slurm: the time limit of a job is missing", remedy=remedy)
    most = _number("array-parallelism", given.pop("array-parallelism", str(MOST_JOBS)))
    name = "cpus-per-gpu" if "cpus-per-gpu" in given else "cpus-per-task"  # a job uses one GPU
    cores = _number(name, given.get(name, "1"))
    return SlurmOptions(_minutes(given["time"]), most, cores, given)


def _number(name: str, value: str | bool) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or int(value) < 1:
        raise UsageError(f"--slurm-{name}={value} is no number of at least 1", remedy=f"Write --slurm-{name}=N.")
    return int(value)


def _minutes(value: str | bool) -> int:
    """Return the minutes of a time as Slurm writes it: `90`, `90:00`, `1:30:00`, `1-12` or `1-12:30:00`."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    parts = [int(found[name] or 0) for name in ("first", "second", "third")] if found else []
    if found and found["days"]:
        total = int(found["days"]) * 1440 + parts[0] * 60 + parts[1] + parts[2] / 60
    elif found and found["third"]:
        total = parts[0] * 60 + parts[1] + parts[2] / 60
    else:
        total = parts[0] + parts[1] / 60 if found else 0
    if total < 1:
        raise UsageError(
            f"--slurm-time={value} is no time of at least a minute", remedy="Write it as 90, 1:30:00 or 1-12:00:00."
        )
    return int(total)
