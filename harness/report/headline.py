"""The first section of the page: the best variant with its reasons and pass rates, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import power, reducers
from harness.analysis.recommendation import REFUTED, TOY, finding, recommend
from harness.analysis.selection import gpu_memory
from harness.core import wording
from harness.core.claims import cost_claim, gpu_of
from harness.core.machine import Machine
from harness.core.measurement import Phase
from harness.core.quantities import quantity
from harness.core.run_results import Finding, Outcome, Recommendation, Results
from harness.core.scores import Rate, Sample
from harness.core.setting_text import in_report
from harness.core.settings import AXES
from harness.core.suite import Case, Role, Split
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.report import clusters, formatting, truncation
from harness.report.kinds import kind_of, of_variant
from harness.report.pass_rates import ScoresByRole, Span, scores_by_role


@dataclass(frozen=True)
class Figure:
    """A pass rate with its confidence interval."""

    rate: Rate | None
    span: Span | None = None


@dataclass(frozen=True)
class RoleRow:
    """Pass rates of one role.

    `base` and `tuned` are on the main cases, by which the best variant was chosen. `confirmed_base` and `confirmed` are
    on the confirmation cases.
    """

    role: Role
    meaning: str
    """What the cases of the role test."""
    base: Figure
    tuned: Figure
    confirmed_base: Figure
    confirmed: Figure


@dataclass(frozen=True)
class Headline:
    """Content of the first section: the best variant, or the reason why there is none."""

    title: str
    name: str
    differs: str
    """The settings that differ between the variants, with the best variant's values, in words."""
    chosen: bool
    reasons: tuple[str, ...]
    few: str
    """Why the base model passes too few cases to show anything; empty if it passes enough."""
    finding: str
    """The verdict of the confirmation on the best variant, in one of three words; empty without a best variant."""
    refuted: tuple[str, ...]
    """If the confirmation refutes the best variant: its reasons."""
    support: tuple[str, ...]
    """If the confirmation confirms the best variant: its reasons."""
    missing: tuple[str, ...]
    """Reasons, other than those in `refuted`, why the best variant is not recommended."""
    base: str
    """Name of the base model in the table of pass rates: the one that the variant is compared with."""
    tuned: str
    """The variant in the table of pass rates: the best one, or if there is none, the one with the highest pass rate."""
    confirmation: str
    """Where the pass rates come from, as the caption of their table."""
    roles: tuple[RoleRow, ...]
    confirmed: bool
    """Whether there are pass rates of a confirmation."""
    cost: str
    cut: tuple[str, ...]
    """For each role with many of them: how many answers were cut at the limit of new tokens."""
    cut_in_all: str
    """How many answers to main cases were cut, of the base model and of the variant shown."""
    clustered: str
    """How the cases that share a group count in the intervals; empty without groups."""
    epochs: str
    """How many epochs were enough, in a run with `--timeline`; else empty."""
    settings: str
    """Python code for TRL and PEFT, to be copied; empty if the settings are not recommended."""


@dataclass(frozen=True)
class Excerpt:
    """One case in short: its prompt, the base model's answer and the tuned model's answer."""

    anchor: str
    prompt: str
    base: str
    base_passed: bool
    tuned: str
    tuned_passed: bool
    seeds: str
    """Under how many seeds the case was gained or lost: `lost in 2 of 3 seeds`; empty with one seed."""


@dataclass(frozen=True)
class _Example:
    """A case with an answer of the base model, and all answers of the tuned model."""

    case: Case
    base: Sample
    tuned: tuple[Sample, ...]
    """One answer of each seed."""

    @property
    def changed(self) -> list[Sample]:
        """The tuned model's answers whose verdict is not the base model's."""
        return [sample for sample in self.tuned if sample.score.passed != self.base.score.passed]

    @property
    def excerpt(self) -> Excerpt:
        shown = self.changed[0]
        word = "gained" if shown.score.passed else "lost"
        seeds = f"{word} in {len(self.changed)} of {len(self.tuned)} seeds" if len(self.tuned) > 1 else ""
        return Excerpt(
            formatting.anchor(self.case.id), _clip(self.case.prompt), _clip(self.base.answer.text),
            self.base.score.passed, _clip(shown.answer.text), shown.score.passed, seeds,
        )  # fmt: skip


