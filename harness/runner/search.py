"""A search (`search:` in a grid): batches of variants, each proposed from the results of all earlier batches.

The first batch is part of the grid's plan. A batch is as wide as a pass. Its variants follow from the results and the
number of results, so a search that was interrupted repeats its steps from the records and then goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.analysis import aggregate, settings_search
from harness.core.job import WIDTH
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Plan
from harness.core.training_outcome import Status
from harness.suites.grids import grown

RunBatch = Callable[[RunManifest], tuple[TrialRecord, ...]]
"""Runs the trials of a manifest whose plan has only the variants of one batch, and returns their records."""


def run_search(
    manifest: RunManifest, score: aggregate.Scorer, run_batch: RunBatch, save: Callable[[RunManifest], None]
) -> tuple[RunManifest, tuple[TrialRecord, ...]]:
    """Run a search, and return the manifest with all variants that it tried, and their records.

    It ends early if no variant is new, or if a batch is not finished, for example because the time limit ended. `save`
    is called with the manifest whenever its plan has grown.
    """
    records: dict[str, TrialRecord] = {}
    batch = manifest.plan
    while batch.variants:
        records |= {record.trial: record for record in run_batch(replace(manifest, plan=batch))}
        results = aggregate.choose(manifest, tuple(records.values()), score, "")
        if any(Status.CANCELLED in variant.statuses for variant in results.variants):
            break
        batch = _next_batch(manifest.plan, results)
        if batch.variants:
            plan = manifest.plan
            plan = replace(plan, variants=(*plan.variants, *batch.variants), trials=(*plan.trials, *batch.trials))
            manifest = replace(manifest, plan=plan)
            save(manifest)
    return manifest, tuple(records.values())


def _next_batch(plan: Plan, results: Results) -> Plan:
    """Return the plan of the next batch. It is empty at the end of the search."""
    empty, search = replace(plan, variants=(), trials=()), plan.search
    assert search is not None
    count = min(max(1, WIDTH // len(plan.seeds)), search.trials - len(plan.variants))
    if count <= 0:
        return empty
    suite, objective = results.run.suite, results.choice.objective
    told = [settings_search.told(suite, objective, variant) for variant in results.variants]
    known = [variant.settings for variant in plan.variants]
    found = settings_search.proposals(search, [each for each in told if each], known, count, plan.seeds[0])
    return grown(empty, found)
