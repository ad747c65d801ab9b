"""Tests of `harness parity` and `harness chat`.

Parity finds the stage of an export, from the adapter to GGUF, at which an assertion's verdict changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.analysis.parity import assertions_of, judged, verdict_changes
from harness.cli import main
from harness.cli.tables import parity_table
from harness.core.answers import Answer
from harness.core.formats import FORMAT
from harness.core.parity import Distance, Parity, Stage, StageAnswers, Verdicts
from harness.core.scores import Score
from harness.core.suite import Assertion
from harness.report import render
from harness.scoring import score
from harness.storage.runs import RunStore
from tests.support.synthetic_runs import case, results
from tests.support.trained_run import inside, source_of

CASES = [case("first"), case("second")]
STAGES = list(Stage)


def judged_stages(*texts: tuple[str, str]) -> tuple[Verdicts, ...]:
    """Return scored stages. Each has one of the given pairs of answers."""
    answered = [
        StageAnswers(stage, tuple(Answer(text, text, 1, False) for text in pair), Distance(0.1, 0.01, 0.99, 10))
        for stage, pair in zip(STAGES, texts, strict=False)
    ]
    return tuple(judged(each, CASES, score) for each in answered)


def test_the_stage_is_named_at_which_an_assertion_first_changes() -> None:
    """If an assertion's verdict changes, the first changed stage is reported, even if a later stage changes it back."""
    stages = judged_stages(("good", "good"), ("good", "good"), ("good", "bad"), ("bad", "bad"), ("good", "bad"))
    first, second = verdict_changes(assertions_of(CASES), stages)
    assert (first.case, first.stage, first.before, first.after, first.back) == ("second", STAGES[2], True, False, False)
    assert (second.case, second.stage, second.back) == ("first", STAGES[3], True)


def test_parity_without_a_change_says_so(capsys: Any) -> None:
    """If no verdict changes, the table says so. Each stage has a row, with its distance to the previous stage."""
    stages = judged_stages(("good", "bad"), ("good", "bad"))
    parity = Parity(
        FORMAT, "s", "v", 0, "t", ("first", "second"), assertions_of(CASES), stages, (), {}, "a CPU", "2026"
    )
    parity_table(parity)
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["NF4", "+", "adapter", "1/2", "0", "1.0e-01", "1.0e-02", "99.00%"]
    assert all(f"{column}:" in " ".join(said) for column in ("passed", "changed", "next token", "prompts alike"))
    assert said[-1] == "No assertion changes."


def test_what_could_not_be_judged_is_no_verdict() -> None:
    """If an assertion cannot be scored, it and the case's later assertions have no verdict and count as unchanged."""
    two = [case("first")]
    two[0] = type(two[0])("first", two[0].messages, (Assertion("contains", "a"), Assertion("contains", "b")))
    only = StageAnswers(STAGES[0], (Answer("k", "a", 1, False),))
    broken = judged(only, two, lambda case, answer: Score(case.id, False, None, (), "no judge"))
    assert broken.passed == (None, None)
    assert verdict_changes(assertions_of(two), (broken, broken)) == ()


def test_chat_shows_base_and_variant_as_the_run_asked_them(trained_run: RunStore, capsys: Any) -> None:
    """If `harness chat` asks a case's prompt, base model and variant answer as in the run.

    Markup in a question is printed as text.
    """
    records = trained_run.records()
    asked = next(case for case in trained_run.manifest().suite.cases if case.id in records[0].answers)
    with inside(trained_run.root.parents[2]):
        words = ["chat", str(trained_run.root), source_of(trained_run).variant.name, "--ask", asked.prompt]
        assert main([*words, "--ask", "[bold]Hello[/bold]"]) == 0
    said = capsys.readouterr().out.splitlines()
    expected = {record.variant == "base": record.answers[asked.id][0].text for record in records}
    assert said[:3] == [f"> {asked.prompt}", f"base: {expected[True]}", f"lr=0.01: {expected[False]}"]
    assert "> [bold]Hello[/bold]" in said


def test_parity_is_checked_without_llama_cpp(
    trained_run: RunStore, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If llama.cpp is not installed, `harness parity` checks three stages and says how to install it for the others."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    with inside(trained_run.root.parents[2]):
        assert main(["parity", str(trained_run.root), source_of(trained_run).variant.name]) == 0
    said = capsys.readouterr()
    assert "harness doctor --install-llama-cpp" in said.err
    (parity,) = trained_run.parities()
    assert [stage.stage for stage in parity.stages] == STAGES[:3]
    assert parity.turns == ()
    tuned = next(record for record in trained_run.records() if record.settings)
    texts = {case: given[0].text for case, given in tuned.answers.items()}
    assert dict(zip(parity.cases, parity.stages[0].texts, strict=True)) == texts
    distances = [stage.distance for stage in parity.stages]
    assert distances[0] is None
    assert distances[1] is not None
    assert distances[1].largest <= 1e-3
    assert distances[2] == Distance(0, 0, 1, distances[1].tokens)


def test_a_parity_check_is_part_of_the_report() -> None:
    """If the run has a parity check, the report has a row for each stage and a line for each changed assertion."""
    stages = judged_stages(("good", "good"), ("good", "bad"))
    names = (("first", "contains 'good'"), ("second", "contains <b>'good'</b>"))
    parity = Parity(
        FORMAT, "s", "v", 0, "t", ("first", "second"), names, stages, verdict_changes(names, stages), {}, "a CPU",
        "2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    run = results(2, 6, failures=False)
    assert 'id="parity"' not in render(run, now="2026-01-02T03:04:05+00:00")
    page = render(replace(run, parities=(parity,)), now="2026-01-02T03:04:05+00:00")
    section = page[page.index('<section id="parity">') : page.index('<section id="provenance">')]
    assert section.count('<th scope="row">') == 2
    assert "merged: <code>second</code>: contains &lt;b&gt;&#39;good&#39;&lt;/b&gt; fails" in section