def headline(results: Results, compared: str, scores: ScoresByRole) -> Headline:
    """Return the content of the first section. Without a best variant, `compared` is shown beside the base model."""
    best, confirmation = chosen(results), results.choice.confirmation
    found = confirmation.finding if confirmation else Finding.NOT_CONFIRMED
    reasons = confirmation.reasons if confirmation else ()
    refuted = reasons if found is Finding.REFUTED else ()
    shown = best or next((v for v in results.variants if v.name == compared), None)
    advice = recommend(results)
    return Headline(
        title=_title(results, best, advice),
        name=best.name if best else "",
        differs=_differs(best) if best else "",
        chosen=best is not None,
        reasons=results.choice.reasons,
        few=power.too_few_passes(results),
        finding=found.value if best else "",
        refuted=refuted,
        support=reasons if found is Finding.CONFIRMED else (),
        missing=tuple(m for m in advice.missing if best and m not in (*refuted, REFUTED, TOY)),
        base=results.base_of(shown).name,
        tuned=shown.name if shown else "",
        confirmation=_confirmation(results, found) if best else _without_best(results, compared),
        roles=_roles(results, shown, scores),
        confirmed=bool(results.confirmed and results.confirmed.rates),
        cost=_cost_words(best, results.run.provenance.machine) if best else "",
        cut=truncation.sentences(results, shown.name if shown else ""),
        cut_in_all=truncation.in_all_main_cases(results, shown.name if shown else ""),
        clustered=clusters.clustered(results.run.suite),
        epochs=_epochs(results),
        settings=advice.script,
    )


def chosen(results: Results) -> Outcome | None:
    """Return the best variant; None if no variant was chosen."""
    return next((v for v in results.variants if v.name == results.choice.variant), None)


def highest_pass_rate(results: Results) -> str:
    """Return the name of the variant with the highest pass rate on the objective; empty if no variant has answers.

    Of several with the same rate, it is the first in the grid. `_without_best` says so on the page.
    """
    scored = [v for v in results.variants if v.rates]
    objective = results.choice.objective
    best = max(scored, key=lambda v: _value(v.rates.get(objective)), default=None)
    return best.name if best else ""


def _value(rate: Rate | None) -> float:
    return (rate.value or 0.0) if rate else 0.0


def _title(results: Results, best: Outcome | None, advice: Recommendation) -> str:
    run = results.run
    if run.model.toy:
        return "Best in this demonstration" if best else "No best variant in this demonstration"
    if best is None:
        return f"No settings can be recommended for {run.model.name}"
    if advice.variant is None:
        return f"Not recommended for {run.model.name}. Best variant so far, {finding(results, results.choice)}"
    return advice.headline.removesuffix(f": {best.name}.")


def _without_best(results: Results, compared: str) -> str:
    """Say which variant is shown although none was chosen, and by what right: not by a rate that others share."""
    if not compared:
        return ""
    objective = results.choice.objective
    rates = {v.name: v.rates[objective] for v in results.variants if objective in v.rates and v.rates[objective].total}
    highest = max((_value(rate) for rate in rates.values()), default=0.0)
    sharing = [name for name, rate in rates.items() if _value(rate) == highest]
    words = f"which has the highest pass rate on {objective} cases"
    if not rates:
        words = f"the first with answers, since no answer to a {objective} case has a score"
    elif not highest:
        words = f"the first with answers, since no variant passes any {objective} case"
    elif len(sharing) > 1:
        words = f"the first of {len(sharing)} variants that share the highest pass rate on {objective} cases"
    return f"No variant was chosen. Tuned: {compared}, {words}."


def _differs(best: Outcome) -> str:
    return ", ".join(f"{formatting.within_sentence(AXES[n].title)} {in_report(n, v)}" for n, v in best.differs.items())


def _confirmation(results: Results, found: Finding) -> str:
    again, word = results.confirmed, found.value.capitalize()
    if again is None:
        return (
            "Not confirmed: these rates come from the same cases that were used to choose the variant, so the winner's "
            "rates are partly luck."
        )
    if not again.rates:
        ended = wording.listed(formatting.ENDED[s] for s in dict.fromkeys(again.statuses) if s in formatting.ENDED)
        return f"{word}: trained again with fresh seeds, it {ended}. The rates below are partly luck."
    seeds = f"{wording.plural(len(again.seeds), 'fresh seed')} ({wording.listed(again.seeds)})"
    cases = wording.plural(len(results.run.suite.of(Split.CONFIRM)), "held-out case")
    return f"{word}: trained again with {seeds}, and tested on {cases} that were not used to choose the variant."


