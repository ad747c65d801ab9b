"""`python -m harness.engine.worker JOB [--stay]`: a process that does the tasks of one job on one base model.

The work has a process of its own because a process frees all of its memory when it ends; a notebook would have to
restart its runtime. Progress goes to stdout, one event per line. Output of libraries goes to stderr, which the parent
stores as a log. Results are written only to the cache, and each is committed as a whole, so the worker may be killed at
any moment. The worker exits when its parent exits. With `--stay`, it waits for further jobs on the same base model,
which come as lines of JSON on its standard input (`harness.core.job.Instruction`), until that is closed.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from harness.core.costs import pool
from harness.core.engines import Engine
from harness.core.errors import EngineError, HarnessError, ModelError, StoreError, SuiteError
from harness.core.job import OTHER_BASE, STAY, Event, EventKind, Job, Prompt, Task
from harness.core.measurement import Phase, PhaseCost, Shortage
from harness.core.model import SavedBase
from harness.core.quantities import gib
from harness.core.settings import Quantization
from harness.core.suite import Example
from harness.core.training_outcome import Status, Step, Training
from harness.core.units import DeviceKind
from harness.engine.adapters import attached
from harness.engine.batched_worker import (
    BatchedWorker,
    Known,
    Tools,
    answer_phase,
    can_batch,
    commit_training,
    earlier_part,
    training_of,
    trial_of,
)
from harness.engine.generation.adapter_reader import AdapterReader
from harness.engine.generation.answers import answer
from harness.engine.generation.log_probabilities import texts_of
from harness.engine.loading import Base, check_targets, import_libraries, load_base
from harness.engine.log_filters import filter_worker_log
from harness.engine.meter import Meter, out_of_memory, shortage
from harness.engine.quantized_base import save_base, size_of
from harness.engine.random_weights import bytes_of, make_base
from harness.engine.tokenization import Row, conversations_of, tokenize
from harness.engine.trainers.registry import trainers
from harness.engine.training_rows import TrainingRows
from harness.engine.worker_streams import Inbox, listen, log_to, separate_streams
from harness.hardware.gpu import count_of_gpus
from harness.models.adapter_config import check_patterns
from harness.models.foreign_files import read_object, refusing
from harness.models.token_check import called, check_embeddings
from harness.storage.cache import AnswerPass, Cache
from harness.storage.files import is_full
from harness.storage.manifest import verify_manifest
from harness.storage.records import encode_line, read_record

Emit = Callable[[Event], None]
_WORKER_BYTES = 3 * 2**30
"""Main memory of a worker beside its base model: libraries, the CUDA context, and copies while it loads."""


def main(arguments: Sequence[str], sent: Emit | None = None) -> int:
    """Do the job in the file `arguments[0]`. Returns 0 if every result was reported, even if some tasks failed.

    With `--stay` in `arguments`, further jobs follow; the result is OTHER_BASE if one of them needs a new process.
    `sent` is called after each event that was sent to the parent.
    """
    events, inbox = separate_streams(), Inbox()
    threading.Thread(target=listen, args=(inbox,), daemon=True).start()
    job = read_record(Path(arguments[0]), Job)
    if job.machine.kind is DeviceKind.CPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def emit(event: Event) -> None:
        inbox.use_threads()
        events.write(encode_line(event) + "\n")
        events.flush()
        if sent:
            sent(event)

    loaded = work(job, emit)
    while loaded and STAY in arguments:
        emit(Event(EventKind.DONE))
        following = inbox.jobs.get()
        log_to(following.log)
        job = read_record(Path(following.job), Job)
        if loaded.of != _base_of(job):
            return OTHER_BASE
        loaded = work(job, emit, loaded=loaded)
    return 0


@dataclass(frozen=True)
class Loaded:
    """A loaded base model, with what identifies it and what loading it cost."""

    base: Base
    cost: PhaseCost
    of: tuple[object, ...]
    """Equal for jobs that can use this base model."""
    known: Known


def _base_of(job: Job) -> tuple[object, ...]:
    return (job.model, job.quantization, job.machine, job.base, job.cache)


def work(job: Job, emit: Emit, tools: Tools | None = None, loaded: Loaded | None = None) -> Loaded | None:
    """Do the tasks of the job; return the loaded base, or None if a task failed and the process must end.

    `loaded` is the base of an earlier job, if there was one. Tests pass their own `tools`.
    """
    try:
        worker = _Worker(job, emit, tools or Tools(trainers()), loaded)
    except HarnessError as error:
        _refuse(error, emit)
        return None
    except Exception as error:  # noqa: BLE001 - any error is reported to the parent, and the log has the traceback
        _end("", error, emit, _shortage(job, Phase.LOAD, error))
        return None
    emit(Event(EventKind.LOADED))
    return worker.loaded if worker.go() else None


class _Worker:
    """Loads the base of a job, unless an earlier job has loaded it, and does the tasks of the job on it."""

    def __init__(self, job: Job, emit: Emit, tools: Tools, loaded: Loaded | None) -> None:
        filter_worker_log()
        self._job, self._emit, self._tools, self._cache = job, emit, tools, Cache(Path(job.cache))
        self._phase = Phase.LOAD
        self.loaded = loaded or _load(job, self._cache, emit)
        self._base, self._load = self.loaded.base, self.loaded.cost
        # Check rows, prompts and grid before any training, so that a mistake shows now and not hours later.
        for task in job.tasks:
            if task.settings:
                check_targets(self._base.model, task.settings)
            if task.attach:
                self._check_fit(task)
        self._rows = TrainingRows(job, self._tokenize)
        self._batched = BatchedWorker(
            job, self._base, self._cache, emit, self._rows, self._load, tools, self.loaded.known
        )
        self._check_embeddings(row.input_ids for row in self._rows)
        self._check_prompts()

    def _check_fit(self, task: Task) -> None:
        """Check that the adapter that the user gave with `--adapter` can be attached to this base.

        Raises:
            ModelError: the adapter cannot be attached.
        """
        folder = self._cache.adapter(task.training)
        verify_manifest(folder)
        where = f"--adapter {task.attach}"
        names = [name for name, _ in self._base.model.named_modules()]
        check_patterns(where, read_object(folder / "adapter_config.json"), names)
        remedy = "Give an adapter that was trained on this model. If it was, copy it again: it is damaged."
        try:
            with (
                refusing(f"{where}: PEFT cannot attach it", remedy, passed=out_of_memory),
                attached(self._base, folder),
            ):
                pass
        except EngineError as error:
            raise ModelError(f"{where}: {error.message}", remedy=remedy) from error

    def go(self) -> bool:
        """Do the tasks; return False if one failed and the process must end.

        Tasks without training are answered together, in batches. The fused engine trains several tasks together, which
        is a pass. If an earlier worker was killed after it trained a pass and before it answered the prompts of that
        pass, they are answered first, together.
        """
        job, tasks = self._job, [task for task in self._job.tasks if can_batch(task, self._job.engine)]
        training = [task for task in tasks if task.train]
        waiting = [task for task in tasks if not task.train]
        trained = job.engine is Engine.FUSED and any(task.settings for task in waiting)
        rest, alone = list[Task](), list[Task]()
        passes = self._batched.train(training, alone) if training else ()
        try:
            for made in chain([[]] if trained or (waiting and not training) else [], passes):
                rest += self._answer_together([*waiting, *filter(self._succeeded, made)])
                waiting = []
        except StoreError as error:
            return _refuse(error, self._emit)
        others = [task for task in job.tasks if task not in tasks]
        one_by_one = all(self._do(task, self._answer) for task in rest)
        return one_by_one and all(self._do(task, self._answer_batched) for task in (*alone, *others))

    def _answer_together(self, tasks: Sequence[Task]) -> list[Task]:
        """Answer the prompts of these tasks in batches; return the tasks that must be answered one by one."""
        asked = [replace(task, train=False) for task in tasks]
        for task in tasks:
            if not task.train:  # tasks that were trained here have already reported their start
                self._emit(Event(EventKind.STARTED, task.trial))
        self._phase = Phase.ANSWER_AFTER
        apart = self._batched.answer(asked)
        left = {task.trial for task in apart}
        for task in asked:
            if task.trial not in left:
                self._emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))
        return apart

    def _succeeded(self, task: Task) -> bool:
        found = self._cache.training(task.training)
        return found is not None and found.status is Status.SUCCEEDED

    def _do(self, task: Task, answer: Callable[[Task], None]) -> bool:
        """Do one task from start to end; return False if it failed and the process must end."""
        self._emit(Event(EventKind.STARTED, task.trial))
        try:
            trained = self._train(task) if task.settings and task.train else None
            if trained is None or trained.status is Status.SUCCEEDED:
                answer(task)
        except StoreError as error:
            return _refuse(error, self._emit)
        except Exception as error:  # noqa: BLE001 - a new worker does the other tasks; the log has the traceback
            shortage = _shortage(self._job, self._phase, error)
            self._remember(task, error, shortage)
            return _end(task.trial, error, self._emit, shortage)
        status, message = (trained.status, trained.message) if trained else (Status.SUCCEEDED, "")
        self._emit(Event(EventKind.FINISHED, task.trial, status, message))
        return True

    def _train(self, task: Task) -> Training:
        self._phase = Phase.TRAIN
        trainer = self._tools.trainers[self._job.engine.alone]
        with self._cache.together() as commit:
            trial = trial_of(task, self._rows, commit)
            progress = partial(_report_step, self._emit)
            with closing(trainer.train(self._base, [trial], progress=progress)) as results:
                result = next(results)
                training = training_of(task, result, self._whole(task, result.cost), together=None)
                commit_training(commit, task, training, result)
        return training

    def _whole(self, task: Task, cost: PhaseCost | None) -> PhaseCost | None:
        """Return the cost of a training from its beginning. `cost` has the tokens of all parts, but not the seconds."""
        before = earlier_part(task, self._cache)
        if cost is None or before is None or before.cost is None:
            return cost
        return replace(pool([before.cost, cost], sum), tokens=cost.tokens)

    def _answer_batched(self, task: Task) -> None:
        """Answer a task's prompts in batches that stay full; what cannot be answered so, as `_answer` does."""
        self._phase = answer_phase(task)
        for left in self._batched.answer([task]):
            self._answer(left)

    def _answer(self, task: Task) -> None:
        """Answer the prompts of a task, and of the epochs of its timeline, with one model at a time."""
        self._answer_one(task)
        for each in task.timeline:
            self._answer_one(replace(task, training=each.id, prompts=each.prompts))

    def _answer_one(self, task: Task) -> None:
        """Answer a task's prompts with the saved adapter, not with the one in memory: users load the saved one."""
        if not task.prompts:
            return
        self._phase = answer_phase(task)
        if self._phase is Phase.ANSWER_BEFORE:
            self._answer_with(task, self._base.model, (self._load,))
            return
        folder = self._cache.adapter(task.training)
        verify_manifest(folder)
        with attached(self._base, folder) as model:
            self._answer_with(task, model, ())

    def _answer_with(self, task: Task, model: Any, costs: tuple[PhaseCost, ...]) -> None:
        def progress(done: int) -> None:
            self._emit(Event(EventKind.ANSWERING, task.trial, done=done, total=len(task.prompts)))

        meter, job = Meter(self._job.machine), self._job
        with meter:
            answers = answer(
                self._base, model, task.prompts, job.decoding, batch_size=job.batch_size, progress=progress
            )
        cost = meter.cost(self._phase, sum(given.tokens for given in answers))
        self._cache.commit_answers(task.training, AnswerPass(tuple(answers), (*costs, cost)))

    def _remember(self, task: Task, error: Exception, shortage: Shortage | None) -> None:
        """If the training ran out of memory, commit that as its result, so that the next run does not try again."""
        if shortage and shortage.phase is Phase.TRAIN:
            known, message = self._cache.training(task.training), _message(error, shortage)
            if known is None or known.status is not Status.SUCCEEDED:
                ended = Training(task.training, Status.OUT_OF_MEMORY, message, (), None, shortage=shortage)
                self._cache.commit_training(ended, None)

    def _tokenize(self, examples: Sequence[Example], max_length: int) -> list[Row]:
        rows = tokenize(examples, self._base.tokenizer, max_length)
        for example, row in zip(examples, rows, strict=True):
            if len(row.input_ids) > self._context:
                remedy = f"Set max_length to at most {self._context} in the grid, or shorten the row."
                size = f"it takes {len(row.input_ids)} tokens, and the model's context is {self._context}"
                raise SuiteError(f"{example.name}: {size}", remedy=remedy)
        return rows

    def _check_embeddings(self, rows: Iterable[Sequence[int]]) -> None:
        """Check that the model has an embedding for every token of these rows, and for padding and the end tokens.

        Raises:
            ModelError: a token id is too large. On a GPU, it would stop the process without a message.
        """
        base = self._base
        used = {token for ids in rows for token in ids} | conversations_of(base.tokenizer).ends
        size = base.model.get_input_embeddings().num_embeddings
        check_embeddings(size, used, base.tokenizer.pad_token_id, base.tokenizer.convert_ids_to_tokens)

    @property
    def _context(self) -> float:
        """Length of the model's context in tokens; infinite if the model's config does not limit it."""
        return getattr(self._base.model.config, "max_position_embeddings", None) or math.inf

    def _check_prompts(self) -> None:
        """Render every prompt once, and check that it fits in the context together with an answer.

        Raises:
            SuiteError: the chat template refuses a prompt's roles, or the model's context is too short.
        """
        limit, known = self._context, conversations_of(self._base.tokenizer)
        prompts = list({prompt.key: prompt for task in self._job.tasks for prompt in task.prompts}.values())
        asked = known.asked([(_called(prompt), prompt.messages) for prompt in prompts])
        self._check_embeddings(asked)
        for prompt, ids in zip(prompts, asked, strict=True):
            room = len(ids) + self._job.decoding.max_new_tokens
            if room > limit:
                remedy = "Shorten the prompt, lower decoding.max_new_tokens in suite.yaml, or take another model."
                message = f"{_called(prompt)}: prompt and answer take {room} tokens, and the model's context is {limit}"
                raise SuiteError(message, remedy=remedy)
            given = max((len(row.input_ids) for row in known.follow(prompt.messages, texts_of(prompt))), default=0)
            if given > limit:
                remedy = "Shorten its reference and choices, or take another model."
                size = f"its prompt with its reference or a choice takes {given} tokens"
                raise SuiteError(f"{_called(prompt)}: {size}, and the model's context is {limit}", remedy=remedy)


