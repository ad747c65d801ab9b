"""Compute the figures in the sentences at the top of a page, and the net losses, again, for `tests.studies.recompute`.

Every number of a sentence must be explained by one of the rules; else the sentence is reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tests.studies.recomputed.costs import cost_of, counted, duration, memory, on_gpu, peak, probes
from tests.studies.recomputed.figures import (
    BASE,
    GUARDED,
    ROLES,
    Array,
    Data,
    Loss,
    Rate,
    Run,
    cases_needed,
    chance_shown,
    change_interval,
    least_passes,
    mean_group,
    net_loss,
    seed_variance,
    standard_error,
)

if TYPE_CHECKING:
    from tests.studies.recompute import Page
    from tests.support.parsed_html import Element

ABSENT = "–"


# --- rounding --------------------------------------------------------------------------------------------------------


def points(value: float) -> str:
    return "0" if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")


def up(value: float | None) -> str:
    """Write an upper bound: rounded up, so that it remains one."""
    return "unlimited" if value is None else points(math.ceil(10 * value - 1e-6) / 10)


def down(value: float | None) -> str:
    return "unlimited" if value is None else points(math.floor(10 * value + 1e-6) / 10)


# --- net losses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """The answers of the base and of a variant to `retain` and `avoid` cases, and what they say about a loss."""

    run: Run
    name: str
    roles: tuple[str, ...] = GUARDED
    split: str = "main"

    @cached_property
    def cases(self) -> list[str]:
        table = self.run.table(self.run.base_of(self.name), self.split)
        return [case for case in self.run.cases_of(self.split, self.roles) if case in table]

    @cached_property
    def base(self) -> Array:
        table = self.run.table(self.run.base_of(self.name), self.split)
        seeds = sorted({seed for case in self.cases for seed in table[case]})
        return np.array([[table[case][seed].share for case in self.cases] for seed in seeds], dtype=float)

    @cached_property
    def own(self) -> Array:
        """Return the variant's scores. An answer without a score counts as failed."""
        table, seeds = self.run.table(self.name, self.split), sorted(self.run.seeds(self.name, self.split))
        cells = [[table.get(case, {}).get(seed) for case in self.cases] for seed in seeds]
        return np.array([[cell.share if cell else 0.0 for cell in row] for row in cells], dtype=float)

    @property
    def groups(self) -> list[str]:
        return self.run.groups(self.cases)

    @property
    def known(self) -> bool:
        return bool(self.cases and self.base.size and self.own.size)

    @property
    def seeds(self) -> tuple[float, int]:
        """Return the variance between the variant's seeds, with its degrees of freedom."""
        own = seed_variance(self.own)
        return (0.0, 0) if own is None else (own, len(self.own) - 1)

    def loss(self, level: float) -> Loss:
        return net_loss(self.base, self.own, self.groups, level, self.seeds)

    @property
    def flips(self) -> tuple[float, float]:
        """Return how many cases the variant breaks and fixes, as means over seeds."""
        was, now = self.base.mean(0), self.own.mean(0)
        return float((was * (1 - now)).sum()), float(((1 - was) * now).sum())

    @property
    def verdict(self) -> str:
        margin = self.run.suite["margin"]
        if margin >= 100:
            return "keeps"
        passed = float(self.base.mean(0).sum())
        found = self.loss(0.95)
        if found.upper is None or passed < (least_passes(self.base, self.groups, margin / 100) if margin else 1):
            return "cannot tell"
        if found.upper < margin:
            return "keeps"
        low = self.loss(0.975).lower
        return "loses" if low is not None and low > margin else "cannot tell"

    def needed(self, level: float = 0.95) -> int | None:
        """Return how many cases like these would show that the loss is below the margin."""
        margin = self.run.suite["margin"]
        found = cases_needed(self.base, self.own, self.groups, level, self.seeds, margin)
        if found is None or self.split != "main":
            return found
        return max(
            found,
            math.ceil((least_passes(self.base, self.groups, margin / 100) if margin else 1) / float(self.base.mean())),
        )


