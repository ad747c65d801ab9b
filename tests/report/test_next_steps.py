"""Tests of what to try next, as the page, the Markdown summary and `harness recommend` show it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from harness.analysis.next_trials import next_steps
from harness.cli import cli
from harness.core.settings import Settings
from harness.report import json_summary, markdown, render, samples_file
from harness.storage.runs import RunStore
from tests.support.parsed_html import parse
from tests.support.tried_grids import Tried, results

LOW, HIGH = (Settings(rate).resolved() for rate in (1e-4, 1e-3))
MADE = results(Tried(LOW, 20), Tried(HIGH, 36, lost=20))
STEPS = next_steps(MADE)


def test_the_page_shows_trials_and_changes() -> None:
    """The page has a section with the name and reason of each next trial, and the changes of the suite."""
    shown = parse(render(MADE, now="now")).id("next").text
    assert STEPS.trials
    assert STEPS.suite
    for trial in STEPS.trials:
        assert trial.name in shown
        assert trial.reason in shown
    assert all(sentence.replace("`", "") in shown for sentence in STEPS.suite)


def test_the_page_names_the_cause_if_nothing_was_learned() -> None:
    """If the toy model learned nothing, the page says that the toy failed and shows the command for a real model."""
    shown = parse(render(results(Tried(LOW), learn=25, toy=True), now="now")).id("next").text
    assert "The toy model failed, not the suite" in shown
    assert "--model smollm2" in shown


def test_the_page_without_anything_to_try() -> None:
    """If the results speak for nothing, the page has no such section."""
    done = results(Tried(HIGH, 40), held_out=60, again={"passed": 60, "lost": 0})
    assert not parse(render(done, now="now")).all("section", id="next")


def test_the_markdown_summary_lists_them() -> None:
    """The Markdown summary lists each next trial by its name, and the changes of the suite."""
    said = markdown.summary(MADE)
    assert "### What to try next" in said
    assert all(f"- `{trial.name}`: " in said for trial in STEPS.trials)
    assert "- In the suite: Hold out" in said


def test_recommend_lists_them(tmp_path: Path) -> None:
    """`harness recommend` prints the next trials and the command that writes them; with `--json`, their settings."""
    store = RunStore(tmp_path)
    store.write_manifest(MADE.run)
    store.write_results(MADE, samples_file.samples(MADE), lambda: "")
    said = CliRunner().invoke(cli, ["recommend", str(tmp_path)], obj=()).output
    assert f"What to try next (`harness next {tmp_path}` writes the trials as a grid):" in said
    found = json.loads(CliRunner().invoke(cli, ["recommend", str(tmp_path), "--json"], obj=()).output)
    assert [each["settings"]["rehearsal"] for each in found["next"]["trials"]] == [
        trial.settings.rehearsal for trial in STEPS.trials
    ]


def test_the_json_summary_has_them() -> None:
    """The summary of `harness run --json` has the next trials, ready to be written as JSON."""
    overview = json.loads(json.dumps(json_summary.overview(MADE, Path("run"))))
    assert [each["name"] for each in overview["next"]["trials"]] == [trial.name for trial in STEPS.trials]
