"""What is copied out is whole or not there, whoever copied it, and another machine goes on from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.core.answers import Answer
from harness.core.errors import StoreError, UsageError
from harness.core.job import Event, EventKind, Job
from harness.core.measurement import Phase
from harness.core.run import TrialRecord
from harness.core.suite import Split
from harness.core.training import Status, Training
from harness.runner.executors.inline import Inline
from harness.runner.listeners.sync import SyncListener
from harness.runner.sweep import Sweep
from harness.storage.cache import AnswerPass, Cache
from harness.storage.manifest import MANIFEST
from harness.storage.mirror import Mirror, mirror
from harness.storage.runs import RunStore
from tests.support.fake_workers import SETUP, A, B, EventList, Workers, nobody, texts
from tests.support.synthetic_runs import cost, results

ID_A, ID_B = (SETUP.training_id(trial.settings, trial.seed) for trial in (A, B))


@dataclass
class Trainers(Workers):
    """Workers whose trainings leave an adapter of two files."""

    given: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        def save(folder: Path) -> None:
            (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
            (folder / "adapter_model.safetensors").write_bytes(b"weights " * 1000)

        for task in job.tasks:
            if task.settings and task.train:
                Cache(Path(job.cache)).commit_training(Training(task.training, Status.SUCCEEDED, "", (), None), save)
        self.given.append(job)
        untrained = replace(job, tasks=tuple(replace(task, train=False) for task in job.tasks))
        super().__call__(untrained, emit)


def machine_at(folder: Path, shared: Path) -> Mirror:
    """The run and the cache of one machine, mirrored into the shared folder."""
    shared.mkdir(exist_ok=True)
    return mirror(shared, RunStore(folder / "run"), Cache(folder / "cache"), "0123456789abcdef")


def go(made: Mirror, work: Callable[..., object], told: list[Event] | None = None) -> dict[str, TrialRecord]:
    listener = SyncListener(made, EventList(told if told is not None else []))
    sweep = Sweep(SETUP, made.run, made.cache, Inline(work), listener=listener, mirror=made)
    return {record.trial: record for record in sweep.run_trials([A, B], Split.MAIN, "")}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- going on elsewhere ------------------------------------------------------------------------------------------


def test_another_machine_has_nothing_to_do(tmp_path: Path) -> None:
    """Adapters, answers and records of a finished sweep are all there for a machine that has only the folder."""
    shared = tmp_path / "drive"
    first = go(machine_at(tmp_path / "one", shared), Trainers())
    second = go(machine_at(tmp_path / "two", shared), nobody)
    assert {name: texts(record) for name, record in second.items()} == {n: texts(r) for n, r in first.items()}
    assert Cache(tmp_path / "two" / "cache").training(ID_A) == Cache(tmp_path / "one" / "cache").training(ID_A)
    assert files(tmp_path / "two" / "cache") == files(tmp_path / "one" / "cache") - {"commits/.lock"}  # nobody's result
    assert not [name for name in files(shared) if name.endswith((".lock", ".log")) or ".partial" in name]


def test_another_machine_does_the_rest(tmp_path: Path) -> None:
    """What one machine had finished when it was lost is not done again by the next; the end is that of one machine."""
    shared = tmp_path / "drive"
    go(machine_at(tmp_path / "one", shared), Trainers({B.id: RuntimeError("the runtime was disconnected")}))
    workers = Trainers()
    found = go(machine_at(tmp_path / "two", shared), workers)
    assert [task.trial for job in workers.given for task in job.tasks] == [B.id]
    alone = go(machine_at(tmp_path / "three", tmp_path / "nothing"), Trainers())
    assert {name: (r.status, r.answers) for name, r in found.items()} == {
        name: (r.status, r.answers) for name, r in alone.items()
    }


def test_failures_are_not_copied(tmp_path: Path) -> None:
    """A trial that failed is no result: its record stays where it failed, and the next machine tries it."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    go(made, Trainers({B.id: Event(EventKind.FINISHED, B.id, Status.FAILED, "why")}))
    assert made.far_run.record(Split.MAIN, A.id)
    assert made.far_run.record(Split.MAIN, B.id) is None


def test_what_was_finished_before_is_copied_too(tmp_path: Path) -> None:
    """Killed between its record and its copy, or begun without --sync, a trial is copied by the next session."""
    alone = Sweep(SETUP, RunStore(tmp_path / "one" / "run"), Cache(tmp_path / "one" / "cache"), Inline(Trainers()))
    alone.run_trials([A, B], Split.MAIN, "")
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    go(made, nobody)
    assert len(made.far_run.records()) == 3


# --- halves ------------------------------------------------------------------------------------------------------

