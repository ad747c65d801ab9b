"""Compute the figures of a handout, and of the page of several runs on different bases, again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.studies.recomputed.charts import numbers, shown_setting
from tests.studies.recomputed.costs import cost_of, duration
from tests.studies.recomputed.figures import GUARDED, change_interval, rate_interval
from tests.studies.recomputed.kinds import Flips, cases_by_kind, flips
from tests.studies.recomputed.sentences import Guarded, Sentence, down, in_next, names_roles_alone, points, up

if TYPE_CHECKING:
    from tests.studies.recompute import Page
    from tests.support.parsed_html import Element

CODE = {
    "learning_rate": "learning_rate", "num_train_epochs": "epochs", "r": "rank", "lora_alpha": "alpha",
    "lora_dropout": "dropout", "warmup_steps": "warmup", "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation", "max_length": "max_length", "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
}  # fmt: skip
"""Arguments in the code to paste, with the names of the settings."""


def check_handout(page: Page) -> None:
    """Check the examples and the code of a handout. Its first screen has the sentences of a report."""
    _examples(page)
    check_code(page)


def _examples(page: Page) -> None:
    """Check that each example is a case with these answers and verdicts, under as many seeds as it says."""
    from tests.studies.recompute import rows, small, text

    run, split = page.run, page.shown_split
    base, own = run.answers(run.base_of(page.compared), split), run.answers(page.compared, split)
    for row in (row for found in page.html.all("section", id="examples") for row in rows(found.all("table")[0])):
        prompt, *cells = row
        sides = [" ".join(text(div) for div in cell.all("div")) for cell in cells]
        passed = [bool(cell.all("span", class_="pass")) for cell in cells]
        told = re.sub(r"^(Before|After) ?", "", small(cells[1]))
        known = []
        for case, given in own.items():
            before = [mark for repeats in base.get(case, {}).values() if (mark := run.verdict(repeats)) is not None]
            after = {seed: mark for seed, repeats in given.items() if (mark := run.verdict(repeats)) is not None}
            if not before or not _begins(text(prompt), run.cases[case]["messages"][-1]["content"]):
                continue
            changed = [seed for seed, mark in after.items() if mark != before[-1]]
            answers = [base[case][s][0]["answer"] for s in base[case]], [given[s][0]["answer"] for s in changed]
            if all(any(_begins(side, each) for each in own) for side, own in zip(sides, answers, strict=True)):
                word = "lost" if before[-1] else "gained"
                seeds = f"{word} in {len(changed)} of {len(after)} seeds" if len(after) > 1 else ""
                known.append((before[-1], not before[-1], seeds))
        page.checks.equal("handout", f"example {text(prompt)!r}", str((*passed, told) in known), "True")


def _begins(shown: str, whole: str) -> bool:
    """Return whether a text on the page, which may be cut, is this text."""
    whole = " ".join(whole.split()) or "(empty answer)"
    return shown == whole or (shown.endswith("…") and whole.startswith(shown.removesuffix("…").rstrip()))


def check_code(page: Page) -> None:
    """Check the numbers in the code to paste against the settings of the chosen variant."""
    for code in page.html.all("pre", id="settings"):
        settings = page.run.outcome(page.run.chosen or "")["settings"]
        given = dict(re.findall(r"^    (\w+)=([\d.e-]+),", code.text, re.MULTILINE))
        page.checks.equal("code", "arguments", str(sorted(set(CODE) - set(given))), "[]")
        for argument, name in CODE.items():
            if argument in given:
                page.checks.equal("code", argument, str(float(given[argument])), str(float(settings[name])))


# --- several bases ---------------------------------------------------------------------------------------------------


def check_bases(pages: Sequence[Page], names: Sequence[str]) -> None:
    """Check the page of several runs: each of `pages` has its HTML and one of the runs. `names`: the bases."""
    _answer(pages, names)
    _rows(pages, names)
    _chart(pages, names)
    _kinds(pages)


def _verdict(page: Page) -> str:
    confirmation = page.run.results["choice"]["confirmation"]
    return "nothing chosen" if not page.run.chosen else (confirmation or {"finding": "not confirmed"})["finding"]


def _answer(pages: Sequence[Page], names: Sequence[str]) -> None:
    """Check which base is named, and how far it is from each other confirmed one."""
    from tests.studies.recompute import text

    checks, section = pages[0].checks, pages[0].html.id("answer")
    confirmed, best = _confirmed(pages), _best(pages)
    shown = text(section.all("span", class_="name")[0])
    if best is None:
        checks.equal("bases", "answer", shown[:31], "No base can be recommended: on ")
        return
    name = dict(zip(map(id, pages), names, strict=True))
    checks.equal("bases", "answer", shown, f"{name[id(best)]}, with {best.run.chosen}")
    first, *lines = [text(line) for line in section.all("li")]
    which = f"{'held-out ' if best.shown_split == 'confirm' else ''}{best.run.objective} cases"
    why = f": {100 * float(_scores(best)[1].mean()):.0f}% of the {which} pass with these settings."
    toys = [page for page in pages if page.run.results["run"]["model"]["toy"]]
    it = "Apart from toy models, it" if toys and not any(best is toy for toy in toys) else "It"
    among = f"{it} passes most of the {len(confirmed)} bases on which a variant was confirmed"
    only = f"{it} is the only base on which a variant was confirmed"
    checks.equal("bases", "why", first, (among if len(confirmed) > 1 else only) + why)
    for other in (page for page in confirmed if page is not best):
        [line] = [line for line in lines if f" {name[id(other)]}: it passes" in line or f" {name[id(other)]}: " in line]
        (mine, own), (theirs, old) = _scores(best), _scores(other)
        common = [case for case in mine if case in theirs]
        own, old = (side[:, [cases.index(c) for c in common]] for side, cases in ((own, mine), (old, theirs)))
        moved, low, high = (100 * each for each in change_interval(old, own, best.run.groups(common)))
        words = f"{points(abs(moved))} points {'more' if moved >= 0 else 'less'} ({down(low)} to {up(high)} with 95%"
        checks.equal("bases", f"against {name[id(other)]}", words if words in line else line, words)
        checks.equal("bases", f"{name[id(other)]} told apart", str("cannot be told apart" in line), str(low <= 0))
        times = [duration(cost["seconds"]["value"]) for page in (best, other)
                 if (cost := cost_of(page.run.outcome(page.compared), "train"))]  # fmt: skip
        if (said := re.findall(r"takes (\S+ \w+) (?:on both|on .*? and (\S+ \w+) on )", line)) and low <= 0:
            checks.equal("bases", f"times beside {name[id(other)]}", str([x for x in said[0] if x]),
                         str(list(dict.fromkeys(times))))  # fmt: skip


def _confirmed(pages: Sequence[Page]) -> list[Page]:
    real = [page for page in pages if not page.run.results["run"]["model"]["toy"]] or list(pages)
    return [page for page in real if _verdict(page) == "confirmed"]


def _best(pages: Sequence[Page]) -> Page | None:
    """Return the base to recommend: of the confirmed ones, the one that passes most."""
    return max(_confirmed(pages), key=lambda page: float(_scores(page)[1].mean()), default=None)


def _scores(page: Page):  # type: ignore[no-untyped-def]
    return page.run.scores(page.compared, (page.run.objective,), page.shown_split)


def _rows(pages: Sequence[Page], names: Sequence[str]) -> None:
    """Check the row of each run: settings, verdict, what was learned and lost, costs, and what to try next."""
    from tests.studies.recompute import rows, text

    checks = pages[0].checks
    body = rows(pages[0].html.id("bases-section").all("table")[0])
    checks.equal("bases", "rows", str(len(body)), str(len(pages)))
    for number, (row, page, name) in enumerate(zip(body, pages, names, strict=True), 1):
        marked = "recommended" if page is _best(pages) else ""
        checks.equal("bases", "name", text(row[0])[: len(f"#{number} {name}")], f"#{number} {name}")
        checks.equal("bases", f"tag of {name}", "".join(text(tag) for tag in row[0].all("span", class_="tag")), marked)
        settings, verdict, *rest = (_without_label(cell) for cell in row[1:])
        said = _verdict(page)
        checks.equal("bases", f"verdict on {name}", verdict[: len(said)], said)
        if alone := verdict[len(said) :].strip():
            Sentence(page, alone, row[2]).check()
        if said != "refuted":
            names_roles_alone(page, alone)
        checks.equal("bases", f"variant on {name}", str(settings.startswith(page.run.chosen or "none chosen")), "True")
        if page.run.chosen:
            place = len(page.run.chosen)
            for key, value in page.run.outcome(page.run.chosen)["differs"].items():
                words = f" {shown_setting(key, tuple(value) if isinstance(value, list) else value)}"
                at = settings.find(words, place)
                checks.equal("bases", f"{key} on {name}", str(at >= place), "True")
                place = max(place, at)
        else:
            Sentence(page, settings, row[1]).check()
        for words in rest[:3]:
            Sentence(page, words, row[3]).check()
        in_next(page, rest[3])


def _without_label(cell: Element) -> str:
    from tests.studies.recompute import text

    label = "".join(text(each) for each in cell.all("span", class_="label"))
    return text(cell).removeprefix(label).strip()


def _chart(pages: Sequence[Page], names: Sequence[str]) -> None:
    """Check the numbers of the chart: what each base passes after training, and what it lost."""
    expected = []
    for number, (page, name) in enumerate(zip(pages, names, strict=True), 1):
        guarded = Guarded(page.run, page.compared, GUARDED, page.shown_split)
        cases, scores = _scores(page)
        if not scores.size or not guarded.known or guarded.loss(0.95).points is None:
            continue
        low, high = rate_interval(scores, page.run.groups(cases))
        wide = guarded.loss(0.975)
        bound = guarded.loss(0.8 if page.shown_split == "confirm" else 0.95).upper
        result = "confirmed" if _verdict(page) == "confirmed" else "not confirmed"
        result = "recommended" if page is _best(pages) else result
        expected.append([
            str(number), name, points(100 * float(scores.mean())), f"{down(100 * low)} to {up(100 * high)}",
            points(guarded.loss(0.95).points or 0.0), f"{down(wide.lower)} to {up(wide.upper)}", up(bound),
            result,
        ])  # fmt: skip
    found = (numbers(pages[0], "bases") or [[]])[1:]
    pages[0].checks.equal("bases", "chart", str(len(found)), str(len(expected)))
    for shown, right in zip(found, expected, strict=False):
        for a, b in zip(shown, right, strict=True):
            pages[0].checks.equal("bases", f"chart of {right[1]}", a, b)


def _kinds(pages: Sequence[Page]) -> None:
    """Check what each variant did with each kind of cases."""
    from tests.studies.recompute import text

    checks = pages[0].checks
    by_kind = {
        (role, " ".join(kind.split())): cases for (role, kind), cases in cases_by_kind(pages[0].run).items()
    }  # fmt: skip
    tables = pages[0].html.all("table", class_="kinds")
    checks.equal("bases", "kinds", str(sum(len(b.all("tr")) for t in tables for b in t.all("tbody"))),
                 str(len(by_kind)))  # fmt: skip
    for body in (body for table in tables for body in table.all("tbody")):
        role = text(body.all("th", scope="rowgroup")[0])
        for row in body.all("tr"):
            kind = text(row.all("th", scope="row")[0])
            count, *cells = row.all("td")
            found = [flips(page.run, page.compared, by_kind[role, kind]) for page in pages]
            checks.equal("bases", f"cases of {kind}", text(count), str(max(own.cases for own in found)))
            for cell, own in zip(cells, found, strict=True):
                checks.equal("bases", f"{role} {kind}", text(cell), own.text)
                checks.equal("bases", f"{role} {kind}", (cell.attributes["title"] or "").rpartition(": ")[2], own.words)
                checks.equal("bases", f"colour of {role} {kind}", (cell.attributes["class"] or "")[2:], _shade(own))


def _shade(found: Flips) -> str:
    net = found.gained - found.lost
    if not found.cases or abs(net) < 0.05:
        return "same" if found.cases else "none"
    share = abs(net) / found.cases
    step = 5 if abs(net) > found.cases - 0.05 else 1 + sum(share >= quarter - 1e-9 for quarter in (0.25, 0.5, 0.75))
    return f"{'g' if net > 0 else 'l'}{step}"


# --- adapters trained elsewhere --------------------------------------------------------------------------------------


def check_adapters(page: Page) -> None:
    """Check the ranking of adapters trained elsewhere: their order, rates, differences, losses and verdicts."""
    from tests.studies.recompute import big, rows, small, text

    run = page.run
    known = [v["name"] for v in run.variants if v["elsewhere"] and run.answers(v["name"])]
    tables = [table for section in page.html.all("section", id="adapters") for table in section.all("table")]
    page.checks.equal("adapters", "tables", str(len(tables)), str(int(len(known) > 1)))
    order = ("keeps", "cannot tell", "loses")
    ranked = sorted(known, key=lambda name: (order.index(Guarded(run, name).verdict), -_share(page, name)))
    for table in tables:
        body, ahead = rows(table), ""
        page.checks.equal("adapters", "order", str([text(row[1]) for row in body]), str(ranked))
        for place, (row, name) in enumerate(zip(body, ranked, strict=False), 1):
            guarded, rate = Guarded(run, name), run.rate(name, (run.objective,))
            span, wide = page.span(name, run.objective), guarded.loss(0.975)
            expected = [str(place), name, rate.percent, "–", points(guarded.loss(0.95).points or 0.0), guarded.verdict]
            smalls = ["", "", rate.counts + (f"; {span}" if span else ""), "",
                      f"{down(wide.lower)} to {up(wide.upper)}", ""]  # fmt: skip
            if ahead and Guarded(run, ahead).verdict == guarded.verdict:
                gap = page.gap(run.scores(ahead, (run.objective,)), run.scores(name, (run.objective,)))
                expected[3], kind, smalls[3] = gap
                page.checks.equal("adapters", f"colour of {name}", (row[3].attributes["class"] or "")[2:], kind)
            for cell, large, little in zip(row, expected, smalls, strict=True):
                page.checks.equal("adapters", name, big(cell), large)
                page.checks.equal("adapters", name, small(cell), little)
            ahead = name


def _share(page: Page, name: str) -> float:
    rate = page.run.rate(name, (page.run.objective,))
    return rate.passed / rate.total if rate.total else 0.0
