"""Tests of jobs on nodes without a common folder. Here, the node is this machine, and pieces are passed on directly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.job import Event, EventKind, Job, Task
from harness.core.model import ModelRef
from harness.core.training_outcome import Status
from harness.runner.executors.node_jobs import (
    NodeJob,
    Piece,
    Receiver,
    _job_folder,
    _prepare,
    files_for,
    pieces_of,
    run_on_node,
)
from harness.storage.cache import LOADING_LOCK, Cache, state_id
from harness.storage.files import PARTIAL
from tests.support.acting_worker import Act, to
from tests.support.fake_workers import SETUP, SUITE


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for caches on the node."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    return tmp_path / "node" / "qlora-harness"


def job(folder: Path, *acts: Act, train: bool = True) -> Job:
    prompts = tuple(SETUP.prompt("t", case) for case in SUITE.cases[:2])
    tasks = tuple(
        Task(trial.id, f"training-{act.name}", trial.settings, 0, train, prompts) for act in acts for trial in [to(act)]
    )
    quantization = to(Act.FINISH).settings.quantization
    return Job(SETUP.model, SETUP.machine, quantization, SETUP.engine, str(folder / "cache"), (), SUITE.decoding, tasks)


def found(name: str) -> ModelRef:
    return replace(SETUP.model, name=name)


def run(given: Job, folder: Path, find: object = found) -> list[Event]:
    """Run a job as on a node, and return the events that the driver gets."""
    receiver = Receiver(given, folder / "001.log")
    cache = Path(given.cache)
    files = {path.relative_to(cache).as_posix(): pieces_of(path) for path in files_for(given)}
    made = NodeJob(given, files, 60.0, None, "tests.support.acting_worker", find)  # type: ignore[arg-type]
    events = [event for piece in run_on_node(made, "10.0.0.7") if (event := receiver.receive(piece))]
    receiver.close()
    return events


def test_quantised_bases_stay_on_the_node(tmp_path: Path, node: Path) -> None:
    """A base that a job saves on the node is there for the next job, and an unfinished one is not kept."""
    given = NodeJob(job(tmp_path, Act.FINISH), {}, None, None, find=found)
    with _job_folder() as first:
        _prepare(given, first)
        for name in ("made", f"{PARTIAL}other"):
            (first / "cache" / "bases" / name).mkdir()
            (first / "cache" / "bases" / name / "base.json").write_text("{}", encoding="utf-8")
    assert not first.exists()
    assert sorted(path.name for path in (node / "bases").iterdir()) == sorted([LOADING_LOCK, "made"])
    with _job_folder() as second:
        _prepare(given, second)
        bases = second / "cache" / "bases"
        assert not bases.is_symlink()  # a cache refuses links
        assert [path.name for path in bases.iterdir() if path.is_dir()] == ["made"]
        for name in ("made/base.json", LOADING_LOCK):  # hard links: no copy, and one lock for all jobs
            assert (bases / name).samefile(node / "bases" / name)


def test_results_come_back(tmp_path: Path, node: Path) -> None:
    """The driver's cache gets adapter and answers, the driver gets the events in order, and the node keeps nothing."""
    given = job(tmp_path, Act.FINISH)
    events = run(given, tmp_path)
    kinds = [EventKind.LOADED, EventKind.STARTED, EventKind.FINISHED, EventKind.ENDED]
    assert [event.kind for event in events] == kinds
    cache = Cache(tmp_path / "cache")
    trained = cache.training("training-FINISH")
    assert trained is not None
    assert trained.status is Status.SUCCEEDED
    assert len(cache.answers("training-FINISH")[0].answers) == 2
    assert list((node / "jobs").iterdir()) == []
    assert not list(tmp_path.glob("*.incoming"))


def test_an_adapter_goes_out_if_it_only_answers(tmp_path: Path) -> None:
    """A job whose adapter is trained already sends its files along, and does not send them back."""
    run(job(tmp_path, Act.FINISH), tmp_path)
    again = job(tmp_path, Act.FINISH, train=False)
    assert sorted(path.name for path in files_for(again)) == [
        "MANIFEST.sha256",
        "adapter_model.safetensors",
        "training.json",
    ]
    run(again, tmp_path)
    assert len(Cache(tmp_path / "cache").answers("training-FINISH")) == 1  # the same answers under the same name


def test_the_state_of_a_race_comes_back_and_goes_out(tmp_path: Path) -> None:
    """The state of a training that stopped at a look comes back from a node, and goes out with what continues it."""
    given = job(tmp_path, Act.FINISH)
    run(replace(given, tasks=tuple(replace(task, until=1) for task in given.tasks)), tmp_path)
    cache, key = Cache(tmp_path / "cache"), "training-FINISH"
    assert cache.training(state_id(key)) is not None
    later = replace(given, tasks=tuple(replace(task, training="whole", resume=key) for task in given.tasks))
    folders = [path.parent.name for path in files_for(later) if path.name == "training.json"]
    assert folders == [key, state_id(key)]


def test_a_failure_names_the_node_and_leaves_its_log(tmp_path: Path) -> None:
    """If a worker fails, what it had committed comes back, the message names the node, and the log has the error."""
    *_, last = run(job(tmp_path, Act.FINISH, Act.FAIL), tmp_path)
    assert last.status is Status.FAILED
    assert last.message.endswith("(node 10.0.0.7)")
    assert "RuntimeError: it broke" in (tmp_path / "001.log").read_text(encoding="utf-8")
    assert Cache(tmp_path / "cache").training("training-FINISH") is not None


def test_another_model_on_the_node_is_refused(tmp_path: Path) -> None:
    """If the node finds other files under the model's name, the job is refused with both digests."""
    (event,) = run(job(tmp_path, Act.FINISH), tmp_path, lambda name: ModelRef(name, "none", "4567"))
    assert event.kind is EventKind.REFUSED
    assert "node 10.0.0.7: none is another model here: its digest is 4567, and 0123 there" in event.message


@pytest.mark.parametrize(
    "name",
    ["../x/y", "trainings/../y", "trainings/x/..", "/etc/passwd", "bases/x/y", "trainings/x", "trainings/x/y/z", ""],
)
def test_a_file_outside_the_cache_is_refused(tmp_path: Path, name: str) -> None:
    """A node cannot write files outside of the trainings and answers of the driver's cache."""
    receiver = Receiver(job(tmp_path), tmp_path / "001.log")
    before = sorted(tmp_path.rglob("*"))
    if name:
        with pytest.raises(ValueError, match="a node sent a file with the name"):
            receiver.receive(Piece(file=name, data=b"x"))
    assert sorted(tmp_path.rglob("*")) == before
