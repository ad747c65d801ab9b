"""Kinds of cases: which of them each variant kept, lost and gained.

A case's kind is its `group`; a case without one gets its kind from its id, such as `read` for `retain-read-pet-3`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.analysis.judging import has_score
from harness.analysis.losses import GUARDED
from harness.analysis.score_table import ScoreTable, score_tables
from harness.core import wording
from harness.core.quantities import points
from harness.core.run_results import Outcome, Results
from harness.core.suite import Case, Role, Split
from harness.report.most_telling import most_telling

OTHER = "others"
"""The kind of cases that have no group and share their name with no other case."""
MOST_VARIANTS = 60
"""Number of variants in the table of kinds. The chosen one, and those with the highest pass rates, come first."""
JOINED = "-…"
"""End of the name of several kinds that begin with the same word."""
SHADES = 4
"""Number of shades of a cell, one for each quarter of its cases. A cell whose cases all changed has one more."""


@dataclass(frozen=True)
class KindCell:
    """What one variant did with the cases of one kind. Numbers of cases are means over seeds."""

    kept: float
    """Cases that the base model passes and the variant passes."""
    lost: float
    """Cases that the base model passes and the variant fails."""
    gained: float
    """Cases that the base model fails and the variant passes."""
    cases: int
    """Cases with a score of both."""

    @property
    def passed(self) -> float:
        """Cases that the variant passes."""
        return self.kept + self.gained

    @property
    def net_loss(self) -> float:
        """How many cases fewer the variant passes than the base model; negative for a gain."""
        return self.lost - self.gained

    @property
    def shade(self) -> str:
        """Class of the cell: `g` or `l` for a net gain or loss with its strength as a share of the cases, or `same`."""
        net = self.gained - self.lost
        if not self.cases or abs(net) < 0.05:
            return "same" if self.cases else "none"
        whole = abs(net) > self.cases - 0.05
        step = SHADES + 1 if whole else min(SHADES, 1 + int(SHADES * abs(net) / self.cases + 1e-9))
        return f"{'g' if net > 0 else 'l'}{step}"

    @property
    def text(self) -> str:
        """The numbers of lost and gained cases, such as `−5 +2`; `=` if nothing changed."""
        lost = f"−{points(self.lost)}" if self.lost >= 0.05 else ""
        gained = f"+{points(self.gained)}" if self.gained >= 0.05 else ""
        return " ".join(filter(None, (lost, gained))) or ("=" if self.cases else "–")

    @property
    def words(self) -> str:
        if not self.cases:
            return "not compared"
        return (
            f"kept {points(self.kept)}, lost {points(self.lost)}, gained {points(self.gained)} of "
            f"{wording.plural(self.cases, 'case')}"
        )


@dataclass(frozen=True)
class KindRow:
    """One kind of one role, with a cell for each variant of the table."""

    role: Role
    kind: str
    cases: int
    """Cases on which the base model has a score, as in the pass rates."""
    base: str
    """How many of the cases the base model passes."""
    cells: tuple[KindCell, ...]


@dataclass(frozen=True)
class KindTable:
    """The table of kinds. `variants` are the numbers and names of its columns, the chosen variant first."""

    variants: tuple[tuple[int, str], ...]
    rows: tuple[tuple[Role, tuple[KindRow, ...]], ...]
    """The rows of each role."""
    left_out: int
    """Number of variants with answers that have no column."""
    joined: str = ""
    """The first kind of which the name stands for several, such as `read-…`; empty if there is none."""


def kind_of(cases: Sequence[Case]) -> dict[str, str]:
    """Return the kind of each case, by its id.

    Names of one role that begin with the same word are one kind: `read-pet` and `read-job` become `read-…`.
    """
    names = {case.id: case.group or _name(case) for case in cases}
    found: dict[str, str] = {}
    for role in Role:
        own = [case for case in cases if case.role is role]
        firsts = Counter(name.split("-")[0] for name in {names[case.id] for case in own})
        short = {
            case.id: f"{names[case.id].split('-')[0]}{JOINED}"
            if firsts[names[case.id].split("-")[0]] > 1
            else names[case.id]
            for case in own
        }
        shared = Counter(short.values())
        grouped = {short[case.id] for case in own if case.group}
        found |= {id: name if shared[name] > 1 or name in grouped else OTHER for id, name in short.items()}
    return found


def _name(case: Case) -> str:
    """Return a case's id without its role in front and its number at the end."""
    return re.sub(r"[-_ ]?\d+$", "", case.id.removeprefix(f"{case.role}-")) or OTHER


