"""Say what a new suite can show, and warn about too few training rows or cases."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import power, statistics
from harness.core.suite import Role, Split, Suite
from harness.core.wording import plural

FEW_ROWS = 20
DISCORDANCE = 0.1
"""Assumed share of cases whose result changes by chance between two trainings."""
RELEVANT_CHANGE = 0.2
"""Smallest change of the pass rate that a suite should be able to distinguish from chance."""


def size_warnings(suite: Suite, stubs: int) -> tuple[str, ...]:
    """Return warnings about a new suite; `stubs` is the number of main-split cases that the user still has to write."""
    return (*_rows(suite), *_judged_by_f1_only(suite), *_generalise(suite, stubs), *_retain_and_avoid(suite))


def _rows(suite: Suite) -> Iterator[str]:
    count = len(suite.examples)
    if count < FEW_ROWS:
        teach = "teaches" if count == 1 else "teach"
        settings = f"the settings in grids/t4.yaml are meant for {FEW_ROWS} to 300 rows"
        yield f"{plural(count, 'training row')} {teach} little; {settings}."


def _judged_by_f1_only(suite: Suite) -> Iterator[str]:
    """Warn about cases whose only assertion is F1. It may accept "made of steel" if "made of cork" is correct."""
    count = sum([a.type for a in case.assertions] == ["f1"] for case in suite.cases)
    if count:
        yield (
            f"{plural(count, 'case')} {'is' if count == 1 else 'are'} judged only by the share of common words, so one "
            "wrong word can pass: add the word that matters, as {type: icontains, value: ...}."
        )


def _generalise(suite: Suite, stubs: int) -> Iterator[str]:
    written = _count(suite, Role.GENERALISE)
    if not written:
        yield "No generalise case is written, so the suite cannot show whether the model understands other wordings."
    cases = written + stubs
    detectable = round(100 * statistics.detectable(cases, DISCORDANCE))
    needed = statistics.cases_needed(RELEVANT_CHANGE, DISCORDANCE)
    if cases < needed:
        shown = f"a change of {detectable} points" if detectable < 100 else "no change"
        yield (
            f"When all are written, {plural(cases, 'generalise case')} for choosing the best variant can distinguish "
            f"{shown} from chance; {needed} cases could distinguish {100 * RELEVANT_CHANGE:.0f} points."
        )


def _retain_and_avoid(suite: Suite) -> Iterator[str]:
    if known := power.outlook(suite):
        yield known
    if not _count(suite, Role.AVOID):
        yield "No avoid case is written, so the suite cannot show whether training causes unwanted behaviour."


def _count(suite: Suite, role: Role) -> int:
    return sum(case.role is role for case in suite.of(Split.MAIN))
