"""A worker gives the same results with the reference and the fused engine, even if it is killed or a task fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.core.engines import Engine
from harness.core.hashing import file_digest
from harness.core.job import Event, EventKind, Job, Snapshot, Task
from harness.core.settings import Quantization, Settings
from harness.core.suite import Decoding
from harness.core.training_outcome import Status
from harness.engine.batched_worker import Tools
from harness.engine.generation.continuous_batching import answer_requests
from harness.engine.loading import Base
from harness.engine.trainers.fused.training import Fused, FusedResult
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.registry import trainers
from harness.engine.trainers.sft import Sft, Trained
from harness.engine.worker import work
from harness.models.resolving import resolve
from harness.storage.cache import Cache
from harness.storage.manifest import verify_manifest
from tests.support.short_trainings import QUESTIONS, SHORT, SUITE, one_core, prompts

ASKED = prompts(*QUESTIONS[:3])
OTHER = replace(SHORT, rank=8, alpha=16, epochs=1, target_modules="all-linear", learning_rate=2e-3)


Done = tuple[bool, list[Event], Cache]
"""The worker's return value (whether every task was done), its events, and the cache that it used."""


def task(trial: str, settings: Settings | None, **more: object) -> Task:
    made = Task(trial, f"training-{trial}", settings, 0, train=settings is not None, prompts=ASKED)
    return replace(made, **more)  # type: ignore[arg-type]


def done(cache: Path, engine: str, *tasks: Task, tools: Tools | None = None) -> Done:
    events: list[Event] = []
    return work(job(cache, engine, *tasks), events.append, tools), events, Cache(cache)


def job(cache: Path, engine: str, *tasks: Task) -> Job:
    return Job(
        model=resolve("pocket"),
        machine=one_core(),
        quantization=Quantization.NF4,
        engine=Engine(engine),
        cache=str(cache),
        examples=SUITE.examples[:8],
        decoding=Decoding(16),
        tasks=tasks,
        rehearsal=tuple(replace(example, line=0) for example in SUITE.examples[8:12]),
    )


def said(cache: Cache, trial: str) -> list[tuple[str, int, bool]]:
    (made,) = cache.answers(f"training-{trial}")
    return [(answer.text, answer.tokens, answer.truncated) for answer in made.answers]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Done]:
    """Return a function that runs a job of three tasks with the named engine, at most once in this module.

    The tasks are the base, a trial that keeps its adapter after each epoch, and a trial of another rank, which adds two
    rehearsal rows to the eight rows that both train on.
    """
    tasks = (
        task("base", None),
        task("one", SHORT, timeline=(Snapshot(1, "training-one-1", ASKED),)),
        task("two", OTHER, rehearsal=(3, 1)),
    )
    return functools.cache(lambda engine: done(tmp_path_factory.mktemp(engine), engine, *tasks))


@pytest.mark.parametrize("engine", ["reference", "fused"])
class TestEngine:
    """Tests that every engine passes."""

    def test_every_task_is_trained_answered_committed_and_reported(
        self, finished: Callable[[str], Done], engine: str
    ) -> None:
        """A job commits all tasks' adapters, logs, fingerprints and answers, and reports each task's end once."""
        well, events, cache = finished(engine)
        assert well
        ends = {event.trial: event.status for event in events if event.kind is EventKind.FINISHED}
        assert ends == dict.fromkeys(("base", "one", "two"), Status.SUCCEEDED)
        assert sum(event.kind is EventKind.FINISHED for event in events) == 3
        for trial, steps in (("one", 4), ("two", 3)):
            held = cache.training(f"training-{trial}")
            assert held is not None
            assert held.cost is not None
            assert held.fingerprint is not None
            assert held.fingerprint.saved_dtype == "F32"
            assert [step.step for step in held.steps] == list(range(1, steps + 1))
            told = [(e.done, e.total) for e in events if e.kind is EventKind.STEP and e.trial == trial]
            assert told == [(number, steps) for number in range(1, steps + 1)]
            verify_manifest(cache.adapter(f"training-{trial}"))
        assert [len(said(cache, trial)) for trial in ("base", "one", "two")] == [3, 3, 3]
        assert [cost.phase.value for made in cache.answers("training-base") for cost in made.costs] == [
            "load", "answer before",
        ]  # fmt: skip

    def test_a_trial_that_diverges_is_a_result_and_the_others_succeed(self, tmp_path: Path, engine: str) -> None:
        """A diverged trial is committed without adapter and answers, and the job's other trial succeeds."""
        wild = task("wild", replace(SHORT, learning_rate=1e30))
        well, events, cache = done(tmp_path, engine, task("one", SHORT), wild)
        assert well
        ends = {event.trial: (event.status, event.message) for event in events if event.kind is EventKind.FINISHED}
        assert ends == {
            "one": (Status.SUCCEEDED, ""),
            "wild": (Status.DIVERGED, "the gradient norm was nan at step 2 of 4"),
        }
        assert [path.name for path in cache.adapter("training-wild").iterdir()] == ["training.json"]
        assert cache.answers("training-wild") == ()

    @pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
    def test_a_trial_that_cannot_be_trained_fails_alone(self, tmp_path: Path, engine: str) -> None:
        """If a trial cannot be trained, the worker ends, and the training of an earlier trial stays committed."""
        head = task("head", replace(OTHER, target_modules=("lm_head",)))
        well, events, cache = done(tmp_path, engine, task("one", SHORT), head)
        assert not well
        last = events[-1]
        assert (last.kind, last.trial, last.status) == (EventKind.FINISHED, "head", Status.FAILED)
        assert "Applying a PEFT adapter to `lm_head` is not supported" in last.message
        assert cache.training("training-one") is not None
        assert cache.training("training-head") is None

    def test_a_timeline_keeps_the_adapter_of_every_epoch(self, finished: Callable[[str], Done], engine: str) -> None:
        """If a trial has a timeline, the adapter of each epoch is saved separately and answers the prompts."""
        _, _, cache = finished(engine)
        adapters = [cache.adapter(f"training-{name}") for name in ("one-1", "one")]
        for folder in adapters:
            verify_manifest(folder)
        assert len({file_digest(folder / "adapter_model.safetensors") for folder in adapters}) == 2
        assert len(said(cache, "one-1")) == len(said(cache, "one")) == 3


