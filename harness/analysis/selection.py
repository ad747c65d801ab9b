"""Variant selection: choose the best variant and give the reasons as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from harness.analysis import losses
from harness.analysis.differences import standard_error
from harness.analysis.score_table import Pair, ScoreTable, failing_rate, pair
from harness.core.costs import largest
from harness.core.measurement import GIB, Measurement, Phase
from harness.core.quantities import points
from harness.core.run_results import Choice, Loss, LossVerdict, Outcome, base_of
from harness.core.scores import Rate
from harness.core.settings import Quantization
from harness.core.suite import Role, Suite
from harness.core.training_outcome import Status
from harness.core.wording import listed, plural

_listed = partial(listed, most=4)


@dataclass(frozen=True)
class Caps:
    """Limits on the memory and time of a recommended training on a GPU. None means no limit."""

    memory: float | None = None
    """GPU memory in GiB."""
    minutes: float | None = None


NO_CAPS = Caps()


def choose(
    suite: Suite,
    base: Outcome,
    variants: Sequence[Outcome],
    tables: Mapping[str, ScoreTable] = MappingProxyType({}),
    caps: Caps = NO_CAPS,
    bases: Mapping[Quantization, Outcome] = MappingProxyType({}),
) -> Choice:
    """Choose the cheapest eligible variant whose pass rate is within one standard error of the best one's.

    The standard error is that of the paired difference from the best variant, over cases and training seeds. (Breiman
    et al., Classification and Regression Trees, 1984, section 3.4.3, use the error of the best variant's own mean. On
    the same cases, the paired difference has a much smaller error.)

    Args:
        suite: the suite, with its objective and margin.
        base: the outcome of the base model, in the quantisation of the first variant.
        variants: the outcomes of all variants.
        tables: each variant's scores on the objective, by name. For variants without scores the error is taken as 0.
        caps: limits on memory and time.
        bases: the outcomes of the base model in other quantisations. A variant must be better than its own base.
    """
    objective = objective_of(suite, base)
    of = _Bases(base, bases)
    unscored = {v.name: _unscored(of(v), v) for v in variants}
    variants = [_unscored_as_failed(of(v), v) for v in variants]
    compared = [v for v in variants if _has_scores(of(v))]
    finished = [v for v in compared if _finished(v) and not v.elsewhere]
    safe = [v for v in finished if eligible(v)]
    fitting = [v for v in safe if not _cap_exceeded(v, caps)]
    better = [v for v in fitting if of.improved(v, objective)]
    best = max(better or fitting, key=lambda v: (_share(v.rates.get(objective)), *_cheapness(v, fitting)), default=None)
    if not any(map(_has_scores, (base, *bases.values()))):
        why: tuple[str, ...] = ("The base model has no scored answers, so nothing can be compared with it.",)
    elif not finished:
        why = (_none_finished(compared),)
    elif not safe:
        why = (*_none_safe(suite, objective, of, finished), *_unfinished(compared))
    elif best is None:
        why = (*_excluded_by_caps(safe, caps), *_unfinished(compared))
    elif not better:
        why = (*_none_better(objective, of(best), best, len(fitting)), *_unfinished(compared))
    else:
        among = _Candidates(objective, tuple(safe), tuple(fitting), best, unscored)
        choice = _chosen(suite, of, compared, tables, caps, among)
        return replace(choice, reasons=(*choice.reasons, *_not_compared(variants, compared)))
    why = (*why, *(_not_compared(variants, compared) if compared else ()))
    return Choice(None, why, objective, tuple(v.name for v in safe), best=best.name if best else None)


@dataclass(frozen=True)
class _Bases:
    """The base model in each quantisation; a call returns the one that a variant is compared with."""

    first: Outcome
    others: Mapping[Quantization, Outcome]

    def __call__(self, variant: Outcome) -> Outcome:
        return base_of(variant, self.first, self.others)

    def improved(self, variant: Outcome, role: Role) -> bool:
        """Return whether a variant passes more cases of a role than its base."""
        return _share(variant.rates.get(role)) > _share(self(variant).rates.get(role))


def _has_scores(base: Outcome) -> bool:
    return any(rate.total for rate in base.rates.values())


def _not_compared(variants: Sequence[Outcome], compared: Sequence[Outcome]) -> tuple[str, ...]:
    """Name the variants whose base model has no scored answers, although that of other variants has some."""
    known = {v.name for v in compared}
    names = [v.name for v in variants if v.name not in known]
    return (f"Not considered: {_listed(names)}, whose base model has no scored answers.",) if names else ()


@dataclass(frozen=True)
class _Candidates:
    """The variants to choose from: `safe` are the eligible ones, `fitting` those of them that are within the caps."""

    objective: Role
    safe: tuple[Outcome, ...]
    fitting: tuple[Outcome, ...]
    best: Outcome
    unscored: Mapping[str, int]
    """The number of answers without a score, by variant."""


def _chosen(
    suite: Suite,
    of: _Bases,
    variants: Sequence[Outcome],
    tables: Mapping[str, ScoreTable],
    caps: Caps,
    among: _Candidates,
) -> Choice:
    best = among.best
    within = [
        v for v in among.fitting
        if of.improved(v, among.objective) and behind(suite, tables, best, v, among.objective) is not None
    ]  # fmt: skip
    pick = max(within, key=lambda v: (*_cheapness(v, within), _share(v.rates.get(among.objective))))
    more = _passing_more(variants, pick, among.objective)
    reasons = (
        _objective(among.objective, of(pick), pick),
        _keeping(suite, pick),
        *losses.lost_in_one_role(pick.losses, suite.margin),
        *_failed_to_score(among.unscored[pick.name]),
        *_rivals(suite, tables, pick, within, among),
        *_excluded_by_caps([v for v in among.safe if v not in among.fitting], caps),
        *_not_chosen(suite, more, among.objective),
        *_left_out(suite, variants, said=more),
    )
    return Choice(pick.name, reasons, among.objective, tuple(v.name for v in among.safe), best=best.name)


def _pair_of(suite: Suite, tables: Mapping[str, ScoreTable], best: Outcome, variant: Outcome) -> Pair | None:
    return pair(suite.cases, tables.get(best.name, ScoreTable()), tables.get(variant.name, ScoreTable()))


def behind(
    suite: Suite, tables: Mapping[str, ScoreTable], best: Outcome, variant: Outcome, objective: Role
) -> tuple[float, float] | None:
    """Return by how many points the variant's pass rate is below the best one's, and the standard error of this gap.

    Return None if the gap is larger than its standard error.
    """
    gap = 100 * (_share(best.rates.get(objective)) - _share(variant.rates.get(objective)))
    found = _pair_of(suite, tables, best, variant)
    error = standard_error(found) if found and variant is not best else 0.0
    return (gap, error) if gap <= error + 1e-9 else None


def _unscored_as_failed(base: Outcome, variant: Outcome) -> Outcome:
    """Return the variant with unscored answers counted as failed (rule 4 of the module `score_table`)."""
    seeds = sum(status is Status.SUCCEEDED for status in variant.statuses) / max(1, len(base.seeds))
    asked = {role: round(rate.total * seeds) for role, rate in base.rates.items()}
    rates = {role: failing_rate(rate, asked.get(role, 0)) for role, rate in variant.rates.items()}
    return replace(variant, rates=rates)


def _unscored(base: Outcome, variant: Outcome) -> int:
    return sum(rate.total for rate in _unscored_as_failed(base, variant).rates.values()) - sum(
        r.total for r in variant.rates.values()
    )


def objective_of(suite: Suite, base: Outcome) -> Role:
    """Return the suite's objective, or `learn` if the suite has no cases of that role."""
    return suite.objective if suite.objective in base.rates else Role.LEARN


