"""Tests of timelines: answers after every epoch, the stored adapters that give them, and the results from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis.aggregate import assemble
from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job, Snapshot, Task
from harness.core.measurement import Phase
from harness.core.model import ModelRef
from harness.core.run import EpochAnswers, TrialRecord
from harness.core.run_results import Milestone, Results
from harness.core.scores import Rate
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Case, Decoding, Role, Split
from harness.core.training_outcome import Status, Training
from harness.engine.adapters import attached
from harness.engine.loading import Base
from harness.engine.worker import work
from harness.report import json_summary, terminal
from harness.report.data_frame import Run
from harness.runner.executors.inline import Inline
from harness.runner.sweep import Sweep
from harness.storage.cache import AnswerPass, Cache, snapshot_id
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from tests.support.made_results import cost
from tests.support.short_trainings import QUESTIONS, SHORT, one_core, prompts, training, weights
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

ONE = replace(variants(1)[0], settings=replace(variants(1)[0].settings, epochs=3.0))

# --- results -----------------------------------------------------------------------------------------------------


def course(cases: Sequence[Case], base: str, *seeds: Sequence[str]) -> Results:
    """Return the results of a run with a timeline. `seeds` has a text for each epoch of each seed.

    A text has a letter for each case: `g` passes, `b` fails. `base` is the text of the base model.
    """
    texts = {"g": "good", "b": "bad"}

    def answers(letters: str) -> dict[str, str]:
        return {each.id: texts[letter] for each, letter in zip(cases, letters, strict=True)}

    def trial(seed: int, epochs: Sequence[str]) -> TrialRecord:
        made = record(ONE, answers(epochs[-1]), seed=seed)
        before = (EpochAnswers(n, record(ONE, answers(own)).answers) for n, own in enumerate(epochs[:-1], start=1))
        return replace(made, timeline=tuple(before))

    records = [record(None, answers(base)), *(trial(seed, epochs) for seed, epochs in enumerate(seeds))]
    asked = manifest(suite(cases, margin=100), [ONE], tuple(range(len(seeds))))
    return assemble(asked, records, score, "now")


CASES = [case("new", Role.GENERALISE), case("kept", Role.RETAIN), case("broken", Role.RETAIN), case("never")]


def test_when_each_case_was_learned_and_lost() -> None:
    """A case is learned at the epoch from which it passes to the end, and lost at the epoch from which it fails."""
    [found] = course(CASES, "bggb", ["bggb", "gggb", "ggbb"]).timelines
    milestones = {each.case: (each.learned, each.lost) for each in found.milestones}
    assert milestones == {"new": (2, None), "kept": (None, None), "broken": (None, 3), "never": (None, None)}
    assert [each.rates[Role.GENERALISE] for each in found.epochs] == [Rate(0, 1), Rate(1, 1), Rate(1, 1)]
    assert [each.epoch for each in found.epochs] == [1, 2, 3]


def test_the_last_turn_counts() -> None:
    """If a case changes several times between pass and fail, its last change is reported."""
    [found] = course([case("wavers"), case("leaves")], "bb", ["gg", "bg", "gb"]).timelines
    assert found.milestones == (
        Milestone("wavers", Role.LEARN, 3, None),
        Milestone("leaves", Role.LEARN, None, 3),
    )


def test_most_seeds_decide() -> None:
    """A case is learned at the epoch from which more than half of the seeds pass it; pass rates count every seed."""
    [found] = course([case("it")], "b", ["g", "g", "g"], ["b", "g", "g"], ["b", "b", "b"]).timelines
    assert found.milestones[0].learned == 2
    assert [each.rates[Role.LEARN] for each in found.epochs] == [Rate(1, 3), Rate(2, 3), Rate(2, 3)]


def test_how_many_epochs_were_needed() -> None:
    """The number of epochs that were enough is that of the first epoch within one standard error of the best."""
    cases = [case(f"c{n}", Role.GENERALISE) for n in range(40)]
    [found] = course(cases, "b" * 40, ["g" * 29 + "b" * 11, "g" * 39 + "b", "g" * 40]).timelines
    assert found.enough == 2
    [nothing] = course(cases, "b" * 40, ["b" * 40] * 3).timelines
    assert nothing.enough is None


def test_a_case_that_the_base_passes_counts() -> None:
    """A case that the base model passes already is not learned, but counts in the pass rates of a timeline."""
    [found] = course([case("known"), case("new")], "gb", ["gg", "gg", "gg"]).timelines
    assert [(each.case, each.learned) for each in found.milestones] == [("known", None), ("new", 1)]
    assert found.epochs[0].rates[Role.LEARN] == Rate(2, 2)


def test_summary_frame_and_json_tell_it() -> None:
    """The terminal shows how many epochs were enough; it and the JSON summary show which cases were lost.

    The data frame has a row for each epoch and role.
    """
    results = course(CASES, "bggb", ["bggb", "gggb", "ggbb"])
    assert "2 of 3 epochs were enough" in terminal.summary(results)
    assert "lost: broken (epoch 3)" in terminal.summary(results)
    table = Run(results).timeline()
    assert list(table["epoch"].unique()) == [1.0, 2.0, 3.0]
    assert table.query("role == 'retain'")["rate"].tolist() == [1.0, 1.0, 0.5]
    assert json_summary.overview(results, Path("run"))["epochs"][ONE.name]["cases"]["broken"] == {
        "learned": None,
        "lost": 3,
    }


def test_without_the_option_there_is_none() -> None:
    """If a run has no timeline, the data frame of the timeline is empty."""
    results = assemble(manifest(suite(CASES), [ONE]), [record(None, {}), record(ONE, {})], score, "now")
    assert results.timelines == ()
    assert Run(results).timeline().empty


# --- answers and the cache ---------------------------------------------------------------------------------------

SETTINGS = Settings(epochs=2.5)
TRIAL = Trial("trial", "variant", SETTINGS, 0)
SETUP = Setup(suite([case("one"), case("late", split=Split.CONFIRM)]), ModelRef("none", "none", "0"), one_core(),
              Engine.REFERENCE, {})  # fmt: skip


class Workers:
    """An executor without a model. If `trouble` is given, it is raised before an epoch's adapter answers."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.tasks: list[Task] = []
        self.trouble = trouble

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        emit(Event(EventKind.LOADED))
        cache = Cache(Path(job.cache))
        for task in job.tasks:
            self.tasks.append(task)
            emit(Event(EventKind.STARTED, task.trial))
            if task.train:
                for name in (task.training, *(each.id for each in task.timeline)):
                    cache.commit_training(Training(name, Status.SUCCEEDED, "", (), cost(Phase.TRAIN, 5.0)), None)
            self._answer(cache, task.training, task)
            for each in task.timeline:
                if self.trouble:
                    raise self.trouble
                self._answer(cache, each.id, each)
            emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))

    def _answer(self, cache: Cache, name: str, asked: Task | Snapshot) -> None:
        if asked.prompts:
            answers = tuple(Answer(prompt.key, f"by {name}", 1, False) for prompt in asked.prompts)
            cache.commit_answers(name, AnswerPass(answers, ()))


