"""Answer on the page: can these cases show a loss of 10 points? As a sentence and a table of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import power
from harness.analysis.power import TEN, Ability
from harness.analysis.statistics import POWER
from harness.core.run_results import Results
from harness.core.wording import plural


@dataclass(frozen=True)
class CanShow:
    """Content of the part of the page that says what the cases can show."""

    title: str
    answer: str
    columns: tuple[str, ...]
    """One column per set of cases: those used for the choice, and the held-out cases."""
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """What is shown, with its probability for each set of cases."""


def can_show(results: Results) -> CanShow | None:
    """Return what the suite's cases can show about losses; None if nothing can be said."""
    found = power.can_show(results)
    if not found:
        return None
    margin = results.run.suite.margin
    shown = [
        (
            f"A variant that loses nothing is shown to lose less than {size:g} points"
            + (", the suite's margin" if size == margin else ""),
            tuple(_percent(ability.shown[place][1]) for ability in found),
        )
        for place, (size, _) in enumerate(found[0].shown)
    ]
    noticed = (
        f"A variant that truly loses {TEN:g} points is noticed: its 95% interval is above 0",
        tuple(_percent(ability.noticed) for ability in found),
    )
    return CanShow(
        f"Can these cases show a loss of {TEN:g} points?", _answer(found), tuple(map(_column, found)), (noticed, *shown)
    )


def _answer(found: Sequence[Ability]) -> str:
    """Answer by the cases that notice such a loss most often."""
    best = max(ability.noticed for ability in found)
    word = "Yes" if best >= POWER else "Not reliably" if best >= 1 - POWER else "No"
    each = [
        f"with a probability of {_percent(ability.noticed)} by {'the held-out' if ability.held_out else 'these'} cases"
        for ability in found
    ]
    return f"{word}: such a loss is noticed {' and '.join(each)}."


def _column(ability: Ability) -> str:
    seeds = plural(ability.seeds, "fresh seed" if ability.held_out else "seed")
    return f"{ability.cases}, {seeds}; shown with {_percent(ability.level)} confidence"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
