"""A whole benchmark, stage by stage: read, open the run, sweep, choose, confirm, report. What `harness run` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from harness import adapters, compare, frame, limits, report
from harness.advise import advise
from harness.budget import Budget
from harness.core.settings import fusible
from harness.errors import Place, SuiteError, UsageError
from harness.executors import Executor
from harness.grid import load_plan, trial_id
from harness.models import resolve
from harness.provenance import Profile, machine, now, provenance, stack_versions
from harness.recommend import Caps
from harness.records import (
    FORMAT,
    Case,
    Event,
    EventKind,
    Plan,
    Recommendation,
    Results,
    RunManifest,
    Split,
    Status,
    Suite,
    Trial,
    TrialRecord,
    Variant,
)
from harness.scorers import Scoring, code_of, scorer
from harness.store import Cache, RunStore, claim_run, digest, open_run
from harness.suites import load_suite
from harness.sweep import FUSED, REFERENCE, Setup, Sweep, adapter_trial
from harness.sync import mirror
from harness.wording import plural

RUNS = Path("reports/runs")
CACHE = Path("reports/cache")
AUTO = "auto"
FIRST_CONFIRM_SEED = 1000

Notify = Callable[[Event], None]


@dataclass(frozen=True)
class Request:
    """What is to be benchmarked, and where its results go."""

    suite: Path
    grid: str = "quick"
    model: str = "pocket"
    profile: Profile = Profile.AUTO
    seeds: tuple[int, ...] | None = None
    """Instead of the grid's own."""
    confirm_seeds: int = 3
    """Under how many fresh seeds the chosen variant is trained again; 0 leaves confirmation out."""
    output: Path | None = None
    fresh: bool = False
    timeout: float | None = None
    """Seconds that one trial may take."""
    skip_unsupported: bool = False
    """Go on without what the suite asks and the harness cannot do."""
    allow_code: bool = False
    """Code beside the suite may judge answers."""
    timeline: bool = False
    """Ask the suite after every epoch of every training, too."""
    adapters: tuple[Path, ...] = ()
    """Folders of adapters that were trained elsewhere, to be scored beside the grid."""
    arguments: tuple[str, ...] = ()
    """The command line behind `harness`, for the record."""
    skip_hopeless: bool = False
    """Leave out trials that are predicted not to fit."""
    budget: float | None = None
    """Seconds that all of it may take, the report among it."""
    sync: Path | None = None
    """A folder that outlives this machine, where every finished trial is copied to and found again."""
    engine: str = AUTO
    """`reference`, `fused`, or `auto`: the fused one where several trials have a base in common."""


def run(request: Request, executor: Executor, notify: Notify) -> tuple[RunStore, Results]:
    """Do what is missing of this benchmark, and write its results and its page.

    Raises:
        HarnessError: a mistake in what was given, or a run directory that another process works in.
    """
    limit = Budget(request.budget) if request.budget else None
    manifest = prepare(request)
    for notice in manifest.suite.notices:
        notify(Event(EventKind.NOTICED, message=notice))
    store = place(request, manifest)
    cache = Cache(CACHE)
    copies = mirror(request.sync, store, cache, manifest.digest) if request.sync else None
    with store.locked(), cache.in_use(store.root):
        if not store.exists:
            store.write_manifest(manifest)
        setup = Setup(manifest.suite, manifest.model, manifest.provenance.machine, manifest.engine, stack_versions())
        sweep = Sweep(
            setup,
            store,
            cache,
            executor,
            request.timeout,
            _named(notify, manifest),
            request.timeline,
            manifest.adapters,
        )
        sweep.budget, sweep.mirror = limit, copies
        if limit:
            limit.weights = limits.weights(manifest, _every(manifest))
        if request.skip_hopeless:
            sweep.hopeless = limits.hopeless(manifest, request.profile, cache, notify)
        if copies:
            copies.begin(manifest, fresh=request.fresh)
        # The choice is confirmed as a user would train it: alone, with SFTTrainer.
        judge = replace(sweep, setup=replace(setup, engine=REFERENCE))
        if request.fresh:
            _forget(sweep, judge, store, manifest)
        records = sweep.go(limits.ordered(manifest.plan, limit), Split.MAIN, _counted(manifest.plan))
        chosen = _chosen(manifest, assemble(manifest, records, allow_code=request.allow_code))
        if chosen and not (limit and limit.spent):
            purpose = f"confirming {chosen.name} under {plural(len(manifest.confirm_seeds), 'fresh seed')}"
            records += judge.go(_again(chosen, manifest.confirm_seeds), Split.CONFIRM, purpose)
        if limit and limit.spent:
            notify(Event(EventKind.NOTICED, message=limits.left(limit, manifest, records, chosen)))
        else:
            store.forget_records((record.split, record.trial) for record in records)
        results = publish(store, manifest, records, allow_code=request.allow_code)
        if copies:
            copies.end(notify)
        return store, results