def loss_cell(run: Run, name: str, head: str) -> tuple[str, str]:
    """Return the main and the small text of a cell in the columns about eligibility and losses."""
    if name in [base["name"] for base in run.bases]:
        return ABSENT, ""
    role = head.removeprefix("Net loss").strip(" ,")
    guarded = Guarded(run, name, (role,) if role in GUARDED else GUARDED)
    if head == "Eligible":
        return _eligible(run, run.outcome(name), guarded)
    if not run.answers(name) or not guarded.known or guarded.loss(0.95).points is None:
        return ABSENT, ""
    found = guarded.loss(0.975)
    sign = {"keeps": "", "loses": "✗ "}.get(guarded.verdict, "? ")
    broken, fixed = guarded.flips
    small = f"{down(found.lower)} to {up(found.upper)}; {points(broken)} broken, {points(fixed)} fixed"
    return f"{sign}{points(found.points or 0.0)}", small


def _eligible(run: Run, outcome: Data, guarded: Guarded) -> tuple[str, str]:
    statuses = list(dict.fromkeys(outcome["statuses"]))
    if statuses != ["succeeded"]:
        ended = [status for status in statuses if status != "succeeded"] or ["not started"]
        listed = ended[0] if len(ended) == 1 else f"{', '.join(ended[:-1])} and {ended[-1]}"
        return "no", f"did not finish: {listed}"
    if not run.cases_of("main", GUARDED):
        return "yes", "the suite has no retain or avoid cases"
    if not guarded.known:
        return "unclear", "cannot tell: the base model's answers have no score"
    found = guarded.loss(0.95)
    if guarded.verdict == "loses":
        return "no", f"loses more than {down(guarded.loss(0.975).lower)} points"
    if guarded.verdict == "keeps":
        kept = f"loses less than {up(found.upper)} points"
        if found.upper is not None and found.upper <= 0:
            kept = f"gains at least {down(-found.upper)} points"
        return ("no", "trained elsewhere") if outcome["elsewhere"] else ("yes", f"keeps: {kept}")
    if found.points is None:
        number = len(guarded.cases)
        return "unclear", f"cannot tell: the base passes none of {number} case{'s' if number != 1 else ''}"
    needed = guarded.needed()
    more = f"; about {needed} cases would tell" if needed and needed > len(guarded.cases) else ""
    return "unclear", f"cannot tell: may lose {up(found.upper)} points{more}"


# --- sentences -------------------------------------------------------------------------------------------------------

NUMBER = r"(-?[\d,]*\.?\d+|unlimited)"
RATE = r"(\d+) of (\d+) \((\d+)%\)"
NAME = "[\ue000-\uf8ff]"
"""A variant's name, which is replaced by one character, since names have digits too."""
CONSTANTS = re.compile(r"\b95%|\b80% power|\ba T4\b|max_new_tokens")


def check(page: Page) -> None:
    """Check every sentence of the first screen, and of the section with its reasons."""
    from tests.studies.recompute import text

    for section in (page.html.id("answer"), *page.html.all("section", id="evidence")):
        apart = [*section.all("ul", class_="chips"), *section.all("p", class_="words")]
        left_out = {id(each) for found in apart for each in found.all()}
        for tag in ("li", "p", "caption", "summary"):
            for element in section.all(tag):
                if id(element) not in left_out:
                    Sentence(page, text(element), element).check()
    _roles_alone(page)
    _chips(page)
    _next(page)


def _roles_alone(page: Page) -> None:
    """Check that the verdict names every role alone that loses more than the margin, unless it advises against it."""
    from tests.studies.recompute import text

    lines = [text(line) for line in page.html.id("answer").all("p", class_="verdict-line")]
    alone = " ".join(text(line) for line in page.html.id("answer").all("p", class_="alone"))
    if lines and not lines[0].startswith("Refuted"):
        names_roles_alone(page, alone)


def names_roles_alone(page: Page, line: str) -> None:
    """Check that a text on the chosen variant names each role that alone loses more than the margin, and no other."""
    apart = {role: Guarded(page.run, page.compared, (role,), page.shown_split) for role in GUARDED}
    if not page.run.chosen or not all(own.known for own in apart.values()):
        return
    for role, own in apart.items():
        more = (own.loss(0.95).points or 0.0) > page.run.suite["margin"]
        page.checks.equal("sentences", f"{role} in the verdict", str(f"{role} cases alone" in line), str(more))


