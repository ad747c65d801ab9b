"""Executor that runs jobs on a Ray cluster: each job is a Ray task, whose body starts the worker as a process.

The process frees the GPU's memory when it ends. Nodes need no common folder (`node_jobs`), but the same environment:
the harness and the libraries are installed on every node, and Ray's runtime environments are not used. If a node
disappears, Ray reports it, and the dispatcher gives the job, without what it had committed, to another node.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind, Job
from harness.core.model import ModelRef
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.hardware.gpu import Gpu
from harness.models.resolving import resolve
from harness.runner.executors.node_facts import NodeFacts, check_gpus, check_versions, first_line, node_facts
from harness.runner.executors.node_jobs import (
    WORKER,
    NodeJob,
    Piece,
    Receiver,
    files_for,
    pieces_of,
    read_job,
    run_on_node,
)
from harness.runner.executors.protocol import ONLY, Executor, Place, located

_INSTALL = "In a checkout of the harness on every node, run: pip install '.[ray]'"
_POLL_INTERVAL = 0.5
"""Seconds between two checks whether a job must be stopped."""
_CONNECTING = 10.0
"""Seconds to wait for a connection to the cluster."""
_ATTEMPTS = "2"
"""How often Ray tries, each time for half a minute, to connect to a port where another program listens."""
_PATIENCE = 60.0
"""Seconds to wait for a node's answer when a run begins."""
_ENDING = 10.0
"""Seconds to wait for the end of a task that has sent the end of its job."""


def _on_ray_node(given: NodeJob) -> Generator[Piece]:
    """Run a job on a node of the cluster. Messages name the node by its address."""
    import ray

    yield from run_on_node(given, ray.util.get_node_ip_address())


