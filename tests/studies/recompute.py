"""Compute every figure on a run's page again, and compare.

    python -m tests.studies.recompute RUN [RUN ...]
    python -m tests.studies.recompute RUN --pack reports/sample

    python -m tests.studies.recompute RUN --handout PAGE
    python -m tests.studies.recompute RUN RUN [RUN ...] --bases PAGE

RUN is the folder of a run, or of the sample, whose files are compressed. The script reads results.json, samples.jsonl
and report.html. It shares no code with `harness`: `tests.studies.recomputed.figures` computes pass rates, intervals and
losses from the answers by methods of its own. It prints each figure that differs, each sentence with figures that it
has no rule for, and the number of figures that were checked. Exits with 1 if there is any difference. `--pack` writes
compressed copies of the run's files, without the folder of the model, beside the page of the sample.

Three kinds of figures cannot be computed from the answers of a run: pass rates after single epochs, times and memory.
They are compared with results.json.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import lzma
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.studies.recomputed import charts, costs, kinds, other_pages, sentences
from tests.studies.recomputed.figures import BASE, ROLES, Array, Data, Run, change_interval, rate_interval, read
from tests.support.parsed_html import Element, parse

ABSENT = "–"
SIGNS = {"=": "kept", "+": "fixed", "-": "broken", "x": "failing", "?": "none"}
"""The signs by which the page's data writes how a case changed."""


@dataclass
class Checks:
    """The comparisons of one page: how many were made in each section, and what differs."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def equal(self, section: str, what: str, shown: str, expected: str) -> None:
        """Compare a figure as the page shows it with what it should be."""
        self.counts[section] += 1
        if shown != expected:
            self.differences.append(f"{section}: {what}: the page has {shown!r}, the files give {expected!r}")

    def fail(self, section: str, what: str) -> None:
        self.differences.append(f"{section}: {what}")


def text(element: Element) -> str:
    return " ".join(element.text.split())


def small(element: Element) -> str:
    """Return the text in small type, without that of labels."""
    return " ".join(text(each) for each in element.all("small"))


def big(element: Element) -> str:
    """Return the text that is not in small type."""
    return " ".join(text(element).removesuffix(small(element)).split())


def rows(table: Element) -> list[list[Element]]:
    """Return the cells of each row of a table's body."""
    found = [row for body in table.all("tbody") for row in body.all("tr")]
    return [[cell for cell in row.children if isinstance(cell, Element)] for row in found]


def plural(count: int, word: str, many: str = "") -> str:
    return f"{count:,} {word if count == 1 else many or word + 's'}"


@dataclass(frozen=True)
class CaseRecord:
    """One case in the page's data: what it is listed by, its distinct answers, and the texts to which they refer."""

    head: Data
    answers: list[Data]
    texts: list[str]

    @classmethod
    def of(cls, record: str) -> CaseRecord:
        head, answers, *texts = record.split("\x1f")
        return cls(json.loads(head), json.loads(answers), texts)


def case_records(html: Element) -> list[CaseRecord]:
    """Return the cases in a page's compressed data; none if it has no such data."""
    packed = base64.b64decode("".join(text(held) for held in html.all("template", id="case-data")))
    whole = gzip.decompress(packed).decode("utf-8") if packed else ""
    return [CaseRecord.of(record) for record in whole.split("\x1e") if record]