def _chips(page: Page) -> None:
    """Check the settings of the first screen."""
    from tests.studies.recompute import text
    from tests.studies.recomputed.charts import shown_setting

    chips = [text(chip) for found in page.html.all("ul", class_="chips") for chip in found.all("li")]
    differs = page.run.outcome(page.run.chosen)["differs"] if page.run.chosen else {}
    values = [shown_setting(name, value) for name, value in differs.items()]
    page.checks.equal("settings", "number", str(len(chips)), str(len(values)))
    for chip, value in zip(chips, values, strict=False):
        page.checks.equal("settings", chip, str(chip.endswith(f" {value}")), "True")


def _next(page: Page) -> None:
    from tests.studies.recompute import text

    for item in (item for section in page.html.all("section", id="try") for item in section.all("li")):
        in_next(page, text(item))


def in_next(page: Page, words: str) -> None:
    """Check in what a next trial differs from the variant that is named as nearest."""
    from tests.studies.recomputed.charts import shown_setting

    if not words.startswith("Train once more like "):
        return
    names = [
        v["name"]
        for v in page.run.variants
        if words.startswith(f"Train once more like {' '.join(v['name'].split())}, but ")
    ]
    [near] = names[:1] or [""]
    settings = page.run.outcome(near)["settings"] if near else {}
    values = {shown_setting(name, value) for name, value in settings.items()}
    for old in re.findall(r" instead of (.+?)(?:, (?=[a-z])| and (?=[a-z])|\.$)", words):
        page.checks.equal("next", f"{old} in {words!r}", str(old in values), "True")


