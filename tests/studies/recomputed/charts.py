"""Compute the numbers behind a page's charts, and the effects of settings, again, for `tests.studies.recompute`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.studies.recomputed.costs import ABSENT, amount, counted, duration, memory, peak
from tests.studies.recomputed.figures import GUARDED, ROLES, Data, Run, change_interval

if TYPE_CHECKING:
    from tests.studies.recompute import Page


def check(page: Page) -> None:
    """Check the charts' tables, the milestones, the divergence rates, and the effects of settings."""
    _trade_offs(page)
    _epochs(page)
    _milestones(page)
    _curves(page)
    _divergence(page)
    _effects(page)


def numbers(page: Page, id: str) -> list[list[str]] | None:
    """Return the texts of the table of numbers below a chart, its heading first; None if the chart is missing."""
    from tests.studies.recompute import rows, text

    found = page.html.all("figure", id=id)
    if not found:
        return None
    table = found[0].all("details")[0].all("table")[0]
    return [[text(head) for head in table.all("thead")[0].all("th")], *([text(c) for c in row] for row in rows(table))]


# --- trade-offs ------------------------------------------------------------------------------------------------------


def _trade_offs(page: Page) -> None:
    from tests.studies.recompute import text

    run = page.run
    allowed = f"shown to lose less than {run.suite['margin']:g} points"
    if page.html.all("figure", id="trade-off"):
        keys = " ".join(text(each) for each in page.html.id("trade-off-section").all("li"))
        page.checks.equal("trade-off", "margin", allowed if allowed in keys else keys, allowed)
    for id in ("trade-off", "memory-trade-off"):
        if not (found := numbers(page, id)):
            continue
        heads, *body = found
        page.checks.equal(
            id, "variants", str([row[1] for row in body]), str([" ".join(v["name"].split()) for v in run.variants])
        )
        base = run.base_of(run.chosen)
        model = base if len(run.bases) > 1 else "base model"
        words = f"The dashed line is the {model} ({run.rate(base, (run.objective,)).percent})."
        note = " ".join(text(each) for each in page.html.all("figure", id=id)[0].all("p", class_="note"))
        page.checks.equal(id, "the base", words if words in note else note, words)
        _half(page, id, note, heads)
        for number, (row, variant) in enumerate(zip(body, run.variants, strict=False), 1):
            name, rate = variant["name"], run.rate(variant["name"], (run.objective,))
            answered = bool(run.answers(name))
            quality = f"{rate.percent} ({rate.counts})" if rate.total else f"{ABSENT} (no answer scored)"
            expected = [str(number), " ".join(name.split()), _cost(run, variant, heads[2])]
            expected += [quality if answered else ABSENT, page.span(name, run.objective) if rate.total else ""]
            for head, shown, right in zip(heads, row, expected, strict=False):
                if right is not None:
                    page.checks.equal(id, f"{head} of {name}", shown, right)
            kind = (
                "Best"
                if name == run.chosen
                else "Eligible"
                if name in run.results["choice"]["eligible"]
                else "Not eligible"
            )
            if rate.total:
                page.checks.equal(id, f"result of {name}", row[5], kind)


def _half(page: Page, id: str, note: str, heads: list[str]) -> None:
    """Check what is said about half the cost of the chosen variant, by the eligible variants measured like it."""
    run, said = (
        page.run,
        re.findall(r"With half the .*? passes most of the eligible variants: (\d+%) instead of (\d+%)", note),
    )
    none = "No eligible variant needs half the" in note
    pick = run.outcome(run.chosen) if run.chosen else {"training": []}
    page.checks.equal(id, "half the cost", str(bool(said) or none), str(bool(counted(pick))))
    if not counted(pick):
        return
    eligible = [v for name in run.results["choice"]["eligible"] if counted(v := run.outcome(name))]
    alike = [v for v in eligible if _source(v, heads[2]) == _source(pick, heads[2])]
    half = [v for v in alike if 2 * _amount(run, v, heads[2]) <= _amount(run, pick, heads[2])]
    rates = [run.rate(v["name"], (run.objective,)) for v in half]
    best = max(rates, key=lambda rate: rate.passed / rate.total, default=None)
    expected = [(best.percent, run.rate(run.chosen, (run.objective,)).percent)] if best else []
    page.checks.equal(id, "half the cost", str(said), str(expected))


