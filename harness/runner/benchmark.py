"""`harness run`: prepare the run, train and evaluate the grid, confirm the best variant, write the report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness.analysis import aggregate
from harness.core.job import Event, EventKind
from harness.core.rehearsal import rehearsing
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Plan, Variant
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.core.turn_tokens import token_key
from harness.core.wording import plural
from harness.hardware.environment import memory_of, now, stack_versions
from harness.models.foreign_adapters import notices
from harness.report import report_files
from harness.runner import scheduling
from harness.runner.budget import Budget
from harness.runner.cpu_workers import cpu_workers
from harness.runner.executors.protocol import Executor
from harness.runner.judges import naming
from harness.runner.judges.asking import Asking, asking_of
from harness.runner.listeners.protocol import Listener, Listeners
from harness.runner.listeners.sync import SyncListener
from harness.runner.listeners.trial_names import ReadableNames, trial_names
from harness.runner.planned_trials import all_trials, confirmation_trials
from harness.runner.preparation import engine_notice, prepare, run_directory
from harness.runner.race import Ask, run_race
from harness.runner.rehearsal import known_answers, rehearse
from harness.runner.request import Request
from harness.runner.search import run_search
from harness.runner.sweep import Sweep
from harness.scoring import scorer
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.locations import CACHE
from harness.storage.mirror import Mirror, mirror
from harness.storage.runs import RunStore


def run(request: Request, executor: Executor, listeners: Sequence[Listener] = ()) -> tuple[RunStore, Results]:
    """Run the trials that have no result yet, and write the results and the report.

    Raises:
        HarnessError: the request has a mistake, or another process is using the run directory.
    """
    started = time.monotonic()
    user = Listeners(tuple(listeners))
    manifest = prepare(request, lambda message: _notify(user, [message]), executor.gpu)
    _notify(user, [*manifest.suite.notices, *notices(manifest.adapters, manifest.model)])
    _notify(user, filter(None, [naming.notice(manifest.suite), engine_notice(manifest)]))
    _notify(user, manifest.tokens.notices if manifest.tokens else ())
    storage = _storage(request, manifest)
    memory = memory_of(manifest.provenance.machine, ask=executor.gpu)
    executor = executor.divided(cpu_workers(manifest, scheduling.composition(manifest, request.width, memory)))
    locked = storage.run.locked("name another directory with --output")
    with locked, storage.cache.in_use(storage.run.root), closing(executor):
        manifest = _with_known_answers(request, manifest, storage)
        sweep = _sweep(request, manifest, storage, executor, user, started)
        session = _Session(request, manifest, sweep, user)
        _begin(session)
        asking = _asking(session)
        session = _rehearse(_trying_out(session, asking))
        results = _train_and_score(session, asking)
        results = report_files.write(storage.run, results, now=results.finished)
        sweep.listener.on_results(storage.run, results)
        return storage.run, results


@dataclass(frozen=True)
class _Storage:
    """Where the results of a run are stored."""

    run: RunStore
    cache: Cache
    mirror: Mirror | None
    """The folder of `--sync`."""


def _storage(request: Request, manifest: RunManifest) -> _Storage:
    store, cache = run_directory(request, manifest), Cache(CACHE)
    return _Storage(store, cache, mirror(request.sync, store, cache, manifest.digest) if request.sync else None)


def _with_known_answers(request: Request, manifest: RunManifest, storage: _Storage) -> RunManifest:
    """Add the rehearsal answers of an earlier session, from the run directory or from the folder of `--sync`."""
    stores = [storage.run, *([storage.mirror.far_run] if storage.mirror else [])]
    known = () if request.fresh else next(filter(None, (known_answers(manifest, store) for store in stores)), ())
    if not known or manifest.rehearsal is None:
        return manifest
    return replace(manifest, rehearsal=replace(manifest.rehearsal, answers=known))


@dataclass(frozen=True)
class _Session:
    """What the steps of one call of `run` share: the request, the checked manifest, the sweep, and a listener."""

    request: Request
    manifest: RunManifest
    sweep: Sweep
    user: Listener
    """The listener that shows notices to the user."""

    @property
    def confirmation(self) -> Sweep:
        """The sweep for the confirmation of the best variant. It trains one trial at a time, as users do."""
        return replace(self.sweep, setup=replace(self.sweep.setup, engine=self.sweep.setup.engine.alone))

    @property
    def out_of_time(self) -> bool:
        return self.sweep.budget is not None and self.sweep.budget.spent


def _sweep(
    request: Request,
    manifest: RunManifest,
    storage: _Storage,
    executor: Executor,
    user: Listener,
    started: float,
) -> Sweep:
    """Build the sweep (the object that runs trials) from the options of the request."""
    several = len(executor.places) > 1
    weights = scheduling.weights(manifest, all_trials(manifest)) if several or request.budget is not None else {}
    memory = memory_of(manifest.provenance.machine, ask=executor.gpu)
    return Sweep(
        setup=Setup(
            manifest.suite,
            manifest.model,
            manifest.provenance.machine,
            manifest.engine,
            stack_versions(),
            tokens=token_key(manifest.tokens),
        ),
        run=storage.run,
        cache=storage.cache,
        executor=executor,
        timeout=request.timeout,
        listener=_all_listeners(user, manifest, storage.mirror),
        timeline=request.timeline,
        adapters=manifest.adapters,
        # In the plan's order: a time limit changes the order of the trials, and must not change what is compared.
        adapter_base=next(iter(manifest.plan.bases)),
        predicted_oom=_predicted_oom(request, manifest, storage.cache, user),
        budget=None if request.budget is None else Budget(request.budget, weights, started=started),
        mirror=storage.mirror,
        composition=scheduling.composition(manifest, request.width, memory, weights),
    )


def _all_listeners(user: Listener, manifest: RunManifest, copies: Mirror | None) -> Listeners:
    """Join the user's listener with the listener of `--sync`, if that option is used."""
    synced = [SyncListener(copies, user)] if copies else []
    return Listeners((ReadableNames(user, trial_names(manifest)), *synced))


