"""The page that compares two runs: changes in their environment, in each variant, and in single answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.analysis.regression.gate_output import SUITE_CHANGES
from harness.analysis.regression.verdict import SEVERITY, chance
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
from harness.core.run_results import Verdict
from harness.report import formatting
from harness.report.pass_rates import Span

TITLES = {
    Verdict.IMPROVED: "Better",
    Verdict.UNCHANGED: "Nothing is worse",
    Verdict.REGRESSED: "Worse",
    Verdict.INCONCLUSIVE: "Inconclusive: too few cases or seeds",
    Verdict.NOT_COMPARABLE: "These runs cannot be compared",
}


HEAD = 1000
"""Number of characters of a long text that are shown at first. A click shows the rest."""


@dataclass(frozen=True)
class Text:
    """A text of any length. `rest` is hidden at first."""

    head: str
    rest: str = ""

    @classmethod
    def of(cls, text: str) -> Text:
        return cls(text[:HEAD], text[HEAD:]) if len(text) > HEAD * 1.2 else cls(text)


@dataclass(frozen=True)
class RoleRates:
    """A variant's pass rates on the cases of one role, in the earlier run and in the later one, as shares."""

    role: str
    cases: int
    before: float
    before_span: Span
    after: float
    after_span: Span
    change: str
    direction: str
    """`better` or `worse`, or `unclear` if the interval of the difference includes 0."""
    chance: str
    """The p-value of a loss, and the smallest loss that could be detected."""


@dataclass(frozen=True)
class Cost:
    """One cost of a variant in the earlier run and in the later one, as text."""

    what: str
    before: str
    after: str
    change: str
    """The relative change, or the reason why the two costs are not compared."""


@dataclass(frozen=True)
class VariantView:
    """What the page shows of one variant: its verdict, and its pass rates and costs in both runs."""

    number: int
    name: str
    verdict: Verdict | None
    reasons: tuple[str, ...]
    settings: tuple[Mismatch, ...]
    drift: tuple[Mismatch, ...]
    """Differences between the fingerprints of the trainings."""
    failures: tuple[str, ...]
    roles: tuple[RoleRates, ...]
    costs: tuple[Cost, ...]
    lost: int
    gained: int


@dataclass(frozen=True)
class Card:
    """A case whose verdict changed under one variant, with the answers of both runs. `page.js` marks what differs."""

    anchor: str
    variant: str
    flip: Flip
    kind: str
    """`broken` or `fixed`."""
    words: str
    prompt: Text
    before: Text
    after: Text


@dataclass(frozen=True)
class ComparisonPage:
    """Content of the page that compares two runs."""

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
    missing: tuple[str, ...]
    added: tuple[str, ...]
    variants: tuple[VariantView, ...]
    cards: tuple[Card, ...]
    roles: tuple[str, ...]


def comparison_page(decision: Decision, now: str) -> ComparisonPage:
    """Return the content of the page that compares two runs. `now` is the time of writing."""
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
        missing=found.missing,
        added=found.added,
        variants=tuple(sorted(changed, key=_severity)),
        cards=cards,
        roles=tuple(dict.fromkeys(card.flip.role.value for card in cards)),
    )


def _summary(decision: Decision) -> Iterator[str]:
    """Yield the names of the variants by verdict, then the first reason of each variant with the overall verdict."""
    for verdict in SEVERITY:
        having = [judgement for judgement in decision.variants if judgement.verdict is verdict]
        if having:
            yield f"{verdict.value.capitalize()}: {wording.listed(judgement.variant for judgement in having)}."
    for judgement in decision.variants:
        if judgement.verdict is decision.verdict and judgement.reasons:
            yield f"{judgement.variant}: {judgement.reasons[0].text}"


# --- variants ----------------------------------------------------------------------------------------------------


def _variant(number: int, found: VariantChange, judged: Judgement | None) -> VariantView:
    return VariantView(
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


def _severity(changed: VariantView) -> int:
    return SEVERITY.index(changed.verdict) if changed.verdict else len(SEVERITY)


def _role(found: RoleChange) -> RoleRates:
    moved = found.difference
    direction = "better" if moved.low > 0 else "worse" if moved.high < 0 else "unclear"
    return RoleRates(
        role=found.role.value,
        cases=found.cases,
        before=found.before.value,
        before_span=Span(found.before.low, found.before.high),
        after=found.after.value,
        after_span=Span(found.after.low, found.after.high),
        change=f"{100 * moved.value + 0.0:+.0f} ({100 * moved.low:+.0f} to {100 * moved.high:+.0f})",
        direction=direction,
        chance=(
            f"{chance(found.worse_adjusted)}; losses of {100 * found.detectable:.0f} points or more can be detected"
        ),
    )


def _cost(found: CostChange) -> Cost:
    before, after = (_mean(side) for side in (found.before, found.after))
    if found.hindrance or not before or not after:
        change = f"not compared: {found.hindrance}" if found.hindrance else formatting.ABSENT
    else:
        change = f"{100 * (after.value - before.value) / before.value:+.0f}%" if before.value else formatting.ABSENT
    return Cost(found.what, _with_source(before), _with_source(after), change)


def _mean(figures: Sequence[Measurement]) -> Measurement | None:
    """Return the mean of one run's figures, which have the same unit, device and basis; None if there are none."""
    if not figures:
        return None
    first = figures[0]
    value = fmean(figure.value for figure in figures)
    return replace(first, value=value)


def _with_source(figure: Measurement | None) -> str:
    return f"{quantity(figure)}, {source(figure)}" if figure else formatting.ABSENT


# --- answers -----------------------------------------------------------------------------------------------------


def _cards(found: Comparison) -> Iterator[Card]:
    for number, (name, flips) in enumerate([(BASE, found.base), *((v.name, v.flips) for v in found.variants)]):
        for flip in flips:
            yield _card(number, name, flip)


def _card(number: int, name: str, flip: Flip) -> Card:
    counts = (
        f"passed with {flip.before.passed} of {flip.before.total} seeds before, now with {flip.after.passed} of "
        f"{flip.after.total}"
    )
    return Card(
        anchor=f"{formatting.anchor(flip.case)}~{number}",
        variant=name,
        flip=flip,
        kind="broken" if flip.lost else "fixed",
        words=f"{'lost' if flip.lost else 'gained'}: {counts}",
        prompt=Text.of(flip.prompt),
        before=Text.of(flip.answer_before),
        after=Text.of(flip.answer_after),
    )
