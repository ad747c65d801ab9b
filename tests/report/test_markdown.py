"""Tests of the Markdown summary of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.aggregate import assemble
from harness.cli import main
from harness.core.answers import Answer
from harness.core.run_results import Choice
from harness.core.scores import Score
from harness.core.suite import Case, Role
from harness.report import headline, markdown
from tests.support.report_runs import stored
from tests.support.synthetic_runs import case, manifest, record, results, score, suite, variants


def test_markdown_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Markdown summary names the best variant, says which variants are eligible, and gives the run's command."""
    made = results(8, 18, hostile=False)
    stored(made, Path("run"))
    assert main(["report", "run", "--format", "md"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## Best in this demonstration: `")
    assert "> Toy model" in said
    assert all(f"`{variant.name}`" in said for variant in made.variants)
    assert "no: did not finish: diverged" in said
    assert "`harness run suites/workshop`" in said


def test_markdown_of_hostile_names() -> None:
    """If names, prompts or reasons contain markup, the Markdown summary escapes it."""
    made = results(8, 18)
    bad = "x](http://evil) ![p](http://evil/p.png) <img src=x> | `b` @everyone"
    made = replace(
        made, choice=Choice(None, (bad,)), variants=(replace(made.variants[0], name=bad), *made.variants[1:])
    )
    said = markdown.summary(made)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", said.replace("\\`", ""))
    assert "evil" in outside
    assert not any(markup in outside.replace("\\]", "") for markup in ("<img", "](", "@everyone"))


def test_the_variant_that_passes_most_has_a_hostile_name() -> None:
    """If nothing was chosen, the sentence that names the variant with the highest pass rate shows its name as it is."""
    made, bad = results(8, 18, hostile=False), "![p](http://evil/p.png) <img src=x> @octocat"
    best = headline.highest_pass_rate(made)
    renamed = tuple(replace(each, name=bad) if each.name == best else each for each in made.variants)
    samples = tuple(replace(each, variant=bad) if each.variant == best else each for each in made.samples)
    said = markdown.summary(replace(made, choice=Choice(None, ()), variants=renamed, samples=samples))
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", said)
    assert "octocat" in outside
    assert not any(markup in outside.replace("\\]", "") for markup in ("<img", "](", "@octocat"))


def test_a_broken_case_shows_an_answer_that_fails() -> None:
    """A broken case is shown with an answer that failed, not with one that could not be scored."""

    def judge(asked: Case, answer: Answer) -> Score:
        return Score(asked.id, False, None, error="x") if answer.text == "unclear" else score(asked, answer)

    (variant,), cases = variants(1), [case("kept", Role.RETAIN)]
    texts = (("unclear", 0), ("bad", 1))
    records = [record(None, {"kept": "good"}), *(record(variant, {"kept": text}, seed=seed) for text, seed in texts)]
    made = assemble(manifest(suite(cases), [variant], (0, 1)), records, judge, "2026-01-02T03:24:05+00:00")
    assert "`kept` (retain), broken: prompt" in markdown.summary(made)
    assert "answer `bad`" in markdown.summary(made)
