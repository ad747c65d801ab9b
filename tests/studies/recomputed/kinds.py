"""Compute the kinds of cases that were kept, lost and gained, and the chart of gains against losses, again."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from tests.studies.recomputed.figures import BASE, GUARDED, ROLES, Run, chance_noticed, chance_shown, mean_group
from tests.studies.recomputed.sentences import Guarded, down, points, up

if TYPE_CHECKING:
    from tests.studies.recompute import Page


COUNTS = r"(\d+) (?:held-out |fresh )?(?:retain|avoid|seed)"
"""The numbers of cases and of seeds in the heading of a column."""


def kinds_of(run: Run, split: str = "") -> dict[str, tuple[str, str]]:
    """Return the role and the kind of each case."""
    found = {}
    for role in ROLES:
        own = [case for case in run.cases.values() if case["role"] == role and split in ("", case["split"])]
        names = {
            c["id"]: c["group"] or re.sub(r"[-_ ]?\d+$", "", c["id"].removeprefix(f"{role}-")) or "others" for c in own
        }
        several = Counter(name.split("-")[0] for name in set(names.values()))
        for id, name in names.items():
            first = name.split("-")[0]
            names[id] = f"{first}-…" if several[first] > 1 else name
        sizes, grouped = Counter(names.values()), {names[case["id"]] for case in own if case["group"]}
        for id, name in names.items():
            found[id] = (role, name if sizes[name] > 1 or name in grouped else "others")
    return found


@dataclass(frozen=True)
class Flips:
    """How many cases of a kind a variant kept, lost and gained, and how many could be compared."""

    kept: float
    lost: float
    gained: float
    cases: int

    @property
    def text(self) -> str:
        parts = [f"−{points(self.lost)}"] * (self.lost >= 0.05) + [f"+{points(self.gained)}"] * (self.gained >= 0.05)
        return " ".join(parts) or ("=" if self.cases else "–")

    @property
    def words(self) -> str:
        if not self.cases:
            return "not compared"
        number = f"{self.cases} case{'s' if self.cases != 1 else ''}"
        return f"kept {points(self.kept)}, lost {points(self.lost)}, gained {points(self.gained)} of {number}"


def flips(run: Run, name: str, cases: list[str], split: str = "main") -> Flips:
    base, own = run.table(run.base_of(name), split), run.table(name, split)
    pairs = [
        (fmean(c.share for c in base[case].values()), fmean(c.share for c in own[case].values()))
        for case in cases
        if base.get(case) and own.get(case)
    ]
    return Flips(
        sum(was * now for was, now in pairs), sum(was - was * now for was, now in pairs),
        sum(now - was * now for was, now in pairs), len(pairs),
    )  # fmt: skip


def cases_by_kind(run: Run, split: str = "main") -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    kinds = kinds_of(run, split)
    for case in run.cases_of(split):
        found.setdefault(kinds[case], []).append(case)
    return found


def check(page: Page) -> None:
    """Check the table of kinds, the chart of gains against losses, and what the suite can show."""
    _table(page)
    _chart(page)
    _can_show(page)


def _table(page: Page) -> None:
    from tests.studies.recompute import rows, text

    run = page.run
    tables = page.html.all("table", class_="kinds")
    answered = [v["name"] for v in run.variants if run.answers(v["name"])]
    page.checks.equal("kinds", "tables", str(len(tables)), str(int(bool(answered))))
    for table in tables:
        names = sorted(page.most_telling(answered, 60), key=lambda name: name != run.chosen)
        by_kind = cases_by_kind(run)
        page.checks.equal("kinds", "rows", str(len(rows(table))), str(len(by_kind)))
        for row in (row for body in table.all("tbody") for row in body.all("tr")):
            role, kind = row.attributes["data-role"] or "", row.attributes["data-kind"] or ""
            cases = next(
                own
                for (at, name), own in by_kind.items()
                if at == role and " ".join(name.split()) == " ".join(kind.split())
            )
            base = run.table(BASE)
            passed = sum(fmean(c.share for c in base[case].values()) for case in cases if base.get(case))
            first, *cells = row.all("td")
            page.checks.equal("kinds", f"base on {kind}", text(first), f"{points(passed)}/{len(cases)}")
            for name, cell in zip(names, cells, strict=True):
                found = flips(run, name, cases)
                page.checks.equal("kinds", f"{role} {kind} of {name}", text(cell), found.text)
                title = (cell.attributes["title"] or "").rpartition(": ")[2]
                page.checks.equal("kinds", f"{role} {kind} of {name}, in words", title, found.words)


def lost_most(page: Page) -> str:
    """Return the sentence that names the kinds of which the shown variant lost most, on the cases of its figure."""
    run = page.run
    found = []
    for role in ROLES:
        for (at, kind), cases in cases_by_kind(run, page.shown_split).items():
            own = flips(run, page.compared, cases, page.shown_split)
            if at == role and at in GUARDED and own.cases and own.lost - own.gained >= 0.2 * own.cases:
                found.append((own.lost - own.gained, at, kind, own.cases))
    found.sort(key=lambda each: -each[0])
    example = f", such as “{most_lost_prompt(page)}”" if found else ""
    names = [
        f"{kind} ({role}: {points(net)} of {n} case{'s' if n != 1 else ''}{'' if place else example})"
        for place, (net, role, kind, n) in enumerate(found)
    ]
    if len(names) > 3:
        names[3:] = [f"{len(names) - 3} more"]
    return (
        f"Lost most: {names[0] if len(names) == 1 else ', '.join(names[:-1]) + ' and ' + names[-1]}." if names else ""
    )


def most_lost_prompt(page: Page) -> str:
    """Return the prompt of the first case, of the kind that was lost most, that was lost under most seeds."""
    run, split = page.run, page.shown_split
    kinds = [
        (flips(run, page.compared, cases, split), cases)
        for (role, _), cases in cases_by_kind(run, split).items()
        if role in GUARDED
    ]
    _, cases = max(kinds, key=lambda each: round(each[0].lost - each[0].gained, 9))
    lost = [(own.lost - own.gained, case) for case in cases for own in [flips(run, page.compared, [case], split)]]
    case = max(lost, key=lambda each: round(each[0], 9))[1]
    prompt = " ".join(next(m for m in reversed(run.cases[case]["messages"]) if m["role"] == "user")["content"].split())
    return prompt if len(prompt) <= 80 else f"{prompt[:79]}…"


def learned_least(page: Page) -> str:
    """Return the sentence that names the kinds of the objective's cases of which the smallest shares pass."""
    run, table = page.run, page.run.table(page.compared, page.shown_split)
    base = run.table(run.base_of(page.compared), page.shown_split)
    found, known = [], 0
    names, grouped = kinds_of(run, page.shown_split), {}
    for case in run.cases_of(page.shown_split, (run.objective,)):
        if base.get(case) and table.get(case):
            grouped.setdefault(names[case][1], []).append(fmean(cell.share for cell in table[case].values()))
    order = sorted(grouped, key=lambda kind: kind == "others")
    for kind in order:
        known += 1
        if 2 * sum(grouped[kind]) < len(grouped[kind]) - 1e-9:
            found.append((fmean(grouped[kind]), f"{kind} ({points(sum(grouped[kind]))} of {len(grouped[kind])})"))
    texts = [words for _, words in sorted(found, key=lambda each: round(each[0], 9))]
    if not texts or known < 2:
        return ""
    if len(texts) > 3:
        texts[3:] = [f"{len(texts) - 3} more"]
    return f"Learned least: {texts[0] if len(texts) == 1 else ', '.join(texts[:-1]) + ' and ' + texts[-1]}."


