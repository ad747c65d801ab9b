"""Tests of the report in the browser Chromium, through Playwright."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.analysis.regression import verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.core.outside_text import visible
from harness.core.regression import Decision, Policy
from harness.core.run_results import Choice, Confirmation, Finding, Results
from harness.core.training_outcome import Status
from harness.report import fragment, render, render_bases, render_comparison, render_handout
from harness.report.formatting import anchor
from tests.support import run_pairs
from tests.support.made_results import machine
from tests.support.synthetic_runs import HOSTILE, results

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser
WIDTHS = (400, 1280)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
Open = Callable[..., "Page"]


def lacking(what: str) -> None:
    """Skip the test because `what` is missing. If HARNESS_BROWSER=1 says that a browser is installed, fail instead."""
    if os.environ.get("HARNESS_BROWSER") == "1":
        pytest.fail(f"HARNESS_BROWSER=1 and there is no {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        lacking("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright: `nox -s browser` installs it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def load(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a page from a file. At the end, fail if the browser logged an error or requested a resource."""
    said: list[str] = []
    contexts = []

    def opened(html: str, *, address: str = "", width: int = 1280, name: str = "page.html", **options: Any) -> Page:
        file = tmp_path / name
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: None if request.url.startswith("file://") else said.append(request.url))
        page.goto(file.as_uri() + address)
        if options.get("java_script_enabled", True) and 'id="case-data"' in html:
            page.locator(".ready").nth(html.count('id="case-data"') - 1).wait_for(state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said


@cache
def made(kind: str = "toy") -> Results:
    """Return a run of the toy model with hostile text and failures, or the variation of this run that `kind` names."""
    if kind == "real":
        return results(8, 18, toy=False, on=machine("cuda"), seeds=(0, 1))
    whole = results(8, 18, seeds=(0, 1))
    if kind == "shape":
        return replace(whole, run=replace(whole.run, model=replace(whole.run.model, shape_only=True)))
    if kind == "refuted":
        return replace(
            whole, choice=replace(whole.choice, confirmation=Confirmation(Finding.REFUTED, ("It forgets.",)))
        )
    if kind == "stopped":
        stopped = [replace(v, statuses=(Status.CANCELLED,) * 2, rates={}, costs=()) for v in whole.variants]
        return replace(whole, variants=tuple(stopped), samples=(), choice=Choice(None, ("None.",)), confirmed=None)
    return whole


@cache
def two() -> Decision:
    """Return the comparison of two runs with three lost cases and one gained case."""
    failing = {"learn 0": run_pairs.SEEDS, "learn 1": run_pairs.SEEDS, "keep 1": run_pairs.SEEDS}
    before, after = run_pairs.results({"keep 2": run_pairs.SEEDS}), run_pairs.results(failing)
    return verdict.decide(compare(baseline_of(before, "before"), baseline_of(after, "after")), Policy(10))


@cache
def html(kind: str = "toy") -> str:
    return render(made(kind), now="2026-01-02T03:30:00+00:00")


@cache
def other(kind: str) -> str:
    """Return a handout, or the page of two runs on different bases."""
    one = made("real")
    if kind == "handout":
        return render_handout(one, now="now")
    second = replace(one, run=replace(one.run, model=replace(one.run.model, name="second", digest="2")))
    return render_bases([(Path("one"), one), (Path("two"), second)], now="now")


def visible_cases(page: Page) -> list[str]:
    """Return the ids of the cases that the filters do not hide."""
    found = page.locator(".case:not([hidden])").evaluate_all("cards => cards.map(card => card.id.slice(5))")
    return [str(id) for id in found]


def flips(page: Page) -> set[str]:
    """Return how the cases changed that the filters do not hide."""
    signs = {"=": "kept", "+": "fixed", "-": "broken", "x": "failing", "?": "none"}
    found = page.locator(".case:not([hidden])").evaluate_all(
        "cards => cards.map(({card}) => card.changes[document.getElementById('variant').value - 1])"
    )
    return {signs[str(sign)] for sign in found}


def everything(page: Page) -> None:
    """Show all cases, and not only those that changed."""
    page.locator("#flip").select_option("")


def opened(page: Page, case: str) -> Locator:
    """Open a case by its row's button, if it is closed, and return it."""
    everything(page)
    card = page.locator(f"[id='case={anchor(case)}']")
    card.scroll_into_view_if_needed()
    row = card.locator("button.row")
    row.wait_for()
    if row.get_attribute("aria-expanded") == "false":
        row.click()
    return card


# --- the page as a whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["toy", "real", "refuted", "stopped", "shape"])
def test_no_error_and_no_overflow(kind: str, width: int, load: Open) -> None:
    """The page loads without errors or requests, and is never wider than the window, even with all details open."""
    page = load(html(kind), width=width)
    across = "document.documentElement.scrollWidth"
    assert page.evaluate(across) == width
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    assert page.evaluate(across) == width
    for figure in page.locator("figure.chart").all():
        assert sum(svg.is_visible() for svg in figure.locator("svg").all()) == 1, "of the two drawings one shows"


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["bases", "handout"])
def test_other_pages(kind: str, width: int, script: bool, load: Open) -> None:
    """The page of several bases and the handout need no script, and are never wider than the window."""
    page = load(other(kind), width=width, java_script_enabled=script)
    assert page.locator("h1").is_visible()
    wide = page.locator("body").evaluate("body => body.scrollWidth") if script else width
    assert wide == width
    for place in ("#answer .name", "#bases-section td b" if kind == "bases" else "#examples td .txt"):
        assert page.locator(place).first.is_visible(), place
    if kind == "bases":
        assert sum(svg.is_visible() for svg in page.locator("#chart svg").all()) == 1


