"""Can a suite show that a variant keeps what the base model can do? Before a run by assumption, after it by results.

Both questions are about a variant that loses nothing: with which probability would it be shown to lose less than the
suite's margin, and how many `retain` and `avoid` cases would show it with a probability of 80%?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis import net_loss
from harness.analysis.confirmation import LEVEL as CONFIRMING
from harness.analysis.judging import has_score
from harness.analysis.losses import GUARDED
from harness.analysis.statistics import LEVEL, POWER
from harness.core.names import BASE
from harness.core.run_results import LossVerdict, Results
from harness.core.scores import Rate
from harness.core.suite import Case, Role, Split, Suite
from harness.core.wording import listed, plural

ASSUMED_RATES = (0.7, 0.95)
"""Pass rates of a base model that are assumed before a run."""
TEN = 10.0
"""A loss in points that readers ask about, whatever the suite's margin."""
SEEDS = 3
"""Number of training seeds that is assumed before a run."""


def outlook(suite: Suite) -> str:
    """Return in a sentence what the suite's cases can show about losses, before any run; empty if nothing is guarded.

    If some `retain` and `avoid` cases are held out, only the others count, because they choose the variant.
    """
    cases = _guarded(suite, Split.MAIN)
    if not cases or not 0 < suite.margin < 100:
        return ""
    group, share = _mean_group(cases), suite.margin / 100
    chances = [net_loss.chance_shown(len(cases), rate, share, seeds=SEEDS, group=group) for rate in ASSUMED_RATES]
    sizes = [net_loss.cases_to_show(rate, share, seeds=SEEDS, group=group) for rate in ASSUMED_RATES]
    rates = [f"{100 * rate:.0f}%" for rate in ASSUMED_RATES]
    return (
        f"{_named(cases)} and a margin of {suite.margin:g} points: if the base model passes {rates[0]} of these cases, "
        f"a variant that loses nothing is shown to keep what the base model can do with a probability of "
        f"{_percent(chances[0])}; if it passes {rates[1]}, with {_percent(chances[1])} ({SEEDS} seeds). "
        f"For {_percent(POWER)}, {_size(sizes[0])} or {_size(sizes[1])} cases{_like(group)} are needed."
    )


def too_few_passes(results: Results) -> str:
    """Return in sentences that the base model passes too few cases to show anything; empty if that is not so.

    It is so if no variant is shown to keep what the base model can do, at least one variant's verdict is "cannot tell",
    and a variant that loses nothing would be shown to keep it with a probability below 80%.
    """
    suite = results.run.suite
    verdicts = [variant.loss.verdict for variant in results.variants if variant.loss]
    if LossVerdict.KEEPS in verdicts or LossVerdict.CANNOT_TELL not in verdicts or not 0 < suite.margin < 100:
        return ""
    cases = _guarded(suite, Split.MAIN)
    rates = {role: rate for role in GUARDED if (rate := results.base.rates.get(role)) and rate.total}
    passed, total = sum(rate.passed for rate in rates.values()), sum(rate.total for rate in rates.values())
    group, share, seeds = _mean_group(cases), suite.margin / 100, max(1, len(results.run.plan.seeds))
    base = passed / total if total else 0.0
    chance = net_loss.chance_shown(len(cases), base, share, seeds=seeds, group=group)
    if chance >= POWER:
        return ""
    each = listed(f"{own.passed:,} of {own.total:,} {role}" for role, own in rates.items())
    first = f"The base passes {each or 'no retain or avoid'} cases{_cut(results)}."
    if not passed:
        return f"{first} So no loss can be measured. Use cases that the base can pass."
    shown = (
        f"With so few, a variant that loses nothing would be shown to lose less than {suite.margin:g} points with a "
        f"probability of only {_percent(chance)}."
    )
    needed = cases_for_no_loss(results)
    remedy = f"About {needed:,} cases like these would do" if needed else "No number of cases like these would do"
    longer = "; answers that are not cut help more (`decoding.max_new_tokens`)" if _cut(results) else ""
    return f"{first} {shown} {remedy}{longer}."


