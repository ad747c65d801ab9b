"""Says when a race looks at its variants, and what it is expected to save with this suite and grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.analysis import race_forecast, racing
from harness.analysis.race_forecast import RACES, Forecast
from harness.analysis.racing import Race
from harness.core.errors import ModelError
from harness.core.setting_text import number
from harness.core.settings import Plan
from harness.core.suite import Suite
from harness.core.wording import listed, plural
from harness.hardware.estimate.predictions import Workload, relative_costs


def race_lines(suite: Suite, plan: Plan, what: Workload | None) -> Iterator[str]:
    """Sentences about a race of this plan. `what` is the workload of a trial, if it can be predicted."""
    race = racing.race_of(plan.variants)
    if not race.looks:
        why = "the grid has one variant" if race.entered < 2 else "no variant is trained for more than one epoch"
        yield f"Race: `--race` has no effect, because {why}."
        return
    yield f"Race: {_looks(plan, race)}"
    yield _comparison(suite, race)
    whole = _costs(plan, what)
    made = race_forecast.forecast(suite, plan.variants, len(plan.seeds), whole)
    yield (
        f"In {RACES} simulated races of such variants, {_percent(made.training)} of the training was saved "
        f"({_percent(made.low)} to {_percent(made.high)} in most of them), {number(round(made.asked, 1))} times as "
        f"many answers were given as without a race, and the best variant was stopped in "
        f"{_percent(made.best_stopped)}. What a race really saves depends on how much the variants differ."
    )
    yield _in_all(made, plan, what)


def _looks(plan: Plan, race: Race) -> str:
    known = {variant.id: variant for variant in plan.variants}
    if len({variant.settings.epochs for variant in plan.variants}) == 1:
        after = listed([min(look.values()) for look in race.looks])
        when = f"after epoch {after} of {number(plan.variants[0].settings.epochs)}"
    else:
        ends = {f"{epoch} of {number(known[name].settings.epochs)}" for name, epoch in race.looks[-1].items()}
        when = f"after epoch {listed(sorted(ends), most=6)}"
    if len(race.looks) > 1:
        return f"all variants are looked at {when}."
    return f"all variants are looked at once, {when}; variants with different schedules are not looked at earlier."


def _comparison(suite: Suite, race: Race) -> str:
    cases = [case for case in racing.cases_of(suite) if case.role is racing.objective_of(suite)]
    groups = len({case.group or case.id for case in cases})
    least, role = race.least_groups, racing.objective_of(suite)
    have = f"the suite has {plural(groups, 'group')} of {role} cases (a case without a group is one)"
    if groups < least:
        return (
            f"No variant can be shown to be worse than another: at least {least} groups must differ, and {have}. Only "
            "variants that diverge or lose too much leave. More cases, or fewer variants, would change that."
        )
    return f"To show that a variant is worse, at least {least} groups must differ, all in favour of the other; {have}."


def _costs(plan: Plan, what: Workload | None, *, answers: bool = False) -> dict[str, float]:
    """Return the cost of each variant: predicted seconds, or else epochs."""
    try:
        if what is not None:
            asked = what if answers else replace(what, prompts=0)
            found = relative_costs(asked, plan.trials)
            return {trial.variant: max(found[trial.id], 1e-9) for trial in plan.trials}
    except ModelError:  # a target module is not one of the modules that predictions know
        pass
    return {variant.id: variant.settings.epochs for variant in plan.variants}


def _in_all(made: Forecast, plan: Plan, what: Workload | None) -> str:
    if what is None:
        return "The time of answering cannot be predicted for this model, so it is not known what a race saves in all."
    training, whole = sum(_costs(plan, what).values()), sum(_costs(plan, what, answers=True).values())
    share = min(1.0, training / whole)
    saved = share * made.training - (1 - share) * (made.asked - 1)
    times = f"by predicted times, {_percent(share)} of which are training"
    if saved < 0.05:
        return (
            f"A race is not expected to save time here ({times}): the answers at the looks take about as long as the "
            "training that it saves. It can only lower the number of trained tokens."
        )
    return f"With the answers at the looks, a race is expected to save {_percent(saved)} of the grid's time ({times})."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