def test_kinds_are_large_enough_to_click(load: Open) -> None:
    """The button of each kind is at least 24 pixels high."""
    heights = load(html("real")).locator(".kinds .kind button").evaluate_all("all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 24


@pytest.mark.parametrize("kind", ["real", "bases", "handout"])
def test_names_are_not_broken_on_a_phone(kind: str, load: Open) -> None:
    """At 400 pixels, no heading breaks within a name such as `lr=1e-3`, and no kind's column is cut off."""
    page = load(html(kind) if kind == "real" else other(kind), width=400)
    rows = "all => all.map(e => new Set([...e.getClientRects()].map(box => box.top)).size)"
    assert set(page.locator("#answer .name .whole").evaluate_all(rows)) == {1}
    if kind == "bases":
        assert page.locator(".scroll:has(.kinds)").evaluate("e => e.scrollWidth - e.clientWidth") == 0


CONTROLS = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.mark.parametrize("kind", ["run", "bases"])
def test_every_control_is_reached_by_keyboard(kind: str, load: Open) -> None:
    """The tab key reaches every link, button, field, fold and scrolling table that is visible."""
    small = results(6, 6, seeds=(0, 1), hostile=False, confirm=2)
    page = load(render(small, now="now") if kind == "run" else other(kind))
    page.evaluate(
        "all => document.querySelectorAll(all).forEach(e => { if (e.checkVisibility()) e.dataset.wanted = 1 })",
        CONTROLS,
    )
    wanted = page.locator("[data-wanted]").count()
    assert wanted > 5
    for _ in range(2 * wanted + 20):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.removeAttribute('data-wanted')")
    assert page.locator("[data-wanted]").evaluate_all("all => all.map(e => e.outerHTML.slice(0, 120))") == []


def test_print(load: Open) -> None:
    """A report of 60 variants prints on at most 12 sheets, with 40 of them in its table; a handout prints on one."""
    page = load(render(results(60, 30, hostile=False, confirm=12), now="now"))
    assert sheets(page) <= 12
    page.emulate_media(media="print")
    rows = page.locator("#variants-table tbody tr")
    assert rows.evaluate_all("rows => rows.filter(row => row.checkVisibility()).length") == 41
    assert page.locator(".on-paper").first.is_visible()
    assert sheets(load(other("handout"))) == 1


def test_printed_code_can_be_pasted(load: Open) -> None:
    """On an A4 sheet, no line of a handout's settings is broken, and they stand in two columns."""
    page = load(other("handout"), width=703)
    page.emulate_media(media="print")
    lines, columns = page.locator("#settings").evaluate("""pre => {
      const text = pre.firstChild, ends = [...text.data.matchAll(/[^\\n]+/g)].map(m => {
        const line = document.createRange();
        line.setStart(text, m.index);
        line.setEnd(text, m.index + m[0].length);
        return [...line.getClientRects()].map(box => [Math.round(box.left), Math.round(box.top)]);
      });
      return [ends.map(all => new Set(all.map(box => box[1])).size), new Set(ends.map(all => all[0][0])).size];
    }""")
    assert len(lines) > 30
    assert set(lines) == {1}
    assert columns == 2


def sheets(page: Page) -> int:
    return len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(prefer_css_page_size=True)))


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of an element with the background of the page, as WCAG defines it."""
    return float(
        page.locator(selector).first.evaluate("""element => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
              .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const pair = [getComputedStyle(element).color, getComputedStyle(document.body).backgroundColor].map(light);
          return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }""")
    )


def test_dark_mode(load: Open) -> None:
    """In dark mode, the background is dark, and text and marks have a contrast of at least 4.5 to 1 to it."""
    page = load(html(), color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(paper) < 60
    for selector in ("h1", ".note", ".mark.pass", ".mark.fail", "#answer .name", "a", ".tile p", ".verdict-line"):
        assert contrast(page, selector) >= 4.5, selector
    ink = page.locator("figure.chart svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert min(int(part) for part in ink.removeprefix("rgb(").removesuffix(")").split(",")) > 120


def test_without_script(load: Open) -> None:
    """If JavaScript is off, the first screen, the charts and all table rows are visible, and no controls are."""
    page = load(html(), java_script_enabled=False)
    for place in ("#answer .tile", "#learned-lost svg", ".kinds td.h", "#variants-table tbody tr", "#trade-off svg"):
        assert page.locator(place).first.is_visible(), place
    assert page.locator("#variants-table tbody tr").count() == 1 + len(made().variants)
    assert "JavaScript" in (page.locator("#cases .unscripted").text_content() or "")
    assert not [e for e in page.locator("select, input, button").all() if e.is_visible()]


def test_the_first_screen_stands_alone(load: Open) -> None:
    """At 1280 by 800 pixels, the answer and what to try next fill the first screen, and no chart begins on it."""
    page = load(html("real"), name="first.html")
    page.set_viewport_size({"width": 1280, "height": 800})
    ends = page.locator(".first :is(p, li)").evaluate_all("all => all.map(e => e.getBoundingClientRect().bottom)")
    assert max(ends) < 800
    assert page.locator("#learned-lost-section h2").evaluate("e => e.getBoundingClientRect().top") > 770


def test_in_a_sandbox(load: Open) -> None:
    """If the report is in a sandboxed frame, its filters, keys and links still work."""
    frame = "<!doctype html><title>frame</title><iframe sandbox='allow-scripts' src='inner.html' width=1200 height=800>"
    load(html(), name="inner.html").close()
    outer = load(frame)
    inner = outer.frame_locator("iframe")
    inner.locator(".ready").wait_for(state="attached")
    inner.locator("#flip").select_option("changed")
    assert 0 < inner.locator(".case:not([hidden])").count() < inner.locator(".case").count()
    inner.locator("h1").click()
    inner.locator("h1").press("j")
    assert inner.locator(".case.here").count() == 1
    inner.locator("#flip").select_option("")
    inner.locator("[id='case=c001'] .strip i").nth(1).click()
    assert inner.locator(".case.here").get_attribute("id") == "case=c001"


def test_in_a_notebook(load: Open) -> None:
    """If two reports are in one notebook, they change neither each other nor the notebook, and their links work."""
    inside = [fragment(made(kind), now="now") for kind in ("toy", "real")]
    page = load(f"<!doctype html><title>n</title><h1 id=outside>Notebook</h1>{inside[0]}{inside[1]}")
    assert page.locator("#outside").evaluate("e => getComputedStyle(e).fontSize") == "32px"
    first, second = page.locator(".harness-report").all()
    for report in (first, second):
        report.locator("#flip").select_option("")
    second.locator("#flip").select_option("fixed")
    assert second.locator(".case:not([hidden])").count() < second.locator(".case").count()
    assert first.locator(".case:not([hidden])").count() == first.locator(".case").count()
    second.locator("nav a", has_text="Variants").click()
    assert second.locator("#variants").evaluate("e => Math.abs(e.getBoundingClientRect().top) < 200")
    assert "#" not in page.url


@pytest.mark.parametrize(
    ("kind", "scheme"), [("cpu", "light"), ("cuda", "dark"), ("two", "light"), ("bases", "dark"), ("handout", "light")]
)
def test_accessibility(kind: str, scheme: str, load: Open) -> None:
    """axe-core finds no serious accessibility problem on the page of a run, of several runs, or on a handout."""
    try:
        import axe_playwright_python
    except ImportError:
        lacking("axe-playwright-python: `nox -s browser` installs it")
    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    if kind == "two":
        html = render_comparison(two(), now="now")
    elif kind in ("bases", "handout"):
        html = other(kind)
    else:
        small = results(6, 6, seeds=(0, 1), hostile=False, confirm=2, toy=kind == "cpu", on=machine(kind))
        html = render(small, now="now")
    page = load(html, color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details:not(.others)').forEach(fold => { fold.open = true })")
    if kind in ("cpu", "cuda"):
        opened(page, "c001")
        page.locator("#search").fill("river")
    page.evaluate(axe)
    done = page.evaluate("axe.run()")
    assert len(done["passes"]) > 20
    found = done["violations"]
    bad = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
    assert not bad


def test_two_runs(load: Open) -> None:
    """The page that compares two runs can be filtered by lost cases and by role.

    The keys move between the cases that are left.
    """
    for width in WIDTHS:
        page = load(render_comparison(two(), now="now"), width=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    whole = len(visible_cases(page))
    page.locator("#flip").select_option("broken")
    assert len(visible_cases(page)) == whole - 1
    page.locator("#role").select_option("retain")
    page.locator("h1").click()
    page.keyboard.press("j")
    assert [page.locator(".case.here").get_attribute("id")] == [f"case={id}" for id in visible_cases(page)]
    assert page.evaluate("location.hash").startswith("#case=keep-1")


# --- what moves --------------------------------------------------------------------------------------------------


def test_sorting(load: Open) -> None:
    """A click on a heading sorts the table, and a second click reverses the order. The base model stays on top."""
    page = load(html())
    names = page.locator("#variants table.sortable tbody th")
    head = page.locator("#variants table.sortable thead tr:last-child th", has_text="generalise")
    rate = head.evaluate("th => th.cellIndex")
    shown = f"#variants table.sortable tbody tr td:nth-child({rate + 1})"
    for wanted in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == wanted
        assert names.first.text_content() == "base"
        values = page.locator(shown).evaluate_all("cells => cells.slice(1).map(c => c.dataset.s).filter(s => s)")
        numbers = [float(value) for value in values]
        assert numbers == sorted(numbers, reverse=wanted == "descending")


def test_filters(load: Open) -> None:
    """Each filter shows only the cases of its kind, with their number; the role filter reduces them further."""
    page = load(html())
    everything(page)
    whole = len(visible_cases(page))
    for name, kinds in {
        "changed": {"fixed", "broken"},
        "fixed": {"fixed"},
        "broken": {"broken"},
        "failed": {"failing", "broken"},
    }.items():
        page.locator("#flip").select_option(name)
        assert flips(page) <= kinds
        assert f"({len(visible_cases(page))})" in page.locator(f"#flip option[value={name}]").text_content()
    page.locator("#flip").select_option("changed")
    changed = len(visible_cases(page))
    assert 0 < changed < whole
    page.locator("#role").select_option("retain")
    assert len(visible_cases(page)) < changed
    assert page.locator("#found").text_content() == f"{len(visible_cases(page))} of {whole} cases"


def test_errors_filter(load: Open) -> None:
    """The filter `errors` shows only the cases with answers that could not be scored."""
    whole = made()
    samples = tuple(
        replace(s, score=replace(s.score, value=None, error="no JSON"))
        if s.case == "c001" and s.variant != "base"
        else s
        for s in whole.samples
    )
    page = load(render(replace(whole, samples=samples), now="now"))
    page.locator("#flip").select_option("errors")
    assert visible_cases(page) == ["c001"]
    page.locator("[id='case=c001']").scroll_into_view_if_needed()
    page.locator("[id='case=c001'] button.row").click()
    assert "Could not be scored: no JSON" in page.locator("[id='case=c001']").text_content()


def test_search(load: Open) -> None:
    """A search shows the cases whose prompt, id or answers contain the text, in upper or lower case, with the place."""
    page = load(html())
    everything(page)
    page.locator("#search").fill("ROLE no case has")
    assert visible_cases(page) == []
    page.locator("#search").fill("C003")
    assert "c003" in visible_cases(page)
    assert len(visible_cases(page)) < 5
    page.locator("#search").fill("<img src=x onerror")
    assert visible_cases(page) == [anchor("hostile 0")]
    assert page.locator(".case:not([hidden]) .hit mark").first.text_content() == "<img src=x onerror"
    assert "search=" in page.url
    again = load(html(), address=page.evaluate("location.hash"))
    assert visible_cases(again) == [anchor("hostile 0")]


def test_a_kind_shows_its_cases(load: Open) -> None:
    """A click on a kind in the table of kinds shows its cases, and the address says so."""
    page = load(html())
    row = page.locator(".kinds tbody tr").first
    row.locator("button").click()
    role, kind = (row.get_attribute(f"data-{name}") for name in ("role", "kind"))
    assert page.locator("#kind").input_value() == kind
    assert page.locator(".case:not([hidden])").evaluate_all(
        "cards => [...new Set(cards.map(c => c.dataset.role))]"
    ) == [role]
    assert "kind=" in page.url


def test_a_mark_leads_to_its_variant(load: Open) -> None:
    """A click on a mark of the chart of gains and losses leads to the row of its variant."""
    page = load(html())
    mark = page.locator("#learned-lost svg.at-wide a").first
    target = mark.get_attribute("href")
    mark.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{target}")
    assert page.locator(f"#variants-table {target}").count() == 1


def test_columns_can_be_hidden(load: Open) -> None:
    """Each box above the table of variants hides its columns, and shows them again."""
    page = load(html())
    before = page.locator("#variants-table thead th:visible").count()
    for box in page.locator(".columns input").all():
        box.uncheck()
    assert page.locator("#variants-table thead th:visible").count() < before / 2
    for box in page.locator(".columns input").all():
        box.check()
    assert page.locator("#variants-table thead th:visible").count() == before


def test_comparing_with_others(load: Open) -> None:
    """If other variants are selected, their answers are shown beside the base model's, with their verdicts."""
    page, whole = load(html()), made()
    finished = [v.name for v in whole.variants if v.rates]
    card = opened(page, "c001")
    page.locator("#variant").select_option(label=finished[0])
    page.locator("#with").select_option(label=finished[-1])
    assert card.locator("h5").all_text_contents() == ["Base", finished[0], finished[-1], "Reference"]
    for name, place in ((finished[0], ".new"), (finished[-1], ".third")):
        answers = {visible(s.answer.text) for s in whole.samples if s.case == "c001" and s.variant == name}
        base = next(s.answer.text for s in whole.samples if s.case == "c001" and s.variant == "base")
        texts = card.locator(f"{place} .txt").all_text_contents()
        assert {visible(base) if text == "Same answer as the base" else text for text in texts} == answers