def eligible(variant: Outcome) -> bool:
    """Return whether the variant is shown to keep what the base model can do, on `retain` and `avoid` cases together.

    The one-sided 95% upper bound of the net loss decides, because with few cases a real loss can go unnoticed. In a
    suite without such cases, every variant is eligible.
    """
    return variant.loss is None or variant.loss.verdict is LossVerdict.KEEPS


def _finished(variant: Outcome) -> bool:
    return bool(variant.statuses) and all(status is Status.SUCCEEDED for status in variant.statuses)


def _share(rate: Rate | None) -> float:
    return rate.value or 0.0 if rate else 0.0


def _cheapness(variant: Outcome, rivals: Sequence[Outcome]) -> tuple[float, ...]:
    """Return a sort key that is higher for a cheaper training.

    The key comes from training time if all variants were timed on one GPU. Otherwise it comes from tokens times
    trainable parameters, because CPU times do not carry over to a GPU.
    """
    seconds, work = _cuda_seconds(variant), variant.supervised_tokens * variant.trainable_parameters
    return (-seconds,) if seconds is not None and _timed(rivals) else (-float(work),)


def _timed(rivals: Sequence[Outcome]) -> bool:
    """Return whether the training times of all variants are GPU times of the same device and the same basis."""
    bases = {figure for rival in rivals for figure in _bases(rival)}
    return len(bases) == 1 and all(_cuda_seconds(rival) is not None for rival in rivals)


