"""Tests of the Ray executor on a cluster of three nodes on this machine (`nox -s cluster`)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.core import device_profiles
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.executors.protocol import Executor, Place
from harness.runner.executors.ray_cluster import RayCluster, cores_per_gpu
from harness.runner.listeners.protocol import Listener
from tests.support.acting_worker import Act, to
from tests.support.executor_contract import ExecutorContract
from tests.support.ray_nodes import RayNodes, no_model, three_nodes
from tests.support.small_suite import RUN, SHORT, findings, logs, run, small_suite, start

ON_CLUSTER = "HARNESS_CLUSTER" in os.environ


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with three_nodes() as found:
        yield found
        import ray

        ray.shutdown()


@dataclass(frozen=True)
class One(Executor):
    """The first place of another executor."""

    within: Executor

    @property
    def places(self) -> tuple[Place, ...]:
        return self.within.places[:1]

    def run(self, job: Path, log: Path, **more: Any) -> Generator[Event]:
        yield from self.within.run(job, log, **more)


@pytest.mark.cluster
@pytest.mark.skipif(not ON_CLUSTER, reason="needs Ray: nox -s cluster")
class TestRay(ExecutorContract):
    """The contract, for tasks on a Ray cluster."""

    seconds = 14.0

    @pytest.fixture
    def two(self, nodes: RayNodes) -> Executor:
        return RayCluster(device_profiles.CPU, nodes.address, "tests.support.acting_worker", no_model)

    @pytest.fixture
    def executor(self, two: Executor) -> Executor:
        return One(two)

    def test_messages_name_the_node(self, executor: Executor, tmp_path: Path) -> None:
        """The message of a failed trial names the node's address, and its log is on the driver's machine."""
        found = self.run(tmp_path, executor, to(Act.FAIL))["FAIL"]
        assert found.status is Status.FAILED
        assert "(node 127.0.0." in found.message
        assert (tmp_path / "run" / found.log).is_file()

    def test_a_job_gets_one_gpu(self, nodes: RayNodes, tmp_path: Path) -> None:
        """There is a place for each GPU of the nodes, and the worker of a job sees one GPU."""
        on_gpus = RayCluster(device_profiles.AUTO, nodes.address, "tests.support.acting_worker", no_model)
        assert [place.threads for place in on_gpus.places] == [1] * 4
        found = self.run(tmp_path, One(on_gpus), to(Act.FINISH))["FINISH"]
        text = (tmp_path / "run" / found.log).read_text(encoding="utf-8")
        assert text.splitlines()[0] in ("CUDA_VISIBLE_DEVICES: 0", "CUDA_VISIBLE_DEVICES: 1")


@dataclass(frozen=True)
class Killing(Listener):
    """Kills the node of the first trial in flight, and then lets such trials finish."""

    nodes: RayNodes
    trial: str
    killed: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.NOTICED:
            self.notices.append(event.message)
        if event.kind is EventKind.STARTED and event.trial == self.trial and not self.killed:
            while not (number := self.nodes.running("tests.support.acting_worker")):
                time.sleep(0.1)
            self.killed.append(number)
            self.nodes.kill(self.killed[0])
            (self.nodes.meeting / "go").touch()


@pytest.mark.cluster
@pytest.mark.skipif(not ON_CLUSTER, reason="needs Ray: nox -s cluster")
def test_a_trial_in_flight_runs_again_on_another_node(nodes: RayNodes, tmp_path: Path) -> None:
    """If a node dies with a trial in flight, the trial succeeds on another node, and a notice names the dead node."""
    for path in nodes.meeting.iterdir():
        path.unlink()
    waiting = to(Act.WAIT)
    listener = Killing(nodes, waiting.id)
    executor = One(RayCluster(device_profiles.CPU, nodes.address, "tests.support.acting_worker", no_model))
    found = ExecutorContract().run(tmp_path, executor, waiting, listener=listener)
    assert found["WAIT"].status is Status.SUCCEEDED
    assert listener.killed[0] in (2, 3)
    named = [notice for notice in listener.notices if "a node disappeared" in notice]
    assert [notice for notice in named if f"(node 127.0.0.{listener.killed[0]})" in notice]
    nodes.start(listener.killed[0])


@pytest.mark.cluster
@pytest.mark.skipif(not ON_CLUSTER, reason="needs Ray: nox -s cluster")
def test_a_cluster_gives_the_results_of_this_machine(nodes: RayNodes, tmp_path: Path) -> None:
    """The grid gives the same answers, losses and choice on the cluster, even if a node dies in the middle.

    The driver is killed, too, and the same command goes on.
    """
    local, there = (tmp_path / name for name in ("local", "ray"))
    for folder in (local, there):
        small_suite(folder, grid=SHORT.replace("[1e-5, 1e-2]", "[1e-2]"), tokens=4)
    options = ("--width", "1", "--confirm-seeds", "0")
    assert run(local, *options)[0] == 0
    options = (*options, "--executor", "ray", "--address", nodes.address)
    driver = start(there, *options)
    while len(logs(there)) < 2:  # the base and the trial are in flight, one on each node
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.1)
    driver.kill()
    driver.communicate()
    driver = start(there, *options)
    while len(logs(there)) < 4 or not (number := nodes.running("harness.engine.worker")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.1)
    nodes.kill(number)
    _, error = driver.communicate(timeout=600)
    assert driver.returncode == 0, error
    assert findings(there) == findings(local)
    assert not list((there / RUN / "workers").glob("*.incoming"))


@pytest.mark.cluster
@pytest.mark.skipif(not ON_CLUSTER, reason="needs Ray: nox -s cluster")
def test_an_address_without_a_cluster_is_refused() -> None:
    """If there is no cluster at the address, one error names the address and the page with the commands."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(UsageError, match=r"--address 127\.0\.0\.1:1") as caught:
        _ = RayCluster(device_profiles.CPU, "127.0.0.1:1").places
    assert "docs/cluster.md" in caught.value.remedy


def test_a_job_has_the_cores_of_one_gpu() -> None:
    """Each job has an equal share of its node's cores for one GPU, of the node where it is smallest; it may be none."""
    assert cores_per_gpu([{"CPU": 96.0, "GPU": 8.0}, {"CPU": 31.0, "GPU": 3.0}]) == 10
    assert cores_per_gpu([{"CPU": 96.0, "GPU": 8.0}, {"GPU": 1.0}]) == 0


def test_without_ray_the_remedy_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ray is not installed, one error says how to install it."""
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(UsageError, match="Ray is not installed") as caught:
        _ = RayCluster(device_profiles.CPU).places
    assert "pip install" in caught.value.remedy
