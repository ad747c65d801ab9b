"""Tests of the report's section on provenance."""

from __future__ import annotations

from harness.report import formatting
from tests.support.report_runs import run_and_page

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_provenance() -> None:
    """The section on provenance gives the run's command, versions, digests, git commit, seeds and device."""
    made, page = run_and_page()
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


def test_a_harness_without_a_commit() -> None:
    """A harness that is not run from a git checkout is said to have no commit, without "uncommitted changes"."""
    assert formatting.commit("", changed=False) == "none (not run from a git checkout)"
