"""A parity ladder from start to end: export what is missing, let the engine climb, judge, and keep the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.export.source import Source
from harness.parity import Scorer, assertions_of, judged, turns
from harness.provenance import now, stack_versions
from harness.records import FORMAT, Case, Parity, Prompt, Rung, Split
from harness.store import RunStore
from harness.sweep import messages_of


@dataclass(frozen=True)
class Question:
    """A case with the prompt that asks it."""

    case: Case
    prompt: Prompt


def questions(source: Source) -> tuple[Question, ...]:
    """Every main case of the run's suite, asked once."""
    suite = source.run.suite
    return tuple(
        Question(case, Prompt(case.id, messages_of(suite, case), case.reference, case.choices))
        for case in suite.of(Split.MAIN)
    )


def recorded(
    store: RunStore, source: Source, asked: Sequence[Question], rungs: Iterable[Rung], score: Scorer, device: str
) -> Parity:
    """Judge the rungs and keep them in the run's directory."""
    cases = [question.case for question in asked]
    stages = tuple(judged(rung, cases, score) for rung in rungs)
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
        turns=turns(names, stages),
        versions=stack_versions(),
        device=device,
        finished=now(),
    )
    store.write_parity(source.label, parity)
    return parity