def test_both_engines_give_the_same_results(finished: Callable[[str], Done]) -> None:
    """Both engines give the same answers and fingerprints, and losses that differ by at most 0.1%.

    Equal fingerprints mean that they trained on the same rows, also on the same rehearsal rows.
    """
    (_, _, apart), (_, _, together) = map(finished, ("reference", "fused"))
    for trial in ("base", "one", "one-1", "two"):
        assert said(apart, trial) == said(together, trial)
    for trial, probed in (("one", 4), ("two", 5)):
        a, b = (cache.training(f"training-{trial}") for cache in (apart, together))
        assert a is not None
        assert b is not None
        assert a.fingerprint == b.fingerprint
        assert a.fingerprint
        assert a.fingerprint.rows == (8 if trial == "one" else 10)
        assert [s.loss for s in a.steps] == pytest.approx([s.loss for s in b.steps], rel=1e-3, abs=1e-4)
        assert a.cost is not None
        assert b.cost is not None
        assert (a.cost.tokens, a.trainable_parameters) == (b.cost.tokens, b.trainable_parameters)
        assert (a.cost.probes, a.together) == (0, None)
        assert (b.cost.probes, b.cost.probe_steps) == (1, probed)
        assert b.together is not None
        assert b.together.trials == 2
        assert b.together.cost.seconds.value > 0


NINE = tuple(task(f"t{n}", replace(SHORT, epochs=1, learning_rate=5e-4 * (n + 1))) for n in range(9))
"""Nine trials, which the fused engine trains on a CPU in two passes: five trials, then four."""