def _source(variant: Data, axis: str) -> str:
    """Return how and where a cost was measured."""
    seconds = counted(variant)[0]["cost"]["seconds"]
    return "" if axis.startswith("Training work") else str((seconds["basis"], seconds["device"]))


def _amount(run: Run, variant: Data, axis: str) -> float:
    """Return the cost of a training that finished as a number."""
    trained = counted(variant)
    if axis.startswith("Training work"):
        return float(_tokens(variant) * max(t["trainable_parameters"] for t in trained))
    if axis.startswith("Training time"):
        return fmean(t["cost"]["seconds"]["value"] for t in trained)
    figure = peak if "allocator" in axis else lambda cost: cost["peak_resident"]["value"]
    return float(max(figure(t["cost"]) for t in trained))


def _cost(run: Run, variant: Data, axis: str) -> str | None:
    """Return the cost of a variant on an axis; None if it is an estimate for a training that did not finish."""
    trained = counted(variant)
    finished = bool(variant["statuses"]) and set(variant["statuses"]) == {"succeeded"}
    if axis.startswith("Training work"):
        tokens = _tokens(variant)
        if not finished and variant["settings"]:
            done = [v for v in run.variants if set(v["statuses"]) == {"succeeded"} and v["settings"]]
            whole = [_tokens(v) / v["settings"]["epochs"] for v in done]
            tokens = median(whole) * variant["settings"]["epochs"] if whole else tokens
        return amount(round(tokens * max((t["trainable_parameters"] for t in variant["training"]), default=0)))
    if not trained:
        return ABSENT
    if "out of memory" in variant["statuses"] and not run.answers(variant["name"]):
        return None
    if axis.startswith("Training time"):
        return duration(fmean(t["cost"]["seconds"]["value"] for t in trained))
    if "allocator" in axis:
        return memory(max(peak(t["cost"]) for t in trained))
    return memory(max(t["cost"]["peak_resident"]["value"] for t in trained))


def _tokens(variant: Data) -> float:
    own = [t["supervised_tokens"] for t in variant["training"] if t["status"] == "succeeded"]
    own = own or [t["supervised_tokens"] for t in variant["training"]]
    return round(fmean(own)) if own else 0


# --- learning --------------------------------------------------------------------------------------------------------


def _percent(rate: Data | None) -> str:
    return f"{100 * rate['passed'] / rate['total']:.0f}%" if rate and rate["total"] else ABSENT


def _epochs(page: Page) -> None:
    """Check pass rates after every epoch: the last against the answers, the others against results.json."""
    run = page.run
    found = numbers(page, "timeline")
    timelines = run.results["timelines"]
    page.checks.equal("epochs", "chart", str(bool(found)), str(bool(timelines)))
    if not found:
        return
    roles = [role for role in ROLES if run.cases_of("main", (role,))]
    expected = []
    for line in timelines:
        for epoch in line["epochs"]:
            last = epoch is line["epochs"][-1]
            rates = [
                run.rate(line["variant"], (role,)).percent if last else _percent(epoch["rates"].get(role))
                for role in roles
            ]
            expected.append([" ".join(line["variant"].split()), f"{epoch['epoch']:g}", *rates])
    page.checks.equal("epochs", "rows", str(len(found) - 1), str(len(expected)))
    for shown, right in zip(found[1:], expected, strict=False):
        for a, b in zip(shown, right, strict=True):
            page.checks.equal("epochs", " ".join(right[:2]), a, b)


