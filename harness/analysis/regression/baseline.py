"""Baselines: reduce a run to a `Baseline`, find a stored baseline, and turn its stored answers into samples."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from harness.core.answers import Answer
from harness.core.errors import StoreError
from harness.core.formats import FORMAT
from harness.core.names import BASE
from harness.core.regression import Baseline, BaselineVariant, StoredAnswer
from harness.core.run_results import Outcome, Results
from harness.core.scores import Check, Sample, Score
from harness.core.suite import Case, Example, Split, Suite
from harness.core.training_outcome import Fingerprint, Status
from harness.scoring import Need, needs
from harness.storage.baselines import read_baseline
from harness.storage.runs import RunStore, find_run

BASELINES = Path("reports/baselines")
"""The default directory of baselines."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Pattern that the name of a baseline must match."""


def baseline_of(results: Results, name: str) -> Baseline:
    """Reduce a run's results to a baseline: without confirmation cases and paths, and with digests of training rows.

    Variants that left a race are left out, because they did not finish.
    """
    run = results.run
    cases = {case.id: replace(case, line=0, file="") for case in run.suite.of(Split.MAIN)}
    by_variant: dict[str, list[Sample]] = {}
    for sample in results.samples:
        by_variant.setdefault(sample.variant, []).append(sample)
    named = {variant.name: variant.named for variant in run.plan.variants}
    rows = [
        _row(outcome, named.get(outcome.name, True), by_variant.get(outcome.name, ()), cases)
        for outcome in (results.base, *(each for each in results.variants if Status.STOPPED not in each.statuses))
    ]
    return Baseline(
        format=FORMAT,
        name=name,
        suite=replace(_without_paths(run.suite), cases=tuple(cases.values())),
        training_rows=tuple(_digest(example) for example in run.suite.examples),
        model=replace(run.model, path=""),
        engine=run.engine,
        provenance=replace(run.provenance, command=""),
        base=rows[0],
        variants=tuple(rows[1:]),
    )


def _without_paths(suite: Suite) -> Suite:
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
        answers=_stored_answers(samples, cases),
    )


def _stored_answers(samples: Iterable[Sample], cases: Mapping[str, Case]) -> dict[str, tuple[StoredAnswer, ...]]:
    """Return the answers to each case, in the suite's order. An answer that several seeds gave is stored once."""
    found: dict[str, dict[StoredAnswer, list[int]]] = {case: {} for case in cases}
    needing = {id for id, case in cases.items() if needs(case.assertions, Need.LOG_PROBABILITIES)}
    for sample in samples:
        key = _stored_answer(sample, log_probabilities=sample.case in needing)
        found[sample.case].setdefault(key, []).append(sample.seed)
    return {
        case: tuple(replace(stored, seeds=tuple(seeds)) for stored, seeds in answers.items())
        for case, answers in found.items()
        if answers
    }


def _stored_answer(sample: Sample, *, log_probabilities: bool) -> StoredAnswer:
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
        likelihood=answer.likelihood if log_probabilities else None,
        reference=answer.reference if log_probabilities else None,
        choices=answer.choices if log_probabilities else (),
    )


# --- samples -----------------------------------------------------------------------------------------------------


def samples(
    row: BaselineVariant, cases: Mapping[str, Case], score: Callable[[Case, Answer], Score] | None = None
) -> list[Sample]:
    """Return a variant's stored answers to `cases` as samples. `score`, if given, replaces the stored scores."""
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


# --- files and runs ----------------------------------------------------------------------------------------------


def find_baseline(name: str, folder: Path = BASELINES) -> Baseline:
    """Return a baseline, given its name in `folder`, the path of its file, or a run directory to make a baseline from.

    Raises:
        StoreError: there is no such baseline. The message lists the existing ones.
    """
    path = Path(name)
    if path.suffix == ".json" and path.name != "results.json":
        return read_baseline(path)
    if (path / "run.json").is_file() or path.name == "results.json":
        store = find_run(path)
        return baseline_of(results_of(store), store.root.name)
    file = folder / f"{name}.json"
    if NAME.fullmatch(name) and file.is_file():
        return read_baseline(file)
    known = sorted(path.stem for path in folder.glob("*.json"))
    remedy = f"Existing baselines: {', '.join(known)}." if known else "Make one with `harness bless RUN`."
    raise StoreError(f"there is no baseline {name!r} in {folder}", remedy=remedy)


def results_of(store: RunStore) -> Results:
    """Return a run's results.

    Raises:
        StoreError: the run has no finished trial, or no answers of the base model.
    """
    results = store.results()
    done = [s for row in results.variants for s in row.statuses if s.is_result]
    if not done or Status.SUCCEEDED not in results.base.statuses:
        remedy = "Run the same `harness run` command again: it runs only the missing trials."
        what = f"no answers of the {BASE}" if done else "no finished trial"
        raise StoreError(f"the run in {store.root} is empty: it has {what}", remedy=remedy)
    return results