def _roles(results: Results, best: Outcome | None, scores: ScoresByRole) -> tuple[RoleRow, ...]:
    confirmation, base = scores_by_role(results, results.confirmed_samples), results.base_of(best)

    def figure(outcome: Outcome | None, role: Role, table: ScoresByRole) -> Figure:
        rate = outcome.rates.get(role) if outcome else None
        own = table.get((outcome.name, role)) if outcome else None
        return Figure(rate, own.span if own else None)

    return tuple(
        RoleRow(
            role,
            formatting.ROLES[role],
            figure(base, role, scores),
            figure(best, role, scores),
            figure(results.confirmed_base, role, confirmation),
            figure(results.confirmed, role, confirmation),
        )
        for role in Role
        if role in base.rates
    )


def _epochs(results: Results) -> str:
    own = next((t for t in results.timelines if t.variant == results.choice.variant), None)
    if own is None or own.enough is None or not own.epochs:
        return ""
    last = own.epochs[-1].epoch
    return f"Epoch {own.enough:g} of {last:g} was the first within one standard error of its best epoch."


def _cost_words(best: Outcome, machine: Machine) -> str:
    train = best.cost(Phase.TRAIN)
    if train is None:
        return ""
    on_gpu = gpu_memory(best)
    what = "of GPU memory" if on_gpu else "of main memory, including Python and libraries"
    verb = "Training it alone takes about" if train.probes else "Training took"
    took, peak = quantity(train.seconds), quantity(on_gpu or train.peak())
    sentence = f"{verb} {took} and at most {peak} {what}; {cost_claim(train, machine)}."
    if machine.kind is not DeviceKind.CPU:
        return sentence
    fits = f"this run cannot tell whether it fits {gpu_of(machine)}"
    return f"{sentence} Time and memory on a CPU say nothing about a GPU: {fits}."


def unfinished(results: Results) -> str:
    """Return a sentence with the number of trials without a result; empty if all trials have one."""
    trials = [s for v in (*results.variants, *filter(None, [results.confirmed])) for s in v.statuses]
    stopped = trials.count(Status.CANCELLED)
    if not stopped:
        return ""
    return (
        f"Not finished: {stopped} of {wording.plural(len(trials), 'trial')} without a result, so this report is "
        f"provisional. Run the command at the end of this page to continue."
    )


def excerpts(results: Results, compared: str, most: int = 3) -> tuple[Excerpt, ...]:
    """Return some cases that the tuned model gained, then some that it lost, in the confirmation if there was one.

    Lost cases are of the kind that loses most, and were lost under most seeds. The answer is that of the first seed
    that gained or lost the case.
    """
    confirmed = any(sample.variant == compared for sample in results.confirmed_samples)
    answers = results.confirmed_samples if confirmed else results.samples
    samples = reducers.scored(reducers.exemplary(answers, results.run.suite.reducer))
    base_name = results.base_beside(compared).name
    base = {s.case: s for s in samples if s.variant == base_name}
    tuned: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.variant == compared:
            tuned.setdefault(sample.case, []).append(sample)
    known = {case.id: case for case in results.run.suite.cases}
    found = [_Example(known[id], base[id], tuple(own)) for id, own in tuned.items() if id in base]
    changed = [each for each in found if each.changed]
    gained = [each for each in changed if not each.base.score.passed]
    objective = results.choice.objective
    gained.sort(
        key=lambda each: (each.case.role is not objective, len(each.changed[0].answer.text) > 300, -len(each.changed))
    )
    lost = [each for each in changed if each.base.score.passed]
    by_kind = _kinds_lost(results, compared, held_out=confirmed)
    lost.sort(key=lambda each: (-by_kind.get(each.case.id, 0.0), -len(each.changed)))
    return tuple(each.excerpt for each in (*_varied(gained)[:most], *_varied(lost)[:2]))


def _kinds_lost(results: Results, compared: str, *, held_out: bool) -> dict[str, float]:
    """Return, for each case, how many cases of its kind were lost, net."""
    variant = next((v for v in results.variants if v.name == compared), None)
    if variant is None:
        return {}
    cases = results.run.suite.of(Split.CONFIRM if held_out else Split.MAIN)
    found, kinds = of_variant(results, variant, held_out=held_out), kind_of(cases)
    return {case.id: found[case.role, kinds[case.id]].net_loss for case in cases}


def _varied(examples: Sequence[_Example]) -> list[_Example]:
    """Put the first case of each group, and cases without a group, first, so that the examples differ."""
    seen: set[str] = set()
    first: list[_Example] = []
    rest: list[_Example] = []
    for each in examples:
        group = each.case.group
        (rest if group in seen else first).append(each)
        seen |= {group} if group else set()
    return [*first, *rest]


def _clip(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