def _milestones(page: Page) -> None:
    from tests.studies.recompute import rows, text

    lines = sorted(page.run.results["timelines"], key=lambda line: line["variant"] != page.run.chosen)
    for table in page.html.all("table", class_="milestones"):
        for row, line in zip(rows(table), lines, strict=True):
            enough = f"{line['enough']:g}" if line["enough"] is not None else ABSENT
            page.checks.equal("epochs", f"enough for {line['variant']}", text(row[1]), enough)
            for cell, kind in zip(row[2:], ("learned", "lost"), strict=True):
                shown = [text(each).split(" (")[0] for each in cell.all("div")]
                at = sorted({m[kind] for m in line["milestones"] if m[kind] is not None})
                counts = [sum(m[kind] == epoch for m in line["milestones"]) for epoch in at]
                words = [f"epoch {e:g}: {n} case{'s' if n != 1 else ''}" for e, n in zip(at, counts, strict=True)]
                page.checks.equal("epochs", f"{kind} by {line['variant']}", str(shown), str(words))


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _curves(page: Page) -> None:
    """Check the values of loss and gradient norm at some steps."""
    trainings = [
        (n, seed, t)
        for n, v in enumerate(page.run.variants, 1)
        for seed, t in zip(_seeds(v), v["training"], strict=True)
        if t["steps"]
    ]
    for id, measure in (("curve-loss", "loss"), ("curve-grad-norm", "grad_norm")):
        found = numbers(page, id)
        page.checks.equal("curves", id, str(bool(found)), str(bool(trainings)))
        for row, (number, seed, training) in zip(found[1:] if found else [], trainings, strict=True):
            page.checks.equal("curves", "variant and seed", f"{row[0]} {row[2]}", f"{number} {seed}")
            values = {step["step"]: step[measure] for step in training["steps"]}
            for head, shown in zip(found[0][3:] if found else [], row[3:], strict=True):
                step = int(head.removeprefix("step "))
                right = _number(values[step]) if step in values else ""
                page.checks.equal("curves", f"{measure} of #{number} at {head}", shown, right)


def _seeds(variant: Data) -> list[str]:
    """Return the seed of each training: cancelled trials have none, and failed ones may have none."""
    for missing in (("cancelled",), ("cancelled", "failed", "timed out")):
        pairs = zip(variant["seeds"], variant["statuses"], strict=True)
        found = [str(seed) for seed, status in pairs if status not in missing]
        if len(found) == len(variant["training"]):
            return found
    return [ABSENT] * len(variant["training"])


def _divergence(page: Page) -> None:
    from tests.studies.recompute import text

    heading = [h for h in page.html.id("learning").all("h3") if text(h) == "Divergence"]
    lines = [text(item) for items in page.html.id("learning").all("ul")[: len(heading)] for item in items.all("li")]
    for line in lines:
        variant = next(v for v in page.run.variants if line.startswith(f"{' '.join(v['name'].split())}: "))
        ended = [status for status in variant["statuses"] if status in ("succeeded", "diverged")]
        words = f"{ended.count('diverged')} of {len(ended)} seed{'s' if len(ended) != 1 else ''} diverged."
        page.checks.equal("divergence", variant["name"], words if words in line else line, words)


# --- effects ---------------------------------------------------------------------------------------------------------


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def shown_setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and name == "learning_rate":
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _effects(page: Page) -> None:
    """Check the means by value of a setting, and the differences over matched pairs of variants."""
    from tests.studies.recompute import text

    run = page.run
    variants = [v for v in run.variants if v["settings"] and v["differs"]]
    together: dict[tuple[int, ...], list[str]] = {}
    for name in variants[0]["differs"] if variants else ():
        values = [_key(v["differs"][name]) for v in variants]
        together.setdefault(tuple(values.index(value) for value in values), []).append(name)
    expected = sorted((_effect(page, variants, names) for names in together.values()), key=lambda found: -found[0])
    bodies = [body for table in page.html.all("table", class_="effects") for body in table.all("tbody")]
    page.checks.equal("effects", "settings", str(len(bodies)), str(len(expected)))
    for body, (spread, levels) in zip(bodies, expected, strict=False):
        head = body.all("th")[0]
        known = sum(level[2] != ABSENT for level in levels) > 1
        apart = " ".join(text(each) for each in head.all("small"))
        page.checks.equal("effects", text(head), apart, f"{spread:.0f} points apart" if known else "")
        shown = [tuple(text(cell) for cell in row.all("td")) for row in body.all("tr")]
        page.checks.equal("effects", "values", str(len(shown)), str(len(levels)))
        for row, level in zip(shown, levels, strict=False):
            for a, b in zip(row, level, strict=True):
                page.checks.equal("effects", f"{text(head)} {level[0]}", a, b)


