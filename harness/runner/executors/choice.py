"""Makes the executor that the options of `harness run` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.executors import ExecutorName
from harness.runner.executors.processes import Processes
from harness.runner.executors.protocol import ONLY, Executor
from harness.runner.executors.ray_cluster import RayCluster
from harness.runner.executors.slurm_cluster import Slurm, SlurmCluster
from harness.runner.executors.slurm_options import slurm_options
from harness.runner.places import local_places


def executor_for(
    name: str,
    profile: Profile,
    *,
    gpus: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    slurm: Sequence[str] = (),
    show: Callable[[str], None] | None = None,
) -> Executor:
    """Return the executor with this name. `slurm` are options of `sbatch`, such as `partition=gpu`.

    Raises:
        UsageError: an option does not fit the executor.
    """
    chosen = ExecutorName(name)
    if address is not None and chosen is not ExecutorName.RAY:
        raise UsageError(f"--address {address}: this run has no Ray cluster", remedy="Pass --executor ray, too.")
    if slurm and chosen is not ExecutorName.SLURM:
        raise UsageError(f"--slurm-{slurm[0]}: this run does not use Slurm", remedy="Pass --executor slurm, too.")
    if chosen is ExecutorName.LOCAL:
        places = local_places(profile, chosen=gpus, workers=workers)
        return Processes(show, at=places, divisible=workers is None and places == (ONLY,))
    for option, value in (("--gpus", gpus), ("--workers", workers)):
        if value is not None:
            remedy = f"Leave {option} out: a run uses the nodes that the cluster gives it."
            raise UsageError(f"{option} {value}: the nodes of a cluster say what they have", remedy=remedy)
    if chosen is ExecutorName.RAY:
        return RayCluster(profile, address)
    options = slurm_options(slurm)
    return SlurmCluster(profile, options, Slurm(options))
