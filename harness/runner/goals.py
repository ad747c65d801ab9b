"""Goals: the trials of a sweep (and the base), each with the prompts it must answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.model import AdapterRef
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Case, Split
from harness.core.training import Status
from harness.storage.cache import AnswerPass, snapshot_id
from harness.storage.keys import Setup, adapter_trial


@dataclass
class Goal:
    """A trial (or the base) on one split of the cases, and its record once there is one."""

    trial: str
    variant: str
    settings: Settings | None
    seed: int
    split: Split
    quantization: Quantization
    training: str
    """Key of the adapter (or the base) in the cache."""
    prompts: dict[str, tuple[Prompt, ...]] = field(default_factory=dict)
    """By case id, one per repeat."""
    timeline: list[Goal] = field(default_factory=list)
    """With `--timeline`: one goal for each epoch but the last."""
    adapter: AdapterRef | None = None
    """The adapter was trained elsewhere; `settings` is None."""
    reused: bool = False
    """Part of the result was in the cache before this session."""
    record: TrialRecord | None = None

    def accepts(self, record: TrialRecord) -> bool:
        """Whether a record in the run directory is of this training and these prompts."""
        if record.training and record.training.id != self.training:
            return False
        if record.status is not Status.SUCCEEDED:
            return True
        # A record may hold a timeline that this session did not ask for.
        epochs = {each.epoch: each.answers for each in record.timeline}
        each = enumerate(self.timeline, start=1)
        return self.holds(record.answers) and all(goal.holds(epochs.get(epoch, {})) for epoch, goal in each)

    def holds(self, answers: Mapping[str, Sequence[Answer]]) -> bool:
        """Whether these are the answers to this goal's prompts."""
        wanted = {case: [prompt.key for prompt in repeats] for case, repeats in self.prompts.items()}
        return wanted == {case: [answer.key for answer in repeats] for case, repeats in answers.items()}

    @property
    def trainings(self) -> tuple[str, ...]:
        """Cache keys of all adapters that this goal evaluates: the final one and those of the epochs."""
        return (self.training, *(each.training for each in self.timeline))

    @property
    def asked(self) -> tuple[Prompt, ...]:
        return tuple(prompt for repeats in self.prompts.values() for prompt in repeats)

    def known(self, passes: Sequence[AnswerPass]) -> dict[str, Answer]:
        """The answers to this goal's prompts, by key."""
        wanted = {prompt.key for prompt in self.asked}
        return {answer.key: answer for made in passes for answer in made.answers if answer.key in wanted}

    def answers(self, passes: Sequence[AnswerPass]) -> dict[str, tuple[Answer, ...]]:
        """Case id to answers, for the cases of which every repeat is answered."""
        known = self.known(passes)
        return {
            case: tuple(known[prompt.key] for prompt in repeats)
            for case, repeats in self.prompts.items()
            if all(prompt.key in known for prompt in repeats)
        }


def goals_of(
    setup: Setup, trials: Sequence[Trial], split: Split, *, adapters: Sequence[AdapterRef] = (), timeline: bool = False
) -> list[Goal]:
    """The base first, then (on the main split) adapters trained elsewhere, then the trials."""
    goals = list(_without_prompts(setup, trials, split, adapters))
    cases = setup.suite.of(split)
    for goal in goals:
        goal.prompts = _prompts(setup, goal, cases)
        if timeline and split is Split.MAIN and goal.settings:
            epochs = range(1, math.ceil(goal.settings.epochs))
            goal.timeline = [_after_epoch(setup, goal, epoch, cases) for epoch in epochs]
    return goals


def _without_prompts(
    setup: Setup, trials: Sequence[Trial], split: Split, adapters: Sequence[AdapterRef]
) -> Iterator[Goal]:
    first = trials[0].settings.quantization
    yield Goal(BASE, BASE, None, 0, split, first, setup.base_id(first))
    for adapter in adapters if split is Split.MAIN else ():
        name = setup.adapter_id(adapter, first)
        yield Goal(adapter_trial(adapter), adapter.name, None, 0, split, first, name, adapter=adapter)
    for trial in trials:
        settings = trial.settings
        training = setup.training_id(settings, trial.seed)
        yield Goal(trial.id, trial.variant, settings, trial.seed, split, settings.quantization, training)


def _after_epoch(setup: Setup, goal: Goal, epoch: int, cases: Sequence[Case]) -> Goal:
    """A goal for the adapter as it was after `epoch`."""
    made = replace(goal, training=snapshot_id(goal.training, epoch), timeline=[])
    made.prompts = _prompts(setup, made, cases)
    return made


def _prompts(setup: Setup, goal: Goal, cases: Sequence[Case]) -> dict[str, tuple[Prompt, ...]]:
    return {case.id: setup.prompts(goal.training, case) for case in cases}
