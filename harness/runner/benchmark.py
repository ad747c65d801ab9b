"""`harness run`: read the request, open the run directory, sweep, choose, confirm, report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from harness.analysis import aggregate
from harness.core import device_profiles
from harness.core.engines import Engine
from harness.core.errors import Place, SuiteError, UsageError
from harness.core.formats import FORMAT
from harness.core.hashing import digest
from harness.core.job import Event, EventKind
from harness.core.results import Results
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Plan, Trial, Variant, fusible
from harness.core.suite import Case, Split, Suite
from harness.core.training import Status
from harness.core.wording import plural
from harness.hardware.environment import machine, now, provenance, stack_versions
from harness.models import foreign_adapters
from harness.models.resolving import resolve
from harness.report import report_files
from harness.runner import scheduling
from harness.runner.budget import Budget
from harness.runner.copies import Copies
from harness.runner.executors import Executor
from harness.runner.listeners import Listener, Listeners
from harness.runner.sweep import Sweep
from harness.scoring import Scoring, code_of, scorer
from harness.storage.cache import Cache
from harness.storage.keys import Setup, adapter_trial
from harness.storage.locations import CACHE, RUNS
from harness.storage.mirror import Mirror, mirror
from harness.storage.runs import RunStore, claim_run, open_run
from harness.suites import load_suite
from harness.suites.grids import load_plan, trial_id

FIRST_CONFIRM_SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Request:
    """A benchmark to run, and where its results go."""

    suite: Path
    grid: str = "quick"
    model: str = "pocket"
    profile: device_profiles.Profile = device_profiles.AUTO
    seeds: tuple[int, ...] | None = None
    """Replace the grid's own."""
    confirm_seeds: int = 3
    """Number of fresh seeds under which the chosen variant is trained again; 0 skips the confirmation."""
    output: Path | None = None
    fresh: bool = False
    timeout: float | None = None
    """Seconds that one trial may take."""
    skip_unsupported: bool = False
    """Ignore the parts of the suite that the harness does not support."""
    allow_code: bool = False
    """Let the suite run its own code to judge answers."""
    timeline: bool = False
    """Also evaluate the suite after every epoch of every training."""
    adapters: tuple[Path, ...] = ()
    """Folders of adapters trained elsewhere, to be scored beside the grid."""
    arguments: tuple[str, ...] = ()
    """The command line after `harness`, kept in the run's provenance."""
    skip_predicted_oom: bool = False
    """Skip trials that are predicted to run out of memory."""
    budget: float | None = None
    """Time limit of the whole run in seconds, including the report."""
    sync: Path | None = None
    """A folder that outlives this machine, to which every finished trial is copied and from which a run resumes."""
    engine: Engine = Engine.AUTO
    """`reference`, `fused`, or `auto`: fused where several trials share a base."""


def run(request: Request, executor: Executor, listeners: Sequence[Listener] = ()) -> tuple[RunStore, Results]:
    """Run the trials of a benchmark that have no result yet, and write the results and the page.

    Raises:
        HarnessError: the request has a mistake, or another process works in the run directory.
    """
    begun = time.monotonic()
    manifest = prepare(request)
    shown = Listeners(tuple(listeners))
    _notice(shown, manifest.suite.notices)
    store, cache = place(request, manifest), Cache(CACHE)
    copies = mirror(request.sync, store, cache, manifest.digest) if request.sync else None
    with store.locked(), cache.in_use(store.root):
        if not store.exists:
            store.write_manifest(manifest)
        budget = _budget(request, manifest, begun)
        every = _listeners(shown, manifest, copies)
        sweep = Sweep(
            setup=Setup(manifest.suite, manifest.model, manifest.provenance.machine, manifest.engine, stack_versions()),
            run=store,
            cache=cache,
            executor=executor,
            timeout=request.timeout,
            listener=every,
            timeline=request.timeline,
            adapters=manifest.adapters,
            predicted_oom=_predicted_oom(request, manifest, cache, shown),
            budget=budget,
            mirror=copies,
        )
        if copies:
            copies.begin(manifest, fresh=request.fresh)
        results = _results(request, manifest, sweep, shown)
        results = report_files.write(store, results, now=results.finished)
        every.on_results(store, results)
        return store, results


def _results(request: Request, manifest: RunManifest, sweep: Sweep, shown: Listener) -> Results:
    """Run the sweep, choose a variant, confirm it, and return the results."""
    budget, store = sweep.budget, sweep.run
    # The choice is confirmed as a user would train it: alone, with SFTTrainer.
    confirmation = replace(sweep, setup=replace(sweep.setup, engine=Engine.REFERENCE))
    if request.fresh:
        _forget(sweep, confirmation, store, manifest)
    records = sweep.go(scheduling.ordered(manifest.plan, budget), Split.MAIN, _counted(manifest.plan))
    score = scorer(Scoring(Path(manifest.suite.folder), request.allow_code))
    found = aggregate.choose(manifest, records, score, now())
    chosen = _chosen(manifest, found)
    if chosen and not (budget and budget.spent):
        purpose = f"confirming {chosen.name} under {plural(len(manifest.confirm_seeds), 'fresh seed')}"
        records += confirmation.go(_again(chosen, manifest.confirm_seeds), Split.CONFIRM, purpose)
    if budget and budget.spent:
        _notice(shown, [scheduling.left(budget, manifest, records, chosen)])
    else:
        store.forget_records((record.split, record.trial) for record in records)
    return aggregate.confirm(found, records, score, now())


