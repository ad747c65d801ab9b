"""A Slurm cluster of two nodes on this machine, for tests: needs root, and Debian's packages slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class SlurmNodes:
    """A controller and the nodes n1 and n2, with one core each."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variable with which Slurm's programs find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the cluster, and wait until both nodes are idle."""
        for name in ("state", "n1", "n2"):
            (self.folder / name).mkdir(parents=True)
        text = _CONFIGURATION.format(folder=self.folder, host=socket.gethostname().split(".")[0], ports=_ports(3))
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = ["--force", "--foreground", f"--key-file={key}", f"--socket={self.folder}/munge.socket"]
        own = [f"--{name}-file={self.folder}/munged.{name}" for name in ("log", "pid", "seed")]
        self._start("munged", *munge, *own)
        self._wait("munge's socket", (self.folder / "munge.socket").exists)
        self._start("slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        self._wait("two idle nodes", lambda: self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2")

    def ask(self, program: str, *words: str) -> str:
        """Return what one of Slurm's programs prints."""
        done = subprocess.run([program, *words], env=self._environment(), capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip()

    def running(self) -> Sequence[str]:
        """Return the ids of the jobs that run."""
        return self.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()

    def stop(self) -> None:
        """End all jobs and programs of the cluster."""
        self.ask("scancel", "--user=root", "--signal=KILL")
        self.ask("scancel", "--user=root")
        until = time.monotonic() + 60
        while self.ask("squeue", "--noheader") and time.monotonic() < until:
            time.sleep(0.2)
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, program: str, *words: str) -> None:
        with (self.folder / "output").open("ab") as log:
            path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
            assert path is not None, f"{program} is missing: apt-get install slurm-wlm munge"
            self.started.append(
                subprocess.Popen([path, *words], env=self._environment(), stdout=log, stderr=log, cwd=self.folder)
            )

    def _log(self) -> str:
        """Return what the programs of the cluster wrote, for the message of a failed start."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))

    def _environment(self) -> dict[str, str]:
        return os.environ | self.environment

    def _wait(self, what: str, is_there: object) -> None:
        assert callable(is_there)
        until = time.monotonic() + 120
        while not is_there():
            assert time.monotonic() < until, f"no {what}: {self._log()}"
            assert all(process.poll() is None for process in self.started), f"a program ended: {self._log()}"
            time.sleep(0.2)


@contextmanager
def two_nodes() -> Iterator[SlurmNodes]:
    """Start a cluster; end it with the block."""
    nodes = SlurmNodes(Path(f"/tmp/hslurm{os.getpid()}"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(nodes.folder, ignore_errors=True)


def _ports(count: int) -> list[int]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports
