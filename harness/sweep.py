"""What a plan asks, less what is there already, is pending: hand it to workers and keep a record of each trial.

Nothing but files is remembered. A trial is finished when its record is in the run directory; what is in the cache
(trained by an earlier run, or by this one before it was killed) becomes a record without any work; the rest goes to a
worker. A worker that dies takes along the trial that was in flight and nothing else: a fresh one is given what is left.
Trials that are done together round as their company does: the first time that a worker dies among them, a fresh one is
given all of them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness import adapters
from harness.budget import Budget
from harness.core.settings import fusible
from harness.errors import EngineError, StoreError
from harness.executors import Executor
from harness.records import (
    AdapterRef,
    Answer,
    Basis,
    Case,
    EpochAnswers,
    Event,
    EventKind,
    Job,
    Machine,
    Measurement,
    Message,
    ModelRef,
    Phase,
    PhaseCost,
    Prompt,
    Quantization,
    Settings,
    Shortage,
    Snapshot,
    Split,
    Status,
    Suite,
    Task,
    Training,
    Trial,
    TrialRecord,
)
from harness.store import AnswerPass, Cache, RunStore, digest, snapshot_id
from harness.sync import Mirror

BASE = "base"
"""The trial that trains nothing."""
REFERENCE, FUSED = "reference", "fused"
RECIPES = {REFERENCE: 2, FUSED: 2}
"""Engine to version: raised when a change of it changes what is trained or answered, since the cache is of the old."""
_QUANTISERS = ("torch", "transformers", "bitsandbytes")
_DOING = {EventKind.STARTED: "starting", EventKind.STEP: "training", EventKind.ANSWERING: "answering"}
_DEATHS = (Status.FAILED, Status.OUT_OF_MEMORY, Status.TIMED_OUT)
"""How a worker ends that was not asked to."""
_BATCH = {"cpu": 64, "cuda": 16}
"""Prompts answered at once. On a T4, 16 leave a 7B model's keys and values room beside it."""


@dataclass(frozen=True)
class Setup:
    """What every trial of a run shares; with a trial's settings and seed it determines the answers."""

    suite: Suite
    model: ModelRef
    machine: Machine
    engine: str
    versions: dict[str, str]
    """Of the libraries that train and answer."""

    def base_id(self, quantization: Quantization) -> str:
        """Names the untrained model's answers."""
        return digest({"base": self._loaded(quantization)})

    def training_id(self, settings: Settings, seed: int) -> str:
        """Names all that determines an adapter: the rows and the chat template stand for the tokens they become."""
        rows = [example.messages for example in self.suite.examples]
        inputs = {"loaded": self._loaded(settings.quantization), "rows": rows, "settings": settings, "seed": seed}
        engine = self.engine_of(settings)
        return digest(inputs | {"engine": [engine, RECIPES[engine]]})

    def engine_of(self, settings: Settings) -> str:
        """The engine that trains these settings: the reference engine where the fused engine cannot."""
        return self.engine if fusible(settings) else REFERENCE

    def saved_base(self, quantization: Quantization) -> str:
        """Names the quantised base on disk: fewer libraries have a part in it than in what it answers."""
        makers = {name: self.versions.get(name) for name in _QUANTISERS}
        return digest({"saved": self._loaded(quantization) | {"versions": makers}})

    def adapter_id(self, adapter: AdapterRef, quantization: Quantization) -> str:
        """Names an adapter that was trained elsewhere, and so its answers."""
        return digest({"adapter": adapter.digest, "loaded": self._loaded(quantization)})

    def _loaded(self, quantization: Quantization) -> dict[str, object]:
        return {
            "model": self.model.digest,
            "quantization": quantization,
            "dtype": self.machine.compute_dtype,
            "device": self.machine.kind,
            "versions": self.versions,
        }

    def same_memory(self, short: Shortage) -> bool:
        """Whether a shortage was on a machine such as this."""
        there = (short.resident.device, short.resident.basis, short.memory_cap)
        return there == (self.machine.device, self.machine.basis, self.machine.memory_cap)

    def prompt(self, training: str, case: Case, repeat: int = 0) -> Prompt:
        """The case as it is put to a model; its key changes with whatever could change the answer.

        What there was not always enters it only where it is, so that other answers are still found.
        """
        messages, decoding = messages_of(self.suite, case), self.suite.decoding
        cut: dict[str, object] = {"max_new_tokens": decoding.max_new_tokens, "stop": decoding.stop}
        drawn = {"temperature": decoding.temperature} if decoding.temperature else {}
        more = {"reference": case.reference, "choices": case.choices, "repeat": repeat}
        inputs = {"of": training, "messages": messages, "decoding": cut | drawn}
        key = digest(inputs | {name: value for name, value in more.items() if value not in (None, (), 0)})
        return Prompt(key, messages, case.reference, case.choices)

    def prompts(self, training: str, case: Case) -> tuple[Prompt, ...]:
        """One for each time that the case is asked."""
        return tuple(self.prompt(training, case, repeat) for repeat in range(self.suite.repeats))


def adapter_trial(adapter: AdapterRef) -> str:
    """The trial that an adapter from elsewhere is."""
    return f"adapter-{adapter.digest}"


def messages_of(suite: Suite, case: Case) -> tuple[Message, ...]:
    """The case's messages, behind the suite's system prompt unless the case brings its own."""
    if suite.system_prompt is None or any(message.role == "system" for message in case.messages):
        return case.messages
    return (Message("system", suite.system_prompt), *case.messages)


@dataclass
class Sweep:
    """Brings trials to their records, whatever happens to the workers."""

    setup: Setup
    run: RunStore
    cache: Cache
    executor: Executor
    timeout: float | None = None
    """Seconds that one trial may take."""
    notify: Callable[[Event], None] = field(default=lambda _: None)
    timeline: bool = False
    """Ask the suite's `main` cases after every epoch too."""
    adapters: tuple[AdapterRef, ...] = ()
    """Trained elsewhere, to be asked the `main` cases beside the trials."""
    hopeless: Mapping[str, str] = field(default_factory=dict)
    """By trial, why it is predicted not to fit: it is not tried, unless that was done before."""
    budget: Budget | None = None
    mirror: Mirror | None = None

    def go(self, trials: Sequence[Trial], split: Split, purpose: str) -> tuple[TrialRecord, ...]:
        """One record per trial, the base's first. Trials that failed in an earlier session are tried again.

        Those for which the budget has no time left have none.

        Raises:
            EngineError: a worker refused the job for a mistake in the model or the texts.
        """
        goals = self._goals(trials, split)
        if self.mirror:
            for goal in goals:
                self.mirror.pull(goal.trainings, trained=goal.settings is not None)
        for goal in goals:
            self._take_up(goal)
        pending = [goal for goal in goals if goal.record is None]
        self.notify(Event(EventKind.PLANNED, message=purpose, total=len(pending)))
        for quantization in dict.fromkeys(goal.quantization for goal in pending):
            self._finish_group([goal for goal in pending if goal.quantization is quantization])
        return tuple(goal.record for goal in goals if goal.record)

    def forget(self, trials: Iterable[Trial]) -> None:
        """Drop from the cache what these trials and the base would take from it."""
        for trial in trials:
            self._forget(self.setup.training_id(trial.settings, trial.seed))
            self._forget(self.setup.base_id(trial.settings.quantization))
            for adapter in self.adapters:
                self._forget(self.setup.adapter_id(adapter, trial.settings.quantization))

    def _forget(self, training: str) -> None:
        self.cache.forget(training)
        if self.mirror:
            self.mirror.forget(training)

    # --- what is wanted, and what is there ------------------------------------------------------------------------

    def _goals(self, trials: Sequence[Trial], split: Split) -> list[_Goal]:
        cases = self.setup.suite.of(split)
        first = trials[0].settings.quantization
        goals = [_Goal(BASE, BASE, None, 0, split, first, self.setup.base_id(first))]
        goals += [self._elsewhere(adapter, first) for adapter in self.adapters if split is Split.MAIN]
        for trial in trials:
            training = self.setup.training_id(trial.settings, trial.seed)
            settings = trial.settings
            goals.append(_Goal(trial.id, trial.variant, settings, trial.seed, split, settings.quantization, training))
        for goal in goals:
            goal.prompts = {case.id: self.setup.prompts(goal.training, case) for case in cases}
            if self.timeline and split is Split.MAIN and goal.settings:
                goal.timeline = [self._epoch(goal, epoch, cases) for epoch in range(1, math.ceil(goal.settings.epochs))]
        return goals

    def _elsewhere(self, adapter: AdapterRef, quantization: Quantization) -> _Goal:
        name = self.setup.adapter_id(adapter, quantization)
        return _Goal(adapter_trial(adapter), adapter.name, None, 0, Split.MAIN, quantization, name, adapter=adapter)

    def _epoch(self, goal: _Goal, epoch: int, cases: Sequence[Case]) -> _Goal:
        """A goal within the goal: the adapter of an epoch before the last."""
        made = replace(goal, training=snapshot_id(goal.training, epoch), timeline=[])
        made.prompts = {case.id: self.setup.prompts(made.training, case) for case in cases}
        return made

    def _take_up(self, goal: _Goal) -> None:
        """Use the record that is there, or what is in the cache."""
        found = self.run.record(goal.split, goal.trial)
        if found and found.status.is_result and found.basis is not Basis.PREDICTED and goal.accepts(found):
            goal.record = found
            self._copy(goal)
        else:
            goal.reused = bool(self._training(goal) or goal.known(self.cache.answers(goal.training)))
            if not self._assemble(goal) and goal.trial in self.hopeless:
                self._keep(goal, Status.OUT_OF_MEMORY, self.hopeless[goal.trial], basis=Basis.PREDICTED)
        if goal.record and self.budget and self._same_device(goal.record):
            self.budget.learn(goal.trial, sum(cost.seconds.value for cost in goal.record.costs))

    def _same_device(self, record: TrialRecord) -> bool:
        return {cost.seconds.device for cost in record.costs} == {self.setup.machine.device}

    def _assemble(self, goal: _Goal, *, log: str = "") -> bool:
        """Make the goal's record from the cache, if everything is there."""
        training = self._training(goal)
        if goal.settings and training is None:
            return False
        if training and training.status is not Status.SUCCEEDED:
            self._keep(goal, training.status, training.message, training=training, log=log, shortage=training.shortage)
            return True
        passes = self.cache.answers(goal.training)
        answers = goal.answers(passes)
        timeline = tuple(
            EpochAnswers(epoch, each.answers(self.cache.answers(each.training)))
            for epoch, each in enumerate(goal.timeline, start=1)
        )
        if any(len(own) < len(goal.prompts) for own in (answers, *(each.answers for each in timeline))):
            return False
        costs = (*([training.cost] if training and training.cost else []), *_costs(goal, passes))
        self._keep(
            goal, Status.SUCCEEDED, "", training=training, costs=costs, answers=answers, timeline=timeline, log=log
        )
        return True

    def _keep(
        self,
        goal: _Goal,
        status: Status,
        message: str,
        *,
        training: Training | None = None,
        costs: tuple[PhaseCost, ...] = (),
        answers: dict[str, tuple[Answer, ...]] | None = None,
        timeline: tuple[EpochAnswers, ...] = (),
        log: str = "",
        shortage: Shortage | None = None,
        basis: Basis | None = None,
    ) -> None:
        if not costs and training and training.cost:
            costs = (training.cost,)
        goal.record = TrialRecord(
            trial=goal.trial,
            variant=goal.variant,
            seed=goal.seed,
            settings=goal.settings,
            split=goal.split,
            status=status,
            message=message,
            training=training,
            costs=costs,
            answers=answers or {},
            log=log,
            reused=goal.reused,
            timeline=timeline,
            shortage=shortage,
            basis=basis or self.setup.machine.basis,
        )
        self.run.write_trial(goal.record)
        self._copy(goal)

    def _copy(self, goal: _Goal) -> None:
        """Copy a finished trial out; a folder that is full or gone costs the copy, not the trial."""
        record = goal.record
        if self.mirror is None or record is None or not record.status.is_result or record.basis is Basis.PREDICTED:
            return
        try:
            self.mirror.push(record, goal.trainings)
        except (StoreError, OSError) as error:
            self.notify(Event(EventKind.NOTICED, message=f"not copied by --sync, the next run tries again: {error}"))

    # --- work -----------------------------------------------------------------------------------------------------

    def _finish_group(self, group: list[_Goal]) -> None:
        """Give workers what is pending until nothing is: each ends at least one trial, or was stopped, or had company.

        Of a worker that dies while it does several trials together, nobody knows whose fault that was. Once, another is
        given the same; then, and at once where memory or time ran out, half as many, until one is left to be blamed.
        """
        most, again = len(group), True
        while pending := [goal for goal in group if goal.record is None and self._has_time(goal, loading=True)]:
            together = self._together(pending)[:most]
            ended = self._employ(together)
            if ended is Status.SUCCEEDED and all(goal.record is None for goal in together):
                raise RuntimeError(f"a worker ended without a word about {together[0].trial}")
            if ended in (Status.OUT_OF_MEMORY, Status.TIMED_OUT) or (ended is Status.FAILED and not again):
                most = max(1, len(together) // 2)
            again = ended is not Status.FAILED

    def _together(self, pending: list[_Goal]) -> list[_Goal]:
        """What one worker is given; a pass that is stopped is lost, so with a budget no more than it has time for."""
        if self.budget is None or self.setup.engine != FUSED:
            return pending
        return pending[: max(1, self.budget.fitting([goal.trial for goal in pending]))]

    def _has_time(self, goal: _Goal, *, loading: bool = False) -> bool:
        if self.budget is None or self.budget.allows(goal.trial, loading=loading):
            return True
        self.budget.spent = True
        return False

    def _employ(self, pending: list[_Goal]) -> Status:
        """One worker from start to end; every trial that it ended has its record afterwards.

        Gives back CANCELLED where it was stopped because there is no time for what comes next, and how it died where it
        did several trials together, of which none is blamed.
        """
        job, log = self.run.new_worker(self._job(pending))
        name = log.relative_to(self.run.root).as_posix()
        goals, company = {goal.trial: goal for goal in pending}, self.setup.engine == FUSED and len(pending) > 1
        ended = Status.SUCCEEDED
        loaded, flying, doing = False, pending[0], "loading the base"
        watch = _Watch(self.budget) if self.budget else None
        until = self.budget.until if self.budget else None
        events = self.executor.run(job, log, timeout=self.timeout, until=until)
        try:
            for event in events:
                loaded = loaded or event.kind is EventKind.LOADED
                flying, doing = goals.get(event.trial, flying), _DOING.get(event.kind, doing)
                if event.kind is EventKind.REFUSED:
                    raise EngineError(event.message)
                if event.kind is EventKind.FINISHED:
                    self._finish(goals[event.trial] if event.trial else None, pending, event, name)
                elif company and loaded and event.kind is EventKind.ENDED and event.status in _DEATHS:
                    ended = event.status
                    self._pardon(event, pending, name)
                elif event.kind is EventKind.ENDED and event.status is not Status.CANCELLED:
                    self._bury(event, flying if loaded else None, pending, name, doing)
                self.notify(event)
                if watch and self._is_over(watch, event, pending):
                    return Status.CANCELLED
        finally:
            close = getattr(events, "close", None)
            if close:
                close()
        return ended

    def _is_over(self, watch: _Watch, event: Event, pending: Sequence[_Goal]) -> bool:
        """Whether what comes next would not be finished in time."""
        watch.see(event)
        if event.kind is EventKind.ENDED and event.status is Status.CANCELLED:
            watch.budget.spent = True
            return True
        if self.setup.engine == FUSED:
            return False  # what was trained together is finished together: the next events are about to come
        following = next((goal for goal in pending if goal.record is None), None)
        at_an_end = event.kind in (EventKind.LOADED, EventKind.FINISHED)
        return at_an_end and following is not None and not self._has_time(following)

    def _job(self, pending: Sequence[_Goal]) -> Job:
        setup = self.setup
        return Job(
            model=setup.model,
            machine=setup.machine,
            quantization=pending[0].quantization,
            engine=setup.engine,
            cache=str(self.cache.root.resolve()),
            examples=setup.suite.examples,
            decoding=setup.suite.decoding,
            tasks=tuple(self._task(goal) for goal in pending),
            batch_size=_BATCH[setup.machine.kind],
            base=setup.saved_base(pending[0].quantization),
        )

    def _task(self, goal: _Goal) -> Task:
        train = goal.settings is not None and self._training(goal) is None
        if any(self.cache.training(each.training) is None for each in goal.timeline) and not train:
            # Its epochs were not kept, or are lost. On a GPU it would not become quite the same: all of it is new then.
            self.cache.forget(goal.training)
            train, goal.reused = True, False
        if goal.adapter:
            self._import(goal.training, goal.adapter)
        timeline = tuple(
            Snapshot(epoch, each.training, self._missing(each)) for epoch, each in enumerate(goal.timeline, start=1)
        )
        return Task(
            goal.trial,
            goal.training,
            goal.settings,
            goal.seed,
            train,
            self._missing(goal),
            attach=goal.adapter.path if goal.adapter else "",
            timeline=timeline,
        )

    def _import(self, name: str, adapter: AdapterRef) -> None:
        """Into the cache, where nobody changes it, as if it had been trained here."""
        if self.cache.training(name) is None:
            parameters = adapter.trainable_parameters
            known = Training(name, Status.SUCCEEDED, "", (), None, trainable_parameters=parameters)
            self.cache.commit_training(known, partial(adapters.copy, adapter))

    def _missing(self, goal: _Goal) -> tuple[Prompt, ...]:
        """What is to be asked. By key: cases that ask the same are asked once."""
        known = goal.known(self.cache.answers(goal.training))
        return tuple({prompt.key: prompt for prompt in goal.asked if prompt.key not in known}.values())

    def _finish(self, goal: _Goal | None, pending: Sequence[_Goal], event: Event, log: str) -> None:
        """A worker has told how a trial ended; without a trial, why it could do none."""
        status = event.status or Status.FAILED
        for each in [goal] if goal else pending:
            # What a worker calls finished is in the cache; if it is not, that is a failure and said so.
            if status.is_result and goal and self._assemble(each, log=log):
                continue
            message = event.message or "the worker said that it had finished, and left nothing in the cache"
            status = Status.FAILED if status is Status.SUCCEEDED else status
            self._keep(each, status, message, training=self._training(each), log=log, shortage=event.shortage)

    def _training(self, goal: _Goal) -> Training | None:
        """What the cache knows of it; that it did not fit on another machine says nothing about this one."""
        found = self.cache.training(goal.training) if goal.settings else None
        short = found.shortage if found else None
        return None if short and not self.setup.same_memory(short) else found

    def _pardon(self, event: Event, pending: Sequence[_Goal], log: str) -> None:
        """A worker is gone: what it committed is used, and nobody's trial is blamed yet."""
        for goal in pending:
            if goal.record is None:
                self._assemble(goal, log=log)
        if any(goal.record is None for goal in pending):
            self.notify(Event(EventKind.NOTICED, message=f"begun again what was not finished: {event.message}"))

    def _bury(self, event: Event, flying: _Goal | None, pending: Sequence[_Goal], log: str, doing: str) -> None:
        """A worker is gone: what was in flight ended with it; before the model was loaded, that is everything."""
        if event.status is Status.SUCCEEDED and any(goal.record for goal in pending):
            return
        status = Status.FAILED if event.status in (None, Status.SUCCEEDED) else event.status
        message = event.message or "the worker ended without a word"
        if status is Status.OUT_OF_MEMORY:  # it could not say by itself where
            message = f"{message} while it was {doing}"
        for goal in [flying] if flying else pending:
            if goal.record is None and not self._assemble(goal, log=log):
                self._keep(goal, status, message, training=self._training(goal), log=log)


class _Watch:
    """Tells a budget what one worker's trials take, by the clock between what it says.

    A trial takes from when it is started, or, where several are trained together, from when the one before it ended.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._since = budget.clock()
        self._started: dict[str, float] = {}

    def see(self, event: Event) -> None:
        now = self.budget.clock()
        if event.kind is EventKind.LOADED:
            self.budget.loaded(now - self._since)
        elif event.kind is EventKind.STARTED:
            self._started.setdefault(event.trial, now)
        elif (
            event.kind is EventKind.FINISHED and event.trial in self.budget.weights and event.status is Status.SUCCEEDED
        ):
            # One of a pass that did not succeed is told before the others answer: its time is the pass's, and theirs.
            self.budget.learn(event.trial, now - max(self._since, self._started.get(event.trial, self._since)))
            self._since = now


@dataclass
class _Goal:
    """A trial (or the base) on one split of the cases, and its record once there is one."""

    trial: str
    variant: str
    settings: Settings | None
    seed: int
    split: Split
    quantization: Quantization
    training: str
    prompts: dict[str, tuple[Prompt, ...]] = field(default_factory=dict)
    """By case id, one per repeat."""
    timeline: list[_Goal] = field(default_factory=list)
    """The same after each epoch but the last, where that is asked."""
    adapter: AdapterRef | None = None
    """What is asked was trained elsewhere; `settings` are None."""
    reused: bool = False
    """Something of it was there before this session."""
    record: TrialRecord | None = None

    def accepts(self, record: TrialRecord) -> bool:
        """Whether a record of this run is of this training and these prompts; an edited run directory is redone."""
        if record.training and record.training.id != self.training:
            return False
        if record.status is not Status.SUCCEEDED:
            return True
        # A timeline that nobody asks for any more does no harm.
        epochs = {each.epoch: each.answers for each in record.timeline}
        each = enumerate(self.timeline, start=1)
        return self.holds(record.answers) and all(goal.holds(epochs.get(epoch, {})) for epoch, goal in each)

    def holds(self, answers: Mapping[str, Sequence[Answer]]) -> bool:
        """Whether these are the answers to what is asked."""
        wanted = {case: [prompt.key for prompt in repeats] for case, repeats in self.prompts.items()}
        return wanted == {case: [answer.key for answer in repeats] for case, repeats in answers.items()}

    @property
    def trainings(self) -> tuple[str, ...]:
        """What the cache calls the adapters that it asks."""
        return (self.training, *(each.training for each in self.timeline))

    @property
    def asked(self) -> tuple[Prompt, ...]:
        return tuple(prompt for repeats in self.prompts.values() for prompt in repeats)

    def known(self, passes: Sequence[AnswerPass]) -> dict[str, Answer]:
        """Answers by key, of those asked for."""
        wanted = {prompt.key for prompt in self.asked}
        return {answer.key: answer for made in passes for answer in made.answers if answer.key in wanted}

    def answers(self, passes: Sequence[AnswerPass]) -> dict[str, tuple[Answer, ...]]:
        """Case id to answers, of the cases of which every repeat is known."""
        known = self.known(passes)
        return {
            case: tuple(known[prompt.key] for prompt in repeats)
            for case, repeats in self.prompts.items()
            if all(prompt.key in known for prompt in repeats)
        }


def _costs(goal: _Goal, passes: Sequence[AnswerPass]) -> tuple[PhaseCost, ...]:
    """What it took to give these answers; several passes count as one long one, a model is loaded once."""
    wanted = {prompt.key for prompt in goal.asked}
    costs = [cost for made in passes if any(a.key in wanted for a in made.answers) for cost in made.costs]
    return tuple(_joined(same) for phase in Phase if (same := [c for c in costs if c.phase is phase]))


def _joined(costs: Sequence[PhaseCost]) -> PhaseCost:
    first = costs[0]
    if first.phase is Phase.LOAD or len(costs) == 1:
        return first
    return PhaseCost(
        phase=first.phase,
        seconds=replace(first.seconds, value=sum(cost.seconds.value for cost in costs)),
        tokens=sum(cost.tokens for cost in costs),
        peak_resident=max((cost.peak_resident for cost in costs), key=_value),
        peak_allocated=_largest(cost.peak_allocated for cost in costs),
        peak_reserved=_largest(cost.peak_reserved for cost in costs),
        peak_device=_largest(cost.peak_device for cost in costs),
        left_allocated=costs[-1].left_allocated,
        limit=first.limit,
        note=first.note,
        models=max(cost.models for cost in costs),
    )


def _largest(peaks: Iterable[Measurement | None]) -> Measurement | None:
    return max((peak for peak in peaks if peak), key=_value, default=None)


def _value(peak: Measurement) -> float:
    return peak.value