def go(folder: Path, workers: Workers, *, timeline: bool = True, split: Split = Split.MAIN) -> TrialRecord:
    sweep = Sweep(SETUP, RunStore(folder / "run"), Cache(folder / "cache"), Inline(workers), timeline=timeline)
    return sweep.run_trials([TRIAL], split, "")[-1]


def epochs(record: TrialRecord) -> dict[int, str]:
    return {each.epoch: each.answers["one"][0].text for each in record.timeline}


def test_every_epoch_before_the_last_is_asked(tmp_path: Path) -> None:
    """If a training has two and a half epochs, the adapters stored after the first and the second epoch answer, too."""
    found = go(tmp_path, Workers())
    name = SETUP.training_id(SETTINGS, 0)
    assert epochs(found) == {1: f"by {snapshot_id(name, 1)}", 2: f"by {snapshot_id(name, 2)}"}
    assert found.answers["one"][0].text == f"by {name}"


def test_a_timeline_is_made_once(tmp_path: Path) -> None:
    """If a trial with a timeline is in the cache, another run needs no worker, with or without `timeline`."""
    first, again = go(tmp_path, Workers()), Workers()
    assert go(tmp_path, again) == first
    assert go(tmp_path, again, timeline=False) == first
    assert not again.tasks


def test_a_training_whose_epochs_were_not_kept_is_trained_again(tmp_path: Path) -> None:
    """If a trial finished without a timeline, a run with `timeline` trains it again and asks all cases again."""
    go(tmp_path, Workers(), timeline=False)
    again = Workers()
    assert set(epochs(go(tmp_path, again))) == {1, 2}
    [task] = [task for task in again.tasks if task.settings]
    assert task.train
    assert len(task.prompts) == 1


