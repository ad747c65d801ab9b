"""Searches settings with Optuna's Gaussian process, and says which settings mattered.

The sampler fits a Gaussian process to the results and proposes the variant with the largest logarithmic expected
improvement (Ament et al., NeurIPS 2023), times the chance that it keeps the margin. With few and noisy results it finds
better variants than the Tree-structured Parzen Estimator (`tests/studies/searches.py`).

The study is made again from the results before each batch, and the sampler's seed follows from the number of results.
So nothing has to be kept between batches, and a search that was interrupted continues with the same variants. A variant
that is not shown to lose less than the suite's margin violates a constraint, by the points that it may lose beyond the
margin.

Optuna is an optional package; its Gaussian process needs torch, which the parent process imports for a search only.
Without Optuna, nothing can be searched, and no importance is shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError
from harness.core.run_results import Outcome
from harness.core.settings import AXES, Search, Settings
from harness.core.suite import Role, Suite
from harness.core.training_outcome import Status

if TYPE_CHECKING:
    import optuna

UNFINISHED = 100.0
"""Violation of a variant without a loss to judge by, such as one that diverged: more than any loss."""
TRIES = 50
"""A batch is smaller if so many proposals in a row are variants that exist already."""


def version_of_optuna() -> str:
    """Return the version of Optuna; empty if it is not installed."""
    try:
        return metadata.version("optuna")
    except metadata.PackageNotFoundError:
        return ""


def check_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        UsageError: it is not.
    """
    if not version_of_optuna():
        remedy = "In a checkout of the harness, run: pip install '.[search]'"
        raise UsageError("the grid has a `search`, which needs the package optuna", remedy=remedy)


@dataclass(frozen=True)
class Told:
    """The result of a variant: its pass rate on the objective, and by how many points it violates the margin."""

    settings: Settings
    value: float
    violation: float
    """At most 0 if the variant is shown to lose less than the margin."""


def told(suite: Suite, objective: Role, variant: Outcome) -> Told | None:
    """Return the result of a variant that has settings; None if it has not run."""
    if variant.settings is None or not variant.statuses or Status.CANCELLED in variant.statuses:
        return None
    rate = variant.rates.get(objective)
    if any(status is not Status.SUCCEEDED for status in variant.statuses) or rate is None:
        return Told(variant.settings, 0.0, UNFINISHED)
    if variant.loss is None:
        return Told(variant.settings, rate.value or 0.0, 0.0)
    upper = variant.loss.upper
    return Told(variant.settings, rate.value or 0.0, UNFINISHED if upper is None else upper - suite.margin)


def propose(search: Search, results: Sequence[Told], seed: int) -> optuna.Study:
    """Return the study of these results, with a sampler that continues it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = [each for each in results if _belongs(search, each.settings)]
    violated = any(each.violation > 0 for each in results)  # else, a constraint would only take time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(n_startup_trials=1, seed=seed * 100_003 + len(results))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        optuna.trial.create_trial(
            value=each.value,
            params=_parameters(search, each.settings),
            distributions=_distributions(search),
            constraints={"loss beyond the margin": each.violation} if violated else None,
        )
        for each in results
    )
    return study


def proposals(
    search: Search, results: Sequence[Told], known: Collection[Settings], count: int, seed: int
) -> list[Settings]:
    """Return up to `count` new variants. `known` are all that exist already.

    In place of a proposal that is a variant that exists already, a random one is taken. There are fewer variants if
    all of these exist, too.
    """
    import optuna

    study, found, failures = propose(search, results, seed), list[Settings](), 0
    process, chance = study.sampler, optuna.samplers.RandomSampler(seed * 100_003 + len(results))
    while len(found) < count and failures < TRIES:
        settings = with_values(search, _values(search, study.ask(_distributions(search)).params))
        if settings in known or settings in found:
            failures += 1
            study.sampler = chance
        else:
            found.append(settings)
            study.sampler = process
    return found


def _values(search: Search, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of settings that a trial of the study stands for, rounded."""
    return {
        name: rounded(search, name, given[name])
        if name in search.ranges
        else getattr(search.choices[name][given[name]], name)
        for name in search.names
    }


def importance(search: Search, results: Sequence[Told]) -> dict[str, float]:
    """Return how much each setting mattered for the objective: PED-ANOVA's shares (Watanabe et al., IJCAI 2023).

    They are empty with fewer than four results, if all results are equal, or without Optuna.
    """
    if not version_of_optuna() or len(results) < 4 or len({each.value for each in results}) < 2:
        return {}
    import optuna

    study = propose(search, [each for each in results if each.violation < UNFINISHED] or results, 0)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in search.names}


def _belongs(search: Search, settings: Settings) -> bool:
    """Whether the search could have proposed these settings: rows of the grid may lie outside of what it varies."""
    inside = all(span.low <= getattr(settings, name) <= span.high for name, span in search.ranges.items())
    known = all(
        getattr(settings, name) in [getattr(option, name) for option in options]
        for name, options in search.choices.items()
    )
    varied = {name: getattr(settings, name) for name in search.names}
    return inside and known and with_values(search, varied) == settings


def with_values(search: Search, values: Mapping[str, Any]) -> Settings:
    """Return complete settings with these values. Without an alpha of its own, alpha stays twice the rank."""
    free = "alpha" not in values and search.base.alpha == 2 * search.base.rank
    return replace(search.base, **{**values, **({"alpha": 0} if free else {})}).resolved()


def rounded(search: Search, name: str, value: float) -> float | int:
    """Return a value with two significant digits, or as a whole number, within its range."""
    span = search.ranges[name]
    if AXES[name].kind is int:
        return int(min(max(round(value), span.low), span.high))
    return float(min(max(float(f"{value:.2g}"), span.low), span.high))


def _parameters(search: Search, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(settings, name) for name in search.ranges}
    for name, options in search.choices.items():
        values = [getattr(option, name) for option in options]
        if getattr(settings, name) in values:
            found[name] = values.index(getattr(settings, name))
    return found


def _distributions(search: Search) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, Any] = {}
    for name in search.names:
        if name not in search.ranges:
            made[name] = CategoricalDistribution(range(len(search.choices[name])))
            continue
        span = search.ranges[name]
        kind = IntDistribution if AXES[name].kind is int else FloatDistribution
        low, high = (int(span.low), int(span.high)) if kind is IntDistribution else (span.low, span.high)
        made[name] = kind(low, high, log=span.log)
    return made