@dataclass(frozen=True)
class Ability:
    """With which probabilities the `retain` and `avoid` cases of one split show what a variant loses."""

    held_out: bool
    cases: str
    """Number and roles of the cases, such as `132 retain and avoid cases`."""
    seeds: int
    level: float
    """Confidence with which a loss is shown to be below a size."""
    shown: tuple[tuple[float, float], ...]
    """Sizes of a loss in points, each with the probability that a variant that loses nothing is shown to lose less."""
    noticed: float
    """Probability that the 95% interval of a variant that loses `TEN` points is above 0."""


def can_show(results: Results) -> tuple[Ability, ...]:
    """Return which losses the suite's cases can rule out, and whether they would notice one of 10 points.

    The held-out cases are second, if a confirmation used them. Empty without a margin or base passes.
    """
    suite, again = results.run.suite, results.confirmed
    if not 0 < suite.margin < 100:
        return ()
    main = _ability(results, Split.MAIN, results.base.rates, max(1, len(results.run.plan.seeds)), LEVEL)
    if main is None or not results.confirmed_base or not again or not again.rates:
        return (main,) if main else ()
    other = _ability(results, Split.CONFIRM, results.confirmed_base.rates, len(again.seeds), CONFIRMING)
    return (main, other) if other else (main,)


def _ability(results: Results, split: Split, rates: Mapping[Role, Rate], seeds: int, level: float) -> Ability | None:
    """Return what the cases of one split can show: at this level, that a loss is below a size."""
    cases, margin = _guarded(results.run.suite, split), results.run.suite.margin
    guarded = [rate for role in GUARDED if (rate := rates.get(role))]
    passed, total = sum(rate.passed for rate in guarded), sum(rate.total for rate in guarded)
    if not cases or not passed:
        return None
    count, base, group = len(cases), passed / total, _mean_group(cases)
    shown = [
        (size, net_loss.chance_shown(count, base, size / 100, seeds=seeds, group=group, level=level))
        for size in sorted({margin, TEN}, reverse=True)
    ]
    held_out = split is Split.CONFIRM
    noticed = net_loss.chance_noticed(count, base, TEN / 100, seeds=seeds, group=group)
    return Ability(held_out, _named(cases, "held-out " if held_out else ""), seeds, level, tuple(shown), noticed)


def cases_for_no_loss(results: Results) -> int | None:
    """Return how many `retain` and `avoid` cases like these would show a variant that loses nothing to lose nothing.

    They would show it with a probability of 80%. Return None if no number would, or if the base model passes none.
    """
    suite = results.run.suite
    rates = [rate for role in GUARDED if (rate := results.base.rates.get(role))]
    passed, total = sum(rate.passed for rate in rates), sum(rate.total for rate in rates)
    if not passed or not 0 < suite.margin < 100:
        return None
    group, seeds = _mean_group(_guarded(suite, Split.MAIN)), max(1, len(results.run.plan.seeds))
    return net_loss.cases_to_show(passed / total, suite.margin / 100, seeds=seeds, group=group)


def _guarded(suite: Suite, split: Split) -> list[Case]:
    return [case for case in suite.of(split) if case.role in GUARDED and has_score(suite, case)]


def _mean_group(cases: Sequence[Case]) -> float:
    return net_loss.mean_group([case.group for case in cases], len(cases))


def _cut(results: Results) -> str:
    """Return how many of the base model's failed `retain` and `avoid` answers were cut; empty if none was."""
    guarded = {case.id for case in results.run.suite.cases if case.role in GUARDED}
    cut = {
        sample.case
        for sample in results.samples
        if sample.variant == BASE and sample.case in guarded and sample.answer.truncated and not sample.score.passed
    }
    limit = results.run.suite.decoding.max_new_tokens
    return f"; {len(cut)} of the others were cut at {plural(limit, 'token')}" if cut else ""


def _named(cases: Sequence[Case], held_out: str = "") -> str:
    roles = listed(role for role in GUARDED if any(case.role is role for case in cases))
    return plural(len(cases), f"{held_out}{roles} case")


def _like(group: float) -> str:
    return " in groups like these" if group > 1 else ""


def _size(cases: int | None) -> str:
    return f"{cases:,}" if cases else "too many"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
