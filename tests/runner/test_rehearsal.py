"""The base model's rehearsal answers in a run: asked once before training, stored, resumed, and counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core import device_profiles
from harness.core.answers import Answer
from harness.core.errors import EngineError, GridError
from harness.core.job import Event, EventKind, Job
from harness.core.measurement import Phase
from harness.core.rehearsal import DECODING
from harness.core.rehearsal_answers import LeftOut
from harness.core.run_results import Results
from harness.core.training_outcome import Status
from harness.runner import benchmark
from harness.runner.executors.inline import Inline
from harness.runner.request import Request
from harness.runner.rescoring import rescore
from harness.storage.cache import AnswerPass, Cache
from harness.storage.runs import RunStore
from harness.suites.rehearsal import FILE
from tests.support.fake_workers import EventList
from tests.support.made_results import commit, cost
from tests.support.small_suite import RUN, small_suite

GRID = """\
seeds: [0, 1]
settings: {epochs: 2, batch_size: 2, rank: 4, alpha: 8}
axes: {rehearsal: [0, 3, 6]}
"""
PROMPTS = [f"Tell me fact number {number}." for number in range(1, 11)]


class Killed(BaseException):
    """The whole process is killed."""


@dataclass
class Workers:
    """A fake worker that stores a result for every task. It can fail at the rehearsal or be killed in training."""

    kill_training: bool = False
    fail_rehearsal: bool = False
    bad: Mapping[str, Answer] = field(default_factory=dict)
    """Answers to some rehearsal prompts, instead of a good one."""
    jobs: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        self.jobs.append(job)
        emit(Event(EventKind.LOADED))
        if any(task.train for task in job.tasks) and self.kill_training:
            raise Killed
        for task in job.tasks:
            emit(Event(EventKind.STARTED, task.trial))
            if task.trial.startswith("rehearsal"):
                if self.fail_rehearsal:
                    raise RuntimeError("no answers today")
                self._answer(job)
            else:
                commit(job, task)
            emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))

    def _answer(self, job: Job) -> None:
        [task] = job.tasks
        answers = []
        for prompt in task.prompts:
            text = prompt.messages[-1].content
            good = Answer(prompt.key, f"Here is {text.split()[-1]}", 5, False)
            answers.append(replace(self.bad[text], key=prompt.key) if text in self.bad else good)
        made = AnswerPass(tuple(answers), (cost(Phase.LOAD, 1.0), cost(Phase.ANSWER_BEFORE, 2.0)))
        Cache(Path(job.cache)).commit_answers(task.training, made)

    @property
    def asked(self) -> list[int]:
        """The number of prompts in each job that lets the base model answer rehearsal prompts."""
        tasks = [task for job in self.jobs for task in job.tasks]
        return [len(task.prompts) for task in tasks if task.trial.startswith("rehearsal")]

    @property
    def rows(self) -> dict[tuple[int, int], list[str]]:
        """The prompts of the rehearsal rows of each training, by rehearsal and seed."""
        return {
            (task.settings.rehearsal, task.seed): [job.rehearsal[place].messages[0].content for place in task.rehearsal]
            for job in self.jobs
            for task in job.tasks
            if task.settings and task.train
        }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with the suite `small`, whose pool has ten prompts."""
    made = tmp_path / "here"
    suite = small_suite(made, grid=GRID)
    (suite / FILE).write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS), encoding="utf-8")
    monkeypatch.chdir(made)
    return made


def run(workers: Workers, **asked: Any) -> tuple[RunStore, Results]:
    request = Request(suite=Path("small"), profile=device_profiles.CPU, **{"confirm_seeds": 0, **asked})
    return benchmark.run(request, Inline(workers))


def trainings(store: RunStore) -> dict[str, str]:
    return {record.trial: record.training.id for record in store.records() if record.training}


def test_the_base_answers_once_before_training(folder: Path) -> None:
    """The base model answers all prompts in one job before anything is trained, with its own limit of tokens."""
    workers = Workers()
    run(workers)
    first, *others = workers.jobs
    assert workers.asked == [len(PROMPTS)]
    assert first.decoding == DECODING
    assert not any(task.train for task in first.tasks)
    assert all(job.decoding.max_new_tokens == 12 for job in others)


