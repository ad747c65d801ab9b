"""Tests of `--sync`, which copies a run's results to a shared folder, so that another machine can resume the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.core.answers import Answer
from harness.core.errors import StoreError, UsageError
from harness.core.job import Event, EventKind, Job
from harness.core.judges import Reply
from harness.core.measurement import Phase
from harness.core.run import TrialRecord
from harness.core.suite import JudgeRef, Split
from harness.core.training_outcome import Status, Training
from harness.runner.executors.inline import Inline
from harness.runner.listeners.sync import SyncListener
from harness.runner.sweep import Sweep
from harness.storage.cache import AnswerPass, Cache
from harness.storage.manifest import MANIFEST
from harness.storage.mirror import Mirror, mirror
from harness.storage.runs import RunStore
from harness.storage.verdicts import VerdictStore, source_of
from tests.support.fake_workers import SETUP, A, B, EventList, Workers, nobody, texts
from tests.support.made_results import cost
from tests.support.synthetic_runs import results

ID_A, ID_B = (SETUP.training_id(trial.settings, trial.seed) for trial in (A, B))


@dataclass
class Trainers(Workers):
    """Fake workers that store an adapter of two files for every training, and collect the jobs that they receive."""

    received: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        def save(folder: Path) -> None:
            (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
            (folder / "adapter_model.safetensors").write_bytes(b"weights " * 1000)

        for task in job.tasks:
            if task.settings and task.train:
                Cache(Path(job.cache)).commit_training(Training(task.training, Status.SUCCEEDED, "", (), None), save)
        self.received.append(job)
        untrained = replace(job, tasks=tuple(replace(task, train=False) for task in job.tasks))
        super().__call__(untrained, emit)


def machine_at(folder: Path, shared: Path) -> Mirror:
    """Return the mirror of a machine: it copies between the run and cache in `folder` and the folder `shared`."""
    shared.mkdir(exist_ok=True)
    return mirror(shared, RunStore(folder / "run"), Cache(folder / "cache"), "0123456789abcdef")


def sweep(made: Mirror, work: Callable[..., object], events: list[Event] | None = None) -> dict[str, TrialRecord]:
    """Run the trials A and B, copy them with the mirror, and return the records by trial."""
    listener = SyncListener(made, EventList(events if events is not None else []))
    records = Sweep(SETUP, made.run, made.cache, Inline(work), listener=listener, mirror=made).run_trials(
        [A, B], Split.MAIN, ""
    )
    return {record.trial: record for record in records}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- resuming on another machine ---------------------------------------------------------------------------------


def test_another_machine_has_nothing_to_do(tmp_path: Path) -> None:
    """If all trials are finished, another machine copies their results from the shared folder and starts no worker."""
    shared = tmp_path / "drive"
    first = sweep(machine_at(tmp_path / "one", shared), Trainers())
    second = sweep(machine_at(tmp_path / "two", shared), nobody)
    assert {name: texts(record) for name, record in second.items()} == {n: texts(r) for n, r in first.items()}
    assert Cache(tmp_path / "two" / "cache").training(ID_A) == Cache(tmp_path / "one" / "cache").training(ID_A)
    assert files(tmp_path / "two" / "cache") == files(tmp_path / "one" / "cache") - {"commits/.lock"}
    assert not [name for name in files(shared) if name.endswith((".lock", ".log")) or ".partial" in name]


def test_another_machine_does_the_rest(tmp_path: Path) -> None:
    """A second machine runs only the trials that the first did not finish, and the results are those of one machine."""
    shared = tmp_path / "drive"
    sweep(machine_at(tmp_path / "one", shared), Trainers({B.id: RuntimeError("the runtime was disconnected")}))
    workers = Trainers()
    found = sweep(machine_at(tmp_path / "two", shared), workers)
    assert [task.trial for job in workers.received for task in job.tasks] == [B.id]
    alone = sweep(machine_at(tmp_path / "three", tmp_path / "nothing"), Trainers())
    assert {name: (r.status, r.answers) for name, r in found.items()} == {
        name: (r.status, r.answers) for name, r in alone.items()
    }


def test_failures_are_not_copied(tmp_path: Path) -> None:
    """The record of a failed trial is not copied to the shared folder, so that another machine runs the trial again."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    sweep(made, Trainers({B.id: Event(EventKind.FINISHED, B.id, Status.FAILED, "why")}))
    assert made.far_run.record(Split.MAIN, A.id)
    assert made.far_run.record(Split.MAIN, B.id) is None