def test_words_that_differ_are_marked(load: Open) -> None:
    """For whichever variant is selected, the words only in its answer or only in the base model's answer are marked."""
    whole = made()
    texts = {"base": "The answer is blue today.", whole.variants[0].name: "The answer is green today."}
    samples = tuple(
        replace(s, answer=replace(s.answer, text=texts.get(s.variant, "The answer is red, as today.")))
        if s.case == "c001"
        else s
        for s in whole.samples
    )
    page = load(render(replace(whole, samples=samples), now="now"))
    card = opened(page, "c001")
    assert marked(card, "ins") == {"red,", "as"}
    assert marked(card, "del") == {"blue"}
    page.locator("#variant").select_option(label=whole.variants[0].name)
    assert marked(card, "ins") == {"green"}
    assert marked(card, "del") == {"blue"}
    assert card.locator(".old .txt").text_content() == texts["base"]


def marked(card: Locator, tag: str) -> set[str]:
    return {text.strip() for text in card.locator(f".sides {tag}").all_text_contents()}


def test_keys(load: Open) -> None:
    """The keys j and k move to the next and previous visible case, and the key / moves to the search field."""
    page = load(html())
    page.locator("#flip").select_option("changed")
    page.locator("h1").click()
    wanted = visible_cases(page)
    seen = []
    for key in ("j", "j", "k", "j", "j"):
        page.keyboard.press(key)
        seen.append(page.locator(".case.here").get_attribute("id").removeprefix("case="))
    assert seen == [wanted[0], wanted[1], wanted[0], wanted[1], wanted[2]]
    assert f"case={wanted[2]}" in page.url
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.locator("#search").input_value() == "jk"


