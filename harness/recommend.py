"""Chooses a default among the variants, and says why in words that a reader can check."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Choice, Outcome, Phase, Rate, Role, Status, Suite

GUARDED = (Role.RETAIN, Role.AVOID)
"""What a tuned model must not lose."""


def choose(suite: Suite, base: Outcome, variants: Sequence[Outcome]) -> Choice:
    """The variant with the highest pass rate on the objective among those that keep what the base could do."""
    objective = objective_of(suite, base)
    finished = [v for v in variants if _finished(v)]
    safe = [v for v in finished if eligible(suite, v)]
    best = max(safe, key=lambda v: (_share(v.rates.get(objective)), *_cheapness(v, safe)), default=None)
    name, names = None, tuple(v.name for v in safe)
    if not any(rate.total for rate in base.rates.values()):
        reasons: tuple[str, ...] = ("The base model has no scored answers, so nothing can be compared with it.",)
    elif not finished:
        reasons = (_none_finished(variants),)
    elif best is None:
        reasons = (*_none_safe(suite, finished), *_unfinished(variants))
    elif _share(best.rates.get(objective)) <= _share(base.rates.get(objective)):
        reasons = (*_none_better(objective, base, best, len(safe)), *_unfinished(variants))
    else:
        name, reasons = best.name, _reasons(suite, objective, base, best, safe, variants)
    return Choice(name, reasons, objective, names)


def objective_of(suite: Suite, base: Outcome) -> Role:
    """The suite's objective, or `learn` where the suite asks no such cases."""
    return suite.objective if suite.objective in base.rates else Role.LEARN


def eligible(suite: Suite, variant: Outcome) -> bool:
    """Whether it is shown that less than `margin` points are lost on `retain` and `avoid`, taken together.

    Not seeing a loss shows nothing where few cases look for one: it is the upper 95% bound of the loss that counts. A
    suite without such cases asks for nothing to be kept.
    """
    return variant.safety is None or variant.safety.upper < suite.margin


def lost(base: Outcome, variant: Outcome) -> float:
    """Points of pass rate that the variant loses on `retain` and `avoid`; 0 where no such case counts."""
    before, after = guarded(base), guarded(variant)
    return 100 * (_share(before) - _share(after)) if before.total and after.total else 0.0


def guarded(outcome: Outcome) -> Rate:
    """`retain` and `avoid` taken together."""
    rates = [outcome.rates[role] for role in GUARDED if role in outcome.rates]
    return Rate(sum(r.passed for r in rates), sum(r.total for r in rates))


def refuted(suite: Suite, objective: Role, base: Outcome, again: Outcome) -> tuple[str, ...]:
    """What speaks against a choice once it was trained again under fresh seeds and asked the held-out cases."""
    words = list(_unsteady(again))
    if again.rates and (gap := lost(base, again)) > suite.margin:
        words.append(
            f"On the held-out cases it keeps {_counts(guarded(again))} of what the base could do (retain and avoid): "
            f"{gap:.3g} points less than the base, and the suite allows {suite.margin:g}."
        )
    after, before = again.rates.get(objective), base.rates.get(objective)
    if after and before and after.total and before.total and _share(after) <= _share(before):
        words.append(
            f"Of the held-out {objective} cases it passes {_counts(after)}; the base passes {_counts(before)}."
        )
    return tuple(words)


def _unsteady(again: Outcome) -> tuple[str, ...]:
    """A training that was only stopped, or never begun, says nothing either way."""
    tried = [status for status in again.statuses if status is not Status.CANCELLED]
    broke = [status for status in tried if status is not Status.SUCCEEDED]
    if not broke:
        return ()
    how = _listed([str(status) for status in dict.fromkeys(broke)])
    return (f"Under {len(broke)} of {len(tried)} fresh seeds its training did not finish ({how}).",)


def _finished(variant: Outcome) -> bool:
    return bool(variant.statuses) and all(status is Status.SUCCEEDED for status in variant.statuses)


def _share(rate: Rate | None) -> float:
    return rate.value or 0.0 if rate else 0.0


def _cheapness(variant: Outcome, rivals: Sequence[Outcome]) -> tuple[float, ...]:
    """Higher is cheaper. Seconds on CUDA; a CPU's say nothing about a T4, so there it is the work of training."""
    seconds, work = _cuda_seconds(variant), variant.supervised_tokens * variant.trainable_parameters
    bases = {figure for rival in rivals for figure in _bases(rival)}
    comparable = len(bases) == 1 and all(_cuda_seconds(rival) is not None for rival in rivals)
    return (-seconds,) if comparable and seconds is not None else (-float(work),)


def _cuda_seconds(variant: Outcome) -> float | None:
    """Of training. Only a CUDA device counts allocated memory."""
    train = next((c for c in variant.costs if c.phase is Phase.TRAIN and c.peak_allocated is not None), None)
    return train.seconds.value if train else None


def _bases(variant: Outcome) -> set[tuple[str, str]]:
    return {(c.seconds.basis.value, c.seconds.device) for c in variant.costs if c.phase is Phase.TRAIN}


# --- words -------------------------------------------------------------------------------------------------------


def _reasons(
    suite: Suite, objective: Role, base: Outcome, best: Outcome, safe: Sequence[Outcome], variants: Sequence[Outcome]
) -> tuple[str, ...]:
    return (
        _objective(objective, base, best),
        _keeping(suite, best),
        *_rivals(objective, best, safe),
        *_left_out(suite, variants),
    )


def _objective(objective: Role, base: Outcome, best: Outcome) -> str:
    after, before = _counts(best.rates.get(objective)), _counts(base.rates.get(objective))
    return f"Of the {objective} cases used for choosing it passes {after}; the base passes {before}."


def _keeping(suite: Suite, best: Outcome) -> str:
    after = guarded(best)
    if not after.total:
        return "The suite has no counted retain or avoid cases, so nothing shows what it may have broken."
    return f"Of what the base could do (retain and avoid) it keeps {_counts(after)}: {_bound(suite, best)}"


def _bound(suite: Suite, variant: Outcome) -> str:
    if variant.safety is None:
        return "nothing is known of what it lost."
    alone = "" if len(variant.seeds) > 1 else " This is of one training; another seed's may lose more."
    seen, bound = _points(variant.safety.lost), _points(variant.safety.upper)
    return f"{seen} points lost, and below {bound} with 95% confidence; the suite allows {suite.margin:g}.{alone}"


def _rivals(objective: Role, best: Outcome, safe: Sequence[Outcome]) -> tuple[str, ...]:
    others = [v for v in safe if v is not best]
    if not others:
        return ("It is the only variant that stays within the margin.",)
    share = _share(best.rates.get(objective))
    tied = [v.name for v in others if _share(v.rates.get(objective)) == share]
    if tied:
        how = "less training time" if _cuda_seconds(best) is not None else "less training work (tokens x parameters)"
        return (f"It needs {how} than {_listed(tied)}, which {_verb(tied, 'passes', 'pass')} as many.",)
    second = max(others, key=lambda v: _share(v.rates.get(objective)))
    return (f"Next best within the margin: {second.name} with {_counts(second.rates.get(objective))}.",)


def _left_out(suite: Suite, variants: Sequence[Outcome]) -> tuple[str, ...]:
    unsafe = [v for v in variants if _finished(v) and not eligible(suite, v)]
    losing = [v.name for v in unsafe if _loses(suite, v)]
    unclear = [v.name for v in unsafe if not _loses(suite, v)]
    words = []
    if losing:
        verb = _verb(losing, "loses", "lose")
        words.append(
            f"Not considered: {_listed(losing)}, which {verb} {suite.margin:g} points or more on retain and avoid."
        )
    if unclear:
        words.append(f"Not considered: {_listed(unclear)}, which may lose {suite.margin:g} points or more there.")
    return (*words, *_unfinished(variants))


def _loses(suite: Suite, variant: Outcome) -> bool:
    """Whether the loss that was seen is too large by itself, however many cases saw it."""
    return variant.safety is not None and variant.safety.lost >= suite.margin


def _unfinished(variants: Sequence[Outcome]) -> tuple[str, ...]:
    failed = [v.name for v in variants if not _finished(v)]
    if not failed:
        return ()
    return (f"Not considered: {_listed(failed)}, whose training did not finish under every seed.",)


def _none_finished(variants: Sequence[Outcome]) -> str:
    if not variants:
        return "No variant was trained."
    counts = {status: sum(status in v.statuses for v in variants) for status in Status}
    how = ", ".join(f"{count} {status}" for status, count in counts.items() if count and status.value != "succeeded")
    return f"No variant finished training under every seed ({how})."


def _none_safe(suite: Suite, finished: Sequence[Outcome]) -> tuple[str, ...]:
    least = min(finished, key=lambda v: v.safety.lost if v.safety else 0.0)
    if least.safety is None or _loses(suite, least):
        first = f"Every variant loses {suite.margin:g} points or more of what the base could do (retain and avoid)."
        return (first, f"{least.name} loses least: it keeps {_counts(guarded(least))}: {_bound(suite, least)}")
    needed = least.safety.needed
    remedy = f" About {needed} cases like these would show it." if needed and needed > least.safety.cases else ""
    few = f"{least.safety.cases} retain and avoid cases are too few.{remedy}"
    return (
        f"No variant is shown to lose less than {suite.margin:g} points of what the base could do: {few}",
        f"{least.name} loses least: it keeps {_counts(guarded(least))}: {_bound(suite, least)}",
    )


def _none_better(objective: Role, base: Outcome, best: Outcome, safe: int) -> tuple[str, ...]:
    after, before = _counts(best.rates.get(objective)), _counts(base.rates.get(objective))
    if safe == 1:
        kept = f"{best.name} is the only variant that keeps what the base could do, and it passes"
        return (f"{kept} no more {objective} cases than the base: {after} against {before}.",)
    return (
        f"None of the {safe} variants that keep what the base could do passes more {objective} cases than the base.",
        f"The best of them, {best.name}, passes {after}; the base passes {before}.",
    )


def _counts(rate: Rate | None) -> str:
    if rate is None or rate.value is None:
        return "none (no case counts)"
    return f"{rate.passed} of {rate.total} ({100 * rate.value:.0f}%)"


def _points(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
