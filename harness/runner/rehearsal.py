"""Lets the base model answer the rehearsal prompts, before anything is trained, and makes training rows of the answers.

The answers are in the cache, and the rows in run.json, so every later session and every export uses the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import EngineError, NewerFormatError, StoreError
from harness.core.job import Event, EventKind
from harness.core.measurement import Phase
from harness.core.names import BASE, REHEARSAL
from harness.core.rehearsal import DECODING, Rehearsal, RehearsalAnswers, fitting, rehearsing
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Quantization
from harness.core.suite import Case, Message, Split, Suite
from harness.core.training_outcome import Status
from harness.models.rehearsal_rows import rehearsal_rows
from harness.runner.dispatch import Dispatcher
from harness.runner.listeners.protocol import Listener
from harness.runner.recorder import Recorder
from harness.runner.sweep import Sweep
from harness.runner.work_items import WorkItem
from harness.storage.keys import Setup, rehearsal_trial
from harness.storage.runs import RunStore
from harness.suites.rehearsal import too_few


def known_answers(manifest: RunManifest, store: RunStore) -> tuple[RehearsalAnswers, ...]:
    """Return the rehearsal answers in the run.json of a run, if it is of the same run and has any."""
    if manifest.rehearsal is None or not store.exists:
        return ()
    try:
        known = store.manifest()
    except NewerFormatError:
        raise
    except StoreError:
        return ()  # a partial copy in the folder of `--sync`
    return known.rehearsal.answers if known.digest == manifest.digest and known.rehearsal else ()


def rehearse(manifest: RunManifest, sweep: Sweep) -> RunManifest:
    """Return the manifest with the base model's answers, in every quantisation that needs them, and store it.

    Answers that the manifest has already are kept. If the time budget has no time left for the others, they are missing
    in the result.

    Raises:
        EngineError: the base model could not answer.
        GridError: too few answers are good training rows for a variant.
    """
    if manifest.rehearsal is None:
        return manifest
    found = {each.quantization: each for each in manifest.rehearsal.answers}
    for quantization in rehearsing(manifest.plan):
        if quantization in found:
            continue
        own = _answers(manifest, sweep, manifest.rehearsal.prompts, quantization)
        found |= {quantization: own} if own else {}
    made = replace(manifest, rehearsal=replace(manifest.rehearsal, answers=tuple(found.values())))
    if found:
        _check_enough(made)
        _store(made.rehearsal, sweep)
    return made


def _store(rehearsal: Rehearsal | None, sweep: Sweep) -> None:
    """Write the rows into run.json, and copy it to the folder of `--sync`. If that fails, the user is told."""
    known = sweep.run.manifest()
    if known.rehearsal == rehearsal:
        return
    sweep.run.write_manifest(replace(known, rehearsal=rehearsal))
    try:
        if sweep.mirror:
            sweep.mirror.push_pages()
    except (StoreError, OSError) as error:
        message = f"the rehearsal rows were not copied by --sync; they are copied with the report: {error}"
        sweep.listener.on_event(Event(EventKind.NOTICED, message=message))


def _answers(
    manifest: RunManifest, sweep: Sweep, prompts: tuple[str, ...], quantization: Quantization
) -> RehearsalAnswers | None:
    """Let the base model answer; None if the time budget has no time left."""
    setup = _asking(sweep.setup, prompts)
    key = setup.rehearsal_id(quantization)
    item = WorkItem(rehearsal_trial(quantization), BASE, None, 0, Split.MAIN, quantization, key)
    item.prompts = {case.id: setup.prompts(key, case) for case in setup.suite.cases}
    recorder = Recorder(setup, RunStore(sweep.run.root / REHEARSAL), sweep.cache, _EventsOnly(sweep.listener.on_event))
    if sweep.mirror:
        sweep.mirror.pull([key], trained=False)
    if not recorder.assemble(item):
        title = f"answering {len(prompts)} rehearsal prompts with the base model"
        sweep.listener.on_event(Event(EventKind.PLANNED, message=title, total=1))
        Dispatcher(recorder, sweep.executor, sweep.timeout, sweep.budget).run([[item]])
    if item.record is None:
        return None
    if item.record.status is not Status.SUCCEEDED:
        raise _failed(recorder.run, item.record)
    asked = [(item.prompts[case][0].messages, answers[0]) for case, answers in item.record.answers.items()]
    folder = Path(manifest.model.tokenizer or manifest.model.path)
    rows, left_out = rehearsal_rows(asked, folder, judged=not manifest.model.shape_only)
    costs = (
        replace(cost, phase=Phase.REHEARSE) if cost.phase is Phase.ANSWER_BEFORE else cost for cost in item.record.costs
    )
    return RehearsalAnswers(quantization, rows, left_out, tuple(costs))


def _asking(setup: Setup, prompts: tuple[str, ...]) -> Setup:
    """Return the setup of a suite that has the rehearsal prompts as its cases, and no training rows."""
    cases = tuple(Case(str(n), (Message("user", prompt),), ()) for n, prompt in enumerate(prompts, 1))
    suite = Suite(REHEARSAL, "", "", cases, (), decoding=DECODING, system_prompt=setup.suite.system_prompt)
    return replace(setup, suite=suite)


@dataclass(frozen=True)
class _EventsOnly(Listener):
    """Passes on events. The answers are no trial, so that no listener gets a record of them."""

    event: Callable[[Event], None]

    def on_event(self, event: Event) -> None:
        self.event(event)


def _failed(store: RunStore, record: TrialRecord) -> EngineError:
    message = f"the base model could not answer the rehearsal prompts: {record.status}: {record.message}"
    log = f"The log is {store.root / record.log}. " if record.log else ""
    return EngineError(message, remedy=f"{log}To train without rehearsal, remove `rehearsal` from the grid.")


def _check_enough(manifest: RunManifest) -> None:
    for variant in manifest.plan.variants:
        settings = variant.settings
        found = manifest.rehearsal.of(settings.quantization) if manifest.rehearsal else None
        if not settings.rehearsal or found is None:
            continue
        rows = len(fitting(found.rows, settings.max_length))
        if rows < settings.rehearsal:
            long = len(found.rows) - rows
            cut = f"; {long} of these are longer than max_length {settings.max_length}" if long else ""
            raise too_few(manifest.plan, variant, rows, f"rows: {found.words}{cut}")
