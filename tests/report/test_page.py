"""The page as a reader's browser gets it: parsed, not searched for substrings of source."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest

from harness.analysis.recommendation import recommend
from harness.core.measurement import Basis
from harness.core.results import Choice, Results
from harness.core.suite import Message
from harness.core.training import Status
from harness.report import render
from harness.report.charts import NARROW, WIDE
from harness.report.tradeoff import WITHIN, Point, labels
from harness.report.words import anchor, setting, visible
from tests.support.synthetic_runs import HOSTILE, machine, results

VOID = frozenset({"meta", "input", "img", "br", "link", "hr"})
TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Every element below with this tag and these attributes; `class_` means one of the classes."""
        below = [child for child in self.children if isinstance(child, Element)]
        found = [e for child in below for e in [child, *child.all()]]
        return [e for e in found if (not tag or e.tag == tag) and all(e.has(k, v) for k, v in attributes.items())]

    def has(self, name: str, value: str) -> bool:
        if name == "class_":
            return value in (self.attributes.get("class") or "").split()
        return self.attributes.get(name) == value

    def id(self, name: str) -> Element:
        [found] = self.all(id=name)
        return found


class Tree(HTMLParser):
    """Builds elements and insists that every one is closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.here = Element("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.here.children.append(Element(tag, dict(attrs), self.here))

    def handle_endtag(self, tag: str) -> None:
        assert self.here.tag == tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)


def parse(html: str) -> Element:
    tree = Tree()
    tree.feed(html)
    tree.close()
    assert tree.here is tree.root
    return tree.root


@cache
def shown(kind: str = "toy") -> tuple[Results, Element]:
    made = {
        "toy": lambda: results(8, 18, seeds=(0, 1)),
        "t4": lambda: results(8, 18, toy=False, on=machine("cuda"), hostile=False),
        "emulated": lambda: results(8, 18, toy=False, on=machine("cuda", Basis.EMULATED), hostile=False),
    }[kind]()
    return made, parse(render(made, now="2026-01-02 03:30 UTC"))


# --- self-contained ----------------------------------------------------------------------------------------------


def test_policy_allows_only_this_script() -> None:
    """The content security policy forbids everything but inline style, data images and the one script by its hash."""
    _, page = shown()
    [script] = page.all("script")
    [policy] = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_fetched() -> None:
    """No element names another resource, and no link leaves the page."""
    _, page = shown()
    for element in page.all():
        assert not {"src", "srcset", "data", "action", "xlink:href"} & set(element.attributes), element.tag
        assert (element.attributes.get("href") or "#").startswith("#")
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "img"}
    assert "@import" not in page.all("style")[0].text
    assert "http" not in page.all("style")[0].text


def test_links_lead_somewhere() -> None:
    """Every link's target is on the page, and no id is given twice."""
    _, page = shown()
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert {(e.attributes["href"] or "")[1:] for e in page.all("a")} <= set(ids)


# --- hostile text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_shows_as_text(number: int) -> None:
    """A hostile prompt and a hostile answer are text on the page, whole, with control characters named."""
    _, page = shown()
    card = page.id(f"case={anchor(f'hostile {number}')}")
    whole = "".join(e.text for e in card.all(class_="txt"))
    assert visible(HOSTILE[number]) in whole
    assert visible(HOSTILE[number][:200]) in whole


def test_no_control_characters() -> None:
    """No control character, direction mark or half surrogate is left in the page."""
    made, _ = shown()
    html = render(made, now="now")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert html.encode()


def test_hostile_names() -> None:
    """Markup in a variant's name, a case's id, a message, a version and the command shows as text everywhere."""
    bad = "</svg></script><img src=x onerror=alert(1)>\u202e\x00"
    made, _ = shown()
    first = made.variants[0]
    run = replace(made.run, provenance=replace(made.run.provenance, command=bad, versions={bad: bad}))
    case = replace(made.run.suite.cases[0], id=bad, group=bad, description=bad, messages=(Message(bad, bad),) * 2)
    run = replace(run, suite=replace(run.suite, cases=(case, *run.suite.cases[1:]), description=bad))
    variants = (replace(first, name=bad, messages=(bad, bad)), *made.variants[1:])
    page = parse(render(replace(made, run=run, variants=variants, choice=Choice(bad, (bad,)), leaks={}), now=bad))
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert visible(bad) in page.id("answer").text
    assert visible(bad) in page.id("provenance").text
    assert "onerror" in page.id("trade-off").text