def _predicted_oom(request: Request, manifest: RunManifest, cache: Cache, user: Listener) -> dict[str, str]:
    if not request.skip_predicted_oom:
        return {}
    return scheduling.predicted_oom(manifest, request.profile, cache, user.on_event)


def _begin(session: _Session) -> None:
    """Write the manifest if the run is new, begin copying if `--sync` is used, delete old results if `--fresh` is."""
    manifest, sweep = session.manifest, session.sweep
    if not sweep.run.exists:
        sweep.run.write_manifest(manifest)
    if sweep.mirror:
        sweep.mirror.begin(manifest, fresh=session.request.fresh)


def _rehearse(session: _Session) -> _Session:
    """Let the base model answer the rehearsal prompts, if a variant has rehearsal. Delete old results if `--fresh`.

    The keys of trainings depend on these answers, so the trainings are deleted once the answers exist.
    """
    manifest, sweep, fresh = session.manifest, session.sweep, session.request.fresh
    if fresh:
        for quantization in rehearsing(manifest.plan):
            sweep.forget_rehearsal(quantization)
    manifest = rehearse(manifest, sweep)
    answers = manifest.rehearsal.answers if manifest.rehearsal else ()
    _notify(session.user, (f"Rehearsal: {each.words}." for each in answers))
    sweep = replace(sweep, setup=replace(sweep.setup, rehearsal=answers))
    session = replace(session, manifest=manifest, sweep=sweep)
    if fresh:
        _delete_earlier_results(session)
    return session


def _delete_earlier_results(session: _Session) -> None:
    """Delete all earlier results of the trials of the grid and of the confirmation of any of its variants."""
    for sweep in (session.sweep, session.confirmation):
        sweep.forget(all_trials(session.manifest))
    session.sweep.run.forget_records(())


def _train_and_score(session: _Session, asking: Asking) -> Results:
    """Run the grid, choose the best variant, confirm it, and return the results."""
    score = scorer(asking.scoring)

    def ask(records: Sequence[TrialRecord]) -> None:
        _ask(session, asking, records)

    if session.manifest.plan.search:
        session, records = _search(session, score, ask)
    else:
        records = _run_grid(session, score, ask)
    manifest = session.manifest
    ask(records)
    chosen = aggregate.choose(manifest, records, score, now())
    best = _variant_to_confirm(manifest, chosen)
    confirming = _confirm(session, best)
    _ask(session, asking, confirming)
    records += confirming
    _tidy_records(session, records, best)
    return asking.judged(aggregate.confirm(chosen, records, score, now()))


def _asking(session: _Session) -> Asking:
    manifest, sweep = session.manifest, session.sweep
    return asking_of(
        manifest.suite,
        sweep.run,
        sweep.cache,
        lambda: manifest.provenance.machine,
        lambda: sweep.executor,
        sweep.listener.on_event,
        sweep.listener.on_verdicts,
        allow_code=session.request.allow_code,
    )


def _trying_out(session: _Session, asking: Asking) -> _Session:
    """Let the models that judge answers be tried before the first training; not if the answers mean nothing."""
    if session.manifest.model.shape_only or session.out_of_time:
        return session
    return replace(session, sweep=replace(session.sweep, before=asking.try_out))