def test_each_trial_trains_on_the_rows_of_its_seed(folder: Path) -> None:
    """A trial gets as many rows as its settings say; seeds draw different rows, and other variants the same ones."""
    workers = Workers()
    store, results = run(workers)
    rows = workers.rows
    assert {key: len(own) for key, own in rows.items()} == {(n, seed): n for n in (0, 3, 6) for seed in (0, 1)}
    assert rows[6, 0] != rows[6, 1]
    assert rows[6, 0][:3] == rows[3, 0]
    for variant in results.variants:
        assert variant.settings is not None
        for seed in (0, 1):
            added = results.run.added_rows(variant.settings, seed)
            assert [row.messages[0].content for row in added] == rows[variant.settings.rehearsal, seed]
    assert store.manifest().rehearsal == results.run.rehearsal


def test_a_run_killed_before_training_resumes_with_the_same_rows(folder: Path, tmp_path: Path) -> None:
    """If a run is killed between answering and training, the next session asks nothing again and trains the same."""
    with pytest.raises(Killed):
        run(Workers(kill_training=True))
    resumed = Workers()
    store, _ = run(resumed)
    assert resumed.asked == []
    whole = Workers()
    (tmp_path / "other").mkdir()
    other, _ = run(whole, output=tmp_path / "other" / "run")
    assert trainings(other) == trainings(store)
    assert len(trainings(store)) == 6


def test_rows_of_a_run_do_not_depend_on_the_cache(folder: Path) -> None:
    """If the cache is deleted, a run still uses the rows in its run.json, so that its records stay valid."""
    before, _ = run(Workers())
    known = trainings(before)
    shutil.rmtree("reports/cache")
    again = Workers(bad={PROMPTS[0]: Answer("", "Something else", 4, False)})
    store, _ = run(again)
    assert (again.jobs, trainings(store)) == ([], known)


def test_fresh_asks_the_base_again(folder: Path) -> None:
    """`--fresh` lets the base model answer again, and trains everything again on the new answers."""
    run(Workers())
    fresh = Workers(bad={text: Answer("", f"Now {text}", 4, False) for text in PROMPTS})
    store, results = run(fresh, fresh=True)
    assert fresh.asked == [len(PROMPTS)]
    assert len(fresh.rows) == 6
    assert results.run.rehearsal
    assert all("Now" in row.messages[-1].content for row in results.run.rehearsal.answers[0].rows)
    assert store.manifest().rehearsal == results.run.rehearsal


def test_fresh_trains_again_on_equal_answers(folder: Path) -> None:
    """If the base model gives the same answers again, `--fresh` still trains every trial again."""
    run(Workers())
    fresh = Workers()
    run(fresh, fresh=True)
    assert len(fresh.rows) == 6


