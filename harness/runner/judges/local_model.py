"""Asks a judge that is a model on this machine, in a worker process of its own, after all trainings have ended.

It chooses a verdict by the log-probabilities of all verdicts, and writes a text only where none is listed.
Its replies are answers like any others: they are stored in the cache after every group of questions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import EngineError, HarnessError
from harness.core.hashing import digest
from harness.core.job import Event
from harness.core.judges import Question, Reply
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.names import BASE
from harness.core.settings import Quantization
from harness.core.suite import Case, Decoding, JudgeRef, Message, Split, Suite
from harness.core.training_outcome import Status
from harness.hardware.environment import stack_versions
from harness.models.gguf_bases import Conversions
from harness.models.resolving import resolve
from harness.runner.dispatch import Dispatcher
from harness.runner.executors.protocol import Executor
from harness.runner.judges.endpoint import Unanswered
from harness.runner.listeners.protocol import Listener
from harness.runner.recorder import Recorder
from harness.runner.work_items import WorkItem
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore

WRITTEN, CHOSEN = Decoding(max_new_tokens=160), Decoding(max_new_tokens=1)
"""How the judge replies if it writes a text, greedily, and if it chooses a verdict, for which no text is needed."""
QUANTIZATION = Quantization.NF4
"""Number format of the judge's weights: a judge of 7B fits into the memory of a T4."""
GROUP = 64
"""Number of questions after which the replies are stored."""
FOLDER = "judge"


@dataclass(frozen=True)
class LocalModel:
    """A judge on this machine. `folder` is the run directory, in which the worker's jobs and logs are stored."""

    judge: JudgeRef
    machine: Callable[[], Machine]
    executor: Callable[[], Executor]
    cache: Cache
    folder: Path
    on_event: Callable[[Event], None]

    def ask(self, questions: Sequence[Question], store: Callable[[Reply], None]) -> Generator[Reply | Unanswered]:
        """Yield the reply to each question, once all of them are answered. `store` is called with each reply."""
        try:
            model = resolve(self.judge.model, conversions=Conversions())
        except HarnessError as error:
            yield from (Unanswered(question, f"the judge cannot be loaded: {error.message}") for question in questions)
            return
        for decoding in (WRITTEN, CHOSEN):
            own = [question for question in questions if bool(question.verdicts) is (decoding is CHOSEN)]
            for reply in self._replies(model, own, decoding):
                if isinstance(reply, Reply):
                    store(reply)
                yield reply

    def _replies(
        self, model: ModelRef, questions: Sequence[Question], decoding: Decoding
    ) -> Iterator[Reply | Unanswered]:
        cases = tuple(
            Case(question.key, (Message("user", question.text),), (), choices=question.verdicts)
            for question in questions
        )
        setup = Setup(
            Suite(FOLDER, "", "", cases, (), decoding=decoding),
            model,
            self.machine(),
            Engine.REFERENCE,
            stack_versions(),
        )
        key = f"{setup.base_id(QUANTIZATION)}-judge"
        items = [_item(setup, key, cases[start : start + GROUP]) for start in range(0, len(cases), GROUP)]
        run = RunStore(self.folder / FOLDER)
        recorder = Recorder(setup, run, self.cache, _EventsOnly(self.on_event))
        pending = [item for item in items if not recorder.assemble(item)]
        try:
            if pending:
                with closing(self.executor()) as executor:
                    Dispatcher(recorder, executor, None, None).run([pending])
        except EngineError as error:  # such as a template that refuses the question; the run itself is finished
            yield from (Unanswered(question, f"the judge cannot be asked: {error.message}") for question in questions)
            return
        for item in items:
            yield from _replies(item, {question.key: question for question in questions}, run)


def _item(setup: Setup, key: str, cases: Sequence[Case]) -> WorkItem:
    # The name holds a digest: the folder may have the records of other questions.
    item = WorkItem(f"judge-{digest([case.id for case in cases])[:12]}", BASE, None, 0, Split.MAIN, QUANTIZATION, key)
    item.prompts = {case.id: setup.prompts(key, case) for case in cases}
    return item


def _replies(item: WorkItem, questions: dict[str, Question], run: RunStore) -> Iterator[Reply | Unanswered]:
    record = item.record
    if record is None or record.status is not Status.SUCCEEDED:
        why = f"{record.status}: {record.message} (log: {run.root / record.log})" if record else "it was stopped"
        yield from (Unanswered(questions[key], f"the judge did not answer: {why}") for key in item.prompts)
        return
    for key, (answer, *_) in record.answers.items():
        # The number of tokens that it read is an estimate: only the worker reads the tokenizer.
        text = _chosen(questions[key].verdicts, answer) if questions[key].verdicts else answer.text
        yield Reply(key, text, questions[key].tokens, answer.tokens)


def _chosen(verdicts: Sequence[str], answer: Answer) -> str:
    """Return the verdict that the judge finds most likely, with its share of the probability as the reason.

    Small models seldom write a verdict in the form that is asked for. Which one they find more likely is always known.
    """
    if len(answer.choices) != len(verdicts):
        return "no verdict: a log-probability is not a finite number"
    likely = [math.exp(-each.loss) for each in answer.choices]  # per token, since verdicts may differ in length
    best = max(range(len(verdicts)), key=likely.__getitem__)
    share = likely[best] / sum(likely)
    found = json.loads(verdicts[best])
    score = {"score": share if found["pass"] else 1 - share} if "pass" in found else {}
    return json.dumps({**found, **score, "reason": f"its share of the probability is {share:.0%}"})


@dataclass(frozen=True)
class _EventsOnly(Listener):
    """Passes on events. The replies are no trials, so that no listener gets records of them."""

    event: Callable[[Event], None]

    def on_event(self, event: Event) -> None:
        self.event(event)
