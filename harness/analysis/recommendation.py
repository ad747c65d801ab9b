"""What a finished run recommends, in words that claim no more than it showed; and if nothing, what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import aggregate, selection
from harness.analysis.score_table import score_tables
from harness.analysis.selection import Caps
from harness.core import training_script
from harness.core.claims import gpu_of, short_claim
from harness.core.machine import Machine
from harness.core.measurement import Basis, Phase
from harness.core.quantities import gib
from harness.core.results import Change, Choice, Outcome, Recommendation, Results, Verdict
from harness.core.training import Status

TOY = "This is a toy model. It shows how to read a result; its settings are no advice for any other model."


def recommend(results: Results, caps: Caps = selection.NO_CAPS) -> Recommendation:
    """The cheapest variant within one standard error of the best, if the run shows that it is worth its training.

    It must be eligible and within the caps, and pass more of the objective than the base beyond the noise of cases and
    of training seeds, in a confirmation, and nothing there may speak against it.
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
    """That of the run, or under caps another one."""
    if caps == selection.NO_CAPS or results.run.model.shape_only:
        return results.choice
    suite = results.run.suite
    tables = score_tables(results.samples, suite.reducer)
    objective = selection.objective_of(suite, results.base)
    on_objective = aggregate.objective_tables(suite, objective, tables, results.void)
    return selection.choose(suite, results.base, results.variants, on_objective, caps)


def _scope(results: Results, choice: Choice, best: Outcome) -> str:
    """For whom: model, suite, how many cases and seeds showed it."""
    again = _again(results, choice)
    cases = {s.case for s in results.samples if s.variant == best.name and s.case not in results.void}
    cases |= {s.case for s in results.confirmed_samples if again and s.case not in results.void}
    seeds = sum(status is Status.SUCCEEDED for status in (*best.statuses, *(again.statuses if again else ())))
    of_seeds = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{results.run.model.name}, {results.run.suite.name}, {len(cases)} cases, {of_seeds}"


def _again(results: Results, choice: Choice) -> Outcome | None:
    """The confirmation, if it is of this choice."""
    confirmed = results.confirmed
    return confirmed if confirmed and confirmed.name == choice.variant == results.choice.variant else None


def _missing(results: Results, choice: Choice, best: Outcome) -> tuple[str, ...]:
    """What keeps the choice from being a recommendation."""
    again = _again(results, choice)
    against = results.choice.refuted if again else ()
    change = (again or best).changes.get(choice.objective)
    if change is None and again:  # no held-out case asks for the objective
        change = best.changes.get(choice.objective)
    return (*against, *_unshown(choice, best, change, confirmed=again is not None), *_unconfirmed(results, again))


def _unconfirmed(results: Results, again: Outcome | None) -> tuple[str, ...]:
    """The best of many looks better than the base even where none is: what chose it cannot show that it is."""
    if again and again.rates:
        return ()
    several = f", as the best of {len(results.variants)}" if len(results.variants) > 1 else ""
    why = f"It is not confirmed: the cases that would show it have chosen it{several}."
    return (f"{why} Under fresh seeds and on held-out cases `harness run` confirms what a grid chooses.",)


def _unshown(choice: Choice, best: Outcome, change: Change | None, *, confirmed: bool) -> tuple[str, ...]:
    if change is None and not best.changes and best.rates:
        return ("The run was made by an older harness. `harness score RUN` adds what its answers show.",)
    if change is None:
        return (f"No {choice.objective} case counts, so nothing shows that {best.name} is better than the base.",)
    if change.verdict is Verdict.IMPROVED:
        return ()
    where = "In the confirmation" if confirmed else "Against the base"
    return (f"{where}, on {choice.objective} cases, {best.name} is not shown to be better: {change.reason}",)


def _costs(best: Outcome, machine: Machine) -> Sequence[str]:
    """What the best took, with what may be claimed of it. A CPU's minutes are left out: nobody trains there."""
    train = best.cost(Phase.TRAIN)
    peak = selection.gpu_memory(best)
    if train is None or peak is None:
        return ("No GPU was measured, so its memory and minutes on one are not known.",) if train else ()
    minutes = f"{train.seconds.value / 60:.1f}".removesuffix(".0")
    took = f"Training it took {minutes} minutes ({short_claim(train.seconds, machine)})"
    emulated = train.seconds.basis is Basis.EMULATED
    other = (f"Minutes of {train.seconds.device} are not those of {gpu_of(machine)}.",) if emulated else ()
    return (f"{took}, and at most {gib(peak.value)} ({short_claim(peak, machine)}).", *other)