@dataclass(frozen=True)
class RayCluster(Executor):
    """Runs jobs on the Ray cluster at `address`; without an address, Ray finds a cluster or starts one here."""

    profile: Profile
    address: str | None = None
    module: str = WORKER
    """The Python module that works on a node."""
    find: Callable[[str], ModelRef] = resolve
    """Finds the base model on a node by its name."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def places(self) -> tuple[Place, ...]:
        """One place for each GPU of the cluster, or for each CPU core with `--profile cpu`."""
        _ = self._facts  # refuses nodes that differ
        count, threads = sum(int(each["Resources"][self._resource]) for each in self._nodes), max(1, self._cores)
        return tuple(Place("" if count == 1 else f"job {number}", threads=threads) for number in range(1, count + 1))

    def gpu(self) -> Gpu | None:
        """Return the GPU of the nodes."""
        return None if self._resource == "CPU" else next(iter(self._facts.values())).found

    def run(
        self,
        job: Path,
        log: Path,
        *,
        timeout: float | None,
        until: float | None = None,
        place: Place = ONLY,  # noqa: ARG002 - Ray chooses the node
        stop: threading.Event | None = None,
    ) -> Generator[Event]:
        """Run the job as a Ray task, as `Executor.run` describes."""
        given = read_job(job)
        receiver, task = Receiver(given, log), self._submit(given, timeout, until)
        try:
            yield from self._events(task, receiver, stop or threading.Event())
        finally:
            receiver.close()
            with contextlib.suppress(Exception):  # the cluster may be gone
                # Cancelling a task ends Ray's process, which else serves the next task: to start one takes seconds.
                if not self._has_ended(task, 0):
                    self._ray.cancel(task, force=True)

    def _events(self, task: Any, receiver: Receiver, stop: threading.Event) -> Generator[Event]:
        while not stop.is_set():
            piece = self._next(task)
            if isinstance(piece, Event):
                yield located(piece, f"node {receiver.node}" if receiver.node else "")
                return
            event = receiver.receive(piece) if piece else None
            if event and event.kind in (EventKind.ENDED, EventKind.REFUSED):
                self._has_ended(task, _ENDING)
            if event:
                yield event
                if event.kind in (EventKind.ENDED, EventKind.REFUSED):
                    return
        yield Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped")

    def _next(self, task: Any) -> Piece | Event | None:
        """Return the next piece that the task sends, None if there is none yet, or the end of a task that failed."""
        ray = self._ray
        try:
            ready, _ = ray.wait([task], timeout=_POLL_INTERVAL, fetch_local=False)
            if not ready:
                return None
            found: Piece = ray.get(next(task))
        except StopIteration:
            return Event(EventKind.ENDED, status=Status.FAILED, message="the node sent no end of its job")
        except ray.exceptions.OutOfMemoryError as error:
            return Event(EventKind.ENDED, status=Status.OUT_OF_MEMORY, message=first_line(error))
        except ray.exceptions.RayTaskError as error:
            return Event(EventKind.ENDED, status=Status.FAILED, message=f"the job failed: {_cause(error)}")
        except ray.exceptions.RayError as error:
            message = f"a node disappeared: {first_line(error)}"
            return Event(EventKind.ENDED, status=Status.FAILED, message=message, lost=True)
        return found

    def _has_ended(self, task: Any, patience: float) -> bool:
        """Whether a task ends within `patience` seconds."""
        ended, _ = self._ray.wait([task.completed()], timeout=patience, fetch_local=False)
        return bool(ended)

    def _submit(self, job: Job, timeout: float | None, until: float | None) -> Any:
        root = Path(job.cache)
        files = {path.relative_to(root).as_posix(): pieces_of(path) for path in files_for(job)}
        left = None if until is None else until - time.monotonic()
        made = NodeJob(job, files, timeout, left, self.module, self.find)
        resources = {"num_cpus": self._cores, "num_gpus": 1 if self._resource == "GPU" else 0}
        # The dispatcher repeats a job itself, without what came back already; Ray would repeat all of it.
        options = {"num_returns": "streaming", "max_retries": 0, "scheduling_strategy": "SPREAD", **resources}
        return self._ray.remote(_on_ray_node).options(**options).remote(made)

    # --- the cluster ----------------------------------------------------------------------------------------------

    @cached_property
    def _ray(self) -> Any:
        """The module `ray`, connected to the cluster."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", _ATTEMPTS)
        try:
            import ray
        except ImportError:
            raise UsageError("--executor ray: Ray is not installed", remedy=_INSTALL) from None
        with self._lock:
            if not ray.is_initialized():
                try:
                    _check_reachable(self.address)
                    ray.init(address=self.address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
                except (OSError, OverflowError, ValueError, RuntimeError) as error:
                    remedy = "Start a cluster with `ray start`, and name its address: docs/cluster.md has the commands."
                    where = f" --address {self.address}" if self.address else ""
                    raise UsageError(f"--executor ray{where}: {first_line(error)}", remedy=remedy) from None
        return ray

    @cached_property
    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that can run jobs.

        Raises:
            UsageError: there are none.
        """
        found = [each for each in self._ray.nodes() if each["Alive"] and each["Resources"].get(self._resource)]
        if not found:
            remedy = "Start a node with `ray start --address=HEAD:6379`."
            if self._resource == "GPU":
                remedy = f"{remedy} For a cluster without GPUs, pass --profile cpu."
            raise UsageError(f"--executor ray: no node of the cluster has a {self._resource}", remedy=remedy)
        return found

    @cached_property
    def _cores(self) -> int:
        """The CPU cores of each job: one, or the share of a GPU on the node where it is smallest, which may be none."""
        return 1 if self._resource == "CPU" else cores_per_gpu([each["Resources"] for each in self._nodes])

    @cached_property
    def _facts(self) -> dict[str, NodeFacts]:
        """The facts of each node, by its address.

        Raises:
            UsageError: the environments or the GPUs of the nodes differ.
        """
        facts = self._ask(self._nodes)
        check_versions("ray", node_facts().versions, {name: each.versions for name, each in facts.items()})
        if self._resource == "GPU":
            check_gpus("ray", {name: each.found for name, each in facts.items()})
        return facts

    @cached_property
    def _resource(self) -> str:
        if self.profile.kind is DeviceKind.CPU:
            return "CPU"
        has_gpu = any(each["Resources"].get("GPU") for each in self._ray.nodes() if each["Alive"])
        return "GPU" if has_gpu or self.profile.kind is DeviceKind.CUDA else "CPU"

    def _ask(self, nodes: list[dict[str, Any]]) -> dict[str, NodeFacts]:
        """Return the facts of each node, by its address. Remove nodes from the list that have ended.

        Ray lists a node that lost its power for half a minute more, even if it was started again with the same address.
        """
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = ray.remote(node_facts)
        tasks = [
            asked.options(
                num_cpus=0, num_gpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
            ).remote()
            for each in nodes
        ]
        found = {}
        for node, task in zip(tuple(nodes), tasks, strict=True):
            name = node["NodeManagerAddress"]
            try:
                found[name] = ray.get(task, timeout=_PATIENCE)
            except ray.exceptions.RayError as error:
                if any(each["Alive"] for each in ray.nodes() if each["NodeID"] == node["NodeID"]):
                    raise _refusal(name, error) from None
                nodes.remove(node)
        if not found:
            remedy = "Check the nodes with `ray status`, and their logs."
            raise UsageError("--executor ray: all nodes of the cluster have ended", remedy=remedy)
        return found


def _refusal(name: str, error: Any) -> UsageError:
    """Return the error of a node that is there, but gives no facts."""
    from ray.exceptions import GetTimeoutError, TaskUnschedulableError

    if isinstance(error, GetTimeoutError | TaskUnschedulableError):
        message = f"--executor ray: node {name} does not answer"
        return UsageError(message, remedy="Check the node with `ray status`, and its logs.")
    return UsageError(f"--executor ray: node {name} cannot run the harness: {_cause(error)}", remedy=_INSTALL)


def _cause(error: Any) -> str:
    """Return the last line of an exception that a function raised on a node, such as the end of a traceback."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def cores_per_gpu(nodes: Sequence[Mapping[str, float]]) -> int:
    """Return the CPU cores for each GPU on the node with the fewest, by the resources of nodes with GPUs."""
    return min(int(each.get("CPU", 0) // each["GPU"]) for each in nodes)


def _check_reachable(address: str | None) -> None:
    """Check that something listens at HOST:PORT, which Ray finds out only after minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:  # else `auto`, or an address such as ray://HOST:PORT
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTING).close()
