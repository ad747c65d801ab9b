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
_LIMIT = 240
"""Seconds in which a node starts, even on a busy machine."""
_ROOT = Path(__file__).parents[2]


def no_model(name: str) -> ModelRef:
    """Find the model of `fake_workers`, on a node. Its folder is common to all nodes, for trials that meet."""
    return ModelRef(name, os.environ["HARNESS_TEST_FOLDER"], "0123")


@dataclass
class RayNodes:
    """A head without cores, on 127.0.0.1, and nodes from 127.0.0.2 on, with one core and two GPUs that do not exist."""

    folder: Path
    port: int
    started: set[int] = field(default_factory=set)

    @property
    def address(self) -> str:
        """The address to which drivers and nodes connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def meeting(self) -> Path:
        """A folder that all nodes and the tests see."""
        return self.folder / "meeting"

    def start(self, *numbers: int) -> None:
        """Start nodes at the same time; 1 is the head."""
        starting = [self._start(number) for number in numbers]
        self.started.update(numbers)
        for process in starting:
            assert process.wait(timeout=_LIMIT + 60) == 0

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        place, ip = self.folder / str(number), f"127.0.0.{number}"
        head = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false"]
        how = head if number == 1 else [f"--address={self.address}", "--num-cpus=1", "--num-gpus=2"]
        light = ["--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"]  # else they take seconds
        program = Path(sys.executable).with_name("ray")
        command = [str(program), "start", *how, *light, f"--node-ip-address={ip}", f"--object-store-memory={_STORE}"]
        return subprocess.Popen(
            [*command, f"--temp-dir={place}"], stdout=subprocess.DEVNULL, env=self._environment(place)
        )

    def kill(self, number: int) -> None:
        """Kill all processes of a node, as if its machine had lost power."""
        self.started.remove(number)
        for each in self._processes(number):
            with suppress(psutil.Error):
                each.kill()

    def running(self, module: str) -> int:
        """Return the number of a node on which a process of this Python module runs; 0 if there is none."""
        for number in sorted(self.started):
            for each in self._processes(number):
                with suppress(psutil.Error):
                    if module in each.cmdline():
                        return number
        return 0

    def stop(self) -> None:
        """Kill all nodes."""
        for number in sorted(self.started, reverse=True):
            self.kill(number)

    def _processes(self, number: int) -> list[psutil.Process]:
        """Return the processes of a node: those whose command names its folder, and what they have started."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(f"{self.folder / str(number)}/" in f"{word}/" for word in process.cmdline()):
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        return list(found.values())

    def _environment(self, place: Path) -> dict[str, str]:
        (place / "cache").mkdir(parents=True, exist_ok=True)
        self.meeting.mkdir(exist_ok=True)
        paths = os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", "")))
        own = {"XDG_CACHE_HOME": str(place / "cache"), "HARNESS_TEST_FOLDER": str(self.meeting), "PYTHONPATH": paths}
        ray = {"RAY_raylet_start_wait_time_s": str(_LIMIT), "RAY_prestart_worker_first_driver": "0"}
        return os.environ | own | ray | {"RAY_enable_worker_prestart": "0"}


@contextmanager
def three_nodes() -> Iterator[RayNodes]:
    """Start a head and two nodes; end them with the block."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # Paths of sockets in this folder must be short.
    nodes = RayNodes(Path(f"/tmp/hray{os.getpid()}-{int(time.time()) % 1000}"), port)
    try:
        nodes.start(1)
        nodes.start(2, 3)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(nodes.folder, ignore_errors=True)
