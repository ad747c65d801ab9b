"""Tests of the Slurm executor: with submitit, on a cluster on this machine (`nox -s slurm`), and of its parts."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core import device_profiles
from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.training_outcome import Status
from harness.runner.executors.choice import executor_for
from harness.runner.executors.node_facts import node_facts
from harness.runner.executors.protocol import Executor
from harness.runner.executors.slurm_cluster import Function, Slurm, SlurmCluster
from harness.runner.executors.slurm_node import EventFile, Pass
from harness.runner.executors.slurm_options import SlurmOptions, slurm_options
from harness.runner.listeners.protocol import Listener
from harness.storage.files import write_text
from harness.storage.records import encode_line, write_record
from tests.support.acting_worker import Act, to
from tests.support.executor_contract import ExecutorContract
from tests.support.fake_workers import SETUP, SUITE
from tests.support.made_results import commit, machine
from tests.support.slurm_nodes import SlurmNodes, two_nodes
from tests.support.small_suite import RUN, findings, run, small_suite, start
from tests.support.submitit_queue import ProcessQueue

ON_SLURM = "HARNESS_SLURM" in os.environ
ACTING = "tests.support.acting_worker"
DONE = Event(EventKind.ENDED, status=Status.SUCCEEDED)


@dataclass(frozen=True)
class Preempting(Listener):
    """Preempts the job of a trial when it starts for the first time, and then lets such trials finish."""

    queue: ProcessQueue
    trial: str
    meeting: Path
    notices: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.NOTICED:
            self.notices.append(event.message)
            (self.meeting / "go").touch()
        if event.kind is EventKind.STARTED and event.trial == self.trial and not self.notices:
            self.queue.preempt(self.queue.jobs[-1])


@pytest.mark.slurm
@pytest.mark.skipif(not ON_SLURM, reason="needs submitit: nox -s slurm")
class TestSlurm(ExecutorContract):
    """The contract, for jobs that submitit runs on this machine."""

    seconds = 60.0

    @pytest.fixture
    def queue(self) -> Iterator[ProcessQueue]:
        found = ProcessQueue()
        yield found
        found.wait()

    @pytest.fixture
    def executor(self, queue: ProcessQueue) -> Executor:
        return SlurmCluster(device_profiles.CPU, SlurmOptions(10, 1), queue, ACTING)

    @pytest.fixture
    def two(self, queue: ProcessQueue) -> Executor:
        return SlurmCluster(device_profiles.CPU, SlurmOptions(10, 2), queue, ACTING)

    def test_messages_name_the_node_and_the_log(self, executor: Executor, tmp_path: Path) -> None:
        """The message of a failed trial names the node and the log of its Slurm job, in one line."""
        found = self.run(tmp_path, executor, to(Act.FAIL))["FAIL"]
        assert found.status is Status.FAILED
        assert f"(node {os.uname().nodename}, Slurm job " in found.message
        assert Path(found.message.rpartition("its log: ")[2].removesuffix(")")).is_file()
        assert "\n" not in found.message

    def test_a_preempted_job_goes_on(self, queue: ProcessQueue, executor: Executor, tmp_path: Path) -> None:
        """If Slurm preempts a job, it is started again, its trial succeeds, and a notice says so."""
        waiting = to(Act.WAIT)
        listener = Preempting(queue, waiting.id, tmp_path / "meeting")
        found = self.run(tmp_path, executor, waiting, listener=listener)
        assert found["WAIT"].status is Status.SUCCEEDED
        assert [notice for notice in listener.notices if "Slurm started a job again" in notice]


# --- a Slurm cluster on this machine ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[SlurmNodes]:
    with two_nodes() as found:
        yield found


def events(folder: Path) -> dict[str, list[Event]]:
    """Return the events of each job of a run, by the name of the job's file."""
    return {path.stem: list(EventFile(path).new()) for path in sorted((folder / RUN / "workers").glob("*.events"))}


def training(folder: Path) -> list[str]:
    """Return the names of the jobs that have started a trial, not of the base model, and have not ended."""
    return [
        name
        for name, seen in events(folder).items()
        if any(event.kind is EventKind.STEP for event in seen)
        and not any(event.kind in (EventKind.ENDED, EventKind.FINISHED) for event in seen)
    ]


def submitted_as(folder: Path, name: str) -> str:
    """Return the id of the Slurm job that runs the job of this name."""
    from submitit.core.utils import DelayedSubmission

    for path in (folder / RUN / "workers" / "slurm").glob("*_submitted.pkl"):
        if Path(DelayedSubmission.load(path).function.job).stem == name:
            return path.name.removesuffix("_submitted.pkl")
    raise LookupError(name)


