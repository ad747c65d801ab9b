"""Two runs on one page: what was not the same, what became of every variant, and the answers that changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.analysis.regression.gate_output import SUITE_CHANGES
from harness.analysis.regression.verdict import SEVERITY
from harness.core import wording
from harness.core.claims import source
from harness.core.measurement import Measurement
from harness.core.names import BASE
from harness.core.quantities import quantity
from harness.core.regression import (
    Comparison,
    CostChange,
    Decision,
    Flip,
    Judgement,
    Mismatch,
    RoleChange,
    Side,
    VariantChange,
)
from harness.core.results import Verdict
from harness.report import difference, words
from harness.report.answers import Text
from harness.report.rates import Span

TITLES = {
    Verdict.IMPROVED: "Better",
    Verdict.UNCHANGED: "Nothing is worse",
    Verdict.REGRESSED: "Worse",
    Verdict.INCONCLUSIVE: "It cannot be told whether anything is worse",
    Verdict.NOT_COMPARABLE: "These runs cannot be compared",
}


@dataclass(frozen=True)
class Rated:
    """One role of one variant before and after, as shares."""

    role: str
    cases: int
    before: float
    before_span: Span
    after: float
    after_span: Span
    change: str
    told: str
    """better, worse or unclear: whether the interval of the difference excludes none."""
    chance: str


@dataclass(frozen=True)
class Cost:
    what: str
    before: str
    after: str
    change: str
    """In words, or why the two are not compared."""


@dataclass(frozen=True)
class Changed:
    """One variant before and after."""

    number: int
    name: str
    verdict: Verdict | None
    reasons: tuple[str, ...]
    settings: tuple[Mismatch, ...]
    drift: tuple[Mismatch, ...]
    failures: tuple[str, ...]
    roles: tuple[Rated, ...]
    costs: tuple[Cost, ...]
    lost: int
    gained: int


@dataclass(frozen=True)
class Card:
    """A case whose verdict changed under one variant, both answers with the words marked that differ."""

    anchor: str
    variant: str
    flip: Flip
    kind: str
    words: str
    prompt: Text
    before: Text
    after: Text


@dataclass(frozen=True)
class ComparisonPage:
    now: str
    title: str
    verdict: Verdict
    answer: str
    reasons: tuple[str, ...]
    before: Side
    after: Side
    obstacles: tuple[Mismatch, ...]
    changed: tuple[Mismatch, ...]
    suite: tuple[tuple[str, tuple[str, ...]], ...]
    void: int
    missing: tuple[str, ...]
    added: tuple[str, ...]
    variants: tuple[Changed, ...]
    cards: tuple[Card, ...]
    roles: tuple[str, ...]


def comparison_page(decision: Decision, now: str) -> ComparisonPage:
    found = decision.comparison
    judged = {judgement.variant: judgement for judgement in decision.variants}
    cards = tuple(_cards(found))
    changed = [_variant(n, v, judged.get(v.name)) for n, v in enumerate(found.variants, 1)]
    return ComparisonPage(
        now=now,
        title=f"{found.after.name} against {found.before.name}",
        verdict=decision.verdict,
        answer=TITLES[decision.verdict],
        reasons=decision.reasons if decision.verdict is Verdict.NOT_COMPARABLE else tuple(_summary(decision)),
        before=found.before,
        after=found.after,
        obstacles=found.obstacles,
        changed=found.changed,
        suite=tuple((what, ids) for name, what in SUITE_CHANGES.items() if (ids := getattr(found.suite, name))),
        void=len(found.void),
        missing=found.missing,
        added=found.added,
        variants=tuple(sorted(changed, key=_gravity)),
        cards=cards,
        roles=tuple(dict.fromkeys(card.flip.role.value for card in cards)),
    )


def _summary(decision: Decision) -> Iterator[str]:
    """By verdict, who has it and the gravest reason of the first."""
    for verdict in SEVERITY:
        having = [judgement for judgement in decision.variants if judgement.verdict is verdict]
        if having:
            yield f"{verdict.value.capitalize()}: {wording.listed(judgement.variant for judgement in having)}."
    for judgement in decision.variants:
        if judgement.verdict is decision.verdict and judgement.reasons:
            yield f"{judgement.variant}: {judgement.reasons[0].text}"


# --- variants ----------------------------------------------------------------------------------------------------


def _variant(number: int, found: VariantChange, judged: Judgement | None) -> Changed:
    return Changed(
        number=number,
        name=found.name,
        verdict=judged.verdict if judged else None,
        reasons=tuple(
            f"{reason.verdict}: {reason.text}"
            for reason in (judged.reasons if judged else ())
            if reason.verdict is not Verdict.UNCHANGED
        ),
        settings=found.settings,
        drift=found.drift,
        failures=(*(f"before, {f}" for f in found.failures_before), *(f"now, {f}" for f in found.failures_after)),
        roles=tuple(_role(role) for role in found.roles),
        costs=tuple(_cost(cost) for cost in found.costs),
        lost=sum(flip.lost for flip in found.flips),
        gained=sum(not flip.lost for flip in found.flips),
    )


def _gravity(changed: Changed) -> int:
    return SEVERITY.index(changed.verdict) if changed.verdict else len(SEVERITY)


def _role(found: RoleChange) -> Rated:
    moved = found.difference
    told = "better" if moved.low > 0 else "worse" if moved.high < 0 else "unclear"
    return Rated(
        role=found.role.value,
        cases=found.cases,
        before=found.before.value,
        before_span=Span(found.before.low, found.before.high),
        after=found.after.value,
        after_span=Span(found.after.low, found.after.high),
        change=f"{100 * moved.value + 0.0:+.0f} ({100 * moved.low:+.0f} to {100 * moved.high:+.0f})",
        told=told,
        chance=f"p = {found.worse_adjusted:.3f}; finds losses from {100 * found.detectable:.0f} points on",
    )


def _cost(found: CostChange) -> Cost:
    before, after = (_mean(side) for side in (found.before, found.after))
    if found.hindrance or not before or not after:
        change = f"not compared: {found.hindrance}" if found.hindrance else words.ABSENT
    else:
        change = f"{100 * (after.value - before.value) / before.value:+.0f}%" if before.value else words.ABSENT
    return Cost(found.what, _told(before), _told(after), change)


def _mean(figures: Sequence[Measurement]) -> Measurement | None:
    """Of one side, whose figures share unit, device and basis."""
    if not figures:
        return None
    first = figures[0]
    value = fmean(figure.value for figure in figures)
    return replace(first, value=value)


def _told(figure: Measurement | None) -> str:
    return f"{quantity(figure)}, {source(figure)}" if figure else words.ABSENT


# --- answers -----------------------------------------------------------------------------------------------------


def _cards(found: Comparison) -> Iterator[Card]:
    for number, (name, flips) in enumerate([(BASE, found.base), *((v.name, v.flips) for v in found.variants)]):
        for flip in flips:
            yield _card(number, name, flip)


def _card(number: int, name: str, flip: Flip) -> Card:
    marks = difference.difference(flip.answer_before, flip.answer_after)
    dropped = difference.marked(difference.split(flip.answer_before), marks.dropped) if marks.dropped else ()
    told = (
        f"passes under {flip.before.passed} of {flip.before.total} seeds, now {flip.after.passed} of {flip.after.total}"
    )
    return Card(
        anchor=f"{words.anchor(flip.case)}~{number}",
        variant=name,
        flip=flip,
        kind="broken" if flip.lost else "fixed",
        words=f"{'lost' if flip.lost else 'gained'}: {told}",
        prompt=Text.of(flip.prompt),
        before=Text.of(flip.answer_before, dropped),
        after=Text.of(flip.answer_after, marks.new),
    )