def _cuda_seconds(variant: Outcome) -> float | None:
    """Return the seconds that training took on a GPU, or None if it ran on a CPU."""
    train = variant.cost(Phase.TRAIN)
    return train.seconds.value if train and train.on_gpu else None


def _bases(variant: Outcome) -> set[tuple[str, str]]:
    return {(c.seconds.basis.value, c.seconds.device) for c in variant.costs if c.phase is Phase.TRAIN}


# --- reasons -----------------------------------------------------------------------------------------------------


def _objective(objective: Role, base: Outcome, best: Outcome) -> str:
    after, before = _counts(best.rates.get(objective)), _counts(base.rates.get(objective))
    return f"On the {objective} cases used for the choice it passes {after}; the {base.name} passes {before}."


def _keeping(suite: Suite, best: Outcome) -> str:
    if best.loss is None:
        return "The suite has no retain or avoid cases, so a loss cannot be measured."
    return f"On retain and avoid cases {losses.counts(best.loss)}: {losses.bounded(best.loss, suite.margin)}."


def _failed_to_score(count: int) -> tuple[str, ...]:
    return (f"{plural(count, 'answer')} could not be scored, which counts as failed.",) if count else ()


def _rivals(
    suite: Suite, tables: Mapping[str, ScoreTable], pick: Outcome, within: Sequence[Outcome], among: _Candidates
) -> tuple[str, ...]:
    """Explain why the chosen variant was preferred to the other candidates.

    It is cheaper than candidates that are as good, or better than the next best.
    """
    objective, others = among.objective, [v for v in among.fitting if v is not pick]
    if not others:
        bounds = "the margin" if len(among.safe) == len(among.fitting) else "the margin and the caps"
        return (f"It is the only variant that stays within {bounds}.",)
    if len(within) == 1:
        second = _passing_most(others, objective)
        return (f"Next best within the margin: {_names(second)} with {_counts(second[0].rates.get(objective))}.",)
    how = "less training time" if _timed(within) else "less training work (tokens x parameters)"
    tied = [v for v in within if v is not pick and _same(v, pick, objective)]
    dearer = [v.name for v in tied if _cheapness(v, within) < _cheapness(pick, within)]
    equal = [v.name for v in tied if v.name not in dearer]
    words = []
    if dearer:
        words.append(f"It needs {how} than {_listed(dearer)}, which {_verb(dearer, 'passes', 'pass')} as many.")
    if equal:
        words.append(f"{_listed(equal)} {_verb(equal, 'passes', 'pass')} as many at the same cost.")
    top = _passing_most(among.fitting, objective)
    if (found := behind(suite, tables, among.best, pick, objective)) and found[0] > 0:
        gap, error = map(points, found)
        most = f"{_names(top)} {_verb(top, 'passes', 'pass')} most, {_counts(among.best.rates.get(objective))}"
        close = f"within one standard error of that difference ({error} points)"
        words.append(f"{most}: {gap} points more, which is {close}; {pick.name} needs {how}.")
    similar = [v.name for v in within if v not in (pick, *top) and not _same(v, pick, objective)]
    if similar:
        words.append(f"Also within one standard error of the best, at a higher cost: {_listed(similar)}.")
    return tuple(words)


