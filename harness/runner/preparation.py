"""Prepares a run: checks the suite, grid, model and adapters, and finds the run's directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from harness.analysis.settings_search import check_optuna, version_of_optuna
from harness.core.engines import Engine
from harness.core.errors import Place, SuiteError, UsageError
from harness.core.formats import FORMAT
from harness.core.hashing import digest
from harness.core.model import ModelRef
from harness.core.rehearsal import DECODING
from harness.core.run import RunManifest
from harness.core.settings import Plan, fusible, unfusible
from harness.core.suite import Assertion, Case, Split, Suite
from harness.core.turn_tokens import TurnTokens, token_key
from harness.core.wording import listed
from harness.hardware.environment import machine, provenance, stack_versions
from harness.hardware.estimate.batches import check_steps
from harness.hardware.gpu import Gpu, gpu
from harness.models import foreign_adapters
from harness.models.foreign_files import read_object
from harness.models.gguf_bases import Conversions
from harness.models.resolving import resolve
from harness.models.token_check import check_tokens
from harness.runner.judges.naming import prepared, with_judge
from harness.runner.request import Request
from harness.scoring import Scoring, broken_code, code_of, missing_extras, unusable_code
from harness.storage.locations import RUNS
from harness.storage.runs import RunStore, claim_run, open_run
from harness.suites import load_suite
from harness.suites.grids import load_plan
from harness.suites.rehearsal import rehearsal_of

FIRST_CONFIRM_SEED = 1000


def _silent(_message: str) -> None:
    pass


def prepare(
    request: Request, report: Callable[[str], None] = _silent, ask: Callable[[], Gpu | None] = gpu
) -> RunManifest:
    """Read and check the suite, the grid, the model and the adapters. Nothing is trained.

    A model that is not on this machine is downloaded, and a GGUF file is converted; `report` is called before that.
    `ask` finds the GPU of the run.

    Raises:
        HarnessError: the request has a mistake.
    """
    suite = load_suite(request.suite, skip_unsupported=request.skip_unsupported, root=request.root)
    suite = prepared(with_judge(suite, request.judge))
    check_code(suite, request.allow_code)
    check_compiles(suite)
    plan = load_plan(Path(suite.folder) / "grids" / f"{request.grid}.yaml", seeds=request.seeds)
    if plan.search:
        check_optuna()
    check_trainable(suite)
    check_steps(suite, plan)
    rehearsal = rehearsal_of(suite, plan)
    model = resolve(request.model, conversions=Conversions(report=report))
    tokens = _check_tokens(suite, plan, model)
    found = foreign_adapters.find(request.adapters, model, [variant.name for variant in plan.variants])
    on = machine(request.profile, ask=ask)
    engine = engine_of(request.engine, plan)
    confirm = _fresh_seeds(plan, request.confirm_seeds if suite.of(Split.CONFIRM) else 0)
    manifest = RunManifest(
        format=FORMAT,
        suite=suite,
        plan=plan,
        model=model,
        engine=engine,
        confirm_seeds=confirm,
        provenance=provenance(on, list(request.arguments)),
        digest="",
        adapters=found,
        tokens=tokens,
        rehearsal=rehearsal,
    )
    return replace(manifest, digest=_digest(manifest))


def _digest(manifest: RunManifest) -> str:
    """Digest of everything that affects results. Runs with the same digest share a run directory."""
    plan, adapters = manifest.plan, manifest.adapters
    content = {
        "suite": _content(manifest.suite),
        "plan": _plan(plan),
        "model": manifest.model.digest,
        "engine": manifest.engine,
        "confirm": manifest.confirm_seeds,
        "machine": replace(manifest.provenance.machine, threads=0),
        "versions": stack_versions(),
    }
    given = {"adapters": [(each.name, each.digest) for each in adapters]} if adapters else {}
    key = token_key(manifest.tokens)
    rehearsal = {"rehearsal": (manifest.rehearsal.prompts, DECODING)} if manifest.rehearsal else {}
    return digest(content | given | ({"tokens": key} if key else {}) | rehearsal)


def _plan(plan: Plan) -> dict[str, object]:
    # `search` is left out if there is none, so that runs of versions without it have the same digest.
    whole = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name not in ("about", "search")}
    if plan.search is None:
        return whole
    return whole | {"search": [plan.search, version_of_optuna()]}


def engine_of(requested: Engine, plan: Plan) -> Engine:
    """Return the requested engine. `auto` means fused if two or more trials can share a pass, else reference."""
    if requested is not Engine.AUTO:
        return requested
    bases = [trial.settings.quantization for trial in plan.trials if fusible(trial.settings)]
    return Engine.FUSED if any(bases.count(base) > 1 for base in set(bases)) else Engine.REFERENCE


def engine_notice(manifest: RunManifest) -> str:
    """Return which variants of a run with the fused engine the reference engine trains, and why; empty if none."""
    others = [each for each in manifest.plan.variants if manifest.engine.that_trains(each.settings) != manifest.engine]
    if not others:
        return ""
    names = listed(dict.fromkeys(name for each in others for name in unfusible(each.settings)))
    which = listed([each.name for each in others], most=5)
    return f"The reference engine trains {which}, because the fused engine does not support {names}."


def _check_tokens(suite: Suite, plan: Plan, model: ModelRef) -> TurnTokens | None:
    """Check the rows and prompts with the model's tokenizer, and return how turns end and which rows are cut."""
    lengths = {variant.settings.max_length for variant in plan.variants}
    config = read_object(Path(model.path) / "config.json")
    found = check_tokens(suite, lengths, Path(model.tokenizer or model.path), config)
    return None if isinstance(found, str) else found