def test_a_death_while_answering_trains_once(tmp_path: Path) -> None:
    """If a worker dies while an epoch's adapter answers, the next run asks the stored adapters and does not train."""
    assert go(tmp_path, Workers(OSError("gone"))).status is Status.FAILED
    again = Workers()
    assert set(epochs(go(tmp_path, again))) == {1, 2}
    assert [(task.train, len(task.prompts), len(task.timeline)) for task in again.tasks] == [(False, 0, 2)]


def test_a_confirmation_has_no_timeline(tmp_path: Path) -> None:
    """The confirmation cases are answered only after the last epoch."""
    assert go(tmp_path, Workers(), split=Split.CONFIRM).timeline == ()


def test_forgetting_takes_the_epochs_along(tmp_path: Path) -> None:
    """If a training is removed from the cache, the adapters and answers of its epochs are removed, and no others."""
    go(tmp_path, Workers())
    cache, other = Cache(tmp_path / "cache"), Training("another-epoch-1", Status.SUCCEEDED, "", (), None)
    cache.commit_training(other, None)
    cache.forget(SETUP.training_id(SETTINGS, 0))
    assert [path.name for path in (cache.root / "trainings").iterdir()] == ["another-epoch-1"]
    assert not list((cache.root / "answers").glob("*-epoch-*"))


# --- real training -----------------------------------------------------------------------------------------------


def test_keeping_epochs_changes_no_training(base: Base, tmp_path: Path) -> None:
    """If adapters are stored after each epoch, the final adapter is bit for bit equal to one without them.

    The last epoch is not stored separately.
    """
    with training(base, replace(SHORT, epochs=3)) as plain:
        expected = weights(plain.model)
    kept: list[int] = []

    def keep(epoch: int, save: Callable[[Path], None]) -> None:
        kept.append(epoch)
        (tmp_path / str(epoch)).mkdir()
        save(tmp_path / str(epoch))

    with training(base, replace(SHORT, epochs=3), keep=keep) as watched:
        found = weights(watched.model)
    assert kept == [1, 2]
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    with attached(base, tmp_path / "2") as model:
        before = weights(model)
    assert all(before[name].shape == expected[name].shape for name in expected)
    assert not all(before[name].equal(expected[name]) for name in expected)


def test_a_worker_keeps_and_asks_each_epoch(tmp_path: Path) -> None:
    """A real worker stores an adapter and its answers for every requested epoch and for the end of the training."""
    from harness.models.resolving import resolve
    from tests.support.short_trainings import SUITE

    asked = prompts(*QUESTIONS[:2])
    early = Snapshot(1, snapshot_id("it", 1), tuple(replace(each, key=f"early {each.key}") for each in asked))
    task = Task("trial", "it", SHORT, 0, True, asked, timeline=(early,))
    job = Job(
        resolve("pocket"), one_core(), Quantization.NF4, Engine.REFERENCE, str(tmp_path), SUITE.examples[:8],
        Decoding(8), (task,),
    )  # fmt: skip
    assert work(job, lambda event: None)
    cache = Cache(tmp_path)
    for name, keys in (("it", {each.key for each in asked}), (early.id, {each.key for each in early.prompts})):
        assert (cache.adapter(name) / "adapter_model.safetensors").is_file()
        assert {answer.key for made in cache.answers(name) for answer in made.answers} == keys