def _passing_most(variants: Sequence[Outcome], objective: Role) -> list[Outcome]:
    most = max(_share(v.rates.get(objective)) for v in variants)
    return [v for v in variants if _share(v.rates.get(objective)) == most]


def _names(variants: Sequence[Outcome]) -> str:
    return _listed(v.name for v in variants)


def _same(one: Outcome, other: Outcome, objective: Role) -> bool:
    return _share(one.rates.get(objective)) == _share(other.rates.get(objective))


def _excluded_by_caps(variants: Sequence[Outcome], caps: Caps) -> tuple[str, ...]:
    """Return one sentence for each reason why eligible variants are not within the caps, with their names."""
    why: dict[str, list[str]] = {}
    for variant in variants:
        why.setdefault(_cap_exceeded(variant, caps), []).append(variant.name)
    return tuple(f"Not considered: {_listed(names)}, {words}." for words, names in why.items() if words)


def _cap_exceeded(variant: Outcome, caps: Caps) -> str:
    """Return why a variant is not within the caps, or an empty text if it is."""
    if caps.memory is not None:
        peak = gpu_memory(variant)
        if peak is None:
            return f"whose memory on a GPU is not known and may exceed {caps.memory:g} GiB"
        if peak.value / GIB > caps.memory:
            return f"which may take more than {caps.memory:g} GiB"
    if caps.minutes is not None:
        seconds = _cuda_seconds(variant)
        if seconds is None:
            return (
                f"whose training time on a GPU is not known and may exceed {_minutes(caps.minutes)} "
                "(CPU times do not carry over to a GPU)"
            )
        if seconds / 60 > caps.minutes:
            return f"whose training takes more than {_minutes(caps.minutes)}"
    return ""


def _minutes(cap: float) -> str:
    return f"{cap:g} {'minute' if cap == 1 else 'minutes'}"


def gpu_memory(variant: Outcome) -> Measurement | None:
    """Return the largest GPU memory of any phase, in bytes, or None if the variant ran on a CPU.

    Phases in which several models answered in one batch are left out, because one model alone would need less.
    """
    return largest(cost.gpu_peak() for cost in variant.costs if cost.models == 1)


def _not_eligible(variants: Sequence[Outcome]) -> list[Outcome]:
    return [v for v in variants if _finished(v) and not v.elsewhere and not eligible(v)]


def _passing_more(variants: Sequence[Outcome], pick: Outcome, objective: Role) -> Outcome | None:
    """Return the variant that passes most, if it passes more than the chosen one and is not eligible."""
    top = max(_not_eligible(variants), key=lambda v: _share(v.rates.get(objective)), default=None)
    return top if top and _share(top.rates.get(objective)) > _share(pick.rates.get(objective)) else None


def _not_chosen(suite: Suite, more: Outcome | None, objective: Role) -> tuple[str, ...]:
    if more is None:
        return ()
    verb = "loses" if _loses(more) else "may lose"
    return (f"{more.name} passes more, {_counts(more.rates.get(objective))}, but {verb} {_beyond(suite)}.",)


def _left_out(suite: Suite, variants: Sequence[Outcome], said: Outcome | None = None) -> tuple[str, ...]:
    """Name the variants that are not eligible or did not finish, except the one that another reason is about."""
    unsafe = [v for v in _not_eligible(variants) if v is not said]
    losing, unclear = ([v.name for v in unsafe if _loses(v) is loses] for loses in (True, False))
    words = []
    for names, verb in ((losing, _verb(losing, "loses", "lose")), (unclear, "may lose")):
        if names:
            words.append(f"Not considered: {_listed(names)}, which {verb} {_beyond(suite)}.")
    return (*words, *_unfinished(variants))


def _loses(variant: Outcome) -> bool:
    return variant.loss is not None and variant.loss.verdict is LossVerdict.LOSES


def _beyond(suite: Suite) -> str:
    return f"more than {suite.margin:g} points of what the base passes on retain and avoid cases"