# --- before ------------------------------------------------------------------------------------------------------


def prepare(request: Request) -> RunManifest:
    """Read and check all that was named; nothing is written and nothing trained."""
    suite = load_suite(request.suite, skip_unsupported=request.skip_unsupported)
    _check_code(suite, request.allow_code)
    plan = load_plan(Path(suite.folder) / "grids" / f"{request.grid}.yaml", seeds=request.seeds)
    _check_trainable(suite)
    model = resolve(request.model)
    found = adapters.find(request.adapters, model, [variant.name for variant in plan.variants])
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


def _engine(asked: str, plan: Plan) -> str:
    """What trains the plan: with `auto`, whatever can be trained beside something else is."""
    if asked != AUTO:
        return asked
    bases = [trial.settings.quantization for trial in plan.trials if fusible(trial.settings)]
    return FUSED if any(bases.count(base) > 1 for base in set(bases)) else REFERENCE


def _check_trainable(suite: Suite) -> None:
    place = Place(str(Path(suite.folder) / "suite.yaml"))
    if not suite.examples:
        remedy = "Put a train.jsonl beside it, or name a file with `train: file://NAME`."
        raise SuiteError("the suite has no training rows, so there is nothing to train on", remedy=remedy, place=place)
    if not suite.of(Split.MAIN):
        remedy = "Remove `split: confirm` from some: those choose the best variant, the others confirm it."
        raise SuiteError("all cases have `split: confirm`, so none can choose", remedy=remedy, place=place)


def _check_code(suite: Suite, allowed: bool) -> None:
    """Better before training than scores that are missing after it."""
    code = code_of(assertion for case in suite.cases for assertion in case.assertions)
    if code and not allowed:
        raise UsageError(f"the suite runs code: {', '.join(code[:5])}", remedy="If you trust it, pass --allow-code.")


def _content(suite: Suite) -> Suite:
    """The suite without where it lies, on which lines, and what was ignored of it: these change no results."""
    return replace(
        suite,
        folder="",
        notices=(),
        cases=tuple(replace(case, line=0) for case in suite.cases),
        examples=tuple(replace(example, line=0) for example in suite.examples),
    )


def _fresh_seeds(plan: Plan, count: int) -> tuple[int, ...]:
    if count < 0:
        raise UsageError("--confirm-seeds cannot be negative", remedy="0 leaves confirmation out.")
    candidates = range(FIRST_CONFIRM_SEED, FIRST_CONFIRM_SEED + count + len(plan.seeds))
    return tuple(seed for seed in candidates if seed not in plan.seeds)[:count]


def place(request: Request, manifest: RunManifest) -> RunStore:
    """The run's directory: the one that was named, else the one where it was begun, else a new one."""
    if request.output is not None:
        return claim_run(request.output, manifest.digest)
    name = f"{manifest.suite.name}-{manifest.plan.grid}-{_for_a_folder(manifest.model.name)}"
    return open_run(RUNS, name, manifest.digest)


def _for_a_folder(model: str) -> str:
    return model.replace("/", "--").replace(":", "-")


# --- sweep and confirmation --------------------------------------------------------------------------------------


def _forget(sweep: Sweep, judge: Sweep, store: RunStore, manifest: RunManifest) -> None:
    """Nothing that was found before counts: neither of the variants nor of their confirmations."""
    for one in (sweep, judge):
        one.forget(_every(manifest))
    store.forget_records(())