def _load(job: Job, cache: Cache, emit: Emit) -> Loaded:
    """Load the base and measure what loading costs; save a newly quantised base for later workers.

    One worker at a time loads a base, so that a base is quantised once, and main memory holds the weights once. Workers
    may read a saved base together if there is enough memory for all GPUs of this machine.
    """

    def waiting() -> None:
        emit(Event(EventKind.LOADING))

    import_libraries()  # before others wait
    with cache.loading(waiting) as lock:
        waiting()
        saved = _saved(job, cache)
        if saved is not None and _room_for_all(job, saved):
            lock.release()
        meter = Meter(job.machine)
        with meter:
            base = load_base(job.model, job.quantization, job.machine, saved=saved)
        cost = meter.cost(Phase.LOAD, 0)
        if saved is None and job.base and job.quantization is Quantization.NF4:
            try:
                cache.commit_base(_named(job), size_of(base.model), partial(save_base, base.model))
            except StoreError as error:
                print(f"the quantised base is not saved for later workers: {error}", flush=True)
    return Loaded(base, cost, _base_of(job), Known(AdapterReader(base)))


def _room_for_all(job: Job, saved: Path) -> bool:
    """Whether main memory has room for a worker on each GPU of this machine that reads this saved base."""
    if job.machine.kind is not DeviceKind.CUDA:
        return False
    size = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
    return psutil.virtual_memory().available > count_of_gpus() * (size + _WORKER_BYTES)


