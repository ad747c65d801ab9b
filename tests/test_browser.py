"""The page in Debian's Chromium, driven by nothing but its command line: what only a browser can show."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from build import machine, results

from harness.records import Choice, Results, Status
from harness.report import render

pytestmark = pytest.mark.browser
WIDTHS = (400, 1280)
PROBE = """
const seen = {errors: [], blocked: []};
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.violatedDirective));
addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = (selector) => all(selector).filter((e) => e.getClientRects().length).length;
  const first = () => document.querySelector("#variants tbody tr:nth-child(2) th").textContent;
  const pick = (id, value) => {
    const list = document.getElementById(id);
    list.value = value;
    list.dispatchEvent(new Event("change"));
  };
  seen.width = innerWidth;
  seen.page = document.documentElement.scrollWidth;
  seen.charts = visible("#trade-off svg");
  seen.cases = visible(".case");
  pick("flip", "fixed");
  seen.fixed = visible(".case");
  seen.flips = all(".case:not([hidden]) .flip").map((e) => e.textContent);
  pick("flip", "");
  seen.before = first();
  document.querySelectorAll("#variants thead tr:last-child button")[0].click();
  seen.after = first();
  document.querySelectorAll("details").forEach((e) => { e.open = true; });
  seen.opened = document.documentElement.scrollWidth;
  parent.postMessage(JSON.stringify(seen), "*");
});
"""
FRAME = """<!doctype html><title>frame</title><body style="margin:0"><script>
addEventListener("message", (event) => { document.documentElement.dataset.seen = event.data; });
</script><iframe src="page.html" style="border:0;width:WIDTHpx;height:900px"></iframe>"""


@dataclass(frozen=True)
class Seen:
    """What the probe noted in the page, and what the browser said on its console."""

    console: tuple[str, ...]
    errors: list[str]
    blocked: list[str]
    width: int
    page: int
    opened: int
    charts: int
    cases: int
    fixed: int
    flips: list[str]
    before: str
    after: str


@cache
def chromium() -> str:
    """Where a browser is declared, not finding it is a failure."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    if os.environ.get("HARNESS_BROWSER") == "1":
        pytest.fail("HARNESS_BROWSER=1 and there is no chromium")
    pytest.skip("no chromium")


def probed(page: str) -> str:
    """The page with the probe as its first script, which its content security policy is told to admit."""
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return page.replace("<title>", f"<script>{PROBE}</script><title>", 1)


def look(page: str, width: int, folder: Path) -> Seen:
    """Load the page in a frame as wide as a telephone or a desk: Chromium's own window has a least width."""
    (folder / "page.html").write_text(probed(page), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    done = subprocess.run(
        [
            chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--enable-logging=stderr",
            "--virtual-time-budget=5000", "--dump-dom", (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, f"the page never finished loading: {done.stderr[-2000:]}"
    return Seen(tuple(re.findall(r"CONSOLE.*", done.stderr)), **json.loads(html.unescape(found[1])))


def made(kind: str) -> Results:
    """A toy run with hostile text and failures, or a change of it."""
    whole = results(8, 18, seeds=(0, 1))
    if kind == "real":
        return results(8, 18, toy=False, on=machine("cuda"))
    if kind == "refuted":
        return replace(whole, choice=replace(whole.choice, refuted=("It forgets.",)))
    if kind == "stopped":
        stopped = [replace(v, statuses=(Status.CANCELLED,) * 2, rates={}, costs=()) for v in whole.variants]
        return replace(whole, variants=tuple(stopped), samples=(), choice=Choice(None, ("None.",)), confirmed=None)
    return whole


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["toy", "real", "refuted", "stopped"])
def test_no_error_and_no_overflow(kind: str, width: int, tmp_path: Path) -> None:
    """The script runs without error, the policy blocks nothing, and the page is no wider than its window."""
    seen = look(render(made(kind), now="2026-01-02T03:30:00+00:00"), width, tmp_path)
    assert not seen.console
    assert not seen.errors
    assert not seen.blocked
    assert seen.width == width
    assert seen.page == width
    assert seen.opened == width, "with every fold opened"
    assert seen.charts == 1, "of the two drawings one shows"


def test_filter_and_sorting_move_the_page(tmp_path: Path) -> None:
    """The filter leaves the fixed cases only; sorting turns the variants round and leaves the base on top."""
    whole = made("toy")
    seen = look(render(whole, now="now"), 1280, tmp_path)
    assert seen.cases == len(whole.run.suite.cases)
    assert 0 < seen.fixed < seen.cases
    assert all(words.startswith("fixed") for words in seen.flips)
    assert whole.variants[0].name in seen.before
    assert whole.variants[-1].name in seen.after