def _every(manifest: RunManifest) -> list[Trial]:
    """The plan's trials, and all that a confirmation may ask for."""
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


def _named(notify: Notify, manifest: RunManifest) -> Notify:
    """Events for people: trials are called by their variants' names."""
    several = len(manifest.plan.seeds) > 1
    names = {trial.id: _title(manifest, trial, several) for trial in manifest.plan.trials}
    for variant in manifest.plan.variants:
        names |= {trial.id: _title(manifest, trial, True) for trial in _again(variant, manifest.confirm_seeds)}
    names |= {adapter_trial(adapter): adapter.name for adapter in manifest.adapters}
    return lambda event: notify(replace(event, trial=names.get(event.trial, event.trial)))


def _title(manifest: RunManifest, trial: Trial, seeded: bool) -> str:
    name = next(variant.name for variant in manifest.plan.variants if variant.id == trial.variant)
    return f"{name}, seed {trial.seed}" if seeded else name


# --- after -------------------------------------------------------------------------------------------------------


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], *, allow_code: bool = False) -> Results:
    """Score the stored answers and compare them."""
    scoring = Scoring(Path(manifest.suite.folder), allow_code)
    return compare.assemble(manifest, records, scorer(scoring), now())


def publish(
    store: RunStore, manifest: RunManifest, records: Sequence[TrialRecord], *, allow_code: bool = False
) -> Results:
    """Write results.json, samples.jsonl and the page."""
    results = replace(assemble(manifest, records, allow_code=allow_code), parities=store.parities())
    store.write_results(results, frame.samples(results), report.render(results, now=results.finished))
    return results


def rescore(
    store: RunStore, suite: Path | None, *, skip_unsupported: bool = False, allow_code: bool = False
) -> Results:
    """Score a run's stored answers again, by the assertions of `suite` instead of those of its snapshot.

    Raises:
        SuiteError: the suite asks something that the run has no answer to.
        UsageError: the suite runs code that is not allowed.
    """
    with store.locked():
        manifest = store.manifest()
        if suite is not None:
            given = load_suite(suite, skip_unsupported=skip_unsupported)
            manifest = replace(manifest, suite=_same_questions(given, manifest.suite))
        _check_code(manifest.suite, allow_code)
        return publish(store, manifest, store.records(), allow_code=allow_code)


def _same_questions(new: Suite, old: Suite) -> Suite:
    asked = {case.id: _question(case) for case in old.cases}
    other = [case.id for case in new.cases if asked.get(case.id) != _question(case)]
    if other or (new.system_prompt, new.decoding, new.repeats) != (old.system_prompt, old.decoding, old.repeats):
        what = f"case {other[0]} ({len(other)} in all)" if other else "its system prompt, decoding or repeats"
        remedy = "Use `harness run` with this suite: it asks only what is new and trains nothing again."
        raise SuiteError(f"{what} is not what this run has answers to", remedy=remedy)
    return new


def _question(case: Case) -> tuple[object, ...]:
    """What a model was asked: log-probabilities are of the reference and the choices as they were then."""
    return case.messages, case.split, case.reference, case.choices


def recommendation(store: RunStore, caps: Caps) -> Recommendation:
    """What a finished run recommends within these caps."""
    return advise(store.results(), caps)


def rewrite(store: RunStore) -> Results:
    """Draw a finished run's page again."""
    results = replace(store.results(), parities=store.parities())
    store.write_results(results, frame.samples(results), report.render(results, now=now()))
    return results


def failures(results: Results, folder: Path) -> list[str]:
    """One line per trial that failed or was stopped, each with its log in the run's folder."""
    rows = (*results.variants, results.base, results.confirmed, results.confirmed_base)
    return [
        f"{row.name}, seed {seed}: {status}: {message}" + (f" (log: {folder / log})" if log else "")
        for row in rows
        if row
        for seed, status, message, log in zip(row.seeds, row.statuses, row.messages, row.logs, strict=True)
        if status in (Status.FAILED, Status.TIMED_OUT)
    ]