def _saved(job: Job, cache: Cache) -> Path | None:
    """Return the folder of the saved base, or None. For a model with random weights, a missing base is made first."""
    there = cache.base(job.base) if job.base else None
    if there or not job.model.shape_only:
        return there
    given = job.model, job.quantization, job.machine
    cache.commit_base(_named(job), bytes_of(*given), partial(make_base, *given))
    return cache.base(job.base)


def _named(job: Job) -> SavedBase:
    machine = job.machine
    return SavedBase(job.base, job.model.name, job.quantization, machine.kind, machine.compute_dtype)


def _called(prompt: Prompt) -> str:
    return called(next((m.content for m in reversed(prompt.messages) if m.role == "user"), ""))


def _report_step(emit: Emit, trial: str, step: Step, total: int) -> None:
    emit(Event(EventKind.STEP, trial, done=step.step, total=total, loss=step.loss))


def _refuse(error: HarnessError, emit: Emit) -> bool:
    traceback.print_exception(error)
    emit(Event(EventKind.REFUSED, message=str(error)))
    return False


def _end(trial: str, error: Exception, emit: Emit, shortage: Shortage | None = None) -> bool:
    """Report that a trial ended with an exception, or that loading did if `trial` is empty.

    Return False, which means that the process must end.
    """
    traceback.print_exception(error)
    if _disk_is_full(error):
        remedy = "Free some space (`harness clean` shows what the cache holds), then run the same command again."
        return _refuse(StoreError(f"the disk is full: {error}", remedy=remedy), emit)
    emit(Event(EventKind.FINISHED, trial, _status(error), _message(error, shortage), shortage=shortage))
    return False


def _shortage(job: Job, phase: Phase, error: Exception) -> Shortage | None:
    return shortage(job.machine, phase, error) if _status(error) is Status.OUT_OF_MEMORY else None


def _status(error: Exception) -> Status:
    return Status.OUT_OF_MEMORY if out_of_memory(error) else Status.FAILED


def _message(error: Exception, shortage: Shortage | None = None) -> str:
    """Describe an error in one line, but keep the whole text of an error that the harness raised."""
    text = str(error).strip()
    if isinstance(error, HarnessError):
        return text
    if shortage and shortage.requested and shortage.peak_allocated and shortage.limit:
        asked, had, limit = (
            gib(size.value, 2) for size in (shortage.requested, shortage.peak_allocated, shortage.limit)
        )
        where = f"out of GPU memory in phase {shortage.phase.value!r}"
        return f"{where}: {asked} more did not fit in {limit}, of which at most {had} were in use"
    first = next(iter(text.splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if is_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