def test_permanent_links(load: Open) -> None:
    """If the address names a case and variants, the page shows that case, even if a filter would hide it."""
    whole = made()
    name, other = whole.variants[1].name, whole.variants[2].name
    page = load(html(), address="#case=c004&variant=" + name.replace("=", "%3D").replace(" ", "+"))
    assert page.locator(".case.here").get_attribute("id") == "case=c004"
    assert page.locator("#variant option:checked").text_content() == name
    page.locator("#with").select_option(label=other)
    again = load(html(), address=page.evaluate("location.hash"))
    assert again.locator("#variant option:checked").text_content() == name
    assert again.locator("#with option:checked").text_content() == other
    again.locator("#search").fill("c001")
    again.evaluate("location.hash = '#case=c005'")
    again.wait_for_function("document.querySelector('.case.here').id === 'case=c005'")
    assert "c005" in visible_cases(again)
    top = again.locator(".case.here").evaluate("e => e.getBoundingClientRect().top")
    assert 0 <= top < 500


def test_the_boxes_of_a_case(load: Open) -> None:
    """The list opens on what changed; a click on a variant's box opens its case with the answer of this variant."""
    page, whole = load(html()), made()
    assert page.locator("#flip").input_value() == "changed"
    assert flips(page) <= {"fixed", "broken"}
    everything(page)
    card = page.locator("[id='case=c002']")
    card.scroll_into_view_if_needed()
    card.locator(".strip i").nth(1).click()
    assert page.locator(".case.here").get_attribute("id") == "case=c002"
    assert page.locator("#variant option:checked").text_content() == whole.variants[1].name
    assert card.locator(".side.new h5").text_content() == whole.variants[1].name