def most_lost_kind(page: Page) -> set[str]:
    """Return the cases that the shown variant lost, of the kind of which it lost most, net."""
    run, split = page.run, page.shown_split
    base, own = run.answers(run.base_of(page.compared), split), run.answers(page.compared, split)
    lost: dict[str, float] = {}
    for cases in cases_by_kind(run, split).values():
        kind = flips(run, page.compared, cases, split)
        for case in cases:
            before = [run.verdict(given) for given in base.get(case, {}).values()]
            after = [run.verdict(given) for given in own.get(case, {}).values()]
            if [mark for mark in before if mark is not None][-1:] == [True] and False in after:
                lost[case] = round(kind.lost - kind.gained, 9)
    return {case for case, net in lost.items() if net == max(lost.values())}


def _chart(page: Page) -> None:
    """Check the numbers of the chart: the gain and the net loss of every variant, and of the confirmation."""
    from tests.studies.recomputed.charts import numbers

    run, found = page.run, numbers(page, "learned-lost")
    expected = []
    again = run.results["confirmed"]
    sides = [(n, v["name"], "main") for n, v in enumerate(run.variants, 1)]
    sides += [(n, name, "confirm") for n, name, _ in sides if again and again["name"] == name]
    for n, name, split in sides:
        guarded = Guarded(run, name, GUARDED, split)
        if not run.answers(name, split) or not guarded.known or guarded.loss(0.95).points is None:
            continue
        change = Change.of(page, name, split)
        if change is None:
            continue
        wide = guarded.loss(0.975)
        kind = "eligible" if name in run.results["choice"]["eligible"] else "not eligible"
        kind = "held out" if split == "confirm" else "chosen" if name == run.chosen else kind
        expected.append([
            str(n), " ".join(name.split()), points(change.moved), f"{down(change.low)} to {up(change.high)}",
            points(guarded.loss(0.95).points or 0.0), f"{down(wide.lower)} to {up(wide.upper)}",
            up(guarded.loss(0.8 if split == "confirm" else 0.95).upper), kind,
        ])  # fmt: skip
    page.checks.equal("learned and lost", "chart", str(bool(found)), str(bool(expected)))
    for shown, right in zip((found or [[]])[1:], expected, strict=True):
        for a, b in zip(shown, right, strict=True):
            page.checks.equal("learned and lost", " ".join(right[:2]), a, b)