def test_long_lines_are_folded() -> None:
    """Of a very long answer the start shows and the rest is folded, not dropped."""
    _, page = shown()
    card = page.id(f"case={anchor('hostile 4')}")
    assert card.all("details", class_="rest")
    assert sum(e.text.count("x") for e in card.all(class_="txt")) >= 100_000


def test_anchors_are_permanent_and_unique() -> None:
    """A plain case id is its own anchor; ids that differ only in odd characters have different ones."""
    assert anchor("retain-012") == "retain-012"
    assert anchor("a b") != anchor("a/b")
    assert re.fullmatch(r"[\w.-]+", anchor("a b\ud800"))


# --- everything is there without script --------------------------------------------------------------------------


def test_every_answer_is_in_the_html() -> None:
    """Each sample's answer, base and tuned, stands in its case's card, or is said to equal the base's."""
    made, page = shown()
    cards = {e.attributes["id"]: e for e in page.all("article")}
    base = {s.case: s.answer.text for s in made.samples if s.variant == "base"}
    for sample in made.samples:
        card = cards[f"case={anchor(sample.case)}"]
        said = "".join(e.text for e in card.all(class_="txt"))
        assert visible(sample.answer.text) in said or (
            sample.answer.text == base[sample.case] and "Same answer" in card.text
        )


def test_answers_are_not_repeated() -> None:
    """An answer that many variants give stands once in its card, with everyone who gave it."""
    made, page = shown()
    card = page.id(f"case={anchor('hostile 6')}")
    texts = [e.text for e in card.all(class_="given")]
    assert len(texts) == 2
    succeeded = [v.name for v in made.variants if v.rates and v.name != made.choice.variant]
    assert all(name in texts[1] for name in succeeded)


def test_every_variant_is_a_row() -> None:
    """The table has the base and every variant, whatever its status, and the status in words."""
    made, page = shown()
    rows = page.id("variants").all("tbody")[0].all("tr")
    assert len(rows) == 1 + len(made.variants)
    for row, variant in zip(rows[1:], made.variants, strict=True):
        assert variant.name in row.text
        assert variant.statuses[0].value in row.text.lower()


def test_failed_variants_are_drawn_and_listed() -> None:
    """Diverged, out-of-memory and failed variants are marks of the chart and rows with message and log."""
    made, page = shown()
    failed = [v for v in made.variants if v.statuses[0] is not Status.SUCCEEDED]
    assert len(failed) == 3
    for variant in failed:
        assert variant.name in page.id("trade-off").all("svg")[0].text
        assert variant.messages[0] in page.id("failures").text
        assert variant.logs[0] in page.id("failures").text


def test_a_failed_assertion_says_which_and_why() -> None:
    """Under a failed answer stand the assertion's name and the reason."""
    _, page = shown()
    given = next(e for e in page.all(class_="given") if "✗ fail" in e.text and "Same" not in e.text)
    assert "contains" in given.text
    assert "does not contain" in given.text


def test_void_and_truncated_are_said() -> None:
    """A void case says so with its reason, and an answer cut by the token limit is flagged."""
    made, page = shown()
    assert made.void
    for case, reason in made.void.items():
        assert reason in page.id(f"case={anchor(case)}").text
    assert "cut at the token limit" in page.id("prompts").text


def test_confirm_cases_stand_apart() -> None:
    """Held-out cases are in a part of their own, and all of them are there."""
    made, page = shown()
    part = page.id("confirm-cases")
    assert len(part.all("article")) == sum(c.split.value == "confirm" for c in made.run.suite.cases)
    assert not [
        e
        for e in page.id("main-cases").all("article")
        if e.attributes["id"] in {a.attributes["id"] for a in part.all("article")}
    ]


def test_charts_speak() -> None:
    """Every chart has a title, a description and its numbers as a table, and shares no id with another."""
    _, page = shown()
    assert len(page.all("figure")) == 4
    for figure in page.all("figure"):
        assert figure.all("svg")[0].attributes["role"] == "img"
        assert figure.all("title")[0].text
        assert figure.all("desc")[0].text
        assert figure.all("table")[0].all("td")