def _listeners(shown: Listener, manifest: RunManifest, copies: Mirror | None) -> Listeners:
    """All listeners of a run: those that the caller gave, and what the request asks for.

    A tracker (trackio, wandb) would be one more here.
    """
    return Listeners((_Named(shown, _names(manifest)), *([Copies(copies, shown)] if copies else [])))


def _notice(listener: Listener, messages: Iterable[str]) -> None:
    for message in messages:
        listener.on_event(Event(EventKind.NOTICED, message=message))


def _budget(request: Request, manifest: RunManifest, begun: float) -> Budget | None:
    if request.budget is None:
        return None
    return Budget(request.budget, scheduling.weights(manifest, _every(manifest)), started=begun)


def _predicted_oom(request: Request, manifest: RunManifest, cache: Cache, shown: Listener) -> dict[str, str]:
    if not request.skip_predicted_oom:
        return {}
    return scheduling.hopeless(manifest, request.profile, cache, shown.on_event)


# --- before ------------------------------------------------------------------------------------------------------


def prepare(request: Request) -> RunManifest:
    """Read and check the suite, the grid, the model and the adapters; writes nothing and trains nothing."""
    suite = load_suite(request.suite, skip_unsupported=request.skip_unsupported)
    _check_code(suite, request.allow_code)
    plan = load_plan(Path(suite.folder) / "grids" / f"{request.grid}.yaml", seeds=request.seeds)
    _check_trainable(suite)
    model = resolve(request.model)
    found = foreign_adapters.find(request.adapters, model, [variant.name for variant in plan.variants])
    on = machine(request.profile)
    engine = _engine(request.engine, plan)
    confirm = _fresh_seeds(plan, request.confirm_seeds if suite.of(Split.CONFIRM) else 0)
    return RunManifest(
        format=FORMAT,
        suite=suite,
        plan=plan,
        model=model,
        engine=engine,
        confirm_seeds=confirm,
        provenance=provenance(on, list(request.arguments)),
        digest=digest(
            {
                "suite": _content(suite),
                "plan": {field.name: getattr(plan, field.name) for field in fields(plan) if field.name != "about"},
                "model": model.digest,
                "engine": engine,
                "confirm": confirm,
                "machine": replace(on, threads=0),
                "versions": stack_versions(),
            }
            | ({"adapters": [(adapter.name, adapter.digest) for adapter in found]} if found else {})
        ),
        adapters=found,
    )


def _engine(asked: Engine, plan: Plan) -> Engine:
    """The engine that trains the plan: with `auto`, the fused one where several trials share a base."""
    if asked is not Engine.AUTO:
        return asked
    bases = [trial.settings.quantization for trial in plan.trials if fusible(trial.settings)]
    return Engine.FUSED if any(bases.count(base) > 1 for base in set(bases)) else Engine.REFERENCE


def _check_trainable(suite: Suite) -> None:
    place = Place(str(Path(suite.folder) / "suite.yaml"))
    if not suite.examples:
        remedy = "Put a train.jsonl beside it, or name a file with `train: file://NAME`."
        raise SuiteError("the suite has no training rows", remedy=remedy, place=place)
    if not suite.of(Split.MAIN):
        remedy = "Remove `split: confirm` from some: main cases choose the best variant, confirm cases check it."
        raise SuiteError(
            "all cases have `split: confirm`, so none can choose the best variant", remedy=remedy, place=place
        )


def _check_code(suite: Suite, allowed: bool) -> None:
    """Refuse code before the training, so that no score is missing after it."""
    code = code_of(assertion for case in suite.cases for assertion in case.assertions)
    if code and not allowed:
        raise UsageError(f"the suite runs code: {', '.join(code[:5])}", remedy="If you trust it, pass --allow-code.")


def _content(suite: Suite) -> Suite:
    """The suite without its folder, its line numbers and its notices, which change no results."""
    return replace(
        suite,
        folder="",
        notices=(),
        cases=tuple(replace(case, line=0) for case in suite.cases),
        examples=tuple(replace(example, line=0) for example in suite.examples),
    )


def _fresh_seeds(plan: Plan, count: int) -> tuple[int, ...]:
    if count < 0:
        raise UsageError("--confirm-seeds cannot be negative", remedy="0 skips the confirmation.")
    candidates = range(FIRST_CONFIRM_SEED, FIRST_CONFIRM_SEED + count + len(plan.seeds))
    return tuple(seed for seed in candidates if seed not in plan.seeds)[:count]


