"""Tests of the sentences about answers that were cut at the limit of new tokens."""

from __future__ import annotations

from dataclasses import replace

from harness.core.names import BASE
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.report import markdown, render, truncation
from tests.support.parsed_html import parse
from tests.support.report_runs import sample_run


def with_cut(share: dict[str, float], role: str = "retain") -> Results:
    """Return a run in which this share of the answers to the cases of a role was cut, by variant, and no other one."""
    whole = sample_run()
    cases = [case.id for case in whole.run.suite.cases if case.role == role]

    def cut(sample: Sample) -> Sample:
        own = sample.case in cases and cases.index(sample.case) < share.get(sample.variant, 0.0) * len(cases)
        return replace(sample, answer=replace(sample.answer, truncated=own))

    samples = tuple(map(cut, whole.samples))
    return replace(whole, samples=samples, confirmed_samples=(), confirmed=None, confirmed_base=None)


def test_few_cut_answers_are_not_mentioned() -> None:
    """If no more than 5% of the answers to the cases of a role were cut, the headline does not mention them."""
    assert truncation.sentences(with_cut({}), "") == ()
    assert "max_new_tokens" not in parse(render(with_cut({}), now="now")).id("evidence").text


def test_cut_answers_stand_at_the_top() -> None:
    """If many answers were cut, the headline gives their share by role, for the base, the variant shown and others."""
    chosen = sample_run().choice.variant
    assert chosen
    made = with_cut({BASE: 0.5, chosen: 0.3})
    [line] = truncation.sentences(made, chosen)
    base = [
        s
        for s in made.samples
        if s.variant == BASE and s.case in {c.id for c in made.run.suite.cases if c.role == "retain"}
    ]
    cut = sum(s.answer.truncated for s in base)
    assert line.startswith(f"retain: base {100 * cut / len(base):.0f}% ({cut} of {len(base)}), {chosen} ")
    assert "other variants 0% (0 of " in line
    answer = parse(render(made, now="now")).id("evidence").text
    assert line in answer
    every = [s.answer.truncated for s in made.samples if s.variant == BASE]
    assert f"alone: base {100 * sum(every) / len(every):.0f}% ({sum(every)} of {len(every)}), {chosen} " in answer
    assert "Answers cut at" in markdown.summary(made)


def test_a_single_variant_is_enough() -> None:
    """The sentence appears if the answers of a single variant were cut, even if it is not the one shown."""
    name = next(v.name for v in sample_run().variants if v.rates and v.name != sample_run().choice.variant)
    [line] = truncation.sentences(with_cut({name: 1.0}), sample_run().choice.variant or "")
    assert "base 0% (0 of" in line
    assert "from 0% (0 of" in line
    assert "to 100% (" in line


def test_held_out_answers_are_counted_apart() -> None:
    """Cut answers to the held-out cases of the confirmation have sentences of their own."""
    made = with_cut({BASE: 1.0})
    moved = replace(made, confirmed_samples=made.samples)
    assert [line.split(":")[0] for line in truncation.sentences(moved, "")] == ["retain", "held-out retain"]