def test_trials_finished_before_are_copied_too(tmp_path: Path) -> None:
    """Trials that finished in a session without `--sync` are copied by the next session with `--sync`."""
    alone = Sweep(SETUP, RunStore(tmp_path / "one" / "run"), Cache(tmp_path / "one" / "cache"), Inline(Trainers()))
    alone.run_trials([A, B], Split.MAIN, "")
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    sweep(made, nobody)
    assert len(made.far_run.records()) == 3


# --- partial copies ----------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut adapter": lambda shared: cut(shared / "cache" / "trainings" / ID_A / "adapter_model.safetensors"),
    "lost adapter": lambda shared: (shared / "cache" / "trainings" / ID_A / "adapter_model.safetensors").unlink(),
    "lost manifest": lambda shared: (shared / "cache" / "trainings" / ID_A / MANIFEST).unlink(),
    "cut manifest": lambda shared: cut(shared / "cache" / "trainings" / ID_A / MANIFEST),
    "cut outcome": lambda shared: cut(shared / "cache" / "trainings" / ID_A / "training.json"),
    "lost outcome": lambda shared: (shared / "cache" / "trainings" / ID_A / "training.json").unlink(),
    "cut answers": lambda shared: cut(next((shared / "cache" / "answers" / ID_A).glob("*.json"))),
}


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_partial_copy_is_not_used(tmp_path: Path, damage: str) -> None:
    """If a file of a trial is truncated or missing in the shared folder, only this trial is run or asked again."""
    shared = tmp_path / "drive"
    first = sweep(machine_at(tmp_path / "one", shared), Trainers())
    shutil.rmtree(shared / "runs")
    DAMAGES[damage](shared)
    workers = Trainers()
    second = sweep(machine_at(tmp_path / "two", shared), workers)
    assert [task.trial for job in workers.received for task in job.tasks] == [A.id]
    assert [task.train for job in workers.received for task in job.tasks] == [damage != "cut answers"]
    assert {name: texts(record) for name, record in second.items()} == {n: texts(r) for n, r in first.items()}


def test_a_truncated_record_is_made_again(tmp_path: Path) -> None:
    """If a record in the shared folder is truncated, it is made again from the copied answers, and copied again."""
    shared = tmp_path / "drive"
    one = machine_at(tmp_path / "one", shared)
    manifest = results(count=2, failures=False).run
    one.run.write_manifest(replace(manifest, digest="0123456789abcdef"))
    one.begin(one.run.manifest(), fresh=False)
    sweep(one, Trainers())
    cut(one.far_run.root / "trials" / A.id / "record.json")
    two = machine_at(tmp_path / "two", shared)
    two.begin(one.run.manifest(), fresh=False)
    assert two.run.record(Split.MAIN, A.id) is None
    assert two.run.record(Split.MAIN, B.id)
    sweep(two, nobody)
    assert two.far_run.record(Split.MAIN, A.id)


def test_records_of_another_run_are_not_copied(tmp_path: Path) -> None:
    """If run.json in the shared folder is truncated or belongs to another run, no records are copied from there."""
    one = machine_at(tmp_path / "one", tmp_path / "drive")
    manifest = replace(results(count=2, failures=False).run, digest="0123456789abcdef")
    one.run.write_manifest(manifest)
    one.begin(manifest, fresh=False)
    sweep(one, Trainers())
    two = machine_at(tmp_path / "two", tmp_path / "drive")
    two.begin(replace(manifest, digest="another"), fresh=False)
    assert not two.run.records()
    cut(one.far_run.root / "run.json")
    two.begin(manifest, fresh=False)
    assert not two.run.records()


