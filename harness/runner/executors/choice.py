"""Makes the executor that the options of `harness run` name."""

from __future__ import annotations

from collections.abc import Callable

from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.executors import ExecutorName
from harness.runner.executors.processes import Processes
from harness.runner.executors.protocol import Executor
from harness.runner.executors.ray_cluster import RayCluster
from harness.runner.places import local_places


def executor_for(
    name: str,
    profile: Profile,
    *,
    gpus: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    show: Callable[[str], None] | None = None,
) -> Executor:
    """Return the executor with this name.

    Raises:
        UsageError: an option does not fit the executor.
    """
    if ExecutorName(name) is ExecutorName.LOCAL:
        if address is not None:
            raise UsageError(f"--address {address}: this run has no cluster", remedy="Pass --executor ray, too.")
        return Processes(show, at=local_places(profile, chosen=gpus, workers=workers))
    for option, value in (("--gpus", gpus), ("--workers", workers)):
        if value is not None:
            remedy = f"Leave {option} out: a run uses all nodes of the cluster."
            raise UsageError(f"{option} {value}: the nodes of a cluster say what they have", remedy=remedy)
    return RayCluster(profile, address)