def check_trainable(suite: Suite) -> None:
    """Check that a suite has training rows and main cases.

    Raises:
        SuiteError: it has none.
    """
    place = Place(str(Path(suite.folder) / suite.file))
    if not suite.examples:
        remedy = "Put a train.jsonl beside it, or name a file with `train: file://NAME`."
        raise SuiteError("the suite has no training rows", remedy=remedy, place=place)
    if not suite.of(Split.MAIN):
        remedy = "Remove `split: confirm` from some cases. By their pass rates, the best variant is chosen."
        raise SuiteError(
            "all cases have `split: confirm`, so the best variant cannot be chosen", remedy=remedy, place=place
        )


def check_code(suite: Suite, allowed: bool) -> None:
    """Refuse a suite that runs code, unless code is allowed, or that needs an extra that is not installed.

    If code is allowed, files of code are run once, to find the functions that the suite names.

    Raises:
        UsageError: the suite runs code that is not allowed, or needs an extra, or names a function that is not there.
    """
    code = code_of(assertion for case in suite.cases for assertion in case.assertions)
    if code and not allowed:
        raise UsageError(f"the suite runs code: {', '.join(code[:5])}", remedy="If you trust it, pass --allow-code.")
    assertions = [assertion for case in suite.cases for assertion in case.assertions]
    for extra, kind in missing_extras(assertions).items():
        raise UsageError(f"{kind} needs the extra {extra.name}, which is not installed", remedy=extra.remedy)
    if allowed and (problem := unusable_code(assertions, Scoring(Path(suite.folder), allow_code=True))):
        raise UsageError(problem, remedy="Correct the name of the function in suite.yaml, or its file.")


def check_compiles(suite: Suite) -> None:
    """Compile the code of a suite's assertions, as far as the extras for it are installed. Nothing is run.

    Raises:
        SuiteError: code is no program.
    """

    def read(name: str) -> str:
        return (Path(suite.folder) / name).read_text(encoding="utf-8", errors="replace")

    for case in suite.cases:
        if problem := broken_code(case.assertions, read):
            message, _, remedy = problem.partition("\n")
            place = replace(case.place, file=str(Path(suite.folder) / case.file))
            raise SuiteError(f"case {case.id}: {message}", remedy=remedy or "Correct the code.", place=place)


def _content(suite: Suite) -> dict[str, object]:
    """The suite without its folder, file, notices and the places of its cases and rows, which change no result."""
    examples = tuple(replace(example, line=0) for example in suite.examples)
    # What versions without it did not have is left out if it is not used, so that their runs have the same digest.
    added = ["file", *(name for name, value in (("judge", suite.judge), ("embedder", suite.embedder)) if not value)]
    whole = {field.name: getattr(suite, field.name) for field in fields(suite) if field.name not in added}
    return whole | {"folder": "", "notices": (), "cases": [_case(case) for case in suite.cases], "examples": examples}


def _case(case: Case) -> dict[str, object]:
    # `file` is left out, and `line` is 0, so that runs of versions without `file` have the same digest.
    whole = {field.name: getattr(case, field.name) for field in fields(case) if field.name != "file"}
    return whole | {"line": 0, "assertions": [_assertion(assertion) for assertion in case.assertions]}


def _assertion(assertion: Assertion) -> dict[str, object]:
    # `transforms` is left out if there are none, so that runs of versions without it have the same digest.
    whole = {field.name: getattr(assertion, field.name) for field in fields(assertion)}
    without = whole if assertion.transforms else {name: whole[name] for name in whole if name != "transforms"}
    return without | {"children": [_assertion(child) for child in assertion.children]}


def _fresh_seeds(plan: Plan, count: int) -> tuple[int, ...]:
    """Return `count` seeds that the grid does not use, for the confirmation."""
    if count < 0:
        raise UsageError("--confirm-seeds cannot be negative", remedy="Pass 0 to skip the confirmation.")
    candidates = range(FIRST_CONFIRM_SEED, FIRST_CONFIRM_SEED + count + len(plan.seeds))
    return tuple(seed for seed in candidates if seed not in plan.seeds)[:count]


def run_directory(request: Request, manifest: RunManifest) -> RunStore:
    """The directory that the request names, else that of the same run if it was started before, else a new one."""
    if request.output is not None:
        return claim_run(request.output, manifest.digest)
    name = f"{manifest.suite.name}-{manifest.plan.grid}-{_folder_name(manifest.model.name)}"
    return open_run(RUNS, name, manifest.digest)


def _folder_name(model: str) -> str:
    return model.replace("/", "--").replace(":", "-")