@dataclass(frozen=True)
class Change:
    moved: float
    low: float
    high: float

    @classmethod
    def of(cls, page: Page, name: str, split: str) -> Change | None:
        import numpy as np

        from tests.studies.recomputed.figures import change_interval

        run = page.run
        before, own = run.table(run.base_of(name), split), run.table(name, split)
        seeds, old = run.seeds(name, split), run.seeds(run.base_of(name), split)
        cases = [
            case for case in run.cases_of(split, (run.objective,))
            if set(old) <= set(before.get(case, {})) and set(seeds) <= set(own.get(case, {}))
        ]  # fmt: skip
        if not cases or not seeds:
            return None
        a, b = (
            np.array([[table[case][seed].share for case in cases] for seed in own_seeds], dtype=float)
            for table, own_seeds in ((before, old), (own, seeds))
        )
        moved, low, high = change_interval(a, b, run.groups(cases))
        return cls(100 * moved, 100 * low, 100 * high)


def _can_show(page: Page) -> None:
    """Check the table of what the cases can show: a column for the main cases, and one for the held-out ones."""
    from tests.studies.recompute import rows, text

    run, margin, section = page.run, float(page.run.suite["margin"]), "what can be shown"
    tables = page.html.all("table", class_="can-show")
    drawn = bool(page.html.all("section", id="learned-lost-section"))
    expected = drawn and run.rate(BASE, GUARDED).passed and 0 < margin < 100
    page.checks.equal(section, "table", str(bool(tables)), str(bool(expected)))
    if not tables:
        return
    sides = [("main", BASE, max(1, len(run.results["run"]["plan"]["seeds"])), 0.95)]
    again = run.results["confirmed"]
    if again and run.answers(again["name"], "confirm"):
        base = run.base_of(again["name"])
        sides += [("confirm", base, len(again["seeds"]), 0.8)] * bool(run.rate(base, GUARDED, "confirm").passed)
    heads = [text(head) for head in tables[0].all("thead")[0].all("th")]
    columns = [_chances(page, *side) for side in sides]
    for head, (count, seeds, *_) in zip(heads, columns, strict=True):
        page.checks.equal(section, "cases and seeds", str(re.findall(COUNTS, head)), str([count, seeds]))
    sizes = [f"{size:g}" for size in sorted({margin, 10.0}, reverse=True)]
    words = ["10 points is noticed", *(f"lose less than {size} points" for size in sizes)]
    body = rows(tables[0])
    for row, said, place in zip(body, words, range(2, 5), strict=False):
        page.checks.equal(section, "row", said if said in text(row[0]) else text(row[0]), said)
        page.checks.equal(section, said, str([text(cell) for cell in row[1:]]), str([own[place] for own in columns]))
    page.checks.equal(section, "rows", str(len(body)), str(len(words)))
    [answer] = [text(line).partition("? ")[2] for line in page.html.all("p", class_="can-show")]
    best = max(int(own[2][:-1]) for own in columns)
    word = "Yes" if best >= 80 else "Not reliably" if best >= 20 else "No"
    noticed = str([own[2] for own in columns])
    page.checks.equal(
        section, "answer", str((answer.split(":")[0], str(re.findall(r"\d+%", answer)))), str((word, noticed))
    )


def _chances(page: Page, split: str, name: str, seeds: int, level: float) -> list[str]:
    """Return the number of cases and of seeds, and the probabilities that they notice and show what is lost."""
    run = page.run
    rate, cases = run.rate(name, GUARDED, split), run.cases_of(split, GUARDED)
    base, group = rate.passed / rate.total, mean_group(run.groups(cases))
    margins = sorted({float(run.suite["margin"]), 10.0}, reverse=True)
    noticed = chance_noticed(base, 0.1, len(cases), seeds, group)
    shown = [chance_shown(base, size / 100, len(cases), seeds, group, level) for size in margins]
    return [str(len(cases)), str(seeds), *(f"{100 * chance:.0f}%" for chance in (noticed, *shown))]
