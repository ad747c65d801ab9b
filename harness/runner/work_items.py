"""Work items: each trial, and the base model, with the prompts that it must answer, and its record when finished."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.model import AdapterRef
from harness.core.names import BASE
from harness.core.run import Look, TrialRecord
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Case, Split
from harness.core.training_outcome import Status
from harness.storage.cache import AnswerPass, snapshot_id
from harness.storage.keys import Setup, adapter_trial, base_trial


@dataclass
class WorkItem:
    """A trial, the base model or an imported adapter, to be evaluated on one split of the cases."""

    trial: str
    variant: str
    settings: Settings | None
    seed: int
    split: Split
    quantization: Quantization
    training: str
    """Key in the cache: of the adapter and its answers, or of the base model's answers."""
    prompts: dict[str, tuple[Prompt, ...]] = field(default_factory=dict)
    """Case id to its prompts, one per repeat."""
    timeline: list[WorkItem] = field(default_factory=list)
    """With `--timeline`: one work item for each epoch except the last."""
    adapter: AdapterRef | None = None
    """The adapter, if it was trained elsewhere; then `settings` is None."""
    until: int = 0
    """At a look of a race, the number of epochs after which the training stops; 0: it is trained to its end."""
    resume: str = ""
    """Key of the adapter of the last look, from which the training continues; empty if there was none."""
    whole: str = ""
    """At a look of a race, the key of the training after its end."""
    looks: tuple[Look, ...] = ()
    """The earlier looks of a race, which become part of the record."""
    reused: bool = False
    """Whether the adapter or an answer was in the cache before this session."""
    record: TrialRecord | None = None
    """None until the work item is finished."""

    def accepts(self, record: TrialRecord) -> bool:
        """Whether a record from the run directory is of the same training and answers the same prompts."""
        if record.training and record.training.id != self.training:
            return False
        if record.status is not Status.SUCCEEDED:
            return True
        # A record may have a timeline even if this session has no --timeline.
        epochs = {each.epoch: each.answers for each in record.timeline}
        each = enumerate(self.timeline, start=1)
        return self.matches(record.answers) and all(item.matches(epochs.get(epoch, {})) for epoch, item in each)

    def matches(self, answers: Mapping[str, Sequence[Answer]]) -> bool:
        """Whether `answers` answer exactly the prompts of this work item."""
        wanted = {case: [prompt.key for prompt in repeats] for case, repeats in self.prompts.items()}
        return wanted == {case: [answer.key for answer in repeats] for case, repeats in answers.items()}

    @property
    def trainings(self) -> tuple[str, ...]:
        """Cache keys of all adapters that this work item evaluates: the final adapter, then one per earlier epoch."""
        return (self.training, *(each.training for each in self.timeline))

    @property
    def all_prompts(self) -> tuple[Prompt, ...]:
        return tuple(prompt for repeats in self.prompts.values() for prompt in repeats)

    def known(self, passes: Sequence[AnswerPass]) -> dict[str, Answer]:
        """Prompt key to answer, for this work item's prompts that `passes` answered."""
        wanted = {prompt.key for prompt in self.all_prompts}
        return {answer.key: answer for made in passes for answer in made.answers if answer.key in wanted}

    def answers(self, passes: Sequence[AnswerPass]) -> dict[str, tuple[Answer, ...]]:
        """Case id to answers, for cases whose repeats are all answered in `passes`."""
        known = self.known(passes)
        return {
            case: tuple(known[prompt.key] for prompt in repeats)
            for case, repeats in self.prompts.items()
            if all(prompt.key in known for prompt in repeats)
        }


def work_items(
    setup: Setup,
    trials: Sequence[Trial],
    split: Split,
    *,
    adapters: Sequence[AdapterRef] = (),
    adapter_base: Quantization = Quantization.NF4,
    timeline: bool = False,
) -> list[WorkItem]:
    """Work items for the bases, then (on the main split) for adapters trained elsewhere, then for the trials.

    There is one base for each quantisation, since a variant is compared with the base that it was trained on. Bases
    have the order in which their quantisations appear in `trials`.

    Args:
        setup: the inputs that all trials share.
        trials: the trials to run.
        split: the cases that are asked.
        adapters: adapters trained elsewhere.
        adapter_base: the quantisation of the base to which these adapters are attached.
        timeline: whether to ask the cases after every epoch, too.
    """
    attached = dict.fromkeys(adapters if split is Split.MAIN else (), adapter_base)
    items = list(_without_prompts(setup, trials, split, attached))
    cases = setup.suite.of(split)
    for item in items:
        item.prompts = _prompts(setup, item, cases)
        if timeline and split is Split.MAIN and item.settings:
            epochs = range(1, math.ceil(item.settings.epochs))
            item.timeline = [_after_epoch(setup, item, epoch, cases) for epoch in epochs]
    return items


def at_look(setup: Setup, item: WorkItem, epoch: int, cases: Sequence[Case]) -> WorkItem:
    """Return the part of a work item up to a look of a race after `epoch` epochs, where these cases are asked."""
    made = _after_epoch(setup, item, epoch, cases)
    return replace(made, until=epoch, whole=item.training, timeline=item.timeline[: epoch - 1], record=None)


def _without_prompts(
    setup: Setup, trials: Sequence[Trial], split: Split, adapters: Mapping[AdapterRef, Quantization]
) -> Iterator[WorkItem]:
    for each in dict.fromkeys((*(trial.settings.quantization for trial in trials), *adapters.values())):
        yield WorkItem(base_trial(each), BASE, None, 0, split, each, setup.base_id(each))
    for adapter, base in adapters.items():
        name = setup.adapter_id(adapter, base)
        yield WorkItem(adapter_trial(adapter), adapter.name, None, 0, split, base, name, adapter=adapter)
    for trial in trials:
        settings = trial.settings
        training = setup.training_id(settings, trial.seed)
        yield WorkItem(trial.id, trial.variant, settings, trial.seed, split, settings.quantization, training)


def _after_epoch(setup: Setup, item: WorkItem, epoch: int, cases: Sequence[Case]) -> WorkItem:
    """A work item that evaluates the adapter saved after `epoch`."""
    made = replace(item, training=snapshot_id(item.training, epoch), timeline=[])
    made.prompts = _prompts(setup, made, cases)
    return made


def _prompts(setup: Setup, item: WorkItem, cases: Sequence[Case]) -> dict[str, tuple[Prompt, ...]]:
    return {case.id: setup.prompts(item.training, case) for case in cases}