def _unfinished(variants: Sequence[Outcome]) -> tuple[str, ...]:
    stopped = [v.name for v in variants if Status.STOPPED in v.statuses]
    failed = [v.name for v in variants if not _finished(v) and v.name not in stopped]
    foreign = [v.name for v in variants if _finished(v) and v.elsewhere]
    words = []
    if stopped:
        words.append(f"Not considered: {_listed(stopped)}, which left the race.")
    if failed:
        words.append(f"Not considered: {_listed(failed)}, whose training did not finish under every seed.")
    if foreign:
        words.append(f"Not considered: {_listed(foreign)}, trained elsewhere with unknown settings and costs.")
    return tuple(words)


def _none_finished(variants: Sequence[Outcome]) -> str:
    if not variants:
        return "No variant was trained."
    counts = {status: sum(status in v.statuses for v in variants) for status in Status}
    how = ", ".join(f"{count} {status}" for status, count in counts.items() if count and status.value != "succeeded")
    return f"No variant finished training under every seed ({how})."


def _none_safe(suite: Suite, objective: Role, of: _Bases, finished: Sequence[Outcome]) -> tuple[str, ...]:
    losing = [v for v in finished if _loses(v)]
    if len(losing) == len(finished):
        first = f"Every variant loses {_beyond(suite)}."
    else:
        some = f" {len(losing)} of {len(finished)} variants {_verb(losing, 'loses', 'lose')} more." if losing else ""
        kept = f"{suite.margin:g} points of what the base passes on retain and avoid cases"
        first = f"No variant is shown to lose less than {kept}.{some}"
    return (first, *_losing_least(suite, objective, of, finished))


def _losing_least(suite: Suite, objective: Role, of: _Bases, finished: Sequence[Outcome]) -> tuple[str, ...]:
    """Name the variants that lose least among those that learned something, or among all if none did."""
    learned = [v for v in finished if of.improved(v, objective)]
    measured = [(v, v.loss) for v in learned or finished if v.loss and v.loss.points is not None]
    if not measured:
        return ()
    size = min(_tenths(loss) for _, loss in measured)
    least = [(v, loss) for v, loss in measured if _tenths(loss) == size]
    names = [v.name for v, _ in least]
    who = f"{_listed(names)} {_verb(names, 'loses', 'lose')} least"
    if len(learned) == 1:
        who = f"Only {learned[0].name} passes more {objective} cases than the base"
    elif 1 < len(learned) < len(finished):
        who = f"Of those that pass more {objective} cases than the base, {who}"
    if len(least) > 1:
        return (f"{who}: {losses.seen(least[0][1])} each.",)
    [(variant, loss)] = least
    after, before = _counts(variant.rates.get(objective)), _counts(of(variant).rates.get(objective))
    needed = f" About {loss.needed} cases like these would show it." if (loss.needed or 0) > loss.cases else ""
    return (
        f"{who}: {losses.counts(loss)}: {losses.bounded(loss, suite.margin)}.{needed}",
        f"On {objective} cases {variant.name} passes {after}; the {of(variant).name} passes {before}.",
    )


def _tenths(loss: Loss) -> float:
    return round(loss.points or 0.0, 1)


def _none_better(objective: Role, base: Outcome, best: Outcome, safe: int) -> tuple[str, ...]:
    after, before = _counts(best.rates.get(objective)), _counts(base.rates.get(objective))
    if safe == 1:
        only = f"{best.name} is the only eligible variant"
        return (f"{only} and passes no more {objective} cases than the base: {after} against {before}.",)
    none = f"None of the {safe} eligible variants passes"
    if not _share(best.rates.get(objective)):
        return (f"{none} any {objective} case; the {base.name} passes {before}.",)
    return (
        f"{none} more {objective} cases than the base.",
        f"The best of them, {best.name}, passes {after}; the {base.name} passes {before}.",
    )


def _counts(rate: Rate | None) -> str:
    if rate is None or rate.value is None:
        return "none (no answer has a score)"
    return f"{rate.passed} of {rate.total} ({100 * rate.value:.0f}%)"


def _verb(names: Sequence[object], one: str, many: str) -> str:
    return one if len(names) == 1 else many