def _effect(page: Page, variants: Sequence[Data], names: Sequence[str]) -> tuple[float, list[tuple[str, ...]]]:
    """Return by how many points the values of a setting differ, and the texts of the row of each value."""
    values: dict[tuple[Any, ...], list[str]] = {}
    for variant in variants:
        values.setdefault(tuple(_key(variant["differs"][name]) for name in names), []).append(variant["name"])
    means = [_mean(page.run, own, (page.run.objective,)) for own in values.values()]
    known = [mean for mean in means if mean is not None]
    return (100 * (max(known) - min(known)) if known else 0.0), _levels(page, variants, names)


def _levels(page: Page, variants: Sequence[Data], names: Sequence[str]) -> list[tuple[str, ...]]:
    run = page.run

    def value(variant: Data) -> tuple[Any, ...]:
        return tuple(_key(variant["differs"][name]) for name in names)

    def order(found: tuple[Any, ...]) -> list[tuple[bool, Any]]:
        return [(False, x) if isinstance(x, int | float) else (True, str(x)) for x in found]

    values = sorted({value(v) for v in variants}, key=order)
    made = []
    for own in values:
        members = [v["name"] for v in variants if value(v) == own]
        pairs = [] if own == values[0] else _pairs(run, variants, names, values[0], own)
        shares = [_mean(run, members, (run.objective,)), _mean(run, members, GUARDED)]
        matched = _matched(run, pairs) or ("first value" if own == values[0] else ABSENT)
        shown = ", ".join(shown_setting(name, x) for name, x in zip(names, own, strict=True))
        made.append(
            (shown, str(len(members)), *(f"{100 * s:.0f}%" if s is not None else ABSENT for s in shares), matched)
        )
    return made


def _mean(run: Run, names: Sequence[str], roles: Sequence[str]) -> float | None:
    rates = [run.rate(name, roles) for name in names]
    known = [rate.passed / rate.total for rate in rates if rate.total]
    return fmean(known) if known else None


def _pairs(
    run: Run, variants: Sequence[Data], names: Sequence[str], first: tuple[Any, ...], own: tuple[Any, ...]
) -> list[tuple[str, str]]:
    def split(variant: Data) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest = {name: _key(x) for name, x in variant["differs"].items() if name not in names}
        return tuple(_key(variant["differs"][name]) for name in names), rest

    return [
        (a["name"], b["name"])
        for a in variants
        for b in variants
        if split(a)[0] == first and split(b)[0] == own and split(a)[1] == split(b)[1]
        if run.answers(a["name"]) and run.answers(b["name"])
    ]


def _matched(run: Run, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the mean difference over matched pairs, whose scores are pooled as if each pair were another seed."""
    found = [(run.scores(a, (run.objective,)), run.scores(b, (run.objective,))) for a, b in pairs]
    known = [(a, b) for a, b in found if a[0] and a[0] == b[0]]
    if not known:
        return ""
    before, after = (np.concatenate([pair[side][1] for pair in known]) for side in (0, 1))
    moved, low, high = change_interval(before, after, run.groups(known[0][0][0]))
    number = f"{len(known)} pair{'s' if len(known) != 1 else ''}"
    return f"{100 * moved:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}), {number}"