@pytest.mark.slurm
@pytest.mark.skipif(not ON_SLURM, reason="needs Slurm: nox -s slurm")
def test_a_cluster_gives_the_results_of_this_machine(
    nodes: SlurmNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid gives the same answers, losses and choice on the cluster, also if jobs are stopped in the middle.

    One job is preempted and one is requeued by an administrator. Then the driver is killed with a job in flight; the
    same command goes on.
    """
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    local, there = (tmp_path / name for name in ("local", "slurm"))
    for folder in (local, there):
        small_suite(folder)
    assert run(local, "--width", "1")[0] == 0
    options = ("--width", "1", "--executor", "slurm", "--slurm-time=20", "--slurm-comment=test")
    driver, stopped = start(there, *options), list[str]()

    def next_in_flight() -> str:
        while not (found := [name for name in training(there) if name not in stopped]):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.1)
        stopped.append(found[0])
        return submitted_as(there, found[0])

    for command in (("scancel", "--signal=USR2"), ("scontrol", "requeue")):
        assert nodes.ask(*command, next_in_flight()) == ""
    next_in_flight()
    again = [event for seen in events(there).values() for event in seen if "started a job again" in event.message]
    assert len(again) == 2
    driver.kill()
    driver.communicate()
    driver = start(there, *options)
    _, error = driver.communicate(timeout=900)
    assert driver.returncode == 0, error
    assert findings(there) == findings(local)


# --- parts ------------------------------------------------------------------------------------------------------------
@dataclass
class Submitted:
    """A job that a test ends as it likes."""

    job_id: str
    function: Any

    @property
    def paths(self) -> Submitted:
        return self

    @property
    def stderr(self) -> str:
        return f"/shared/{self.job_id}.err"

    def say(self, *said: Event) -> None:
        """Write events as the job's function does on the node n7."""
        for event in said:
            EventFile(Path(self.function.events)).add(replace(event, place="n7"))


@dataclass
class FakeQueue:
    """A queue of jobs that do nothing by themselves. `begin` is called with each new job."""

    begin: Callable[[Submitted], None] = lambda job: None
    arrays: list[list[Submitted]] = field(default_factory=list)
    gone: bool = False
    cancelled: list[str] = field(default_factory=list)

    def submit(self, folder: Path, functions: Sequence[Function]) -> Sequence[Submitted]:
        array = [Submitted(f"{len(self.arrays)}_{number}", each) for number, each in enumerate(functions)]
        self.arrays.append(array)
        for job in array:
            self.begin(job)
        return array

    def exists(self, job: Any) -> bool:
        return not self.gone

    def cancel(self, job: Any) -> None:
        self.cancelled.append(job.job_id)

    def cancel_left(self, folder: Path) -> None:
        self.cancelled.append("left")
        assert not list(folder.parent.glob("*.events")), "jobs of this driver would be stopped, too"


def followed(folder: Path, queue: FakeQueue, *, until: float | None = None) -> list[Event]:
    """Return the events of one job on this queue."""
    executor = SlurmCluster(device_profiles.CPU, SlurmOptions(10), queue)
    path = folder / "001.json"
    return list(executor.run(path, path.with_suffix(".log"), timeout=None, until=until))


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (device_profiles.AUTO, ("gres=gpu:a100:1",)),
        (device_profiles.AUTO, ("gpus-per-node=1",)),
        (device_profiles.T4, ()),
    ],
)
def test_nodes_without_the_requested_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: Profile, words: Sequence[str]
) -> None:
    """If the first job sees no GPU, but an option or the profile requires one, one error says how to request it."""
    monkeypatch.chdir(tmp_path)
    facts = encode_line(replace(node_facts(), found=None))
    queue = FakeQueue(lambda job: write_text(Path(job.function.path), facts))
    with pytest.raises(UsageError, match="sees no GPU") as caught:
        SlurmCluster(profile, slurm_options(("time=10", *words)), queue).gpu()
    assert "--slurm-gres=gpu:1" in caught.value.remedy