def found(cache: Cache) -> dict[str, object]:
    """Return the logged steps and the answers of the nine trials, and the answers of the base."""
    trained = {task.trial: cache.training(task.training) for task in NINE}
    steps: dict[str, object] = {trial: ended and ended.steps for trial, ended in trained.items()}
    return steps | {name: cache.answers(f"training-{name}")[0].answers for name in ("base", *trained)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return found(done(tmp_path_factory.mktemp("cache"), "fused", task("base", None), *NINE)[2])


class Killed(BaseException):
    """Stands for SIGKILL. It is not an `Exception`, so the worker does not handle it."""


@pytest.mark.parametrize(
    ("kind", "trial"),
    [(EventKind.ANSWERING, "t2"), (EventKind.STEP, "t7"), (EventKind.ANSWERING, "t7")],
    ids=["first pass answers", "second pass trains", "second pass answers"],
)
def test_a_killed_pass_is_repeated_with_the_same_trials(
    tmp_path: Path, undisturbed: dict[str, object], kind: EventKind, trial: str
) -> None:
    """If a worker is killed, a second one completes the job with the losses and answers of an undisturbed worker."""
    tasks = task("base", None), *NINE

    def kill(event: Event) -> None:
        if (event.kind, event.trial) == (kind, trial):
            raise Killed

    with pytest.raises(Killed):
        work(job(tmp_path, "fused", *tasks), kill)
    cache = Cache(tmp_path)
    asked = [one for one in tasks if not cache.answers(one.training)]
    left = [replace(one, train=bool(one.settings) and cache.training(one.training) is None) for one in asked]
    assert done(tmp_path, "fused", *left)[0]
    assert found(cache) == undisturbed


def test_packing_uses_the_reference_trainer(tmp_path: Path) -> None:
    """In a job for the fused engine, the reference trainer trains a trial with packing, and the others share a pass."""
    packed = task("packed", replace(SHORT, packing=True, epochs=1))
    well, events, cache = done(tmp_path, "fused", packed, task("one", SHORT), task("two", OTHER))
    assert well
    held = {trial: cache.training(f"training-{trial}") for trial in ("packed", "one", "two")}
    assert {trial: bool(ended and ended.together) for trial, ended in held.items()} == {
        "packed": False, "one": True, "two": True,
    }  # fmt: skip
    assert sum(event.kind is EventKind.FINISHED for event in events) == 3


def test_a_trial_that_does_not_fit_fails_in_its_probe(tmp_path: Path) -> None:
    """A trial that needs too much memory fails in its probe (a few steps alone), and the others share a pass."""
    tools = Tools({**trainers(), Engine.REFERENCE: ShortOfMemory()})
    large = replace(SHORT, batch_size=8)
    tasks = task("base", None), task("large", large), task("one", SHORT), task("two", OTHER)
    for number, some in enumerate((tasks, tasks[:2])):
        well, events, cache = done(tmp_path / str(number), "fused", *some, tools=tools)
        assert not well
        last = events[-1]
        assert (last.kind, last.trial, last.status) == (EventKind.FINISHED, "large", Status.OUT_OF_MEMORY)
        assert len(said(cache, "base")) == 3
        for trial in {one.trial for one in some} - {"base", "large"}:
            held = cache.training(f"training-{trial}")
            assert held is not None
            assert held.together is not None
            assert held.together.trials == 2


def test_a_kind_of_trial_is_probed_once(tmp_path: Path) -> None:
    """A further job does not probe a kind of trial that an earlier job on the same base and rows has probed."""
    alone = Counting()
    tools, loaded = Tools({**trainers(), Engine.REFERENCE: alone}), None
    for trial in ("one", "two"):
        asked = job(tmp_path, "fused", task(trial, replace(SHORT, learning_rate=3e-4, epochs=1), prompts=ASKED[:1]))
        loaded = work(asked, lambda event: None, tools, loaded)
        held = Cache(tmp_path).training(f"training-{trial}")
        assert held is not None
        assert held.cost is not None
        assert held.cost.probes == 1
    assert len(alone.trained) == 1


@dataclass(frozen=True)
class Counting(Sft):
    """The reference trainer, which notes what it trains."""

    trained: list[str] = field(default_factory=list)

    def train(self, base: Base, trials: Sequence[TrialInput], **more: Any) -> Generator[Trained]:
        self.trained.extend(trial.name for trial in trials)
        yield from super().train(base, trials, **more)


class ShortOfMemory(Sft):
    """A trainer that runs out of memory if a batch has more than four rows."""

    def train(self, base: Base, trials: Sequence[TrialInput], **more: Any) -> Generator[Trained]:
        if any(trial.settings.batch_size > 4 for trial in trials):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        yield from super().train(base, trials, **more)


def test_only_models_of_a_failed_batch_answer_again(tmp_path: Path) -> None:
    """If a mixed batch fails, its models answer one by one; models of other batches do not answer twice."""
    read = list[int]()

    def failing(base: object, requests: Any, *rest: Any, **more: Any) -> Any:
        read.append(len(requests))
        if len(read) == 2:
            raise torch.OutOfMemoryError
        return answer_requests(base, requests, *rest, **more)  # type: ignore[arg-type]

    tools = Tools(trainers(), answer_requests=failing, models_at_once=2)
    kept = task("one", SHORT, timeline=(Snapshot(1, "training-one-1", ASKED),))
    well, events, cache = done(tmp_path, "fused", task("base", None), kept, task("two", OTHER), tools=tools)
    assert well
    assert read == [2, 2]
    assert sum(event.kind is EventKind.FINISHED for event in events) == 3
    for name in ("base", "one", "one-1", "two"):
        assert len(said(cache, name)) == 3


def test_a_trial_that_fails_in_every_pass_makes_no_other_pass_smaller(tmp_path: Path) -> None:
    """A pass that fails is halved until the failing trial is alone, and passes without that trial keep their size."""
    sizes = list[int]()

    class Failing(Fused):
        def train(self, base: Base, trials: Sequence[TrialInput], **more: Any) -> Generator[FusedResult]:
            sizes.append(len(trials))
            if any(trial.name == "t1" for trial in trials):
                raise RuntimeError("not in a pass")
            yield from super().train(base, trials, **more)

    tools = Tools({**trainers(), Engine.FUSED: Failing()})
    well, _, cache = done(tmp_path, "fused", *NINE, tools=tools)
    assert well
    assert sizes == [5, 3, 2, 1, 1, 1, 2, 4]
    held = [cache.training(one.training) for one in NINE]
    assert [ended.together.trials if ended and ended.together else 0 for ended in held] == [1, 0, 1, 2, 2, 4, 4, 4, 4]
