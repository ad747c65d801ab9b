"""Says when a race looks at its variants, and what it is expected to save with this suite and grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.analysis import race_forecast, racing
from harness.analysis.race_forecast import RACES, Forecast, Part
from harness.analysis.racing import Race
from harness.core.engines import Engine
from harness.core.errors import ModelError
from harness.core.setting_text import number
from harness.core.settings import Plan
from harness.core.suite import Suite
from harness.core.wording import listed, plural
from harness.hardware.estimate import Range
from harness.hardware.estimate.predictions import TargetGpu, Workload, grid_seconds, relative_costs
from harness.runner.composition import Composition
from harness.runner.preparation import engine_of

WORTH = 0.05
"""A race that is expected to save a smaller share of the time is said to save none."""


def race_lines(
    suite: Suite, plan: Plan, what: Workload | None, rules: Composition, target: TargetGpu | None
) -> Iterator[str]:
    """Sentences about a race of this plan.

    `what` is the workload of a trial, if it can be predicted. `rules` compose passes, and `target` is the GPU, if any.
    """
    race = racing.race_of(plan.variants, len(plan.seeds))
    if not race.looks:
        why = "the grid has one variant" if race.entered < 2 else "no variant is trained for more than one epoch"
        yield f"Race: `--race` has no effect, because {why}."
        return
    yield f"Race: {_looks(plan, race)}"
    yield _comparison(suite, race)
    made = race_forecast.forecast(suite, plan.variants, len(plan.seeds), _costs(plan, what))
    yield (
        f"In {RACES} simulated races of such variants, {_percent(made.training)} of the training was saved "
        f"({_percent(made.low)} to {_percent(made.high)} in most of them), {number(round(made.asked, 1))} times as "
        f"many answers were given as without a race, and the best variant was stopped in "
        f"{_percent(made.best_stopped)}. What a race really saves depends on how much the variants differ."
    )
    yield _in_all(made, plan, what, rules, target)


def _looks(plan: Plan, race: Race) -> str:
    known = {variant.id: variant for variant in plan.variants}
    if race.seeds > 1:
        when = f"all variants are looked at after 1 of {race.seeds} seeds"
        return f"{when}; those that leave are not trained under the other seeds."
    if len({variant.settings.epochs for variant in plan.variants}) == 1:
        after = listed([min(look.epochs.values()) for look in race.looks])
        when = f"after epoch {after} of {number(plan.variants[0].settings.epochs)}"
    else:
        ends = {f"{epoch} of {number(known[name].settings.epochs)}" for name, epoch in race.looks[-1].epochs.items()}
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


def _costs(plan: Plan, what: Workload | None) -> dict[str, float]:
    """Return the cost of each variant's training: predicted seconds, or else epochs."""
    try:
        if what is not None:
            found = relative_costs(replace(what, prompts=0), plan.trials)
            return {trial.variant: max(found[trial.id], 1e-9) for trial in plan.trials}
    except ModelError:  # a target module is not one of the modules that predictions know
        pass
    return {variant.id: variant.settings.epochs for variant in plan.variants}


def _in_all(made: Forecast, plan: Plan, what: Workload | None, rules: Composition, target: TargetGpu | None) -> str:
    try:
        saved = None if what is None or target is None else _saved(made, plan, what, rules, target)
    except ModelError:  # a target module is not one of the modules that predictions know
        saved = None
    if saved is None:
        if made.asked < 1:
            least = _percent(min(made.training, 1 - made.asked))
            return f"Training and answers take less time: a race is expected to save about {least} of the grid's time."
        return "The time of answering cannot be predicted here, so it is not known what a race saves in all."
    low, high = sorted(saved)
    times = "by predicted times of its passes and of its answers, which are given by all models of a pass together"
    if low < WORTH:
        return f"A race is not expected to save time here ({times}). It can only lower the number of trained tokens."
    share = _percent(low) if _percent(low) == _percent(high) else f"{_percent(low)} to {_percent(high)}"
    return f"With the answers at the looks, a race is expected to save {share} of the grid's time ({times})."


def _saved(made: Forecast, plan: Plan, what: Workload, rules: Composition, target: TargetGpu) -> tuple[float, float]:
    """Return the share of the grid's time that races save, with the fastest and the slowest speeds."""
    engine = engine_of(Engine.AUTO, plan)

    def seconds(part: Part) -> Range:
        seeds, known = plan.seeds[: part.seeds], {each.id for each in part.variants}
        trials = [trial for trial in plan.trials if trial.variant in known and trial.seed in seeds]
        return grid_seconds(what, rules.passes(engine, trials), part.answers, target, part.shares)

    return made.saved(lambda part: seconds(part).low), made.saved(lambda part: seconds(part).high)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
