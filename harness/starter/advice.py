"""What a new suite is still too thin to show, in numbers of cases."""

from __future__ import annotations

from collections.abc import Iterator

from harness import stats
from harness.records import Role, Split, Suite

FEW_ROWS = 20
DISCORDANCE = 0.1
"""Share of cases that are taken to flip from one training to the next without any reason."""
WORTH_SEEING = 0.2
"""A change of pass rate that nobody should miss."""


def too_thin(suite: Suite, stubs: int) -> tuple[str, ...]:
    """Sentences about a suite of which `stubs` cases for choosing are still to be written."""
    return (*_rows(suite), *_by_words_alone(suite), *_generalise(suite, stubs), *_kept(suite))


def _rows(suite: Suite) -> Iterator[str]:
    count = len(suite.examples)
    if count < FEW_ROWS:
        yield f"{count} training rows teach little; the workshop's recipe is for {FEW_ROWS} to 300."


def _by_words_alone(suite: Suite) -> Iterator[str]:
    """F1 forgives the one word that matters: "made of steel" is nearly "made of cork"."""
    alone = sum([a.type for a in case.assertions] == ["f1"] for case in suite.cases)
    if alone:
        yield (
            f"{alone} cases are judged by shared words alone, which forgives one wrong word: "
            "add the word that matters, as {type: icontains, value: ...}."
        )


def _generalise(suite: Suite, stubs: int) -> Iterator[str]:
    written = _count(suite, Role.GENERALISE)
    if not written:
        yield "No generalise case is written, so nothing can show that more than the rows' own words was learned."
    cases = written + stubs
    seen = round(100 * stats.detectable(cases, DISCORDANCE))
    needed = stats.cases_needed(WORTH_SEEING, DISCORDANCE)
    if cases < needed:
        shown = f"tell a change of {seen} points from chance" if seen < 100 else "tell no change from chance"
        yield (
            f"The generalise cases that choose, {cases} of them once all are written, {shown}; "
            f"{needed} would tell {100 * WORTH_SEEING:.0f} points."
        )


def _kept(suite: Suite) -> Iterator[str]:
    import numpy as np

    groups = [c.group for c in suite.of(Split.MAIN) if c.role in (Role.RETAIN, Role.AVOID)]
    kept = np.ones((1, len(groups)))
    found = stats.non_inferiority(kept, kept, suite.margin / 100, groups)
    if not found.shown:
        yield (
            f"{len(groups)} retain cases cannot show that less than {suite.margin:g} points are lost, even if none is; "
            f"{found.needed} can."
        )
    if not _count(suite, Role.AVOID):
        yield "No avoid case is written, so nothing shows what the model starts to do that it should not."


def _count(suite: Suite, role: Role) -> int:
    return sum(case.role is role for case in suite.of(Split.MAIN))