# --- errors ------------------------------------------------------------------------------------------------------


def test_trials_finish_without_the_mirror(tmp_path: Path) -> None:
    """If the shared folder disappears during a run, trials still succeed, and notices say which are not copied."""
    made, events = machine_at(tmp_path / "one", tmp_path / "drive"), list[Event]()
    shutil.rmtree(tmp_path / "drive")
    (tmp_path / "drive").write_text("not a folder", encoding="utf-8")
    records = sweep(made, Trainers(), events)
    assert [record.status for record in records.values()] == [Status.SUCCEEDED] * 3
    assert sum("not copied by --sync" in event.message for event in events if event.kind is EventKind.NOTICED) == 3


def test_a_drive_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    """If the parent of the shared folder does not exist, the error says how to mount Google Drive."""
    with pytest.raises(UsageError, match="there is no") as caught:
        mirror(tmp_path / "drive" / "MyDrive" / "runs", RunStore(tmp_path), Cache(tmp_path), "0123")
    assert "drive.mount('/content/drive')" in caught.value.remedy


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """If the path of the shared folder is a file, a usage error says so."""
    (tmp_path / "drive").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        mirror(tmp_path / "drive", RunStore(tmp_path), Cache(tmp_path), "0123")


def test_a_fresh_run_deletes_old_copies(tmp_path: Path) -> None:
    """If `--fresh` deletes trainings and answers from the cache, their copies in the shared folder are deleted too."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    sweep(made, Trainers())
    Sweep(SETUP, made.run, made.cache, Inline(nobody), mirror=made).forget([A, B])
    assert not any(made.far_cache.adapter(name).exists() for name in (ID_A, ID_B))
    assert made.far_cache.answers(SETUP.base_id(A.settings.quantization)) == ()


def test_passes_of_two_machines_are_merged(tmp_path: Path) -> None:
    """If two machines asked the same adapter different prompts, both get all answers through the shared folder."""
    shared, caches = Cache(tmp_path / "shared"), [Cache(tmp_path / "one"), Cache(tmp_path / "two")]
    for number, cache in enumerate(caches):
        answers = (Answer(f"key {number}", "text", 1, False),)
        cache.commit_answers("id", AnswerPass(answers, (cost(Phase.ANSWER_AFTER, 1.0),)))
        shared.adopt(cache, "id", trained=False)
    for cache in caches:
        cache.adopt(shared, "id", trained=False)
        assert {answer.key for made in cache.answers("id") for answer in made.answers} == {"key 0", "key 1"}


def test_a_full_folder_is_a_store_error(tmp_path: Path) -> None:
    """If a training is copied into a cache that cannot be written, a StoreError is raised."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    sweep(made, Trainers())
    (tmp_path / "blocked").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write"):
        Cache(tmp_path / "blocked").adopt(made.cache, ID_A, trained=True)


def test_verdicts_of_a_judge_are_copied(tmp_path: Path) -> None:
    """Another machine that begins the run has the replies of its judge, which were copied when they were stored."""
    here, there = (machine_at(tmp_path / name, tmp_path / "shared") for name in ("here", "there"))
    judge, plain = JudgeRef("m", "https://h/v1"), results(1, 1).run
    made = replace(plain, suite=replace(plain.suite, judge=judge))
    here.run.write_manifest(made)
    VerdictStore(source_of(judge), here.cache.root, None).add(Reply("k", "yes"))
    VerdictStore("another judge", here.cache.root, None).add(Reply("k", "no"))
    SyncListener(here, EventList([])).on_verdicts()
    there.begin(made, fresh=False)
    assert VerdictStore(source_of(judge), there.cache.root, None).known() == {"k": Reply("k", "yes")}
    assert VerdictStore("another judge", there.cache.root, None).known() == {}