def test_buttons_step_through_the_cases(load: Open) -> None:
    """The buttons “Next case” and “Previous case” open one case after another in place, by the keyboard, too."""
    page = load(html())
    wanted = visible_cases(page)
    page.locator("#following").focus()
    page.keyboard.press("Enter")
    page.locator("#following").click()
    assert page.locator(".case.here").get_attribute("id") == f"case={wanted[1]}"
    assert page.locator(".case .inside").count() == 1
    page.locator("#previous").click()
    assert page.locator(".case.here").get_attribute("id") == f"case={wanted[0]}"


def test_rows_are_drawn_when_seen(load: Open) -> None:
    """Only rows near the window have content; a row that is scrolled into view gets its content before it is seen."""
    page = load(render(results(6, 400, hostile=False, confirm=0), now="now"))
    everything(page)
    page.locator("#cases").scroll_into_view_if_needed()
    page.locator(".case header").first.wait_for(state="attached")
    filled = page.locator(".case:not([hidden]) header").count()
    assert 0 < filled < 200
    page.locator(".case").last.scroll_into_view_if_needed()
    page.locator(".case").last.locator("header").wait_for(state="attached")


@pytest.mark.parametrize("width", WIDTHS)
def test_sections_are_reached(width: int, load: Open) -> None:
    """A link of the navigation leads to its section, even if the browser has not laid out the cases above it yet."""
    page = load(html(), width=width)
    for name in ("cost", "cases", "variants"):
        page.locator(f"nav a[href='#{name}']").click()
        # Scrolling ends when the sections above have been laid out; if that never happens, Playwright fails.
        page.wait_for_function(
            "id => Math.abs(document.getElementById(id).getBoundingClientRect().top - 100) <= 100",
            arg=name,
        )


def test_settings_are_copied(load: Open) -> None:
    """The button copies the settings. If the clipboard cannot be used, it selects them instead and says so."""
    page = load(html("real"), permissions=["clipboard-read", "clipboard-write"])
    page.locator("summary", has_text="Settings to copy").click()
    page.locator("[data-copy]").click()
    page.locator("[data-copy]", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#settings").text_content()
    denied = load(html("real"))
    denied.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')) }")
    denied.locator("summary", has_text="Settings to copy").click()
    denied.locator("[data-copy]").click()
    denied.locator("[data-copy]", has_text="Selected").wait_for()
    selected = denied.evaluate("getSelection().toString()")
    assert selected.strip() == (denied.locator("#settings").text_content() or "").strip()


# --- hostile text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_answers_are_text(number: int, load: Open) -> None:
    """If an answer contains markup or a script, the page creates no element from it and shows it as text."""
    page = load(html())
    card = opened(page, f"hostile {number}")
    texts = card.locator(".new .txt").all_text_contents()
    assert visible(HOSTILE[number])[:500] in texts[0]
    assert card.locator("img, script, style, b, strong:not(.voided *), em").count() == 0
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