def test_tables_and_inputs_are_labelled() -> None:
    """Every table has a caption, every header cell a scope, every input a label, and headings skip no level."""
    _, page = shown()
    assert all(table.all("caption") for table in page.all("table"))
    assert all("scope" in th.attributes for th in page.all("th"))
    assert all(e.parent and e.parent.tag == "label" for tag in ("input", "select") for e in page.all(tag))
    levels = [int(e.tag[1]) for e in page.all() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_provenance() -> None:
    """The page tells command, versions, digests, commit, seeds and device."""
    made, page = shown()
    said = page.id("provenance").text
    facts = made.run.provenance
    for part in (
        facts.command,
        facts.git_commit,
        made.run.digest,
        made.run.model.digest,
        facts.machine.device,
        "2.13.0",
        "0 and 1",
    ):
        assert part in said


# --- what a number may claim -------------------------------------------------------------------------------------


def test_toy_banner_and_nothing_to_copy() -> None:
    """A toy run has the banner, calls its pick best in this demonstration, and recommends and copies nothing."""
    made, page = shown()
    assert page.all(class_="banner")[0].text == TOY
    assert f"Best in this demonstration {made.choice.variant}" in " ".join(page.id("answer").text.split())
    assert "Recommended" not in page.text.replace(page.all("script")[0].text, "")
    assert not [e for e in page.all() if "data-copy" in e.attributes]


def test_real_model_is_recommended_for_what_was_tested() -> None:
    """A real model's pick is recommended for model, suite, cases and seeds, and its settings can be copied."""
    made, page = shown("t4")
    advice = recommend(made)
    assert advice.headline.startswith(f"Recommended for {made.run.model.name}, workshop, ")
    assert advice.headline.removesuffix(f": {made.choice.variant}.") in page.id("answer").text
    assert page.all("button", **{"data-copy": "settings"})
    settings = next(v.settings for v in made.variants if v.name == made.choice.variant)
    assert settings
    assert page.id("settings").text == advice.script
    assert f"r={settings.rank}," in page.id("settings").text
    assert not page.all(class_="banner")


def test_emulated_is_called_so() -> None:
    """Figures of a capped GPU are printed as that, and as never run on a T4."""
    _, page = shown("emulated")
    said = "NVIDIA H200 capped at 14.2 GiB; never run on a T4"
    for section in ("answer", "variants", "cost", "provenance"):
        assert said in page.id(section).text
    assert "Tesla T4" not in page.text


def test_a_cpu_claims_nothing_about_a_gpu() -> None:
    """A CPU run's chart ranks by work, not seconds; no chart has a T4's line, and the answer says it cannot tell."""
    _, page = shown()
    assert "trained tokens × trainable parameters" in page.id("trade-off").text
    assert "measured on Example CPU" in page.id("cost").text
    assert not [svg for figure in page.all("figure") for svg in figure.all("svg") if "T4" in svg.text]
    assert "whether it fits a T4, this run cannot tell" in page.id("answer").text


def test_three_traps_are_answered() -> None:
    """May I use it for Llama-2, does it fit a T4, is B worse than A: each has its place, and no more is claimed."""
    _, page = shown()
    assert "Do not copy these settings to another model" in page.all("header")[0].text
    assert "whether it fits a T4, this run cannot tell" in page.id("answer").text
    told = page.id("variants").all("table", class_="pairwise")[0]
    assert "cannot be told apart" in told.all("caption")[0].text
    assert told.all("td", class_="unclear")


def test_cuda_ranks_by_seconds_and_shows_gpu_memory() -> None:
    """A CUDA run's chart has seconds as its axis, and its cost table the GPU's three memory figures."""
    _, page = shown("t4")
    assert "Training time" in page.id("trade-off").text
    assert "T4 14.2 GiB" in page.id("memory-trade-off").all("svg")[0].text
    assert "T4" not in page.id("trade-off").all("svg")[0].text
    assert all(word in page.id("cost").text for word in ("Peak allocated", "Peak reserved", "Peak on device"))


def test_confirmed_figures_lead() -> None:
    """Confirmed pass rates stand first, next to the base's, and the page says under which seeds."""
    made, page = shown()
    assert made.confirmed
    [table] = page.id("answer").all("table", class_="rates")
    row = next(r for r in table.all("tbody")[0].all("tr") if "generalise" in r.text)
    rate = next(v for k, v in made.confirmed.rates.items() if k == "generalise")
    assert f"{rate.passed}/{rate.total}" in row.all("td")[1].text
    assert "2 fresh seeds (100 and 101)" in table.text


def test_unconfirmed_is_said() -> None:
    """Without a confirmation the page says that the figures flatter the choice."""
    made, _ = shown()
    page = parse(render(replace(made, confirmed=None, confirmed_base=None, confirmed_samples=()), now="now"))
    assert "Not confirmed" in page.id("answer").text


def test_a_refuted_choice_is_not_recommended() -> None:
    """What the confirmation says against a choice stands in the answer; nothing is recommended and nothing copied."""
    made, _ = shown("t4")
    page = parse(render(replace(made, choice=replace(made.choice, refuted=("It forgets.",))), now="now"))
    assert "It forgets." in page.id("answer").all(class_="refuted")[0].text
    assert "Not recommended for" in page.id("answer").text
    assert "Recommended for" not in page.id("answer").text
    assert not [e for e in page.all() if "data-copy" in e.attributes]


def test_module_names_read_alike_after_loading() -> None:
    """A list of modules shows as one, be it a tuple of a fresh run or a list of one that was read back."""
    assert setting("target_modules", ["q_proj", "v_proj"]) == setting("target_modules", ("q_proj", "v_proj"))
    assert setting("target_modules", ["q_proj", "v_proj"]) == "q_proj, v_proj"


def test_an_unfinished_run_is_provisional() -> None:
    """A page of a run with trials that were stopped says how many before anything else; a whole run's does not."""
    made, page = shown()
    assert not page.all(class_="waiting")
    variants = (replace(made.variants[0], statuses=(Status.CANCELLED,) * 2), *made.variants[1:])
    page = parse(render(replace(made, variants=variants), now="now"))
    assert "2 of 18 trials without a result" in page.all(class_="waiting")[0].text


def test_labels_of_the_trade_off_do_not_overlap() -> None:
    """Labels of marks at the same place, and the base's, lie apart and within the drawing."""
    point = Point(1, "lr=1e-3 r=2", 1e6, "1 M", 0.0, "0%", WITHIN, Status.SUCCEEDED)
    points = [replace(point, number=n, cost=cost) for n, cost in enumerate((1e6, 1e6, 1e6, 9e6), 1)]
    for width in (WIDE, NARROW):
        heights = [label["quality"] for label in labels(points, (1e6, 1e7), 0.0, width)]
        assert min(heights) >= 2
        assert all(abs(a - b) >= 5 for a, b in combinations(heights[:3], 2))
        assert heights[3] >= 7


def test_no_choice_says_why() -> None:
    """Without a best variant the page says so first, and why, and still shows every answer."""
    made, _ = shown()
    none = replace(made, choice=Choice(None, ("Every variant loses too much.",)), confirmed=None)
    page = parse(render(none, now="now"))
    assert "No best variant in this demonstration" in page.id("answer").text
    assert "Every variant loses too much." in page.id("answer").text
    assert len(page.id("main-cases").all("article")) == sum(c.split.value == "main" for c in made.run.suite.cases)


def test_nothing_finished_still_renders() -> None:
    """A run of which nothing succeeded, or of which nothing was even tried, has a page."""
    made, _ = shown()
    failed = [replace(v, statuses=(Status.FAILED,) * 2, rates={}, costs=(), training=()) for v in made.variants]
    empty = replace(made, variants=tuple(failed), samples=(), choice=Choice(None, ("None.",)), confirmed=None)
    assert "No training logged a step" in parse(render(empty, now="now")).id("learning").text
    parse(render(replace(empty, variants=()), now="now"))


def test_size() -> None:
    """24 variants by 200 cases with answers of 250 characters stay under 6 MB."""
    made = results(24, 200, hostile=False, length=250)
    assert len(render(made, now="now").encode()) < 6_000_000
