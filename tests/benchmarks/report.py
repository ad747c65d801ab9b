"""Measures how long a large report takes to write and to use: 24 variants by 200 cases, answers of 250 characters.

    python -m tests.benchmarks.report [--variants N] [--cases N] [--output FILE]

Writes the page three times, each in a new process, as `harness report` does. If Chromium and Playwright are installed,
also measures the time to the first paint, and the time from setting a filter to the next frame. Prints its figures as
JSON and asserts nothing, because machines differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.printed_figures import print_figures

VARIANTS, CASES, CHARACTERS = 24, 200, 250
ROUNDS = 5
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
AFRESH = """
import pickle, resource, sys, time
results = pickle.load(open(sys.argv[1], "rb"))
start, busy = time.perf_counter(), time.process_time()
from harness import report
page = report.render(results, now="2026-01-02T03:30:00+00:00")
open(sys.argv[2], "w", encoding="utf-8").write(page)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(time.perf_counter() - start, time.process_time() - busy, peak)
"""
PAINT = "performance.getEntriesByType('paint').find(entry => entry.name === 'first-contentful-paint')?.startTime"
FILTER = """value => new Promise(done => {
  const list = document.getElementById("flip");
  list.value = value;
  const start = performance.now();
  list.dispatchEvent(new Event("change"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
SEARCH = """words => new Promise(done => {
  const field = document.getElementById("search");
  field.value = words;
  const start = performance.now();
  field.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
COMPARE = FILTER.replace('"flip"', '"variant"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--variants", type=int, default=VARIANTS)
    parser.add_argument("--cases", type=int, default=CASES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        figures = {"variants": given.variants, "cases": given.cases, "characters": CHARACTERS}
        figures |= written(Path(folder), page, given.variants, given.cases)
        figures |= browsed(page)
    figures["machine"] = {"machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    figures["command"] = f"python -m tests.benchmarks.report --variants {given.variants} --cases {given.cases}"
    print_figures(figures, given.output)


def written(folder: Path, page: Path, variants: int, cases: int) -> dict[str, Any]:
    """Write the page in its own process; return wall and processor seconds, its memory, and the size of the page."""
    import pickle

    from tests.support.synthetic_runs import results

    held = folder / "results.pickle"
    held.write_bytes(pickle.dumps(results(variants, cases, hostile=False, length=CHARACTERS)))
    command = [sys.executable, "-c", AFRESH, str(held), str(page)]
    told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    wall, busy = (min(float(one[place]) for one in told) for place in (0, 1))
    size, peak = round(page.stat().st_size / 1e6, 2), max(float(one[2]) for one in told)
    return {
        "write_seconds": round(wall, 2), "write_processor_seconds": round(busy, 2), "write_peak_gib": round(peak, 2),
        "megabytes": size,
    }  # fmt: skip


def browsed(page: Path) -> dict[str, Any]:
    """Return medians, in milliseconds, over several loads of the page in a browser; empty if there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        return {"browser": "none: chromium and playwright are needed"}
    found: dict[str, list[float]] = {"first_paint_ms": [], "filter_ms": [], "search_ms": [], "compare_ms": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        version = browser.version
        for _ in range(ROUNDS):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            tab.locator(".ready").wait_for(state="attached")
            found["first_paint_ms"].append(tab.evaluate(PAINT))
            found["filter_ms"] += [tab.evaluate(FILTER, value) for value in ("changed", "broken", "")]
            found["search_ms"] += [tab.evaluate(SEARCH, words) for words in ("river", "c01", "")]
            found["compare_ms"].append(tab.evaluate(COMPARE, "3"))
            tab.close()
        browser.close()
    return {name: round(statistics.median(own), 1) for name, own in found.items()} | {
        "filter_ms_largest": round(max(found["filter_ms"]), 1), "browser": f"Chromium {version}"
    }  # fmt: skip


if __name__ == "__main__":
    main()
