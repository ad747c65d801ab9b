"""The executors, which run the workers of a run."""

from __future__ import annotations

from enum import StrEnum


class ExecutorName(StrEnum):
    """The values of `--executor`."""

    LOCAL = "local"
    """Worker processes on this machine."""
    RAY = "ray"
    """Tasks on a Ray cluster."""
    SLURM = "slurm"
    """Jobs on a Slurm cluster."""
