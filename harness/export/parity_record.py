"""Makes the record of `harness parity`, the scored answers of each stage, and stores it in the run directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.parity import Scorer, assertions_of, judged, verdict_changes
from harness.core.conversations import messages_of
from harness.core.formats import FORMAT
from harness.core.job import Prompt
from harness.core.parity import Parity, StageAnswers
from harness.core.suite import Case, Split
from harness.export.source import Source
from harness.hardware.environment import now, stack_versions
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Question:
    """A case of the suite with its prompt."""

    case: Case
    prompt: Prompt


def questions(source: Source) -> tuple[Question, ...]:
    """One question for each main case of the run's suite."""
    suite = source.run.suite
    return tuple(
        Question(case, Prompt(case.id, messages_of(suite, case), case.reference, case.choices))
        for case in suite.of(Split.MAIN)
    )


def store_parity(
    store: RunStore,
    source: Source,
    asked: Sequence[Question],
    answers: Iterable[StageAnswers],
    score: Scorer,
    device: str,
) -> Parity:
    """Score the answers of every stage, store them in the run's directory, and return them."""
    cases = [question.case for question in asked]
    stages = tuple(judged(each, cases, score) for each in answers)
    names = assertions_of(cases)
    parity = Parity(
        format=FORMAT,
        suite=source.run.suite.name,
        variant=source.variant.name,
        seed=source.seed,
        training=source.training,
        cases=tuple(case.id for case in cases),
        assertions=names,
        stages=stages,
        turns=verdict_changes(names, stages),
        versions=stack_versions(),
        device=device,
        finished=now(),
    )
    store.write_parity(source.label, parity)
    return parity