def shown(words: str) -> str:
    """Return a text without the signs that a page writes by name, those names, and `?`, which files have instead."""
    plain = "".join(sign for sign in words if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"))
    return re.sub(r"‹(?:U\+[0-9A-F]+|[A-Z0-9]{2,3})›", "", plain).replace("?", "")


@dataclass(frozen=True)
class Page:
    """A page with the run that it shows."""

    run: Run
    html: Element
    checks: Checks

    @property
    def compared(self) -> str:
        """Return the variant that is shown beside the base: the chosen one, else the first with the highest rate."""
        if self.run.chosen:
            return self.run.chosen
        known = [v["name"] for v in self.run.variants if self.run.answers(v["name"])]
        rates = {name: self.run.rate(name, (self.run.objective,)) for name in known}
        return max(known, key=lambda name: rates[name].passed / max(1, rates[name].total), default="")

    @property
    def shown_split(self) -> str:
        """Return the split of the figures on the first screen: the held-out cases, if the variant has answered them."""
        return "confirm" if self.run.answers(self.compared, "confirm") else "main"

    @property
    def numbered(self) -> dict[int, str]:
        """Return the variants by their numbers, and the bases by 0, -1 and so on."""
        bases = {-n: base["name"] for n, base in enumerate(self.run.bases)}
        return bases | {n: v["name"] for n, v in enumerate(self.run.variants, 1)}

    @cached_property
    def cases(self) -> list[CaseRecord]:
        """Return the cases in the page's compressed data."""
        return case_records(self.html)

    def span(self, name: str, role: str, split: str = "main") -> str:
        cases, scores = self.run.scores(name, (role,), split)
        if not scores.size:
            return ""
        low, high = rate_interval(scores, self.run.groups(cases))
        return f"{100 * low:.0f}–{100 * high:.0f}"

    # --- top of the page -------------------------------------------------------------------------------------------

    def header(self) -> None:
        """Check the numbers of variants, seeds and cases at the top."""
        run, shown = self.run, text(self.html.all("p", class_="facts")[0])
        held_out = plural(len(run.cases_of("confirm")), "held-out case")
        parts = [
            plural(len(run.variants), "variant"), plural(len(run.results["run"]["plan"]["seeds"]), "seed"),
            plural(len(run.cases_of("main")), "case"), *([held_out] if run.cases_of("confirm") else []),
        ]  # fmt: skip
        for part in parts:
            self.checks.equal("header", part, part if part in shown else shown, part)
        waiting = self.html.all("p", class_="waiting")
        statuses = [s for v in (*run.variants, run.results["confirmed"]) if v for s in v["statuses"]]
        stopped = statuses.count("cancelled")
        expected = f"{stopped} of {plural(len(statuses), 'trial')} without a result"
        self.checks.equal("header", "unfinished trials", str(bool(waiting)), str(stopped > 0))
        if waiting:
            shown = text(waiting[0])
            self.checks.equal("header", "unfinished trials", expected if expected in shown else shown, expected)

    def headline_rates(self) -> None:
        """Check the pass rates of the first section."""
        table = self.html.id("evidence").all("table", class_="rates")[0]
        confirmed = self.run.results["confirmed"] and self.run.answers(self.run.results["confirmed"]["name"], "confirm")
        base = self.run.base_of(self.compared)
        columns = [(base, "confirm"), (self.run.chosen, "confirm")] if confirmed else []
        columns += [(base, "main")] + ([(self.compared, "main")] if self.compared else [])
        shown_roles = []
        for row in rows(table):
            role = text(row[0])
            shown_roles.append(role)
            for cell, (name, split) in zip(row[1:], columns, strict=True):
                rate = self.run.rate(name or "", (role,), split)
                what = f"{role} of {name} ({split})"
                if not rate.total:
                    self.checks.equal("headline", what, text(cell)[:1], ABSENT)
                    continue
                smalls = [text(each) for each in cell.all("small")]
                self.checks.equal("headline", what, text(cell.all("b")[0]), rate.percent)
                self.checks.equal("headline", what, smalls[0], f"{rate.passed}/{rate.total}")
                self.checks.equal(
                    "headline", f"interval of {what}", "".join(smalls[1:]), self.span(name or "", role, split)
                )
        asked = [role for role in ROLES if self.run.cases_of("main", (role,)) and self.run.answers(base)]
        self.checks.equal("headline", "roles", " ".join(shown_roles), " ".join(asked))

    def examples(self) -> None:
        """Check the verdicts of the example answers, under how many seeds they hold, and the kind of the lost ones."""
        split, lost = self.shown_split, []
        for table in self.html.all("table", class_="excerpts"):
            for row in rows(table):
                case = self._case_of(row[0].all("a")[0].attributes["href"] or "")
                base, own = (
                    [mark for repeats in self.run.answers(name, split)[case].values()
                     if (mark := self.run.verdict(repeats)) is not None]
                    for name in (self.run.base_of(self.compared), self.compared)
                )  # fmt: skip
                passed = base[-1]
                for cell, verdict in zip(row[1:], (passed, not passed), strict=True):
                    shown = "pass" if cell.all("span", class_="pass") else "fail"
                    self.checks.equal("examples", f"verdict on {case}", shown, "pass" if verdict else "fail")
                word, changed = ("lost" if passed else "gained"), own.count(not passed)
                expected = f"{word} in {changed} of {len(own)} seeds" if len(own) > 1 else ""
                self.checks.equal("examples", f"seeds of {case}", small(row[2]), expected)
                self.checks.equal("examples", f"{case} changed", str(changed > 0), "True")
                lost += [case] * passed
        if lost:
            most = kinds.most_lost_kind(self)
            self.checks.equal("examples", f"kind of {lost[0]}", str(lost[0] in most), "True")

    def _case_of(self, link: str) -> str:
        """Return the case of a link, which the page's data names."""
        anchor = link.removeprefix("#case=")
        [found] = [case.head["id"] for case in self.cases if case.head["anchor"] == anchor]
        return next(id for id in self.run.cases if shown(id) == found)

    # --- variants --------------------------------------------------------------------------------------------------

    def variants(self) -> None:
        """Check the table of variants, column by column."""
        allowed = f"to lose less than the suite's margin of {self.run.suite['margin']:g} points"
        glossary = " ".join(text(each) for each in self.html.id("variants").all("dd"))
        self.checks.equal("variants", "margin", allowed if allowed in glossary else glossary, allowed)
        table = self.html.id("variants").all("table", class_="sortable")[0]
        heads = [text(head) for head in table.all("thead")[0].all("tr")[1].all("th")][2:]
        bases, names = [base["name"] for base in self.run.bases], [v["name"] for v in self.run.variants]
        body = rows(table)
        self.checks.equal("variants", "number of rows", str(len(body)), str(len(bases) + len(names)))
        for place, (row, name) in enumerate(zip(body, [*bases, *names], strict=True), 1 - len(bases)):
            self.checks.equal("variants", f"number of {name}", text(row[0]), str(place) if place > 0 else "")
            for head, cell in zip(heads, row[2:], strict=True):
                if expected := self._variant_cell(name, head):
                    self.checks.equal("variants", f"{head} of {name}", big(cell), expected[0])
                    self.checks.equal("variants", f"{head} of {name}, small", small(cell), expected[1])
                elif head not in costs.SETTINGS:
                    self.checks.fail("variants", f"there is no rule for the column {head!r}")

    def _variant_cell(self, name: str, head: str) -> tuple[str, str] | None:
        """Return the main and the small text of a cell; None for the value of a setting."""
        run = self.run
        role = head.split(" ")[0]
        if role in ROLES:
            rate, asked = run.rate(name, (role,)), run.rate(BASE, (role,))
            if head != f"{role} ({asked.total})":
                self.checks.fail("variants", f"the heading {head!r} should have {asked.total}")
            if not run.answers(name):
                return ABSENT, ""
            return (rate.percent, self.span(name, role)) if rate.total else (ABSENT, "none scored")
        untrained = name in [base["name"] for base in run.bases]
        if head == "Base":
            return (ABSENT if untrained else run.base_of(name)), ""
        if head in ("Fixed", "Broken"):
            if untrained or not run.answers(name):
                return ABSENT, ""
            return str(run.flips(name)[head == "Broken"]), ""
        if head == "Rows cut":
            return self._rows_cut(run.outcome(name)["settings"])
        if head == "Reference loss":
            loss = run.reference_loss(name)
            return (f"{loss:.2f}" if loss is not None else ABSENT), ""
        if head == "Eligible" or head.startswith("Net loss"):
            return sentences.loss_cell(run, name, head)
        return costs.cell(run, name, head)

    def _rows_cut(self, settings: Data | None) -> tuple[str, str]:
        """Return how many training rows `max_length` cuts. The rows' tokens are in results.json, not in the answers."""
        cuts = self.run.results["run"]["tokens"]["cuts"]
        found = next((cut for cut in cuts if settings and cut["max_length"] == settings["max_length"]), None)
        if found is None:
            return ABSENT, ""
        return f"{found['cut']} of {found['rows']}", f"{found['endless']} without their end" if found["cut"] else ""

    def most_telling(self, names: list[str], most: int) -> list[str]:
        """Return the variants that a table shows: the chosen one, and those with the highest rates, in their order."""

        def rate(name: str) -> float:
            found = self.run.rate(name, (self.run.objective,))
            return found.passed / found.total if found.total else 0.0

        kept = sorted(names, key=lambda name: (name != self.run.chosen, -rate(name)))[:most]
        return [name for name in names if name in kept]

    def pairwise(self) -> None:
        """Check the differences between every two variants, and how many of them are unclear."""
        run, section = self.run, "pairwise"
        scored = {v["name"]: run.scores(v["name"], (run.objective,)) for v in run.variants if run.answers(v["name"])}
        known = self.most_telling([name for name, (cases, _) in scored.items() if cases], 24)
        tables = self.html.all("table", class_="pairwise")
        self.checks.equal(section, "tables", str(len(tables)), str(int(len(known) > 1)))
        unclear = 0
        for table in tables:
            body = rows(table)
            self.checks.equal(section, "rows", str(len(body)), str(len(known)))
            for own, row in zip(known, body, strict=True):
                for other, cell in zip(known, row[1:], strict=True):
                    if own == other:
                        continue
                    shown = (
                        text(cell),
                        next(iter((cell.attributes["class"] or "").split()[1:])),
                        cell.attributes["title"],
                    )
                    expected = self.gap(scored[other], scored[own])
                    unclear += expected[1] == "unclear"
                    for a, b in zip(shown, expected, strict=True):
                        self.checks.equal(section, f"{own} against {other}", str(a), b)
            pairs = len(known) * (len(known) - 1) // 2
            words, caption = f"Of {plural(pairs, 'pair')}, {unclear // 2} (in grey)", text(table.all("caption")[0])
            self.checks.equal(section, "unclear pairs", words if words in caption else caption, words)

    def gap(self, before: tuple[list[str], Array], after: tuple[list[str], Array]) -> tuple[str, str, str]:
        (old_cases, old), (new_cases, new) = before, after
        common = [case for case in old_cases if case in new_cases]
        if not common:
            return ABSENT, "unclear", "no case in common"
        places = [[cases.index(case) for case in common] for cases in (old_cases, new_cases)]
        moved, low, high = change_interval(old[:, places[0]], new[:, places[1]], self.run.groups(common))
        verdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
        return f"{100 * moved + 0.0:+.0f}", verdict, f"{100 * low:+.0f} to {100 * high:+.0f} points"

    def labels(self) -> None:
        """Check the pass rates by contamination."""
        for table in self.html.all("table", class_="labels"):
            heads = [text(head).split(", ") for head in table.all("thead")[0].all("th")[1:]]
            for row in rows(table):
                name = text(row[0])
                for (role, label), cell in zip(heads, row[1:], strict=True):
                    rate = self.run.rate(name, (role,), label=label)
                    counts = rate.counts if rate.total else "no answer scored"
                    self.checks.equal("labels", f"{role}, {label} of {name}", text(cell), f"{rate.percent} {counts}")

    # --- cases -----------------------------------------------------------------------------------------------------

    def change(self, case: str, name: str, split: str) -> tuple[str, str]:
        """Return how the verdict on a case changed under a variant, and the share of seeds for which this holds."""
        base = self.run.answers(self.run.base_of(name), split).get(case, {})
        own = self.run.answers(name, split).get(case, {})
        before = next((self.run.verdict(repeats) for repeats in base.values()), None)
        after = [mark for repeats in own.values() if (mark := self.run.verdict(repeats)) is not None]
        if before is None or not after:
            return "none", ""
        passed, asked = sum(after), len(after)
        kind = ("kept" if passed == asked else "broken") if before else ("fixed" if passed else "failing")
        count = {"broken": asked - passed, "fixed": passed}.get(kind, asked)
        return kind, f"{count}/{asked}" if 0 < count < asked else ""

    def matrix(self) -> None:
        """Check the data of every case: every verdict on the base, and every change under every variant."""
        names = [v["name"] for v in self.run.variants]
        for split in ("main", "confirm"):
            cases = self.run.cases_of(split)
            own = [record for record in self.cases if bool(record.head.get("held")) == (split == "confirm")]
            self.checks.equal("matrix", f"{split} cases", str(len(own)), str(len(cases)))
            for case, record in zip(cases, own, strict=False):
                head = record.head
                self.checks.equal("matrix", case, shown(head["id"]), shown(case))
                for base, verdict in zip(self.run.bases, head["bases"], strict=True):
                    given = self.run.answers(base["name"], split).get(case, {})
                    before = next((self.run.verdict(repeats) for repeats in given.values()), None)
                    word = {True: "pass", False: "fail", None: "none"}[before]
                    self.checks.equal("matrix", f"{case} of {base['name']}", verdict, word)
                unscored = {
                    n for n, name in self.numbered.items()
                    if any(self.run.verdict(g) is None for g in self.run.answers(name, split).get(case, {}).values())
                }  # fmt: skip
                self.checks.equal("matrix", f"unscored of {case}", str(head.get("unscored", [])), str(sorted(unscored)))
                for n, (name, sign) in enumerate(zip(names, head["changes"], strict=True)):
                    kind, share = self.change(case, name, split)
                    self.checks.equal("matrix", f"{case} of {name}", SIGNS[sign], kind)
                    self.checks.equal(
                        "matrix", f"share of {case} of {name}", head.get("parts", {}).get(str(n), ""), share
                    )

    def constant(self) -> None:
        """Check how many cases all models pass, and how many all fail."""
        names = [base["name"] for base in self.run.bases], [v["name"] for v in self.run.variants]
        asked = passed = failed = 0
        for case in self.run.cases_of("main"):
            sides = [
                [mark for name in own for given in self.run.answers(name).get(case, {}).values()
                 if (mark := self.run.verdict(given)) is not None]
                for own in names
            ]  # fmt: skip
            if all(sides):
                asked += 1
                passed += all(sides[0] + sides[1])
                failed += not any(sides[0] + sides[1])
        notes = [text(note) for note in self.html.id("cases").all("p", class_="note")]
        shown = next((note for note in notes if note.startswith("Same verdict")), "")
        self.checks.equal("matrix", "whether cases are constant", str(bool(shown)), str(passed + failed > 0))
        for count, verb in ((passed, "passed"), (failed, "failed")):
            words = f"{plural(count, 'case')} of {asked} {verb} ("
            if count:
                self.checks.equal("matrix", f"cases all {verb}", words if words in shown else shown, words)

    def prompts(self) -> None:
        """Check the text, the verdict, and whether it was cut, of every answer in the data."""
        names = {str(n): name for n, name in self.numbered.items()}
        for record in self.cases:
            split = "confirm" if record.head.get("held") else "main"
            [case] = [id for id in self.run.cases_of(split) if shown(id) == shown(record.head["id"])]
            self._prompt(case, record, split, names)
        cut = sum(sample["truncated"] for sample in self.run.samples)
        notes = [text(note) for note in self.html.id("cases").all("p", class_="note")]
        said = [note for note in notes if "cut at the limit" in note]
        self.checks.equal("prompts", "whether answers were cut", str(bool(said)), str(cut > 0))
        if said:
            limit = self.run.suite["decoding"]["max_new_tokens"]
            words = f"{plural(cut, 'answer was', 'answers were')} cut at the limit of {limit} tokens."
            self.checks.equal("prompts", "cut answers", words if words in said[0] else said[0], words)

    def _prompt(self, case: str, record: CaseRecord, split: str, names: dict[str, str]) -> None:
        messages = [message["content"] for message in self.run.cases[case]["messages"] if message["role"] == "user"]
        if messages:
            self.checks.equal(
                "prompts", f"prompt of {case}", shown(record.texts[record.head["prompt"]]), shown(messages[-1])
            )
        seen = set()
        for answer in record.answers:
            for key in answer["by"]:
                who, _, own = key.partition(".")
                name = names[who]
                given = self.run.answers(name, split)[case]
                for seed in map(int, own.split(",")) if own else given:
                    seen.add(f"{name} {seed}")
                    self._answer(f"{case} by {name} {seed}", answer, record, given[seed])
        asked = {f"{name} {seed}" for name in names.values() for seed in self.run.answers(name, split).get(case, {})}
        self.checks.equal("prompts", f"who answered {case}", " ".join(sorted(seen)), " ".join(sorted(asked)))

    def _answer(self, what: str, answer: Data, record: CaseRecord, repeats: Sequence[Data]) -> None:
        self.checks.equal("prompts", what, str(answer["passed"]), str(self.run.verdict(repeats)))
        self.checks.equal("prompts", f"{what}, cut", str(bool(answer.get("cut"))), str(repeats[0]["truncated"]))
        self.checks.equal("prompts", f"{what}, text", shown(record.texts[answer["text"]]), shown(repeats[0]["answer"]))
        if len(repeats) > 1:
            words = f"{sum(one['passed'] for one in repeats)} of {len(repeats)} repeats passed"
            said = answer.get("repeats", "")
            self.checks.equal("prompts", f"repeats of {what}", words if words in said else said, words)

    def failures(self) -> None:
        """Check the list of trials that did not finish."""
        results = self.run.results
        outcomes = [*self.run.bases, *results["variants"], results["confirmed_base"], results["confirmed"]]
        ended = [
            f"{own['name']} {seed} {status.capitalize()}"
            for own in outcomes if own
            for seed, status in zip(own["seeds"], own["statuses"], strict=True) if status != "succeeded"
        ]  # fmt: skip
        body = [row for table in self.html.id("failures").all("table") for row in rows(table)]
        shown = [" ".join(text(cell) for cell in row[:3]).removesuffix(" (predicted)") for row in body]
        self.checks.equal("failures", "number", str(len(shown)), str(len(ended)))
        for a, b in zip(shown, ended, strict=False):
            self.checks.equal("failures", "trial", a, b)


def check(folder: Path) -> Checks:
    """Compare every figure of the page of a run."""
    checks = Checks()
    page = Page(Run.load(folder), parse(read(folder, "report.html")), checks)
    steps: Sequence[Callable[[], None]] = (
        page.header, page.headline_rates, page.examples, page.variants, page.pairwise, page.labels, page.matrix,
        page.constant,
        page.prompts, page.failures,
    )  # fmt: skip
    for step in steps:
        step()
    sentences.check(page)
    charts.check(page)
    kinds.check(page)
    costs.check(page)
    other_pages.check_adapters(page)
    other_pages.check_code(page)
    return checks


def check_handout(folder: Path, html: str) -> Checks:
    """Compare every figure of the handout of a run."""
    checks = Checks()
    page = Page(Run.load(folder), parse(html), checks)
    sentences.check(page)
    other_pages.check_handout(page)
    return checks


def check_bases(folders: Sequence[Path], html: str) -> Checks:
    """Compare every figure of the page of several runs on different bases."""
    checks, parsed = Checks(), parse(html)
    pages = [Page(Run.load(folder), parsed, checks) for folder in folders]
    models = [page.run.results["run"]["model"]["name"] for page in pages]
    names = [
        name if models.count(name) == 1 else f"{name} ({folder.name})"
        for name, folder in zip(models, folders, strict=True)
    ]
    other_pages.check_bases(pages, names)
    return checks


def pack(run: Path, folder: Path) -> None:
    """Copy the files of a run: the page as it is, and the two others compressed, without the folder of the model."""
    results = read(run, "results.json")
    model = json.loads(results)["run"]["model"]["path"]
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"results.json": results.replace(json.dumps(model), json.dumps(Path(model).name))}
    texts["samples.jsonl"] = read(run, "samples.jsonl")
    for name, content in texts.items():
        (folder / f"{name}.xz").write_bytes(lzma.compress(content.encode("utf-8"), preset=9))
    (folder / "report.html").write_bytes((run / "report.html").read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--pack", type=Path, metavar="DIR")
    parser.add_argument("--handout", type=Path, metavar="PAGE", help="check this handout of RUN, and not its report")
    parser.add_argument("--bases", type=Path, metavar="PAGE", help="check this page of the runs, and not their reports")
    given = parser.parse_args(arguments)
    if given.bases:
        return _told(given.bases, check_bases(given.runs, given.bases.read_text(encoding="utf-8")))
    if given.handout:
        return _told(given.handout, check_handout(given.runs[0], given.handout.read_text(encoding="utf-8")))
    ended = 0
    for folder in given.runs:
        if given.pack:
            pack(folder, given.pack)
        ended |= _told(folder, check(folder))
    return ended


def _told(what: Path, found: Checks) -> int:
    """Print what was found. Return 1 if there is any difference."""
    print("\n".join(found.differences))
    sections = ", ".join(f"{count:,} in {section}" for section, count in found.counts.items())
    print(f"{what}: {found.counts.total():,} figures checked, {len(found.differences)} differ ({sections})")
    return int(bool(found.differences))


if __name__ == "__main__":
    sys.exit(main())
