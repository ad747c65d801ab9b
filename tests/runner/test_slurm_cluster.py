"""Tests of the Slurm executor: with submitit's processes on this machine (`nox -s cluster`), and in its parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import device_profiles
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.executors.protocol import Executor
from harness.runner.executors.slurm_cluster import SlurmCluster
from harness.runner.executors.slurm_options import SlurmOptions
from harness.runner.listeners.protocol import Listener
from tests.support.acting_worker import Act, to
from tests.support.executor_contract import ExecutorContract
from tests.support.submitit_queue import ProcessQueue

ON_CLUSTER = "HARNESS_CLUSTER" in os.environ


@pytest.mark.cluster
@pytest.mark.skipif(not ON_CLUSTER, reason="needs submitit: nox -s cluster")
class TestSlurm(ExecutorContract):
    """The contract, for jobs that submitit runs on this machine."""

    @pytest.fixture
    def queue(self) -> Iterator[ProcessQueue]:
        found = ProcessQueue()
        yield found
        found.wait()

    @pytest.fixture
    def executor(self, queue: ProcessQueue) -> Executor:
        return SlurmCluster(device_profiles.CPU, SlurmOptions(10, 1), queue, "tests.support.acting_worker")

    @pytest.fixture
    def two(self, queue: ProcessQueue) -> Executor:
        return SlurmCluster(device_profiles.CPU, SlurmOptions(10, 2), queue, "tests.support.acting_worker")

    def test_messages_name_the_node_and_the_log(self, executor: Executor, tmp_path: Path) -> None:
        """The message of a failed trial names the node and the log of its Slurm job, in one line."""
        found = self.run(tmp_path, executor, to(Act.FAIL))["FAIL"]
        assert found.status is Status.FAILED
        assert f"(node {os.uname().nodename}, Slurm job " in found.message
        assert Path(found.message.rpartition("its log: ")[2].removesuffix(")")).is_file()
        assert "\n" not in found.message