HALVES: dict[str, Callable[[Path], object]] = {
    "cut adapter": lambda shared: cut(shared / "cache" / "trainings" / ID_A / "adapter_model.safetensors"),
    "lost adapter": lambda shared: (shared / "cache" / "trainings" / ID_A / "adapter_model.safetensors").unlink(),
    "lost manifest": lambda shared: (shared / "cache" / "trainings" / ID_A / MANIFEST).unlink(),
    "cut manifest": lambda shared: cut(shared / "cache" / "trainings" / ID_A / MANIFEST),
    "cut ending": lambda shared: cut(shared / "cache" / "trainings" / ID_A / "training.json"),
    "lost ending": lambda shared: (shared / "cache" / "trainings" / ID_A / "training.json").unlink(),
    "cut answers": lambda shared: cut(next((shared / "cache" / "answers" / ID_A).glob("*.json"))),
}


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("half", HALVES)
def test_half_a_copy_is_never_taken_for_whole(tmp_path: Path, half: str) -> None:
    """Whatever of a trial is cut off or missing in the folder, its part is done again, and the neighbour's is not."""
    shared = tmp_path / "drive"
    first = go(machine_at(tmp_path / "one", shared), Trainers())
    shutil.rmtree(shared / "runs")
    HALVES[half](shared)
    workers = Trainers()
    second = go(machine_at(tmp_path / "two", shared), workers)
    assert [task.trial for job in workers.given for task in job.tasks] == [A.id]
    assert [task.train for job in workers.given for task in job.tasks] == [half != "cut answers"]
    assert {name: texts(record) for name, record in second.items()} == {n: texts(r) for n, r in first.items()}


def test_half_a_record_is_made_anew(tmp_path: Path) -> None:
    """A record that is cut off there is not taken; with its adapter and answers it is made again, and copied whole."""
    shared = tmp_path / "drive"
    one = machine_at(tmp_path / "one", shared)
    manifest = results(count=2, failures=False).run
    one.run.write_manifest(replace(manifest, digest="0123456789abcdef"))
    one.begin(one.run.manifest(), fresh=False)
    go(one, Trainers())
    cut(one.far_run.root / "trials" / A.id / "record.json")
    two = machine_at(tmp_path / "two", shared)
    two.begin(one.run.manifest(), fresh=False)
    assert two.run.record(Split.MAIN, A.id) is None
    assert two.run.record(Split.MAIN, B.id)
    go(two, nobody)
    assert two.far_run.record(Split.MAIN, A.id)


def test_another_run_gives_no_records(tmp_path: Path) -> None:
    """Records are taken from the same run alone; half of its run.json counts as another."""
    one = machine_at(tmp_path / "one", tmp_path / "drive")
    manifest = replace(results(count=2, failures=False).run, digest="0123456789abcdef")
    one.run.write_manifest(manifest)
    one.begin(manifest, fresh=False)
    go(one, Trainers())
    two = machine_at(tmp_path / "two", tmp_path / "drive")
    two.begin(replace(manifest, digest="another"), fresh=False)
    assert not two.run.records()
    cut(one.far_run.root / "run.json")
    two.begin(manifest, fresh=False)
    assert not two.run.records()


# --- trouble -----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_gone_costs_the_copy_alone(tmp_path: Path) -> None:
    """Where the folder cannot be written any more, trials are finished all the same; what was not copied is told."""
    made, told = machine_at(tmp_path / "one", tmp_path / "drive"), list[Event]()
    shutil.rmtree(tmp_path / "drive")
    (tmp_path / "drive").write_text("no folder any more", encoding="utf-8")
    records = go(made, Trainers(), told)
    assert [record.status for record in records.values()] == [Status.SUCCEEDED] * 3
    assert sum("not copied by --sync" in event.message for event in told if event.kind is EventKind.NOTICED) == 3


def test_a_drive_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    """A folder whose parent is not there is no slip to be made up for: it says how Google Drive is mounted."""
    with pytest.raises(UsageError, match="there is no") as caught:
        mirror(tmp_path / "drive" / "MyDrive" / "runs", RunStore(tmp_path), Cache(tmp_path), "0123")
    assert "drive.mount('/content/drive')" in caught.value.remedy


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A file where the folder should be is refused in words."""
    (tmp_path / "drive").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        mirror(tmp_path / "drive", RunStore(tmp_path), Cache(tmp_path), "0123")


def test_a_fresh_run_leaves_nothing_old(tmp_path: Path) -> None:
    """What `--fresh` drops from the cache goes from the folder too, so that nobody takes it from there."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    go(made, Trainers())
    sweep = Sweep(SETUP, made.run, made.cache, Inline(nobody), mirror=made)
    sweep.forget([A, B])
    assert not any(made.far_cache.adapter(name).exists() for name in (ID_A, ID_B))
    assert made.far_cache.answers(SETUP.base_id(A.settings.quantization)) == ()


def test_passes_of_two_machines_lie_side_by_side(tmp_path: Path) -> None:
    """Two machines that answered different cases both copy their passes, and each then has all."""
    shared, caches = Cache(tmp_path / "shared"), [Cache(tmp_path / "one"), Cache(tmp_path / "two")]
    for number, cache in enumerate(caches):
        answers = (Answer(f"key {number}", "text", 1, False),)
        cache.commit_answers("id", AnswerPass(answers, (cost(Phase.ANSWER_AFTER, 1.0),)))
        shared.adopt(cache, "id", trained=False)
    for cache in caches:
        cache.adopt(shared, "id", trained=False)
        assert {answer.key for made in cache.answers("id") for answer in made.answers} == {"key 0", "key 1"}


def test_a_full_folder_is_a_store_error(tmp_path: Path) -> None:
    """Adopting into a place that cannot be written says so in the store's own words."""
    made = machine_at(tmp_path / "one", tmp_path / "drive")
    go(made, Trainers())
    (tmp_path / "blocked").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write"):
        Cache(tmp_path / "blocked").adopt(made.cache, ID_A, trained=True)
