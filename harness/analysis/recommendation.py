"""Recommend a variant of a finished run, with reasons; or, if the run does not justify that, list what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import aggregate, selection
from harness.analysis.score_table import score_tables
from harness.analysis.selection import Caps
from harness.core import training_script
from harness.core.claims import gpu_of, probes, short_claim
from harness.core.machine import Machine
from harness.core.measurement import Basis, Phase
from harness.core.quantities import gib
from harness.core.run_results import Change, Choice, Outcome, Recommendation, Results, Verdict
from harness.core.training_outcome import Status
from harness.core.wording import plural

TOY = "This is a toy model. It shows how to read a result. Its settings do not carry over to other models."


def recommend(results: Results, caps: Caps = selection.NO_CAPS) -> Recommendation:
    """Recommend the cheapest variant within one standard error of the best, if the run shows that it beats the base.

    The variant must be eligible and within the caps. It must also be confirmed: under fresh seeds and on held-out
    cases, its pass rate on the objective must exceed the base model's by more than the noise of cases and seeds, and no
    other result may contradict the choice.
    """
    choice = _choice(results, caps)
    best = next((v for v in results.variants if v.name == choice.variant), None)
    if best is None or best.settings is None:
        return Recommendation(None, None, "Nothing is recommended.", (), choice.reasons)
    reasons = (*choice.reasons, *_costs(best, results.run.provenance.machine))
    if results.run.model.toy:
        headline = f"Best in this demonstration: {best.name}."
        return Recommendation(None, best.name, headline, reasons, (TOY, *_missing(results, choice, best)))
    if missing := _missing(results, choice, best):
        headline = f"Nothing is recommended. Best so far: {best.name}."
        return Recommendation(None, best.name, headline, reasons, missing)
    machine, seed = results.run.provenance.machine, best.seeds[0]
    return Recommendation(
        best.name,
        best.name,
        f"Recommended for {_scope(results, choice, best)}: {best.name}.",
        reasons,
        sft_config=training_script.sft_config(best.settings, machine, seed),
        lora_config=training_script.lora_config(best.settings),
        script=training_script.script(best.settings, machine, seed),
    )


def _choice(results: Results, caps: Caps) -> Choice:
    """Return the run's own choice, or if there are caps, a new choice among the variants within the caps."""
    if caps == selection.NO_CAPS or results.run.model.shape_only:
        return results.choice
    suite = results.run.suite
    tables = score_tables(results.samples, suite.reducer)
    objective = selection.objective_of(suite, results.base)
    on_objective = aggregate.objective_tables(suite, objective, tables, results.void)
    return selection.choose(suite, results.base, results.variants, on_objective, caps)


def _scope(results: Results, choice: Choice, best: Outcome) -> str:
    """Describe what the recommendation is based on: model, suite, number of cases and seeds."""
    confirmation = _confirmation(results, choice)
    cases = {s.case for s in results.samples if s.variant == best.name and s.case not in results.void}
    cases |= {s.case for s in results.confirmed_samples if confirmation and s.case not in results.void}
    seeds = sum(
        status is Status.SUCCEEDED for status in (*best.statuses, *(confirmation.statuses if confirmation else ()))
    )
    return f"{results.run.model.name}, {results.run.suite.name}, {len(cases)} cases, {plural(seeds, 'seed')}"


def _confirmation(results: Results, choice: Choice) -> Outcome | None:
    """Return the confirmation, or None if the chosen variant was not the one that was confirmed."""
    confirmed = results.confirmed
    return confirmed if confirmed and confirmed.name == choice.variant == results.choice.variant else None


def _missing(results: Results, choice: Choice, best: Outcome) -> tuple[str, ...]:
    """Return the reasons why the chosen variant cannot be recommended, or nothing if it can."""
    confirmation = _confirmation(results, choice)
    against = results.choice.refuted if confirmation else ()
    change = (confirmation or best).changes.get(choice.objective)
    if change is None and confirmation:  # no held-out case has the objective's role
        change = best.changes.get(choice.objective)
    return (
        *against,
        *_unshown(choice, best, change, confirmed=confirmation is not None),
        *_unconfirmed(results, confirmation),
    )


def _unconfirmed(results: Results, confirmation: Outcome | None) -> tuple[str, ...]:
    """Return a warning if the choice is not confirmed.

    Without a confirmation, the best of many variants can look better than the base model by chance.
    """
    if confirmation and confirmation.rates:
        return ()
    several = f", as the best of {len(results.variants)}" if len(results.variants) > 1 else ""
    why = f"It is not confirmed: the cases that would show it were used to choose it{several}."
    return (f"{why} `harness run` confirms a choice with fresh seeds and held-out cases.",)


def _unshown(choice: Choice, best: Outcome, change: Change | None, *, confirmed: bool) -> tuple[str, ...]:
    if change is None and not best.changes and best.rates:
        return ("The run was made by an older version of harness. `harness score RUN` adds the missing comparison.",)
    if change is None:
        return (f"No {choice.objective} case counts, so {best.name} cannot be shown to be better than the base.",)
    if change.verdict is Verdict.IMPROVED:
        return ()
    where = "In the confirmation" if confirmed else "Against the base"
    return (f"{where}, on {choice.objective} cases, {best.name} is not shown to be better: {change.reason}",)


def _costs(best: Outcome, machine: Machine) -> Sequence[str]:
    """Describe the best variant's training time and memory on a GPU, with the basis of these figures."""
    train = best.cost(Phase.TRAIN)
    peak = selection.gpu_memory(best)
    if train is None or peak is None:
        return ("The run did not use a GPU, so memory and training time on a GPU are not known.",) if train else ()
    minutes = f"{train.seconds.value / 60:.1f}".removesuffix(".0")
    verb = f"By {probes(train)}, training it alone takes about" if train.probes else "Training took"
    took = f"{verb} {minutes} minutes ({short_claim(train.seconds, machine)})"
    emulated = train.seconds.basis is Basis.EMULATED
    other = (
        (f"Training takes a different time on {gpu_of(machine)} than on {train.seconds.device}.",) if emulated else ()
    )
    return (f"{took}, and at most {gib(peak.value)} ({short_claim(peak, machine)}).", *other)
