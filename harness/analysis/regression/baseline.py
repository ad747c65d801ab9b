"""Reduces a run to a `Baseline`, and expands a baseline into samples again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace

from harness.core.answers import Answer
from harness.core.formats import FORMAT
from harness.core.regression import Baseline, BaselineVariant, StoredAnswer
from harness.core.results import Outcome, Results
from harness.core.scores import Check, Sample, Score
from harness.core.suite import Case, Example, Split, Suite
from harness.core.training import Fingerprint
from harness.scoring import Need, needs


def reduced(results: Results, name: str) -> Baseline:
    """Return a run's results on the cases that choose, without training rows and without paths."""
    run = results.run
    cases = {case.id: case for case in run.suite.of(Split.MAIN)}
    by_variant: dict[str, list[Sample]] = {}
    for sample in results.samples:
        by_variant.setdefault(sample.variant, []).append(sample)
    named = {variant.name: variant.named for variant in run.plan.variants}
    rows = [
        _row(outcome, named.get(outcome.name, True), by_variant.get(outcome.name, ()), cases)
        for outcome in (results.base, *results.variants)
    ]
    return Baseline(
        format=FORMAT,
        name=name,
        suite=replace(_placeless(run.suite), cases=tuple(replace(case, line=0) for case in cases.values())),
        training_rows=tuple(_digest(example) for example in run.suite.examples),
        model=replace(run.model, path=""),
        engine=run.engine,
        provenance=replace(run.provenance, command=""),
        base=rows[0],
        variants=tuple(rows[1:]),
    )


def _placeless(suite: Suite) -> Suite:
    return replace(suite, folder="", examples=(), notices=())


def _digest(example: Example) -> str:
    text = json.dumps([astuple(message) for message in example.messages], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _row(outcome: Outcome, named: bool, samples: Sequence[Sample], cases: Mapping[str, Case]) -> BaselineVariant:
    prints: dict[Fingerprint, None] = {t.fingerprint: None for t in outcome.training if t.fingerprint}
    return BaselineVariant(
        name=outcome.name,
        named=named,
        settings=outcome.settings,
        seeds=outcome.seeds,
        statuses=outcome.statuses,
        messages=outcome.messages,
        fingerprints=tuple(prints),
        costs=tuple(training.cost for training in outcome.training if training.cost),
        trainable_parameters=outcome.trainable_parameters,
        answers=_kept(samples, cases),
    )


def _kept(samples: Iterable[Sample], cases: Mapping[str, Case]) -> dict[str, tuple[StoredAnswer, ...]]:
    """Return the answers to each case, in the suite's order; one that several seeds gave is stored once."""
    found: dict[str, dict[StoredAnswer, list[int]]] = {case: {} for case in cases}
    needing = {id for id, case in cases.items() if needs(case.assertions, Need.LOG_PROBABILITIES)}
    for sample in samples:
        key = _keep(sample, with_likelihoods=sample.case in needing)
        found[sample.case].setdefault(key, []).append(sample.seed)
    return {
        case: tuple(replace(stored, seeds=tuple(seeds)) for stored, seeds in answers.items())
        for case, answers in found.items()
        if answers
    }


def _keep(sample: Sample, *, with_likelihoods: bool) -> StoredAnswer:
    answer, score = sample.answer, sample.score
    return StoredAnswer(
        text=answer.text,
        seeds=(),
        tokens=answer.tokens,
        passed=score.passed,
        value=score.value,
        reason=score.error or next((check.reason for check in score.checks if not check.passed), ""),
        repeat=sample.repeat,
        truncated=answer.truncated,
        likelihood=answer.likelihood if with_likelihoods else None,
        reference=answer.reference if with_likelihoods else None,
        choices=answer.choices if with_likelihoods else (),
    )


# --- back to samples ---------------------------------------------------------------------------------------------


def samples(
    row: BaselineVariant, cases: Mapping[str, Case], score: Callable[[Case, Answer], Score] | None = None
) -> list[Sample]:
    """Return one sample for each seed and repeat of the named cases, scored again if `score` is given."""
    return [
        Sample(row.name, seed, case, answer, verdict, stored.repeat)
        for case, answers in row.answers.items()
        if case in cases
        for stored in answers
        for answer in (_answer(stored),)
        for verdict in (score(cases[case], answer) if score else _score(case, stored),)
        for seed in stored.seeds
    ]


def _answer(stored: StoredAnswer) -> Answer:
    return Answer("", stored.text, stored.tokens, stored.truncated, stored.likelihood, stored.reference, stored.choices)


def _score(case: str, stored: StoredAnswer) -> Score:
    checks = (Check("", passed=False, reason=stored.reason),) if stored.reason else ()
    return Score(case, stored.passed, stored.value, checks, error=stored.reason if stored.value is None else "")
