"""The ranking of adapters that were trained elsewhere, such as those of the participants of a class."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.quantities import interval, points
from harness.core.run_results import LossVerdict, Outcome, Results
from harness.report import formatting
from harness.report.pairwise import Gap, against
from harness.report.pass_rates import ScoresByRole, Span

ORDER = (LossVerdict.KEEPS, LossVerdict.CANNOT_TELL, LossVerdict.LOSES)
"""An adapter that is shown to keep enough is ahead of one of which this is not known, and of one that loses more."""


@dataclass(frozen=True)
class RankedAdapter:
    """One adapter in the ranking."""

    place: int
    number: int
    """Its number in the table of variants."""
    name: str
    rate: str
    """Pass rate on the objective, in percent."""
    counts: str
    span: Span | None
    gap: Gap | None
    """The difference from the adapter one place ahead; None for the first, and if that one has another verdict."""
    loss: str
    bounds: str
    """Two-sided 95% interval of the net loss."""
    verdict: str
    """`keeps`, `cannot tell` or `loses`; empty if the suite has no cases that tell."""


def adapters_ranked(results: Results, scores: ScoresByRole) -> tuple[RankedAdapter, ...]:
    """Return the adapters with answers, the best first; empty if there are fewer than two."""
    objective = results.choice.objective
    found = [(n, v) for n, v in enumerate(results.variants, 1) if v.elsewhere and v.rates]
    if len(found) < 2:
        return ()
    found.sort(key=lambda each: (_class(each[1]), -_share(results, each[1]), each[0]))
    ahead = [None, *(outcome for _, outcome in found)]
    ranked = []
    for place, ((number, own), before) in enumerate(zip(found, ahead, strict=False), 1):
        rate, scored, loss = own.rates.get(objective), scores.get((own.name, objective)), own.loss
        comparable = before is not None and _class(before) == _class(own)
        ranked.append(
            RankedAdapter(
                place=place,
                number=number,
                name=own.name,
                rate=formatting.percent(rate),
                counts=formatting.counts(rate),
                span=scored.span if scored else None,
                gap=against(scores, objective, before.name, own.name) if before and comparable else None,
                loss=points(loss.points) if loss and loss.points is not None else formatting.ABSENT,
                bounds=interval(loss.low, loss.high) if loss and loss.points is not None else "",
                verdict=loss.verdict.value if loss else "",
            )
        )
    return tuple(ranked)


def _class(outcome: Outcome) -> int:
    return ORDER.index(outcome.loss.verdict) if outcome.loss else 0


def _share(results: Results, outcome: Outcome) -> float:
    rate = outcome.rates.get(results.choice.objective)
    return (rate.value or 0.0) if rate else 0.0