def test_another_machine_uses_the_same_rows(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another machine resumes from the folder of `--sync` uses the rows that the first machine made."""
    drive = tmp_path / "drive"
    with pytest.raises(Killed):
        run(Workers(kill_training=True), sync=drive)
    there = tmp_path / "there"
    there.mkdir()
    shutil.copytree(folder / "small", there / "small")
    monkeypatch.chdir(there)
    other = Workers(bad={text: Answer("", f"Now {text}", 4, False) for text in PROMPTS})
    _, results = run(other, sync=drive)
    assert other.asked == []
    assert results.run.rehearsal
    assert all("Here" in row.messages[-1].content for row in results.run.rehearsal.answers[0].rows)


@dataclass
class DriveIsGone(Workers):
    """A worker that works as usual, but while it answers, a file takes the place of the folder of `--sync`."""

    drive: Path = Path("drive")

    def _answer(self, job: Job) -> None:
        super()._answer(job)
        shutil.rmtree(self.drive)
        self.drive.write_text("", encoding="utf-8")


def test_rows_that_cannot_be_copied_do_not_stop_the_run(folder: Path, tmp_path: Path) -> None:
    """If the folder of `--sync` disappears while the base model answers, the user is told, and the run continues."""
    drive, told = tmp_path / "drive", list[Event]()
    request = Request(suite=Path("small"), profile=device_profiles.CPU, confirm_seeds=0, sync=drive)
    _, results = benchmark.run(request, Inline(DriveIsGone(drive=drive)), [EventList(told)])
    assert any("the rehearsal rows were not copied by --sync" in event.message for event in told)
    assert len(results.variants) == 3


def test_bad_answers_are_left_out_and_counted(folder: Path) -> None:
    """Cut, empty and repeating answers are no rows. The manifest counts them, and the user is told."""
    bad = {
        PROMPTS[0]: Answer("", "On and on", 64, True),
        PROMPTS[1]: Answer("", "", 1, False),
        PROMPTS[2]: Answer("", "no no no no", 5, False),
    }
    workers = Workers(bad=bad)
    _, results = run(workers)
    [found] = results.run.rehearsal.answers if results.run.rehearsal else ()
    assert found.left_out == {LeftOut.EMPTY: 1, LeftOut.CUT: 1, LeftOut.REPEATS: 1}
    assert not set(PROMPTS[:3]) & {text for own in workers.rows.values() for text in own}


def test_too_few_good_answers_stop_the_run(folder: Path) -> None:
    """If fewer answers are good than a variant needs, the run stops before training; its remedy works as written."""
    bad = {text: Answer("", "On and on", 64, True) for text in PROMPTS[:6]}
    workers = Workers(bad=bad)
    with pytest.raises(GridError, match="rehearsal=6 has rehearsal 6, and there are only 4 rows") as stopped:
        run(workers)
    assert "6 did not end within 96 tokens" in stopped.value.message
    assert len(workers.jobs) == 1
    assert "Set rehearsal to at most 4" in stopped.value.remedy
    grid = folder / "small" / "grids" / "quick.yaml"
    grid.write_text(GRID.replace("6]", "4]"), encoding="utf-8")
    assert len(run(Workers(bad=bad))[1].variants) == 3


def test_a_base_that_cannot_answer_is_one_error(folder: Path) -> None:
    """If the base model's answers fail, the error names the cause and the log."""
    with pytest.raises(EngineError, match="no answers today") as failed:
        run(Workers(fail_rehearsal=True))
    log = failed.value.remedy.split("The log is ")[1].split(". ")[0]
    assert (folder / log).is_file()


def test_a_used_up_budget_leaves_rehearsal_for_the_next_session(folder: Path) -> None:
    """If no time is left for the answers, the run ends with its page, and the next session asks them."""
    _, results = run(Workers(), budget=1e-9)
    assert results.run.rehearsal
    assert results.run.rehearsal.answers == ()
    assert (folder / RUN / "report.html").is_file()
    workers = Workers()
    run(workers)
    assert workers.asked == [len(PROMPTS)]


def test_the_cost_is_a_phase_of_its_own(folder: Path) -> None:
    """The time of the answers is in the manifest, under the phase `rehearse`, and is no trial's."""
    store, results = run(Workers())
    [found] = results.run.rehearsal.answers if results.run.rehearsal else ()
    assert [(each.phase, each.seconds.value) for each in found.costs] == [(Phase.LOAD, 1.0), (Phase.REHEARSE, 2.0)]
    assert all(each.phase is not Phase.REHEARSE for record in store.records() for each in record.costs)
    assert "Base model answers rehearsal prompts" in (store.root / "report.html").read_text(encoding="utf-8")


def test_a_confirmation_trains_on_rows_of_fresh_seeds(folder: Path) -> None:
    """The trials that confirm a variant draw rehearsal rows by their own seeds."""
    workers = Workers()
    run(workers, confirm_seeds=2)
    assert {seed for _, seed in workers.rows} >= {0, 1}
    fresh = [own for (number, seed), own in workers.rows.items() if seed >= 1000 and number]
    assert all(own not in [workers.rows[6, 0], workers.rows[6, 1]] for own in fresh)


def test_scoring_again_keeps_the_rows(folder: Path) -> None:
    """`harness score` keeps the rehearsal rows of the run, even if the suite's pool has changed since."""
    store, results = run(Workers())
    (folder / "small" / FILE).unlink()
    assert rescore(store, folder / "small").run.rehearsal == results.run.rehearsal


def test_other_prompts_are_another_run(folder: Path) -> None:
    """If the pool changes, it is another run. Without rehearsal in the grid, the pool does not matter."""
    first, _ = run(Workers())
    (folder / "small" / FILE).write_text('{"prompt": "Another?"}\n' * 2 + "".join(
        json.dumps({"prompt": text}) + "\n" for text in PROMPTS), encoding="utf-8")  # fmt: skip
    second, _ = run(Workers())
    assert second.root != first.root
