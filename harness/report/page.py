"""Collect the content of every section of the HTML page. The templates only lay it out."""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from harness.analysis.constant_cases import constant_cases
from harness.analysis.divergence import DivergenceRate, notable_rates
from harness.analysis.next_trials import NextSteps, next_steps
from harness.analysis.score_table import score_tables
from harness.core.claims import machine_claim
from harness.core.measurement import Basis, Phase
from harness.core.outside_text import visible
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.report import (
    case_data,
    cost_tables,
    first_screen,
    formatting,
    headline,
    kinds,
    pairwise,
    provenance,
    setting_effects,
    variants_table,
)
from harness.report.adapters_ranked import RankedAdapter, adapters_ranked
from harness.report.can_show import CanShow, can_show
from harness.report.charts import epochs, learned_lost, memory_fit, trade_off, training_curves
from harness.report.charts.drawing import Chart
from harness.report.failures import Failure, failures
from harness.report.first_screen import FirstScreen
from harness.report.headline import Excerpt, Headline
from harness.report.html_tables import Cell, Column, TableRow
from harness.report.judged import Judged, judged
from harness.report.kinds import KindTable
from harness.report.pairwise import Pairwise
from harness.report.pass_rates import by_role
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
    first: FirstScreen
    headline: Headline
    answered: bool
    """Whether the answers mean something: not those of a model with random weights."""
    learned_lost: Chart | None
    can_show: CanShow | None
    """What the suite's cases can show about a loss."""
    kinds: KindTable | None
    adapters: tuple[RankedAdapter, ...]
    """Adapters trained elsewhere, the best first; empty if there are fewer than two."""
    excerpts: tuple[Excerpt, ...]
    next: NextSteps
    fits: Chart | None
    trade_offs: tuple[Chart, ...]
    """Empty if the answers mean nothing."""
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
    main_cases: int
    """Number of cases used to choose a variant."""
    held_out_cases: int
    case_data: Markup
    """Every case with its answers, compressed; see the module `case_data`."""
    variant_names: str
    """The names of all variants, as a JSON list."""
    base_names: str
    """The names of the base model in every quantisation, as a JSON list."""
    base_number: int
    """The place in this list of the base that the variant `compared` is compared with."""
    compared_number: int
    """The number of the variant `compared`; 0 if there is none."""
    kind_names: tuple[str, ...]
    """The kinds of all cases, by which they can be filtered."""
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
    run, suite = results.run, results.run.suite
    answered = not run.model.shape_only
    compared = results.choice.variant or headline.highest_pass_rate(results)
    best, shown = headline.chosen(results), next((v for v in results.variants if v.name == compared), None)
    tables = score_tables(results.samples, suite.reducer)
    scores = by_role(results, tables)
    steps = next_steps(results)
    started = first_screen.nearest(results, steps.trials[0]) if steps.trials else None
    return Page(
        results=results,
        now=now,
        title=f"{suite.name} · {run.model.name}",
        banner=formatting.banner(run.model),
        unfinished=headline.unfinished(results),
        race=race(results),
        search=search(results),
        claim=machine_claim(run.provenance.machine),
        first=first_screen.first_screen(results, best, shown, steps),
        headline=headline.headline(results, compared, scores),
        answered=answered,
        learned_lost=learned_lost.learned_lost(results, started.name if started else "") if answered else None,
        can_show=can_show(results) if answered else None,
        kinds=kinds.kinds(results, tables) if answered else None,
        adapters=adapters_ranked(results, scores) if answered else (),
        excerpts=headline.excerpts(results, compared),
        next=steps,
        fits=memory_fit.memory_fit(results),
        trade_offs=trade_off.trade_offs(results, scores) if answered else (),
        bases=_bases(results),
        columns=variants_table.columns(results),
        peak_hint=variants_table.peak_hint(results),
        rows=variants_table.rows(results, scores),
        common=variants_table.common(results),
        effects=setting_effects.effects(results, scores) if answered else (),
        pairwise=pairwise.pairwise(results, scores) if answered else None,
        timeline=epochs.timelines(results),
        curves=training_curves.learning(results),
        milestones=epochs.milestones(results),
        stability=notable_rates(results),
        compared=compared,
        choices=_choices(results, compared),
        main_cases=len(suite.of(Split.MAIN)),
        held_out_cases=len(suite.of(Split.CONFIRM)),
        case_data=Markup(case_data.embedded(results) if answered else ""),  # base64 has no sign to escape
        variant_names=json.dumps([visible(variant.name) for variant in results.variants]),
        base_names=json.dumps([formatting.sentence(visible(base.name)) for base in results.every_base]),
        base_number=results.every_base.index(results.base_of(shown)),
        compared_number=next((n for n, v in enumerate(results.variants, 1) if v.name == compared), 0),
        kind_names=tuple(sorted({visible(kind) for kind in kinds.kind_of(suite.cases).values()})),
        constant_cases=constant_cases(results).sentence,
        grouped=any(case.group for case in suite.cases),
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


def _choices(results: Results, compared: str) -> tuple[Compared, ...]:
    """Return the variants that the reader can select: those with answers and the same base model as `compared`."""
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    shown = results.base_beside(compared).name
    ordered = variants_table.ordered(results, compared)
    return tuple(Compared(numbers[v.name], v.name) for v in ordered if v.rates and results.base_of(v).name == shown)


def _bases(results: Results) -> tuple[str, ...]:
    """Return the bases of the costs of all trainings: measured, emulated or predicted."""
    found = [train.seconds.basis.value for v in results.variants if (train := v.cost(Phase.TRAIN))]
    found += [basis.value for v in results.variants for basis in v.bases if basis is Basis.PREDICTED]
    return tuple(dict.fromkeys(found))
