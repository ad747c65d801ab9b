"""`python -m harness.worker JOB`: one process, one base model, one group of trials.

It is what the workshop did by restarting the runtime: when the process ends, its memory is free. Progress goes to
stdout, one event a line; everything that libraries print goes to stderr, which its parent keeps as a log. What it finds
it commits to the cache and nowhere else, so that it may be killed at any moment. It ends when its parent does.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.quantities import gib
from harness.core.settings import fusible
from harness.errors import EngineError, HarnessError, ModelError, StoreError, SuiteError
from harness.groups import Group, keeper, with_saved
from harness.records import (
    DeviceKind,
    Event,
    EventKind,
    Job,
    Phase,
    PhaseCost,
    Prompt,
    Quantization,
    SavedBase,
    Settings,
    Shortage,
    Status,
    Step,
    Task,
    Training,
)
from harness.store import AnswerPass, Cache, encode_line, is_full, read_record, verify_manifest

if TYPE_CHECKING:
    from harness.engine.base import Base
    from harness.engine.rows import Row

Emit = Callable[[Event], None]
FUSED = "fused"


def main(arguments: Sequence[str]) -> int:
    """Do the job in the file that is named. Exit code 0 says that all was told, not that all went well."""
    events = _separate_streams()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = read_record(Path(arguments[0]), Job)
    if job.machine.kind is DeviceKind.CPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def emit(event: Event) -> None:
        events.write(encode_line(event) + "\n")
        events.flush()

    work(job, emit)
    return 0


def _separate_streams() -> Any:
    """A stream to the parent that nobody else writes to: from here on, stdout is where the log goes."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _end_with_parent() -> None:
    """The parent holds the other end of stdin and never writes: end of file means that it is gone."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def work(job: Job, emit: Emit) -> bool:
    """Do every task; False when one ended in a way that may have left the process unfit for the next."""
    try:
        worker = _Worker(job, emit)
    except HarnessError as error:
        return _refuse(error, emit)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told, and the log has the traceback
        return _end("", error, emit, _shortage(job, Phase.LOAD, error))
    emit(Event(EventKind.LOADED))
    return worker.go()


class _Worker:
    """A loaded base and what every task needs of it."""

    def __init__(self, job: Job, emit: Emit) -> None:
        from harness.engine.base import check_targets

        _quieten()
        self._job, self._emit, self._cache = job, emit, Cache(Path(job.cache))
        self._phase = Phase.LOAD
        self._base, self._load = _load(job, self._cache)
        # Everything that is wrong with the texts and the grid is found now, not hours later.
        for task in job.tasks:
            if task.settings:
                check_targets(self._base.model, task.settings)
            if task.attach:
                self._check_fit(task)
        self._rows: dict[int, list[Row]] = {
            length: self._tokenize(length)
            for length in sorted({task.settings.max_length for task in job.tasks if task.settings and task.train})
        }
        self._check_prompts()

    def _check_fit(self, task: Task) -> None:
        """Hold an adapter from elsewhere to this base's names and shapes.

        Raises:
            ModelError: it is of another base.
        """
        from harness.engine.adapters import attached

        folder = self._cache.adapter(task.training)
        verify_manifest(folder)
        try:
            with attached(self._base, folder):
                pass
        except (EngineError, ValueError, TypeError, KeyError) as error:
            said = error.message if isinstance(error, EngineError) else f"PEFT cannot attach it: {error}"
            remedy = "It was trained on a base with other layers, or is damaged."
            raise ModelError(f"--adapter {task.attach}: {said}", remedy=remedy) from error

    def go(self) -> bool:
        """Every task; whether the process is fit for more.

        What only answers does so in one mixed batch; with the fused engine, what can be trained together is before.
        A pass that an earlier worker trained is answered first, in the company that it would have had there.
        """
        job, tasks = self._job, [task for task in self._job.tasks if self._in_company(task)]
        training = [task for task in tasks if task.train]
        waiting = [task for task in tasks if not task.train]
        trained = job.engine == FUSED and any(task.settings for task in waiting)
        if not (training or trained or len(waiting) > 1):
            return all(self.do(task) for task in job.tasks)
        rest, alone = list[Task](), list[Task]()
        group = Group(job, self._base, self._cache, self._emit, self._rows, self._load)
        try:
            for made in chain([[]] if trained or not training else [], group.train(training, alone)):
                rest += self._answer_together(group, [*waiting, *filter(self._succeeded, made)])
                waiting = []
        except StoreError as error:
            return _refuse(error, self._emit)
        others = [task for task in job.tasks if task not in tasks]
        return all(self.do(task) for task in (*rest, *alone, *others))

    def _in_company(self, task: Task) -> bool:
        """Whether it is done with others: the reference engine trains one by one, and so is what cannot be fused."""
        if self._job.engine != FUSED:
            return not task.train
        return task.settings is None or fusible(task.settings)

    def _answer_together(self, group: Group, tasks: Sequence[Task]) -> list[Task]:
        """Gives back what is to be answered one by one, because it has no place in a batch or something went wrong."""
        asked = [replace(task, train=False) for task in tasks]
        for task in tasks:
            if not task.train:  # else it has been told
                self._emit(Event(EventKind.STARTED, task.trial))
        self._phase = Phase.ANSWER_AFTER
        apart = group.answer(asked)
        left = {task.trial for task in apart}
        for task in asked:
            if task.trial not in left:
                self._emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))
        return apart

    def _succeeded(self, task: Task) -> bool:
        found = self._cache.training(task.training)
        return found is not None and found.status is Status.SUCCEEDED

    def do(self, task: Task) -> bool:
        """One task from start to end; whether the process may go on."""
        self._emit(Event(EventKind.STARTED, task.trial))
        try:
            ended = self._train(task) if task.settings and task.train else None
            if ended is None or ended.status is Status.SUCCEEDED:
                self._answer(task)
                for each in task.timeline:
                    self._answer(replace(task, training=each.id, prompts=each.prompts))
        except StoreError as error:
            return _refuse(error, self._emit)
        except Exception as error:  # noqa: BLE001 - a failed trial stops nothing; the log has the traceback
            shortage = _shortage(self._job, self._phase, error)
            self._remember(task, error, shortage)
            return _end(task.trial, error, self._emit, shortage)
        status, message = (ended.status, ended.message) if ended else (Status.SUCCEEDED, "")
        self._emit(Event(EventKind.FINISHED, task.trial, status, message))
        return True

    def _train(self, task: Task) -> Training:
        from harness.engine.adapters import save_adapter
        from harness.engine.reference import trained

        self._phase, settings = Phase.TRAIN, _settings(task)
        progress = partial(_say_step, self._emit, task.trial)
        rows = self._rows[settings.max_length]
        begin = partial(trained, self._base, rows, settings, task.seed, progress=progress)
        with self._cache.together() as commit, begin(keep=keeper(task, commit)) as found:
            training = Training(
                task.training,
                found.status,
                found.message,
                found.steps,
                found.cost,
                found.trainable_parameters,
                found.supervised_tokens,
                found.fingerprint,
            )
            save = partial(save_adapter, found.model) if found.status is Status.SUCCEEDED else None
            commit.training(training, save, with_saved)
        return training

    def _answer(self, task: Task) -> None:
        """Answer with what was saved, not with what is in memory: what is judged is what a user will load."""
        if not task.prompts:
            return
        from harness.engine.adapters import attached

        self._phase = Phase.ANSWER_AFTER if task.settings or task.attach else Phase.ANSWER_BEFORE
        if self._phase is Phase.ANSWER_BEFORE:
            self._answer_with(task, self._base.model, (self._load,))
            return
        folder = self._cache.adapter(task.training)
        verify_manifest(folder)
        with attached(self._base, folder) as model:
            self._answer_with(task, model, ())

    def _answer_with(self, task: Task, model: Any, costs: tuple[PhaseCost, ...]) -> None:
        from harness.engine.answers import answer
        from harness.engine.meter import Meter

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
        """A training that does not fit in memory is a result: it is not tried again by the next run."""
        if shortage and shortage.phase is Phase.TRAIN:
            known, message = self._cache.training(task.training), _message(error, shortage)
            if known is None or known.status is not Status.SUCCEEDED:
                ended = Training(task.training, Status.OUT_OF_MEMORY, message, (), None, shortage=shortage)
                self._cache.commit_training(ended, None)

    def _tokenize(self, max_length: int) -> list[Row]:
        from harness.engine.rows import tokenize

        rows = tokenize(self._job.examples, self._base.tokenizer, max_length)
        cut = sum(len(row.input_ids) == max_length for row in rows)
        for example, row in zip(self._job.examples, rows, strict=True):
            if len(row.input_ids) > self._context:
                remedy = f"Set max_length to at most {self._context} in the grid, or shorten the row."
                size = f"it takes {len(row.input_ids)} tokens, and the model's context is {self._context}"
                raise SuiteError(f"training row {example.line}: {size}", remedy=remedy)
        if cut:
            print(f"{cut} of {len(rows)} training rows fill max_length {max_length} and may have been cut", flush=True)
        return rows

    @property
    def _context(self) -> float:
        """Tokens that the model can have before it."""
        return getattr(self._base.model.config, "max_position_embeddings", None) or math.inf

    def _check_prompts(self) -> None:
        """Render every prompt once, and see that it leaves room for an answer, and for those to be evaluated.

        Raises:
            SuiteError: the model's chat template refuses a prompt's roles, or the model's context is too short for it.
        """
        limit = self._context
        for prompt in {prompt.key: prompt for task in self._job.tasks for prompt in task.prompts}.values():
            asked, given = _lengths(prompt, self._base)
            room = asked + self._job.decoding.max_new_tokens
            if room > limit:
                remedy = "Shorten the prompt, lower decoding.max_new_tokens in suite.yaml, or take another model."
                message = f"{_called(prompt)}: prompt and answer take {room} tokens, and the model's context is {limit}"
                raise SuiteError(message, remedy=remedy)
            if given > limit:
                remedy = "Shorten its reference and choices, or take another model."
                size = f"its prompt with its reference or a choice takes {given} tokens"
                raise SuiteError(f"{_called(prompt)}: {size}, and the model's context is {limit}", remedy=remedy)


def _load(job: Job, cache: Cache) -> tuple[Base, PhaseCost]:
    """The base, and what loading it took. Once it is quantised it is saved: the next worker need not do that again."""
    from harness.engine.base import load_base
    from harness.engine.meter import Meter

    saved = _saved(job, cache)
    meter = Meter(job.machine)
    with meter:
        base = load_base(job.model, job.quantization, job.machine, saved=saved)
    cost = meter.cost(Phase.LOAD, 0)
    if saved is None and job.base and job.quantization is Quantization.NF4:
        from harness.engine.quantized import save_base, size_of

        try:
            cache.commit_base(_named(job), size_of(base.model), partial(save_base, base.model))
        except StoreError as error:
            print(f"the quantised base is not kept for later workers: {error}", flush=True)
    return base, cost


def _saved(job: Job, cache: Cache) -> Path | None:
    """The folder of the quantised base. What has a shape alone is made there first: it is nowhere else."""
    there = cache.base(job.base) if job.base else None
    if there or not job.model.shape_only:
        return there
    from harness.engine.shapes import bytes_of, make_base

    given = job.model, job.quantization, job.machine
    cache.commit_base(_named(job), bytes_of(*given), partial(make_base, *given))
    return cache.base(job.base)


def _named(job: Job) -> SavedBase:
    machine = job.machine
    return SavedBase(job.base, job.model.name, job.quantization, machine.kind, machine.compute_dtype)


def _lengths(prompt: Prompt, base: Base) -> tuple[int, int]:
    """Tokens of a prompt, and of the longest conversation that it is evaluated in."""
    from jinja2 import TemplateError

    from harness.engine.likelihood import texts_of
    from harness.engine.rows import follow, render

    try:
        given = [len(follow(prompt.messages, text, base.tokenizer).input_ids) for text in texts_of(prompt)]
        return len(render(prompt.messages, base.tokenizer, ask=True)), max(given, default=0)
    except TemplateError as error:
        remedy = "Some templates have no system role, and most want user and assistant in turn."
        raise SuiteError(f"{_called(prompt)}: the model's chat template: {error}", remedy=remedy) from None


def _called(prompt: Prompt) -> str:
    asked = next((m.content for m in reversed(prompt.messages) if m.role == "user"), "")
    return f"the case that asks {asked[:60]!r}"


def _settings(task: Task) -> Settings:
    if task.settings is None:
        raise ValueError("the base is not trained")
    return task.settings


def _say_step(emit: Emit, trial: str, step: Step, total: int) -> None:
    emit(Event(EventKind.STEP, trial, done=step.step, total=total, loss=step.loss))


def _refuse(error: HarnessError, emit: Emit) -> bool:
    traceback.print_exception(error)
    emit(Event(EventKind.REFUSED, message=str(error)))
    return False


def _end(trial: str, error: Exception, emit: Emit, shortage: Shortage | None = None) -> bool:
    """Tell how a task ended by an exception."""
    traceback.print_exception(error)
    if _disk_is_full(error):
        remedy = "Free some space (`harness clean` tells what the cache holds), then run the same command again."
        return _refuse(StoreError(f"the disk is full: {error}", remedy=remedy), emit)
    emit(Event(EventKind.FINISHED, trial, _status(error), _message(error, shortage), shortage=shortage))
    return False


def _shortage(job: Job, phase: Phase, error: Exception) -> Shortage | None:
    from harness.engine.meter import shortage

    return shortage(job.machine, phase, error) if _status(error) is Status.OUT_OF_MEMORY else None


def _status(error: Exception) -> Status:
    from harness.engine.meter import out_of_memory

    return Status.OUT_OF_MEMORY if out_of_memory(error) else Status.FAILED


def _message(error: Exception, shortage: Shortage | None = None) -> str:
    """What failed, in one line; our own errors speak for themselves."""
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


def _quieten() -> None:
    """Bars that redraw themselves make no readable log, nor does advice that means nothing here."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    from harness.engine.quiet import overlook_kernels

    overlook_kernels()
    logging.disable_progress_bar()
    disable_progress_bars()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
