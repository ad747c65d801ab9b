"""Collect the content of every section of the HTML page. The templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.constant_cases import constant_cases
from harness.analysis.divergence import DivergenceRate, notable_rates
from harness.analysis.next_trials import NextSteps, next_steps
from harness.core.claims import machine_claim
from harness.core.measurement import Basis, Phase
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.report import (
    case_changes,
    cost_tables,
    formatting,
    headline,
    pairwise,
    prompts,
    provenance,
    setting_effects,
    variants_table,
)
from harness.report.case_changes import CaseRow
from harness.report.charts import epochs, memory_fit, trade_off, training_curves
from harness.report.charts.drawing import Chart
from harness.report.failures import Failure, failures
from harness.report.headline import Excerpt, Headline
from harness.report.html_tables import Cell, Column, TableRow
from harness.report.judged import Judged, judged
from harness.report.pairwise import Pairwise
from harness.report.pass_rates import scores_by_role
from harness.report.prompts import CaseView
from harness.report.race import race
from harness.report.search import search
from harness.report.setting_effects import Effect


@dataclass(frozen=True)
class Compared:
    """An entry in the list from which the reader selects a variant to be shown beside the base model."""

    number: int
    name: str


@dataclass(frozen=True)
class Page:
    """Content of the page of a run, in the order of its sections."""

    results: Results
    now: str
    title: str
    banner: str
    unfinished: str
    race: str
    """What a race saved; empty without a race."""
    search: str
    """Which settings mattered in a search; empty without one."""
    claim: str
    headline: Headline
    excerpts: tuple[Excerpt, ...]
    next: NextSteps
    fits: Chart | None
    trade_offs: tuple[Chart, ...]
    """Empty if the model has random weights and there is a chart `fits`: the answers of such a model mean nothing."""
    bases: tuple[str, ...]
    """The bases of the figures in the charts: measured, emulated or predicted."""
    columns: tuple[Column, ...]
    peak_hint: str
    rows: tuple[TableRow, ...]
    common: tuple[tuple[str, str], ...]
    effects: tuple[Effect, ...]
    pairwise: Pairwise | None
    timeline: Chart | None
    curves: tuple[Chart, ...]
    milestones: tuple[epochs.Milestones, ...]
    stability: tuple[DivergenceRate, ...]
    compared: str
    choices: tuple[Compared, ...]
    cases: tuple[CaseView, ...]
    confirm_cases: tuple[CaseView, ...]
    case_rows: tuple[CaseRow, ...]
    constant_cases: str
    grouped: bool
    truncated: int
    judged: Judged | None
    failures: tuple[Failure, ...]
    phases: tuple[tuple[Cell, ...], ...]
    together: str
    estimated: bool
    """Whether the cost of a training is an estimate for training it alone."""
    reused: bool
    """Whether a trial was reused, so that its time is that of the run that made it."""
    cost_columns: tuple[Column, ...]
    costs: tuple[TableRow, ...]
    passes: tuple[str, ...]
    notebook: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def page(results: Results, now: str) -> Page:
    """Return the content of the page of a run. `now` is the time of writing."""
    run = results.run
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    compared = results.choice.variant or headline.highest_pass_rate(results)
    scores = scores_by_role(results, results.samples)
    fits = memory_fit.memory_fit(results)
    return Page(
        results=results,
        now=now,
        title=f"{run.suite.name} · {run.model.name}",
        banner=formatting.banner(run.model),
        unfinished=headline.unfinished(results),
        race=race(results),
        search=search(results),
        claim=machine_claim(run.provenance.machine),
        headline=headline.headline(results, compared, scores),
        excerpts=headline.excerpts(results, compared),
        next=next_steps(results),
        fits=fits,
        trade_offs=() if fits and run.model.shape_only else trade_off.trade_offs(results, scores),
        bases=_bases(results),
        columns=variants_table.columns(results),
        peak_hint=variants_table.peak_hint(results),
        rows=variants_table.rows(results, scores),
        common=variants_table.common(results),
        effects=setting_effects.effects(results, scores),
        pairwise=pairwise.pairwise(results, scores),
        timeline=epochs.timelines(results),
        curves=training_curves.learning(results),
        milestones=epochs.milestones(results),
        stability=notable_rates(results),
        compared=compared,
        choices=_choices(results, compared, numbers),
        cases=prompts.cases(results, Split.MAIN, compared, numbers),
        confirm_cases=prompts.cases(results, Split.CONFIRM, compared, numbers),
        case_rows=case_changes.case_rows(results),
        constant_cases=constant_cases(results).sentence,
        grouped=any(case.group for case in run.suite.cases),
        truncated=sum(sample.answer.truncated for sample in (*results.samples, *results.confirmed_samples)),
        judged=judged(results),
        failures=failures(results),
        phases=cost_tables.phases(results),
        together=cost_tables.together(results),
        estimated=cost_tables.estimated(results),
        reused=any(variant.reused for variant in results.variants),
        cost_columns=cost_tables.columns(results),
        costs=cost_tables.by_variant(results),
        passes=cost_tables.passes(results),
        notebook=cost_tables.notebook(results),
        facts=provenance.facts(results),
        versions=tuple(run.provenance.versions.items()),
    )


def _choices(results: Results, compared: str, numbers: Mapping[str, int]) -> tuple[Compared, ...]:
    """Return the variants that the reader can select: those with answers and the same base model as `compared`."""
    shown = results.base_beside(compared).name
    ordered = variants_table.ordered(results, compared)
    return tuple(Compared(numbers[v.name], v.name) for v in ordered if v.rates and results.base_of(v).name == shown)


def _bases(results: Results) -> tuple[str, ...]:
    """Return the bases of the costs of all trainings: measured, emulated or predicted."""
    found = [train.seconds.basis.value for v in results.variants if (train := v.cost(Phase.TRAIN))]
    found += [basis.value for v in results.variants for basis in v.bases if basis is Basis.PREDICTED]
    return tuple(dict.fromkeys(found))
