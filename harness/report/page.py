"""From results to what each section of the page shows; the templates only lay it out."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.divergence import DivergenceRate, notable_rates
from harness.core.claims import machine_claim
from harness.core.measurement import Basis, Phase
from harness.core.results import Results
from harness.core.suite import Split
from harness.report import answer, answers, boundary, charts, costs, effects, rates, tradeoff, variants, words
from harness.report.answer import Excerpt, Headline
from harness.report.answers import CaseView, LedgerRow
from harness.report.charts import Chart
from harness.report.costs import Failure
from harness.report.effects import Effect, Pairwise
from harness.report.tables import Cell, Column, TableRow


@dataclass(frozen=True)
class Compared:
    """An entry of the list of variants that can be shown beside the base."""

    number: int
    name: str


@dataclass(frozen=True)
class Page:
    results: Results
    now: str
    title: str
    banner: str
    waiting: str
    claim: str
    headline: Headline
    excerpts: tuple[Excerpt, ...]
    fits: Chart | None
    trade_offs: tuple[Chart, ...]
    """None where answers mean nothing and there is `fits`."""
    bases: tuple[str, ...]
    """Of the figures in them."""
    columns: tuple[Column, ...]
    peak_hint: str
    rows: tuple[TableRow, ...]
    common: tuple[tuple[str, str], ...]
    effects: tuple[Effect, ...]
    pairwise: Pairwise | None
    timeline: Chart | None
    curves: tuple[Chart, ...]
    milestones: tuple[charts.Reached, ...]
    stability: tuple[DivergenceRate, ...]
    compared: str
    choices: tuple[Compared, ...]
    cases: tuple[CaseView, ...]
    confirm_cases: tuple[CaseView, ...]
    ledger: tuple[LedgerRow, ...]
    void: int
    truncated: int
    failures: tuple[Failure, ...]
    phases: tuple[tuple[Cell, ...], ...]
    together: str
    cost_columns: tuple[Column, ...]
    costs: tuple[TableRow, ...]
    passes: tuple[str, ...]
    notebook: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def page(results: Results, now: str) -> Page:
    run = results.run
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    compared = results.choice.variant or answer.most_passed(results)
    marks = rates.marks(results, results.samples)
    fits = boundary.boundary(results)
    return Page(
        results=results,
        now=now,
        title=f"{run.suite.name} · {run.model.name}",
        banner=words.toy_banner(run.model) if run.model.toy else run.model.note,
        waiting=answer.waiting(results),
        claim=machine_claim(run.provenance.machine),
        headline=answer.headline(results, compared, marks),
        excerpts=answer.excerpts(results, compared),
        fits=fits,
        trade_offs=() if fits and run.model.shape_only else tradeoff.trade_offs(results, marks),
        bases=_bases(results),
        columns=variants.columns(results),
        peak_hint=variants.peak_hint(results),
        rows=variants.rows(results, marks),
        common=variants.common(results),
        effects=effects.effects(results, marks),
        pairwise=effects.pairwise(results, marks),
        timeline=charts.timelines(results),
        curves=charts.learning(results),
        milestones=charts.reached(results),
        stability=notable_rates(results),
        compared=compared,
        choices=tuple(Compared(numbers[v.name], v.name) for v in variants.ordered(results, compared) if v.rates),
        cases=answers.cases(results, Split.MAIN, compared, numbers),
        confirm_cases=answers.cases(results, Split.CONFIRM, compared, numbers),
        ledger=answers.ledger(results),
        void=len(results.void),
        truncated=sum(sample.answer.truncated for sample in (*results.samples, *results.confirmed_samples)),
        failures=costs.failures(results),
        phases=costs.phases(results),
        together=costs.together(results),
        cost_columns=costs.columns(results),
        costs=costs.by_variant(results),
        passes=costs.passes(results),
        notebook=costs.notebook(results),
        facts=costs.facts(results),
        versions=tuple(run.provenance.versions.items()),
    )


def _bases(results: Results) -> tuple[str, ...]:
    found = [train.seconds.basis.value for v in results.variants if (train := v.cost(Phase.TRAIN))]
    found += [basis.value for v in results.variants for basis in v.bases if basis is Basis.PREDICTED]
    return tuple(dict.fromkeys(found))
