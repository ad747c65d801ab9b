"""Recommend a variant of a finished run, with reasons; or, if the run does not justify that, list what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import aggregate, power, selection
from harness.analysis.score_table import score_tables
from harness.analysis.selection import Caps
from harness.core import training_script
from harness.core.claims import gpu_of, probes, short_claim
from harness.core.machine import Machine
from harness.core.measurement import Basis, Phase
from harness.core.quantities import quantity
from harness.core.run_results import Choice, Finding, Outcome, Recommendation, Results, Verdict
from harness.core.suite import Split
from harness.core.training_outcome import Status

TOY = "This is a toy model. It shows how to read a result. Its settings do not carry over to other models."

REFUTED = "The confirmation refutes it."
NOT_CONFIRMED = "It is not confirmed by its held-out cases and fresh seeds."


def recommend(results: Results, caps: Caps = selection.NO_CAPS) -> Recommendation:
    """Recommend the cheapest variant within one standard error of the best, if it is confirmed.

    The variant must be eligible and within the caps. `core/run_results.py: Confirmation` says when it is confirmed.
    """
    choice = _choice(results, caps)
    best = next((v for v in results.variants if v.name == choice.variant), None)
    if best is None or best.settings is None:
        few = power.too_few_passes(results)
        return Recommendation(None, None, "Nothing is recommended.", (), ((few,) if few else ()) + choice.reasons)
    reasons = (*choice.reasons, *_costs(best, results.run.provenance.machine))
    if results.run.model.toy:
        headline = f"Best in this demonstration: {best.name}."
        return Recommendation(None, best.name, headline, reasons, (TOY, *_missing(results, choice, best)))
    if missing := _missing(results, choice, best):
        headline = f"Nothing is recommended. Best so far, {finding(results, choice)}: {best.name}."
        return Recommendation(None, best.name, headline, reasons, missing)
    machine, seed = results.run.provenance.machine, best.seeds[0]
    return Recommendation(
        best.name,
        best.name,
        f"Recommended for {_scope(results, choice, best)}: {best.name}.",
        reasons,
        sft_config=training_script.sft_config(best.settings, machine, seed),
        lora_config=training_script.lora_config(best.settings),
        script=training_script.script(best.settings, machine, seed, results.run.added_rows(best.settings, seed)),
    )


def _choice(results: Results, caps: Caps) -> Choice:
    """Return the run's own choice, or if there are caps, a new choice among the variants within the caps."""
    if caps == selection.NO_CAPS or results.run.model.shape_only:
        return results.choice
    suite = results.run.suite
    tables = score_tables(results.samples, suite.reducer)
    objective = selection.objective_of(suite, results.base)
    on_objective = aggregate.objective_tables(suite, objective, tables)
    return selection.choose(suite, results.base, results.variants, on_objective, caps, results.bases)


def _scope(results: Results, choice: Choice, best: Outcome) -> str:
    """Describe what the recommendation is based on: model, suite, number of cases, seeds (choice + confirmation)."""
    confirmation = _confirmation(results, choice)
    cases = {s.case for s in results.samples if s.variant == best.name}
    cases |= {s.case for s in results.confirmed_samples if confirmation}
    counts = [each.statuses.count(Status.SUCCEEDED) for each in (best, confirmation) if each]
    seeds = f"{' + '.join(map(str, counts))} {'seed' if sum(counts) == 1 else 'seeds'}"
    return f"{results.run.model.name}, {results.run.suite.name}, {len(cases)} cases, {seeds}"


def _confirmation(results: Results, choice: Choice) -> Outcome | None:
    """Return the confirmation, or None if the chosen variant was not the one that was confirmed."""
    confirmed = results.confirmed
    return confirmed if confirmed and confirmed.name == choice.variant == results.choice.variant else None


def _missing(results: Results, choice: Choice, best: Outcome) -> tuple[str, ...]:
    """Return the reasons why the chosen variant cannot be recommended, or nothing if it can."""
    if best.rates and not best.changes:
        return ("The run was made by an older version of harness. `harness score RUN` adds the missing comparison.",)
    found = results.choice.confirmation if _confirmation(results, choice) else None
    if found is None:
        return (*_not_better(choice, best), _unconfirmed(results, best))
    if found.finding is Finding.CONFIRMED:
        return ()
    return (REFUTED, *found.reasons) if found.finding is Finding.REFUTED else (NOT_CONFIRMED, *found.reasons)


def _not_better(choice: Choice, best: Outcome) -> tuple[str, ...]:
    """Say, without a confirmation, why the cases that chose the variant do not show that it is better, if so."""
    change = best.changes.get(choice.objective)
    if change is None or change.verdict is Verdict.IMPROVED:
        return ()
    return (f"On {choice.objective} cases, {best.name} is not shown to be better than the base: {change.reason}",)


def finding(results: Results, choice: Choice) -> Finding:
    """Return the verdict of the confirmation on this choice. Without a confirmation, it is NOT_CONFIRMED."""
    found = results.choice.confirmation if _confirmation(results, choice) else None
    return found.finding if found else Finding.NOT_CONFIRMED


def _unconfirmed(results: Results, best: Outcome) -> str:
    """Say why the choice has no confirmation, and how to get one.

    Without a confirmation, the best of many variants can look better than the base model by chance.
    """
    several = f", as the best of {len(results.variants)}" if len(results.variants) > 1 else ""
    why = f"It is not confirmed: the cases that would show it were used to choose it{several}."
    if not results.run.suite.of(Split.CONFIRM):
        roles = f"{results.choice.objective}, retain and avoid"
        return f"{why} The suite has no held-out cases: give some {roles} cases `split: confirm`, and run it again."
    own = results.choice.variant
    if own is not None and own != best.name:  # the caps exclude the run's own choice, which `harness run` confirms
        return (
            f"{why} `harness run` confirms the run's own choice, {own}. To confirm {best.name} instead, write a grid "
            "in the suite's folder `grids` with only the settings of this variant, and run it with "
            "`harness run --grid NAME`. Its trainings are not repeated."
        )
    return f"{why} `harness run` confirms a choice with fresh seeds and held-out cases."


def _costs(best: Outcome, machine: Machine) -> Sequence[str]:
    """Describe the best variant's training time and memory on a GPU, with the basis of these figures."""
    train = best.cost(Phase.TRAIN)
    peak = selection.gpu_memory(best)
    if train is None or peak is None:
        return ("The run did not use a GPU, so memory and training time on a GPU are not known.",) if train else ()
    verb = f"By {probes(train)}, training it alone takes about" if train.probes else "Training took"
    took = f"{verb} {quantity(train.seconds)} ({short_claim(train.seconds, machine)})"
    emulated = train.seconds.basis is Basis.EMULATED
    other = (
        (f"Training takes a different time on {gpu_of(machine)} than on {train.seconds.device}.",) if emulated else ()
    )
    return (f"{took}, and at most {quantity(peak)} of GPU memory ({short_claim(peak, machine)}).", *other)
