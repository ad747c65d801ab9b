"""Tests of the sentence about intervals that are clustered by group."""

from __future__ import annotations

from dataclasses import replace

from harness.core.run_results import Results
from harness.core.suite import Case, Role, Split
from harness.report import markdown, render
from harness.report.clusters import clustered
from tests.support.parsed_html import parse
from tests.support.report_runs import sample_run


def in_groups() -> Results:
    """Return a run whose `retain` cases form pairs."""
    whole = sample_run()
    order = [case.id for case in whole.run.suite.cases if case.role is Role.RETAIN]

    def grouped(case: Case) -> Case:
        return replace(case, group=f"pair {order.index(case.id) // 2}") if case.id in order else case

    suite = replace(whole.run.suite, cases=tuple(map(grouped, whole.run.suite.cases)))
    return replace(whole, run=replace(whole.run, suite=suite))


def test_the_page_says_that_intervals_are_clustered() -> None:
    """If cases share groups, the page says in how many clusters the cases of each role count, beside the intervals."""
    made = in_groups()
    count = sum(case.role is Role.RETAIN for case in made.run.suite.of(Split.MAIN))
    words = clustered(made.run.suite)
    assert f"the {count} retain cases form {(count + 1) // 2} clusters." in words
    page = parse(render(made, now="now"))
    assert words in page.id("evidence").text
    assert "clustered by group" in page.id("trade-off-section").text
    assert page.id("variants").text.count("clustered by group") >= 2
    assert words in markdown.summary(made)


def test_without_groups_nothing_is_said() -> None:
    """If no cases share a group, the page does not speak of clusters."""
    assert clustered(sample_run().run.suite) == ""
    assert "clustered" not in parse(render(sample_run(), now="now")).text