def _ask(session: _Session, asking: Asking, records: Sequence[TrialRecord]) -> None:
    """Ask other models about the answers, if there is time left."""
    if session.out_of_time:
        asking.forbid("the time limit ended before the judge was asked; run `harness score RUN`")
    elif not session.manifest.model.shape_only:
        asking.about(records)


def _run_grid(session: _Session, score: aggregate.Scorer, ask: Ask) -> tuple[TrialRecord, ...]:
    plan, sweep = session.manifest.plan, session.sweep
    trials = [each for each in scheduling.ordered(plan, sweep.budget) if sweep.setup.can_rehearse(each.settings)]
    if not trials:
        return ()
    if session.request.race:
        return run_race(sweep, session.manifest, trials, score, _grid_title(plan), ask)
    return sweep.run_trials(trials, Split.MAIN, _grid_title(plan), planned=plan.trials)


def _search(session: _Session, score: aggregate.Scorer, ask: Ask) -> tuple[_Session, tuple[TrialRecord, ...]]:
    """Run the batches of a search, and return the session with all variants that it tried."""

    def run_batch(manifest: RunManifest) -> tuple[TrialRecord, ...]:
        records = _run_grid(_for_batch(session, manifest), score, ask)
        ask(records)
        return records

    manifest, records = run_search(session.manifest, score, run_batch, session.sweep.run.write_manifest)
    return replace(_for_batch(session, manifest), manifest=manifest), records


def _for_batch(session: _Session, manifest: RunManifest) -> _Session:
    """Return the session for some variants of a search: with their names, predicted times and passes."""
    sweep, request = session.sweep, session.request
    several = len(sweep.executor.places) > 1
    weights = scheduling.weights(manifest, all_trials(manifest)) if several or sweep.budget else {}
    if sweep.budget:
        sweep.budget.weights = {**sweep.budget.weights, **weights}
    memory = memory_of(manifest.provenance.machine, ask=sweep.executor.gpu)
    batch = replace(
        sweep,
        listener=_all_listeners(session.user, manifest, sweep.mirror),
        predicted_oom=_predicted_oom(request, manifest, sweep.cache, session.user),
        composition=scheduling.composition(manifest, request.width, memory, weights),
    )
    new = replace(session, manifest=manifest, sweep=batch)
    if request.fresh and manifest.plan.variants[0].id not in {v.id for v in session.manifest.plan.variants}:
        for each in (new.sweep, new.confirmation):
            each.forget(all_trials(manifest))
    return new


def _grid_title(plan: Plan) -> str:
    seeds = f" under {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    return f"training {plural(len(plan.variants), 'variant')}{seeds}"


def _variant_to_confirm(manifest: RunManifest, results: Results) -> Variant | None:
    if not manifest.confirm_seeds or results.choice.variant is None:
        return None
    return next(variant for variant in manifest.plan.variants if variant.name == results.choice.variant)


def _confirm(session: _Session, best: Variant | None) -> tuple[TrialRecord, ...]:
    """If there is time left, train the best variant under fresh seeds and let it answer the held-out cases."""
    if best is None or session.out_of_time:
        return ()
    seeds = session.manifest.confirm_seeds
    title = f"confirming {best.name} under {plural(len(seeds), 'fresh seed')}"
    return session.confirmation.run_trials(confirmation_trials(best, seeds), Split.CONFIRM, title)


def _tidy_records(session: _Session, records: Sequence[TrialRecord], best: Variant | None) -> None:
    """Delete records that the results do not use. If the time ran out, keep them and say what is unfinished."""
    budget, store = session.sweep.budget, session.sweep.run
    if budget and budget.spent:
        _notify(session.user, [scheduling.unfinished(budget, session.manifest, records, best)])
    else:
        store.forget_records((record.split, record.trial) for record in records)


def _notify(listener: Listener, messages: Iterable[str]) -> None:
    for message in messages:
        listener.on_event(Event(EventKind.NOTICED, message=message))


def failures(results: Results, folder: Path) -> list[str]:
    """One line for each trial that failed or timed out, with the path of its log."""
    rows = (*results.variants, results.base, results.confirmed, results.confirmed_base)
    return [
        f"{row.name}, seed {seed}: {status}: {message}" + (f" (log: {folder / log})" if log else "")
        for row in rows
        if row
        for seed, status, message, log in zip(row.seeds, row.statuses, row.messages, row.logs, strict=True)
        if status in (Status.FAILED, Status.TIMED_OUT)
    ]