def place(request: Request, manifest: RunManifest) -> RunStore:
    """The run's directory: the one in the request, else the one where this run was started, else a new one."""
    if request.output is not None:
        return claim_run(request.output, manifest.digest)
    name = f"{manifest.suite.name}-{manifest.plan.grid}-{_for_a_folder(manifest.model.name)}"
    return open_run(RUNS, name, manifest.digest)


def _for_a_folder(model: str) -> str:
    return model.replace("/", "--").replace(":", "-")


# --- sweep and confirmation --------------------------------------------------------------------------------------


def _forget(sweep: Sweep, confirmation: Sweep, store: RunStore, manifest: RunManifest) -> None:
    """Drop all earlier results of the variants and of their confirmations."""
    for one in (sweep, confirmation):
        one.forget(_every(manifest))
    store.forget_records(())


def _every(manifest: RunManifest) -> list[Trial]:
    """The plan's trials, and all trials that a confirmation may need."""
    again = [trial for variant in manifest.plan.variants for trial in _again(variant, manifest.confirm_seeds)]
    return [*manifest.plan.trials, *again]


def _again(variant: Variant, seeds: Iterable[int]) -> tuple[Trial, ...]:
    settings = variant.settings
    return tuple(Trial(trial_id(settings, seed), variant.id, settings, seed) for seed in seeds)


def _chosen(manifest: RunManifest, results: Results) -> Variant | None:
    if not manifest.confirm_seeds or results.choice.variant is None:
        return None
    return next(variant for variant in manifest.plan.variants if variant.name == results.choice.variant)


def _counted(plan: Plan) -> str:
    seeds = f" under {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    return f"training {plural(len(plan.variants), 'variant')}{seeds}"


@dataclass(frozen=True)
class _Named(Listener):
    """Passes events on with trials called by their variants' names instead of their ids."""

    listener: Listener
    names: Mapping[str, str]

    def on_event(self, event: Event) -> None:
        self.listener.on_event(replace(event, trial=self.names.get(event.trial, event.trial)))

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        self.listener.on_record(record, trainings)

    def on_results(self, store: RunStore, results: Results) -> None:
        self.listener.on_results(store, results)


def _names(manifest: RunManifest) -> dict[str, str]:
    several = len(manifest.plan.seeds) > 1
    names = {trial.id: _title(manifest, trial, several) for trial in manifest.plan.trials}
    for variant in manifest.plan.variants:
        names |= {trial.id: _title(manifest, trial, True) for trial in _again(variant, manifest.confirm_seeds)}
    return names | {adapter_trial(adapter): adapter.name for adapter in manifest.adapters}


def _title(manifest: RunManifest, trial: Trial, seeded: bool) -> str:
    name = next(variant.name for variant in manifest.plan.variants if variant.id == trial.variant)
    return f"{name}, seed {trial.seed}" if seeded else name


# --- after -------------------------------------------------------------------------------------------------------


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], *, allow_code: bool = False) -> Results:
    """Score the stored answers and compare them."""
    scoring = Scoring(Path(manifest.suite.folder), allow_code)
    return aggregate.assemble(manifest, records, scorer(scoring), now())


def rescore(
    store: RunStore, suite: Path | None, *, skip_unsupported: bool = False, allow_code: bool = False
) -> Results:
    """Score a run's stored answers again by the assertions of `suite`, or of the run's snapshot where it is None.

    Raises:
        SuiteError: the suite has a case that the run has no answer to.
        UsageError: the suite runs code that is not allowed.
    """
    with store.locked():
        manifest = store.manifest()
        if suite is not None:
            given = load_suite(suite, skip_unsupported=skip_unsupported)
            manifest = replace(manifest, suite=_same_questions(given, manifest.suite))
        _check_code(manifest.suite, allow_code)
        results = assemble(manifest, store.records(), allow_code=allow_code)
        return report_files.write(store, results, now=results.finished)


def _same_questions(new: Suite, old: Suite) -> Suite:
    asked = {case.id: _question(case) for case in old.cases}
    other = [case.id for case in new.cases if asked.get(case.id) != _question(case)]
    if other or (new.system_prompt, new.decoding, new.repeats) != (old.system_prompt, old.decoding, old.repeats):
        what = f"case {other[0]} ({len(other)} in all)" if other else "its system prompt, decoding or repeats"
        remedy = "Use `harness run` with this suite: it asks only the new prompts and trains nothing again."
        raise SuiteError(f"{what} differs from what this run answered", remedy=remedy)
    return new


def _question(case: Case) -> tuple[object, ...]:
    """The parts of a case that determine an answer and its log-probabilities."""
    return case.messages, case.split, case.reference, case.choices


def failures(results: Results, folder: Path) -> list[str]:
    """One line per trial that failed or timed out, with the path of its log."""
    rows = (*results.variants, results.base, results.confirmed, results.confirmed_base)
    return [
        f"{row.name}, seed {seed}: {status}: {message}" + (f" (log: {folder / log})" if log else "")
        for row in rows
        if row
        for seed, status, message, log in zip(row.seeds, row.statuses, row.messages, row.logs, strict=True)
        if status in (Status.FAILED, Status.TIMED_OUT)
    ]