def test_jobs_that_wait_together_are_one_array(tmp_path: Path) -> None:
    """Jobs of several places that start at the same time are submitted as one array, after those left were stopped."""
    queue = FakeQueue(lambda job: job.say(DONE))
    executor = SlurmCluster(device_profiles.CPU, SlurmOptions(10, 3), queue)

    def follow(name: str) -> None:
        list(executor.run(tmp_path / f"{name}.json", tmp_path / f"{name}.log", timeout=None))

    threads = [threading.Thread(target=follow, args=(f"00{number}",)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(array) for array in queue.arrays] == [3]
    assert queue.cancelled == ["left"]


def test_a_failure_names_the_node_and_the_log(tmp_path: Path) -> None:
    """The message of a failure names the node, the Slurm job and its log; other events are passed on as they are."""
    failed = Event(EventKind.ENDED, status=Status.FAILED, message="it broke")
    seen = followed(tmp_path, FakeQueue(lambda job: job.say(Event(EventKind.LOADED), failed)))
    where = "(node n7, Slurm job 0_0, its log: /shared/0_0.err)"
    assert seen == [Event(EventKind.LOADED), replace(failed, message=f"it broke {where}")]


def test_a_job_that_disappears_is_lost(tmp_path: Path) -> None:
    """If Slurm no longer has a job that has written no end, the job is lost, so that the dispatcher repeats it."""
    queue = FakeQueue(lambda job: job.say(Event(EventKind.LOADED)), gone=True)
    last = followed(tmp_path, queue)[-1]
    assert (last.kind, last.lost) == (EventKind.ENDED, True)
    assert last.message.endswith("(node n7, Slurm job 0_0, its log: /shared/0_0.err)")


def test_the_time_in_the_queue_counts(tmp_path: Path) -> None:
    """A job that still waits when the time of the run is up is cancelled; if Slurm starts it later, it does nothing."""
    queue = FakeQueue()
    assert [event.status for event in followed(tmp_path, queue, until=time.monotonic())] == [Status.CANCELLED]
    assert queue.cancelled == ["left", "0_0"]
    job = queue.arrays[0][0]
    before = Path(job.function.events).read_bytes()
    thread = threading.Thread(target=job.function)
    thread.start()
    thread.join()
    assert Path(job.function.events).read_bytes() == before


def test_a_job_that_starts_again_does_what_is_left(tmp_path: Path) -> None:
    """A job that Slurm starts again keeps finished trials, reports those that are in the cache, and runs the others.

    It was killed after the first trial was finished and the results of the second one were committed.
    """
    cache, path = tmp_path / "cache", tmp_path / "001.json"
    prompts = tuple(SETUP.prompt("t", case) for case in SUITE.cases[:2])
    tasks = tuple(
        Task(trial.id, f"training-{seed}", trial.settings, seed, True, prompts)
        for seed in (0, 1, 2)
        for trial in [to(Act.FINISH, seed)]
    )
    quantization = to(Act.FINISH).settings.quantization
    job = Job(SETUP.model, machine(), quantization, SETUP.engine, str(cache), (), SUITE.decoding, tasks)
    write_record(path, job)
    for task in tasks[:2]:
        commit(job, task)
    events = EventFile(path.with_suffix(".events"))
    events.add(Event(EventKind.FINISHED, tasks[0].trial, Status.SUCCEEDED))
    function = Pass(str(path), str(tmp_path / "001.log"), str(events.path), 60.0, node_facts(), ACTING)
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    seen = [event for event in events.new() if event.kind is not EventKind.LOADED]
    assert [event.trial for event in seen if event.kind is EventKind.FINISHED] == [task.trial for task in tasks]
    assert [event.trial for event in seen if event.kind is EventKind.STARTED] == [tasks[2].trial]
    assert seen[-1].status is Status.SUCCEEDED
    assert "started a job again" in seen[1].message


def test_an_incomplete_line_of_events_waits(tmp_path: Path) -> None:
    """A line is read when it is complete; one that a killed process left is dropped, and the next line is read."""
    path = tmp_path / "001.events"
    path.write_bytes(encode_line(DONE).encode()[:9])
    writer, reader = EventFile(path), EventFile(path)
    assert list(reader.new()) == []
    writer.begin()
    writer.add(DONE)
    assert list(reader.new()) == [DONE]
    assert list(reader.new()) == []


def test_the_options_of_sbatch(tmp_path: Path) -> None:
    """Options are passed to sbatch as they are; the harness reads the time limit, the cores and the number of jobs."""
    words = ("partition=gpu", "exclusive", "time=1-12:30:00", "cpus-per-task=4", "array-parallelism=7")
    found = slurm_options(words)
    assert (found.minutes, found.cores, found.most_jobs) == (2190, 4, 7)
    assert found.sbatch == {"partition": "gpu", "exclusive": True, "time": "1-12:30:00", "cpus-per-task": "4"}
    assert slurm_options(("time=10", "gpus=1", "cpus-per-gpu=6")).cores == 6
    assert [slurm_options([f"time={text}"]).minutes for text in ("90", "90:30", "1:30:00", "2-0")] == [90, 90, 90, 2880]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "the time limit of a job is missing"),
        (("time=soon",), "--slurm-time=soon is no time"),
        (("time=0:30",), "--slurm-time=0:30 is no time"),
        (("time=10", "nodes=2"), "--slurm-nodes: the harness sets this option itself"),
        (("time=10", "cpus-per-task=many"), "--slurm-cpus-per-task=many is no number"),
        (("time=10", "Partition"), "is not an option of sbatch"),
        (("time=10", "comment=a\nb"), "is not an option of sbatch"),
    ],
)
def test_a_wrong_option_is_refused(words: Sequence[str], problem: str) -> None:
    """An option that the harness sets itself or cannot read is refused, with a remedy."""
    with pytest.raises(UsageError, match=re.escape(problem)) as caught:
        executor_for("slurm", device_profiles.CPU, slurm=words)
    assert caught.value.remedy


def test_options_of_slurm_need_slurm(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness run` passes `--slurm-OPTION=VALUE` on, and refuses it without `--executor slurm`."""
    assert main(["run", "suites/workshop", "--slurm-partition=gpu"]) == 2
    assert "--slurm-partition=gpu: this run does not use Slurm" in capsys.readouterr().err


def test_a_machine_without_slurm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no program sbatch, or one in a relative folder on PATH, one error says so before anything starts."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="there is no program sbatch"):
        Slurm(SlurmOptions(10)).submit(tmp_path, [])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sbatch").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"one:{tmp_path / 'two'}")
    with pytest.raises(UsageError, match="PATH has a relative folder with a program sbatch"):
        Slurm(SlurmOptions(10)).submit(tmp_path, [])
