"""Reduces a run to what another one is held against, and unfolds it again into samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace

from harness.records import (
    FORMAT,
    Answer,
    Baseline,
    Case,
    Check,
    Example,
    Fingerprint,
    Kept,
    Outcome,
    Results,
    Row,
    Sample,
    Score,
    Split,
    Suite,
)
from harness.scorers import Need, needs


def reduced(results: Results, name: str) -> Baseline:
    """What a run found on the cases that choose, without weights, training rows, or the place where it lies."""
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


def _row(outcome: Outcome, named: bool, samples: Sequence[Sample], cases: Mapping[str, Case]) -> Row:
    prints: dict[Fingerprint, None] = {t.fingerprint: None for t in outcome.training if t.fingerprint}
    return Row(
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


def _kept(samples: Iterable[Sample], cases: Mapping[str, Case]) -> dict[str, tuple[Kept, ...]]:
    """By case, in the suite's order, what was answered; an answer that several seeds gave alike is there once."""
    found: dict[str, dict[Kept, list[int]]] = {case: {} for case in cases}
    needing = {id for id, case in cases.items() if needs(case.assertions, Need.LOG_PROBABILITIES)}
    for sample in samples:
        key = _keep(sample, with_likelihoods=sample.case in needing)
        found[sample.case].setdefault(key, []).append(sample.seed)
    return {
        case: tuple(replace(kept, seeds=tuple(seeds)) for kept, seeds in answers.items())
        for case, answers in found.items()
        if answers
    }


def _keep(sample: Sample, *, with_likelihoods: bool) -> Kept:
    score = sample.score
    return Kept(
        text=sample.answer,
        seeds=(),
        tokens=sample.tokens,
        passed=score.passed,
        value=score.value,
        reason=score.error or next((check.reason for check in score.checks if not check.passed), ""),
        repeat=sample.repeat,
        truncated=sample.truncated,
        likelihood=sample.likelihood if with_likelihoods else None,
        reference=sample.reference if with_likelihoods else None,
        choices=sample.choices if with_likelihoods else (),
    )


# --- back to samples ---------------------------------------------------------------------------------------------


def samples(row: Row, cases: Mapping[str, Case], score: Callable[[Case, Answer], Score] | None = None) -> list[Sample]:
    """One sample for each seed, case and repeat, of the cases that are named; judged again if a scorer is given."""
    return [
        Sample(
            row.name, seed, case, kept.text, kept.tokens, kept.truncated, verdict, kept.repeat,
            kept.likelihood, kept.reference, kept.choices,
        )
        for case, answers in row.answers.items()
        if case in cases
        for kept in answers
        for verdict in (score(cases[case], _answer(kept)) if score else _score(case, kept),)
        for seed in kept.seeds
    ]  # fmt: skip


def _answer(kept: Kept) -> Answer:
    return Answer("", kept.text, kept.tokens, kept.truncated, kept.likelihood, kept.reference, kept.choices)


def _score(case: str, kept: Kept) -> Score:
    checks = (Check("", passed=False, reason=kept.reason),) if kept.reason else ()
    return Score(case, kept.passed, kept.value, checks, error=kept.reason if kept.value is None else "")