@dataclass
class Sentence:
    """One sentence (or several that belong together) of the first section."""

    page: Page
    words: str
    element: Element

    def __post_init__(self) -> None:
        self.run = self.page.run
        names = sorted((" ".join(v["name"].split()) for v in self.run.variants), key=len, reverse=True)
        self.names: list[str] = []
        left = self.words.replace(self.run.results["run"]["provenance"]["machine"]["device"], "this device")
        left = left.replace(self.run.results["run"]["model"]["name"], "this model")
        for base in self.run.bases:  # the names of base models contain those of variants
            left = left.replace(f"the {base['name']} passes", "the base passes")
        for number, name in enumerate(names):
            left = re.sub(rf"(?<![\w=.-]){re.escape(name)}(?![\w=-])", chr(0xE000 + number), left)
        known = {" ".join(v["name"].split()): v["name"] for v in self.run.variants}
        self.names = [known[names[ord(sign) - 0xE000]] for sign in re.findall(NAME, left)]
        self.left = left

    @property
    def split(self) -> str:
        return "confirm" if "held-out" in self.words else "main"

    @property
    def name(self) -> str:
        """The variant that the sentence is about: the first that it names, else the one that is shown."""
        return self.names[0] if self.names else self.page.compared

    @property
    def role(self) -> str:
        found = re.search(rf"\b({'|'.join(ROLES)}) cases?\b", self.words)
        return found[1] if found and "retain and avoid" not in self.words else self.run.objective

    @property
    def guarded(self) -> Guarded:
        return Guarded(self.run, self.name, (self.role,) if "cases alone" in self.words else GUARDED, self.split)

    def equal(self, what: str, shown: str, expected: str) -> None:
        self.page.checks.equal("sentences", f"{what} in {self.words[:160]!r}", shown, expected)

    def check(self) -> None:
        for pattern, rule in RULES:
            self.left = re.sub(pattern, lambda found, rule=rule: rule(self, found) or " ", self.left)  # type: ignore[misc]
        left = re.sub(NAME, "", CONSTANTS.sub("", self.left))
        if re.search(r"\d", left):
            self.page.checks.fail("sentences", f"there is no rule for {left.strip()!r} in {self.words!r}")

    # --- rules: each takes a match, and compares its groups ---------------------------------------------------------

    def rate(self, found: re.Match[str]) -> None:
        """A pass rate, of the base if the words before it say so."""
        before = found.string[max(0, found.start() - 40) : found.start()]
        base = self.run.base_of(self.name)
        name = base if re.search(r"(\bbase passes|against) $", before) else self.name
        rate = self.run.rate(name, (self.role,), self.split)
        if name != base:  # answers without a score count as failed
            asked = self.run.rate(base, (self.role,), self.split).total * len(self.run.seeds(name, self.split))
            rate = Rate(rate.passed, max(rate.total, asked // max(1, len(self.run.seeds(base, self.split)))))
        self.equal(f"{self.role} of {name}", found[0], f"{rate.counts} ({rate.percent})")

    def base_counts(self, found: re.Match[str]) -> None:
        """How many cases of each guarded role the base passes."""
        expected = [
            f"{self.run.rate(BASE, (role,)).counts} {role}" for role in GUARDED if self.run.cases_of("main", (role,))
        ]
        self.equal("passes of the base", str(re.findall(r"\d+ of \d+ \w+", found[0])), str(expected))

    def base_cut(self, found: re.Match[str]) -> None:
        wanted = set(self.run.cases_of("main", GUARDED))
        cut = {
            s["case"] for s in self.run.samples
            if s["variant"] == BASE and s["case"] in wanted and s["truncated"] and not s["passed"]
        }  # fmt: skip
        expected = (str(len(cut)), str(self.run.suite["decoding"]["max_new_tokens"]))
        self.equal("cut answers of the base", str(found.groups()), str(expected))

    def power(self, found: re.Match[str]) -> None:
        chance = self._chance(len(self.run.cases_of("main", GUARDED)))
        self.equal("power", f"{found[1]} {found[2]}", f"{self.run.suite['margin']:g} {100 * chance:.0f}")

    def cases_for_power(self, found: re.Match[str]) -> None:
        shown = int(found[1].replace(",", ""))
        enough, fewer = self._chance(shown), self._chance(shown - 1)
        self.equal("cases that would do", str((fewer < 0.8, enough >= 0.8)), str((True, True)))

    def _chance(self, cases: int) -> float:
        rate = self.run.rate(BASE, GUARDED)
        group = mean_group(self.run.groups(self.run.cases_of("main", GUARDED)))
        seeds = max(1, len(self.run.results["run"]["plan"]["seeds"]))
        return chance_shown(rate.passed / rate.total, self.run.suite["margin"] / 100, cases, seeds, group)

    def counts(self, found: re.Match[str]) -> None:
        """How many guarded cases the base passes, and how many the variant breaks and fixes."""
        own = self.guarded
        broken, fixed = own.flips
        expected = [points(float(own.base.mean(0).sum())), str(len(own.cases)), points(broken), points(fixed)]
        self.equal("cases", str([found[1], found[2], found[4], found[5]]), str(expected))
        clusters = len(set(own.groups))
        self.equal("groups", found[3] or "", str(clusters) if clusters < len(own.cases) else "")

    def seen(self, found: re.Match[str]) -> None:
        points_lost = self.guarded.loss(0.95).points or 0.0
        self.equal(
            "loss", f"{found[1]} {found[2]}", f"{points(abs(points_lost))} {'lost' if points_lost > 0 else 'gained'}"
        )

    def bound(self, found: re.Match[str]) -> None:
        """A bound or an interval of the loss at the stated level.

        An upper bound is one-sided. Of the main cases, a lower bound is an end of the two-sided interval.
        """
        level = int(found["level"]) / 100
        confirms = self.split == "confirm" and "cases alone" not in self.words
        loss, wide = self.guarded.loss(level), self.guarded.loss(level if confirms else (1 + level) / 2)
        kind = found["kind"]
        minus = None if loss.upper is None else -loss.upper
        expected = {
            "less than": f"{up(loss.upper)} lost", "at least": f"{down(minus)} gained",
            "more than": f"{down(wide.lower)} lost", "up to": f"{up(wide.upper)} lost",
            "": f"{down(wide.lower)} to {up(wide.upper)} lost",
        }[kind]  # fmt: skip
        self.equal("bound of the loss", found["words"], expected)

    def unlimited(self, found: re.Match[str]) -> None:
        wide = self.guarded.loss(0.975)
        self.equal("interval of the loss", str((wide.lower, wide.upper)), str((None, 100.0)))

    def margin(self, found: re.Match[str]) -> None:
        self.equal("margin", found[1], f"{self.run.suite['margin']:g}")

    def needed(self, found: re.Match[str]) -> None:
        self.equal("cases needed", found[1], str(self.guarded.needed(0.8 if self.split == "confirm" else 0.95)))

    def gap(self, found: re.Match[str]) -> None:
        """How far the chosen variant is behind the best, and the standard error of this difference."""
        (top_cases, top), (own_cases, own) = (
            self.run.scores(name or "", (self.run.objective,))
            for name in (self.run.results["choice"]["best"], self.run.chosen)
        )
        common = [case for case in top_cases if case in own_cases]
        top, own = (side[:, [cases.index(c) for c in common]] for side, cases in ((top, top_cases), (own, own_cases)))
        expected = (
            points(100 * float(top.mean() - own.mean())),
            points(standard_error(top, own, self.run.groups(common))),
        )
        self.equal("gap", str(found.groups()), str(expected))

    # --- changes ---------------------------------------------------------------------------------------------------

    @property
    def change(self) -> tuple[list[str], float, float, float, int]:
        """The cases of a change, the change with its interval in points, and the number of seeds."""
        table = self.run.table(self.run.base_of(self.name), self.split)
        own = self.run.table(self.name, self.split)
        seeds = sorted({seed for cells in own.values() for seed in cells})
        before = sorted({seed for cells in table.values() for seed in cells})
        cases = [c for c in self.run.cases_of(self.split, (self.role,)) if set(table.get(c, {})) >= set(before)]
        shares = [[own[c][s].share if s in own.get(c, {}) else 0.0 for c in cases] for s in seeds]
        base = [[table[c][s].share for c in cases] for s in before]
        moved, low, high = change_interval(np.array(base), np.array(shares), self.run.groups(cases))
        return cases, 100 * moved, 100 * low, 100 * high, len(seeds)

    def moved(self, found: re.Match[str]) -> None:
        _, moved, *_ = self.change
        self.equal("change", found[0].strip(), f"{points(abs(moved))} points {'more' if moved > 0 else 'less'}")

    def moved_between(self, found: re.Match[str]) -> None:
        _, moved, low, high, _ = self.change
        turned = moved < 0 and high < 0
        ends = (down(-high), up(-low)) if turned else (down(low), up(high))
        self.equal("interval of the change", str((found[1], found[2])), str(ends))

    def over(self, found: re.Match[str]) -> None:
        cases, *_, seeds = self.change
        clusters = len(set(self.run.groups(cases)))
        groups = str(clusters) if clusters < len(cases) else None
        self.equal("size", str(found.groups()), str((str(len(cases)), groups, str(seeds) if seeds > 1 else None)))

    def change_needed(self, found: re.Match[str]) -> None:
        outcome = self.run.results["confirmed"] if self.split == "confirm" else self.run.outcome(self.name)
        self.equal("cases needed for a change", found[1], str(outcome["changes"][self.role]["needed"]))

    # --- the rest --------------------------------------------------------------------------------------------------

    def epochs(self, found: re.Match[str]) -> None:
        own = next(line for line in self.run.results["timelines"] if line["variant"] == self.run.chosen)
        self.equal("epochs", str(found.groups()), str((f"{own['enough']:g}", f"{own['epochs'][-1]['epoch']:g}")))

    def cost(self, found: re.Match[str]) -> None:
        trained = counted(self.run.outcome(self.page.compared))
        seconds = float(np.mean([training["cost"]["seconds"]["value"] for training in trained]))
        outcome = self.run.outcome(self.page.compared)
        alone = [each for each in outcome["costs"] if each["models"] == 1]
        most = max((on_gpu(each) for each in alone), default=0) or max(peak(training["cost"]) for training in trained)
        self.equal("cost", str(found.groups()), str((duration(seconds), memory(most))))

    def allocated(self, found: re.Match[str]) -> None:
        trained = counted(self.run.outcome(self.page.compared))
        self.equal("memory of the allocator", found[1], memory(max(peak(training["cost"]) for training in trained)))

    def class_total(self, found: re.Match[str]) -> None:
        """Loading, training and answering alone: of the confirmation, or of the variant if there is none."""
        again = self.run.results["confirmed"]
        held_out = bool(again and again["name"] == self.page.compared and again["rates"])
        own = again if held_out else self.run.outcome(self.page.compared)
        before = self.run.results["confirmed_base"] if held_out else None
        before = before or self.run.outcome(self.run.base_of(self.page.compared))
        parts = [cost_of(before, "load"), cost_of(own, "train"), cost_of(own, "answer after")]
        whole = sum(part["seconds"]["value"] for part in parts if part)
        self.equal("time of a class", found[1], duration(whole))

    def probe(self, found: re.Match[str]) -> None:
        self.equal("probe", found[0].strip(), probes(counted(self.run.outcome(self.page.compared))))

    def cap(self, found: re.Match[str]) -> None:
        cap = self.run.results["run"]["provenance"]["machine"]["memory_cap"] or 0
        self.equal("memory cap", found[1], f"{cap / 2**30:.1f}")

    def confirmation(self, found: re.Match[str]) -> None:
        again = self.run.results["confirmed"]
        seeds = re.findall(r"\d+", found[2])
        expected = (len(again["seeds"]), [str(seed) for seed in again["seeds"]], len(self.run.cases_of("confirm")))
        self.equal("confirmation", str((int(found[1]), seeds, int(found[3]))), str(expected))

    def cut(self, found: re.Match[str]) -> None:
        """The shares of cut answers of one role: of the base, of the variant shown, and the range of the others."""
        split, role = ("confirm" if found[1] else "main"), found[2]
        every = [v["name"] for v in self.run.variants if self.run.cut(v["name"], (role,), split).total]
        shown = self.page.compared
        self.equal("cut answers of the base", found[3], self._cut(BASE, role, split))
        if shown in every:
            self.equal(f"cut answers of {shown}", found[4] or "", self._cut(shown, role, split))
        rates = [self.run.cut(name, (role,), split) for name in every if name != shown]
        ends = [found[6], found[7]] if found[6] else [found[5], found[5]]
        if rates:
            spread = [min(r.passed / r.total for r in rates), max(r.passed / r.total for r in rates)]
            texts = [f"{100 * share:.0f}%" for share in spread]
            self.equal("cut answers of others", str([(end or "").split(" ")[0] for end in ends]), str(texts))
            known = {f"{rate.percent} ({rate.counts})" for rate in rates}
            self.equal("cut answers of others", str(set(ends) <= known), "True")

    def _cut(self, name: str, role: str, split: str) -> str:
        rate = self.run.cut(name, (role,), split)
        return f"{rate.percent} ({rate.counts})"

    def cut_in_all(self, found: re.Match[str]) -> None:
        """The shares of cut answers to all main cases: of the base, and of the variant shown."""
        every = ("learn", "generalise", "retain", "avoid")
        names = [BASE, self.page.compared]
        rates = [rate for name in names if (rate := self.run.cut(name, every)).total]
        expected = [f"{rate.percent} ({rate.counts})" for rate in rates]
        self.equal("cut answers", str([found[1], *filter(None, [found[2]])]), str(expected))

    def limit(self, found: re.Match[str]) -> None:
        self.equal("limit", found[1], str(self.run.suite["decoding"]["max_new_tokens"]))

    def clusters(self, found: re.Match[str]) -> None:
        cases = self.run.cases_of("main", (found[2],))
        self.equal("clusters", str((found[1], found[3])), str((str(len(cases)), str(len(set(self.run.groups(cases)))))))

    def losing(self, found: re.Match[str]) -> None:
        done = [v["name"] for v in self.run.variants if set(v["statuses"]) == {"succeeded"} and not v["elsewhere"]]
        losing = sum(Guarded(self.run, name).verdict == "loses" for name in done)
        self.equal("losing variants", str(found.groups()), str((str(losing), str(len(done)))))

    def eligible(self, found: re.Match[str]) -> None:
        words = [loss_cell(self.run, v["name"], "Eligible")[0] for v in self.run.variants]
        self.equal("eligible variants", found[1], str(words.count("yes")))

    def sharing(self, found: re.Match[str]) -> None:
        rates = [self.run.rate(v["name"], (self.run.objective,)) for v in self.run.variants]
        shares = [rate.passed / rate.total for rate in rates if rate.total]
        self.equal("variants with the highest rate", found[1], str(shares.count(max(shares))))

    def unfinished(self, found: re.Match[str]) -> None:
        statuses = self.run.results["confirmed"]["statuses"]
        self.equal("confirmation", str(found.groups()), str((str(statuses.count("cancelled")), str(len(statuses)))))

    def failed(self, found: re.Match[str]) -> None:
        tried = [status for status in self.run.results["confirmed"]["statuses"] if status != "cancelled"]
        wrong = [status for status in tried if status != "succeeded"]
        self.equal("confirmation", str(found.groups()), str((str(len(wrong)), str(len(tried)))))

    def statuses(self, found: re.Match[str]) -> None:
        shown = {kind: int(count) for count, kind in re.findall(r"(\d+) ([a-z ]+)", found[1])}
        kinds = {kind for v in self.run.variants for kind in v["statuses"] if kind != "succeeded"}
        self.equal("statuses", str(shown), str({k: sum(k in v["statuses"] for v in self.run.variants) for k in shown}))
        self.equal("statuses", str(sorted(shown)), str(sorted(kinds)))

    def unscored(self, found: re.Match[str]) -> None:
        own = [
            s
            for s in self.run.samples
            if (s["variant"], s["split"]) == (self.run.chosen, "main") and s["score"] is None
        ]
        self.equal("answers without a score", found[1], str(len(own)))

    def share_of_cases(self, found: re.Match[str]) -> None:
        """The pass rates of the first screen."""
        base = self.run.rate(self.run.base_of(self.page.compared), (found[2],), self.split)
        own = self.run.rate(self.page.compared, (found[2],), self.split)
        self.equal("shares", str((found[1], found[3])), str((own.percent, base.percent)))

    def lost_most(self, found: re.Match[str]) -> None:
        from tests.studies.recomputed.kinds import lost_most

        self.equal(
            "kinds lost",
            " ".join(self.words[self.words.index("Lost most:") :].split()),
            " ".join(lost_most(self.page).split()),
        )

    def learned_least(self, found: re.Match[str]) -> None:
        from tests.studies.recomputed.kinds import learned_least

        words = self.words[self.words.index("Learned least:") :]
        self.equal("kinds learned", " ".join(words.split()), " ".join(learned_least(self.page).split()))

    def _lost_in(self, role: str) -> float | None:
        guarded = Guarded(self.run, self.page.compared, (role,), self.page.shown_split)
        return guarded.loss(0.95).points if guarded.known else None

    def by_role(self, found: re.Match[str]) -> None:
        """The losses of each role alone."""
        lost = {role: self._lost_in(role) for role in GUARDED}
        words = [
            f"{role} {points(abs(size))} points{' gained' if points(size).startswith('-') else ''}"
            for role, size in lost.items() if size is not None
        ]  # fmt: skip
        self.equal("losses by role", found[0], f"By role: {', '.join(words)}.")

    def role_alone(self, found: re.Match[str]) -> None:
        """The loss of one role in the verdict, which is said only if it is above the margin."""
        size, margin = self._lost_in(found[2]) or 0.0, self.run.suite["margin"]
        split = "confirm" if found[1] else "main"
        expected = (self.page.shown_split, points(size), f"{margin:g}", "True")
        self.equal("loss of one role", str((split, found[3], found[4], str(size > margin))), str(expected))

    def fitting(self, found: re.Match[str]) -> None:
        ended = [set(v["statuses"]) for v in self.run.variants]
        known = [own for own in ended if own and own <= {"succeeded", "diverged", "out of memory"}]
        fit = sum("out of memory" not in own for own in known)
        self.equal("trainings that fit", str(found.groups()), str((str(fit), str(len(known)))))

    def foretold(self, found: re.Match[str]) -> None:
        self.equal("predicted", found[1], str(sum("predicted" in v["bases"] for v in self.run.variants)))


SHARE = r"(\d+% \(\d+ of \d+\))"
COUNTS = (
    rf"the base passes {NUMBER} of (\d+) cases?(?: in (\d+) groups?)?; the variant breaks {NUMBER} of these and fixes "
    rf"{NUMBER} of the others"
)
CUT = (
    rf"(held-out )?(learn|generalise|retain|avoid): base {SHARE}(?:, {NAME} {SHARE})?"
    rf"(?:, (?:other )?variants (?:{SHARE}|from {SHARE} to {SHARE}))?"
)
LEVEL = r"with (?P<level>95|80)% confidence"
RULES: Sequence[tuple[str, Callable[[Sentence, re.Match[str]], None]]] = (
    (r"(\d+%) of the (?:held-out )?(learn|generalise|retain|avoid) cases pass; the base passes (\d+%)",
     Sentence.share_of_cases),
    (r"Lost most: .*", Sentence.lost_most),
    (r"Learned least: .*", Sentence.learned_least),
    (r"By role: .*", Sentence.by_role),
    (rf"On the (held-out )?(retain|avoid) cases alone, it loses {NUMBER} points: more than the {NUMBER} that",
     Sentence.role_alone),
    (r"(\S+ (?:s|min|h)), (\S+ [MG]iB)(?= to train it)", Sentence.cost),
    (r"takes (\S+ (?:s|min|h)): to load the model", Sentence.class_total),
    (r"allocator while training: (\S+ [MG]iB)", Sentence.allocated),
    (r"(\d+) of (\d+) trainings fit", Sentence.fitting),
    (r"(\d+) of them were predicted", Sentence.foretold),
    (r"The base passes (?:[\d,]+ of [\d,]+ (?:retain|avoid)(?:, | and )?)+ cases", Sentence.base_counts),
    (r"; (\d+) of the others were cut at (\d+) tokens?", Sentence.base_cut),
    (r"shown to lose less than (\S+) points with a probability of only (\d+)%", Sentence.power),
    (r"About ([\d,]+) cases like these would do", Sentence.cases_for_power),
    (COUNTS, Sentence.counts),
    (rf"(?:lose|loses|lost) (?:less|more) than {NUMBER} points", Sentence.margin),
    (rf"{NUMBER} points of what the base passes (lost|gained)", Sentence.seen),
    (rf"{NUMBER} points (lost|gained) of what the base passes", Sentence.seen),
    (r"the cases cannot tell how much is really lost", Sentence.unlimited),
    (rf"(?P<kind>less than|at least|more than|up to|)\s?(?P<words>{NUMBER}(?: to {NUMBER})? (?:lost|gained)) {LEVEL}",
     Sentence.bound),
    (rf"[Tt]he suite allows {NUMBER}(?=\.? |\.?$)", Sentence.margin),
    (r"About (\d+) (?:held-out retain and avoid )?cases like these would (?:show|confirm) it", Sentence.needed),
    (rf"{NUMBER} points more, which is within one standard error of that difference \({NUMBER} points\)", Sentence.gap),
    (CUT, Sentence.cut),
    (rf"for their length alone: base {SHARE}(?:, {NAME} {SHARE})?", Sentence.cut_in_all),
    (RATE, Sentence.rate),
    (rf"{NUMBER} points (?:more|less)", Sentence.moved),
    (rf"\({NUMBER} to {NUMBER}(?: points)? with 95% confidence\)", Sentence.moved_between),
    (r"over (\d+) cases?(?: in (\d+) groups?)?(?: and (\d+) training seeds)?", Sentence.over),
    (r"About (\d+) cases like these(?: and 3 training seeds)? are needed", Sentence.change_needed),
    (r"At least 3 (?:training )?seeds are needed", lambda sentence, found: None),
    (r"Epoch (\S+) of (\S+) was the first", Sentence.epochs),
    (r"(?:Training took|Training it alone takes about) (\S+ (?:s|min|h)) and at most (\S+ [MG]iB)", Sentence.cost),
    (r"(?:one probe|\d+ probes) of \d+ steps", Sentence.probe),
    (r"capped at (\S+) GiB", Sentence.cap),
    (r"with (\d+) fresh seeds? \(([^)]*)\), and tested on (\d+) held-out cases?", Sentence.confirmation),
    (r"Answers cut at (\d+) tokens", Sentence.limit),
    (r"(\d+) (learn|generalise|retain|avoid) cases form (\d+) clusters?", Sentence.clusters),
    (r"(\d+) of (\d+) variants loses? more", Sentence.losing),
    (r"None of the (\d+) eligible variants", Sentence.eligible),
    (r"the first of (\d+) variants", Sentence.sharing),
    (r"(\d+) of (\d+) confirmation trials? have no result", Sentence.unfinished),
    (r"Under (\d+) of (\d+) fresh seeds", Sentence.failed),
    (r"No variant finished training under every seed \(([^)]*)\)", Sentence.statuses),
    (r"(\d+) answers? could not be scored", Sentence.unscored),
    (r"\band \d+ more\b", lambda sentence, found: None),
)  # fmt: skip
"""Patterns of phrases with figures, each with the rule that compares them; earlier ones take precedence."""
