"""A Ray cluster of three nodes on this machine, on loopback addresses and without a common folder, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.core.model import ModelRef

_STORE = str(100 * 2**20)
"""Bytes of a node's object store; Ray's minimum is 75 MB."""
_ROOT = Path(__file__).parents[2]


def no_model(name: str) -> ModelRef:
    """Find the model of `fake_workers`, on a node. Its folder is common to all nodes, for trials that meet."""
    return ModelRef(name, os.environ["HARNESS_TEST_FOLDER"], "0123")


@dataclass
class RayNodes:
    """A head without cores, on 127.0.0.1, and nodes with one core each, from 127.0.0.2 on."""

    folder: Path
    port: int
    started: dict[int, list[psutil.Process]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The address to which drivers and nodes connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def meeting(self) -> Path:
        """A folder that all nodes and the tests see."""
        return self.folder / "meeting"

    def start(self, number: int) -> None:
        """Start a node; 1 is the head."""
        place, ip = self.folder / str(number), f"127.0.0.{number}"
        head = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false"]
        how = head if number == 1 else [f"--address={self.address}", "--num-cpus=1"]
        program = Path(sys.executable).with_name("ray")
        command = [str(program), "start", *how, f"--node-ip-address={ip}", f"--object-store-memory={_STORE}"]
        before = set(psutil.pids())
        subprocess.run(
            [*command, f"--temp-dir={place}", "--disable-usage-stats"], check=True, stdout=subprocess.DEVNULL,
            env=self._environment(place), timeout=120,
        )  # fmt: skip
        self.started[number] = [psutil.Process(pid) for pid in set(psutil.pids()) - before if self._is_ours(pid)]

    def kill(self, number: int) -> None:
        """Kill all processes of a node, as if its machine had lost power."""
        for process in self.started.pop(number):
            with suppress(psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    with suppress(psutil.Error):
                        each.kill()

    def running(self, module: str) -> int:
        """Return the number of a node on which a process of this Python module runs; 0 if there is none."""
        for number, processes in self.started.items():
            for process in processes:
                with suppress(psutil.Error):
                    if any(module in each.cmdline() for each in process.children(recursive=True)):
                        return number
        return 0

    def stop(self) -> None:
        """Kill all nodes."""
        for number in sorted(self.started, reverse=True):
            self.kill(number)

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.folder) in " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            return False

    def _environment(self, place: Path) -> dict[str, str]:
        (place / "cache").mkdir(parents=True, exist_ok=True)
        self.meeting.mkdir(exist_ok=True)
        paths = os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", "")))
        own = {"XDG_CACHE_HOME": str(place / "cache"), "HARNESS_TEST_FOLDER": str(self.meeting), "PYTHONPATH": paths}
        return os.environ | own | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}


@contextmanager
def three_nodes() -> Iterator[RayNodes]:
    """Start a head and two nodes; end them with the block."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # Paths of sockets in this folder must be short.
    nodes = RayNodes(Path(f"/tmp/hray{os.getpid()}-{int(time.time()) % 1000}"), port)
    try:
        for number in (1, 2, 3):
            nodes.start(number)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(nodes.folder, ignore_errors=True)
