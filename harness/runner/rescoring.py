"""Scores stored answers again: `harness score`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis import aggregate
from harness.analysis.opinions import scoring_of
from harness.core.device_profiles import AUTO
from harness.core.errors import StoreError, SuiteError
from harness.core.job import Event
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.suite import Suite
from harness.core.wording import plural
from harness.hardware.environment import machine, now
from harness.report import report_files
from harness.runner.executors.processes import Processes
from harness.runner.judges.asking import Asking, asking_of
from harness.runner.judges.naming import prepared, with_judge
from harness.runner.places import local_places
from harness.runner.preparation import check_code
from harness.scoring import Opinions, scorer
from harness.storage.cache import Cache
from harness.storage.keys import question
from harness.storage.locations import CACHE
from harness.storage.runs import RunStore
from harness.suites import load_suite


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], *, allow_code: bool = False) -> Results:
    """Score the answers in the records and compute the results, without training, answering or asking a judge."""
    scoring = scoring_of(manifest.suite, Opinions(), allow_code=allow_code)
    return aggregate.assemble(manifest, records, scorer(scoring), now())


def rescore(
    store: RunStore,
    suite: Path | None,
    *,
    skip_unsupported: bool = False,
    root: Path | None = None,
    allow_code: bool = False,
    judge: str | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Results:
    """Score a run's stored answers again, with the assertions of `suite`; None: with those stored in the run.

    `judge` is as in a `Request`. Without it, the endpoint that the suite or the run names is not asked, and stored
    verdicts are used.

    Raises:
        SuiteError: the suite has other training rows than the run, or a case differs from the one that the run asked.
        UsageError: the suite runs code that is not allowed.
    """
    with store.locked():
        manifest = store.manifest()
        if suite is not None:
            given = load_suite(suite, skip_unsupported=skip_unsupported, root=root)
            manifest = replace(manifest, suite=_same_questions(given, manifest.suite))
        check_code(manifest.suite, allow_code)
        if judge is not None:
            manifest = replace(manifest, suite=prepared(with_judge(manifest.suite, judge)))
        asking, records = _asking(manifest.suite, store, on_event, allow_code=allow_code), store.records()
        own = manifest.suite.judge
        if own and own.base_url and judge is None:
            asking.forbid("the judge was not asked about this answer; run `harness score RUN --judge suite`")
        if not manifest.model.shape_only:
            asking.about(records)
        moment = now()
        ended = _ended(store) or moment
        results = asking.judged(aggregate.assemble(manifest, records, scorer(asking.scoring), ended))
        return report_files.write(store, replace(results, rescored=moment), now=moment)


def _ended(store: RunStore) -> str:
    """Return when the run itself ended, from its stored results; empty if they are missing or damaged."""
    try:
        return store.results().finished
    except StoreError:
        return ""


def _asking(suite: Suite, store: RunStore, on_event: Callable[[Event], None], *, allow_code: bool) -> Asking:
    def executor() -> Processes:
        return Processes(at=local_places(AUTO))

    return asking_of(suite, store, Cache(CACHE), lambda: machine(AUTO), executor, on_event, allow_code=allow_code)


def _same_questions(new: Suite, old: Suite) -> Suite:
    """Return `new` after checking that the run trained on its rows and answered all of its cases."""
    if new.rows != old.rows:
        remedy = "Use `harness run` with this suite: it trains with these rows."
        raise SuiteError("the run was trained with other training rows", remedy=remedy)
    asked = {case.id: (case.split, question(old, case)) for case in old.cases}
    other = [case.id for case in new.cases if asked.get(case.id) != (case.split, question(new, case))]
    shared = (new.system_prompt, new.decoding, new.repeats) != (old.system_prompt, old.decoding, old.repeats)
    if other or shared:
        more = f", nor {plural(len(other) - 1, 'other case')}" if len(other) > 1 else ""
        what = "this system prompt, decoding or repeats" if shared else f"case {other[0]} in its present form{more}"
        remedy = "Use `harness run` with this suite: it asks only the new prompts and trains nothing again."
        raise SuiteError(f"the run did not use {what}", remedy=remedy)
    return new
