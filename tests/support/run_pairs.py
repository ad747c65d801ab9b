"""Synthetic runs to compare. A test says which cases fail under which seeds; otherwise the runs are equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis.aggregate import assemble
from harness.analysis.regression import verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.core.regression import Baseline, Decision, Policy
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Role
from harness.core.training_outcome import Fingerprint, Status
from harness.storage.runs import RunStore
from tests.support import synthetic_runs

PRINT = Fingerprint(
    30, 900, 300, "1abe15", "7e4a", "32 parameters, aa", "AdamW(eps=1e-08)", "80 steps", "F32", "32 tensors, bb"
)
NAMED = Variant("v-default", "default", Settings(1e-3), named=True)
CASES = (
    *(synthetic_runs.case(f"learn {n}", Role.LEARN) for n in range(10)),
    *(synthetic_runs.case(f"keep {n}", Role.RETAIN) for n in range(10)),
)
SEEDS = (0, 1, 2, 3, 4)
LEARN = [case.id for case in CASES if case.role is Role.LEARN]
POLICY = Policy(margin=10)

Failing = Mapping[str, Sequence[int]]
"""The seeds under which a case fails, by case id. Under all other seeds, and for all other cases, answers pass."""


def results(
    failing: Failing | None = None, *, seeds: Sequence[int] = SEEDS, variant: Variant = NAMED,
    cases: Sequence[Case] = CASES, fingerprint: Fingerprint | None = PRINT, status: Status = Status.SUCCEEDED,
    run: RunManifest | None = None,
) -> Results:  # fmt: skip
    """Return the results of a run with one variant. The base model passes only `retain` and `avoid` cases."""
    asked = run or synthetic_runs.manifest(synthetic_runs.suite(cases), [variant], seeds)
    asked = replace(asked, plan=replace(asked.plan, variants=(variant,), seeds=tuple(seeds)))
    base = {case.id: "good" if case.role in (Role.RETAIN, Role.AVOID) else "bad" for case in cases}
    records = [synthetic_runs.record(None, base, on=asked.provenance.machine)]
    for seed in seeds:
        texts = {case.id: "bad" if seed in (failing or {}).get(case.id, ()) else "good" for case in cases}
        trained = replace(
            synthetic_runs.training(status, on=asked.provenance.machine),
            fingerprint=fingerprint if status is Status.SUCCEEDED else None,
        )
        records.append(_record(variant, texts, seed, status, trained, asked))
    return assemble(asked, records, synthetic_runs.score, "2026-01-02T03:24:05+00:00")


def _record(
    variant: Variant, texts: dict[str, str], seed: int, status: Status, trained: object, asked: RunManifest
) -> TrialRecord:
    given = texts if status is Status.SUCCEEDED else {}
    return synthetic_runs.record(
        variant, given, seed=seed, status=status, trained=trained, on=asked.provenance.machine,  # type: ignore[arg-type]
    )  # fmt: skip


def run(failing: Failing | None = None, *, name: str = "run", **how: object) -> Baseline:
    """Return the same as `results`, but as a baseline."""
    return baseline_of(results(failing, **how), name)  # type: ignore[arg-type]


def decided(after: Baseline, before: Baseline | None = None, policy: Policy = POLICY) -> Decision:
    return verdict.decide(compare(before or run(), after), policy)


def stored(found: Results, folder: Path) -> RunStore:
    store = RunStore(folder)
    store.write_manifest(found.run)
    store.write_results(found, [], lambda: "")
    return store