def kinds(results: Results, tables: Mapping[str, ScoreTable]) -> KindTable | None:
    """Return the table of kinds; None without answers of a variant. `tables` are the scores by variant."""
    answered = [(n, v) for n, v in enumerate(results.variants, 1) if v.rates]
    if not answered:
        return None
    shown = most_telling(results, answered, MOST_VARIANTS)
    shown.sort(key=lambda each: each[1].name != results.choice.variant)
    suite = results.run.suite
    every = _by_kind(suite.of(Split.MAIN))
    by_kind = {key: counted for key, own in every.items() if (counted := [c for c in own if has_score(suite, c)])}
    return KindTable(
        tuple((n, v.name) for n, v in shown),
        tuple(
            (
                role,
                tuple(
                    _row(results, role, kind, own, shown, tables) for (at, kind), own in by_kind.items() if at is role
                ),
            )
            for role in sorted(dict.fromkeys(role for role, _ in by_kind), key=lambda role: place(results, role))
        ),
        len(answered) - len(shown),
        next((kind for _, kind in by_kind if kind.endswith(JOINED)), ""),
    )


def place(results: Results, role: Role) -> tuple[bool, bool]:
    """Sort what can be lost first, then the objective."""
    return role not in GUARDED, role is not results.choice.objective


Kinds = dict[tuple[Role, str], KindCell]
"""What one variant did with each kind of each role."""


def of_variant(results: Results, variant: Outcome, *, held_out: bool = False) -> Kinds:
    """Return what a variant did with each kind of the main cases, or of the held-out cases."""
    answers = results.confirmed_samples if held_out else results.samples
    base = results.base_of(variant).name
    tables = score_tables([s for s in answers if s.variant in (variant.name, base)], results.run.suite.reducer)
    return {
        key: _cell(own, tables.get(base), tables.get(variant.name))
        for key, own in _by_kind(results.run.suite.of(Split.CONFIRM if held_out else Split.MAIN)).items()
    }


def most_lost(results: Results, variant: Outcome, of: tuple[Role, str], *, held_out: bool = False) -> Case | None:
    """Return the case of a kind that was lost under most seeds; None if none was lost."""
    answers = results.confirmed_samples if held_out else results.samples
    base = results.base_of(variant).name
    tables = score_tables([s for s in answers if s.variant in (variant.name, base)], results.run.suite.reducer)
    cases = _by_kind(results.run.suite.of(Split.CONFIRM if held_out else Split.MAIN)).get(of, [])
    own = [(_cell([case], tables.get(base), tables.get(variant.name)).net_loss, case) for case in cases]
    lost, found = max(own, key=lambda each: each[0], default=(0.0, None))
    return found if lost > 0 else None


def _by_kind(cases: Sequence[Case]) -> dict[tuple[Role, str], list[Case]]:
    """Return the cases by role and kind: roles in their order, kinds in the suite's, `others` last."""
    names = kind_of(cases)
    found: dict[tuple[Role, str], list[Case]] = {}
    for role in Role:
        for case in sorted((c for c in cases if c.role is role), key=lambda c: names[c.id] == OTHER):
            found.setdefault((role, names[case.id]), []).append(case)
    return found


def _row(
    results: Results, role: Role, kind: str, cases: Sequence[Case], variants: Sequence[tuple[int, Outcome]],
    tables: Mapping[str, ScoreTable],
) -> KindRow:  # fmt: skip
    base = tables.get(results.base.name)
    shares = [share for case in cases if (share := _share(base, case.id)) is not None]
    cells = tuple(_cell(cases, tables.get(results.base_of(v).name), tables.get(v.name)) for _, v in variants)
    return KindRow(role, kind, len(shares), points(sum(shares)), cells)


def _cell(cases: Sequence[Case], base: ScoreTable | None, own: ScoreTable | None) -> KindCell:
    kept = lost = gained = 0.0
    compared = 0
    for case in cases:
        was, now = _share(base, case.id), _share(own, case.id)
        if was is None or now is None:
            continue
        compared += 1
        kept += was * now
        lost += was * (1 - now)
        gained += (1 - was) * now
    return KindCell(kept, lost, gained, compared)


def _share(table: ScoreTable | None, case: str) -> float | None:
    """Return the share of seeds and repeats under which a case passes; None if it has no score."""
    cells = table.cells.get(case) if table else None
    return fmean(cell.share for cell in cells.values()) if cells else None
