"""Tests of reducers: how the repeated answers to a case under one seed count in results and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from harness.analysis.aggregate import assemble
from harness.analysis.reducers import combined, counting, exemplary, reduced, repeats
from harness.core.answers import Answer, Likelihood
from harness.core.run import TrialRecord
from harness.core.run_results import Outcome, Results
from harness.core.scores import Check, Rate, Sample, Score
from harness.core.suite import Decoding, Reducer, Role
from harness.report import data_frame, render, samples_file
from tests.support.case_records import records
from tests.support.parsed_html import parse
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

G, B = "good", "bad"
UNSCORED = Score("c", False, None, error="no verdict")


def scores(*values: float | None) -> list[Score]:
    return [UNSCORED if value is None else Score("c", value >= 1, value) for value in values]


@pytest.mark.parametrize(
    ("reducer", "values", "value", "passed"),
    [
        (Reducer.MEAN, (1, 1, 0), 2 / 3, True),
        (Reducer.MEAN, (1, 0), 0.5, True),
        (Reducer.MEAN, (1, 0, 0), 1 / 3, False),
        (Reducer.MEAN, (0.9, 0.9), 0.9, False),
        (Reducer.MEAN, (1, None, 1), 1.0, True),
        (Reducer.MEAN, (None, None), None, False),
        (Reducer.ALL, (1, 1, 1), 1.0, True),
        (Reducer.ALL, (1, 0.4, 1), 0.4, False),
        (Reducer.ALL, (1, None), None, False),
        (Reducer.ALL, (0, None), None, False),
        (Reducer.ANY, (0, 0.2, 1), 1.0, True),
        (Reducer.ANY, (0, 0.2), 0.2, False),
        (Reducer.ANY, (1, None), None, False),
        *((reducer, (value,), value, bool(value)) for reducer in Reducer for value in (0.0, 1.0, None)),
    ],
)  # fmt: skip
def test_scores_of_repeats_become_one(
    reducer: Reducer, values: Sequence[float | None], value: float | None, passed: bool
) -> None:
    """The combined score is the mean of the repeats under `mean`, the minimum under `all`, the maximum under `any`.

    If a repeat has no score, `mean` leaves it out. Under `all` and `any` there is then no combined score.
    """
    found = combined(scores(*values), reducer)
    assert (found.value, found.passed) == (pytest.approx(value) if value is not None else None, passed)
    assert bool(found.error) is (value is None)


def sample(variant: str, seed: int, repeat: int, value: float | None) -> Sample:
    return Sample(variant, seed, "c", Answer("", f"text {repeat}", 3, False), scores(value)[0], repeat)


MANY = [sample("v", 0, 1, 0), sample("v", 0, 0, 1), sample("v", 1, 0, 0), sample("w", 0, 0, 1), sample("v", 0, 2, None)]


def test_repeats_are_told_from_seeds_and_variants() -> None:
    """Samples of the same variant, seed and case are the repeats of one answer, in the order of their numbers."""
    assert [[(s.variant, s.seed, s.repeat) for s in own] for own in repeats(MANY)] == [
        [("v", 0, 0), ("v", 0, 1), ("v", 0, 2)],
        [("v", 1, 0)],
        [("w", 0, 0)],
    ]


def test_the_first_repeat_stands_for_all() -> None:
    """The reduced sample is the first repeat, with its score replaced by the combined score of all repeats.

    A single repeat stays as it is.
    """
    first, *others = reduced(MANY, Reducer.MEAN)
    assert (first.answer.text, first.score.value, first.score.passed) == ("text 0", 0.5, True)
    assert others == [MANY[2], MANY[3]]


def test_checks_stand_beside_their_own_answer() -> None:
    """The combined score has the checks of the first repeat, even if the first repeat could not be scored."""
    undecided = replace(UNSCORED, checks=(Check("regex", False, "no verdict"),))
    decided = Score("c", True, 1.0, (Check("regex", True, "matches", 1.0),))
    found = combined([undecided, decided], Reducer.MEAN)
    assert (found.value, found.passed, found.error, found.checks) == (1.0, True, "", undecided.checks)


@pytest.mark.parametrize(("reducer", "count"), [(Reducer.MEAN, 4), (Reducer.ALL, 2), (Reducer.ANY, 2)])
def test_what_rates_count(reducer: Reducer, count: int) -> None:
    """Pass rates count every scored repeat under `mean`, but one verdict for all repeats under `all` and `any`."""
    assert len(counting(MANY, reducer)) == count


# --- in results --------------------------------------------------------------------------------------------------

(ONE,) = variants(1)
KEPT = tuple(case(f"keep {n}", Role.RETAIN) for n in range(4))
CASES = (case("learn", Role.LEARN), case("words", Role.GENERALISE), *KEPT)
BASE: Mapping[str, Sequence[str]] = {"learn": [B, B, B, G], "words": [B] * 4} | {c.id: [G] * 4 for c in KEPT}
TUNED: Mapping[str, Sequence[str]] = {"learn": [G] * 4, "words": [G, B, B, B]} | {
    "keep 0": [G] * 4, "keep 1": [G, G, B, B], "keep 2": [B] * 4, "keep 3": [G, B, B, B],
}  # fmt: skip


def run(reducer: Reducer, *records: TrialRecord, seeds: tuple[int, ...] = (0,)) -> Results:
    asked = replace(suite(CASES, margin=100), repeats=4, reducer=reducer, decoding=Decoding(16, temperature=0.7))
    before = record(None, BASE)
    return assemble(manifest(asked, [ONE], seeds), [before, *(records or [record(ONE, TUNED)])], score, "now")


def tuned(reducer: Reducer) -> Outcome:
    return run(reducer).variants[0]


@pytest.mark.parametrize(
    ("reducer", "words", "kept", "flips", "lost"),
    [
        (Reducer.MEAN, Rate(1, 4), Rate(7, 16), (1, 2), 100 * 9 / 16),
        (Reducer.ALL, Rate(0, 1), Rate(1, 4), (1, 3), 75.0),
        (Reducer.ANY, Rate(1, 1), Rate(3, 4), (1, 1), 25.0),
    ],
)
def test_outcomes_count_by_the_reducer(
    reducer: Reducer, words: Rate, kept: Rate, flips: tuple[int, int], lost: float
) -> None:
    """Pass rates, the numbers of fixed and broken cases, and the loss all use the suite's reducer."""
    found = tuned(reducer)
    assert (found.rates[Role.GENERALISE], found.rates[Role.RETAIN]) == (words, kept)
    assert (found.fixed, found.broken) == flips
    assert found.loss is not None
    assert (found.loss.points, found.loss.cases) == (pytest.approx(lost), 4)


def test_repeats_of_the_base_are_its_pass_rate() -> None:
    """Under `mean`, a case counts as passed by the base model by the share of its repeats that pass."""
    half = record(None, {**BASE, "keep 0": [G, G, B, B]})
    asked = replace(suite(CASES, margin=100), repeats=4, decoding=Decoding(16, temperature=0.7))
    found = assemble(manifest(asked, [ONE]), [half, record(ONE, TUNED)], score, "now").variants[0].loss
    assert found is not None
    assert (found.base_passed, found.broken, found.fixed) == (3.5, 2.25, 0.5)
    assert found.points == pytest.approx(100 * (1 - 1.75 / 3.5))


def test_repeats_and_seeds_multiply() -> None:
    """Under `mean`, a case with four repeats under each of two seeds counts eight times."""
    found = run(Reducer.MEAN, record(ONE, TUNED), record(ONE, TUNED, seed=1), seeds=(0, 1)).variants[0]
    assert found.rates[Role.GENERALISE] == Rate(2, 8)
    assert found.loss is not None
    assert found.loss.points == pytest.approx(100 * 9 / 16)


def test_every_repeat_is_a_row() -> None:
    """The data frame and samples.jsonl have a row for each repeat, with the number of the repeat."""
    results = run(Reducer.ALL)
    table = data_frame.Run(results).frame()
    mine = table[(table.variant == ONE.name) & (table.case == "words")]
    assert list(zip(mine["repeat"], mine.answer, mine.passed, strict=True)) == [
        (0, G, True), (1, B, False), (2, B, False), (3, B, False),
    ]  # fmt: skip
    assert not table.duplicated(["variant", "seed", "case", "repeat"]).any()
    lines = [line for line in samples_file.samples(results) if (line["variant"], line["case"]) == (ONE.name, "words")]
    assert [line["repeat"] for line in lines] == [0, 1, 2, 3]


def test_log_probabilities_are_in_the_frame() -> None:
    """The data frame has perplexities. They are missing if there are no log-probabilities or the value is infinite."""
    results = run(Reducer.MEAN)
    first, second, *rest = results.samples
    likely = replace(first, answer=replace(first.answer, likelihood=Likelihood(0.0, 3), reference=Likelihood(-1e6, 2)))
    table = data_frame.Run(replace(results, samples=(likely, second, *rest))).frame()
    assert table.perplexity.iloc[0] == 1
    assert table[["perplexity", "reference_perplexity"]].isna().to_numpy().sum() == 2 * len(table) - 1


@pytest.mark.parametrize("reducer", Reducer)
def test_the_page_shows_repeats(reducer: Reducer) -> None:
    """If a suite has repeats, the report shows the first answer, how many repeats passed, and the decoding settings."""
    page = parse(render(run(reducer), now="now"))
    notes = [answer.get("repeats", "") for record in records(page) for answer in record.answers]
    assert any("1 of 4" in note for note in notes), notes
    assert f"sampled at temperature 0.7, 4 repeats per case, reduced by {reducer}" in page.text


def test_a_page_without_repeats_says_nothing_of_them() -> None:
    """If a suite has no repeats, the report does not mention repeats."""
    once = assemble(
        manifest(suite(CASES), [ONE]), [record(None, {"learn": B}), record(ONE, {"learn": G})], score, "now"
    )
    page = render(once, now="now")
    assert "repeats passed" not in page
    assert "greedy, at most" in page


@pytest.mark.parametrize(
    ("reducer", "values", "shown"),
    [
        (Reducer.ALL, (1, 0, 0), 1),
        (Reducer.ANY, (0, 0, 1), 2),
        (Reducer.MEAN, (0, 1, 1), 1),
        (Reducer.MEAN, (1, 0, 0), 1),
        (Reducer.MEAN, (None, 1), 1),
        (Reducer.ALL, (1, None), 0),
        (Reducer.ALL, (1, 1), 0),
    ],
)
def test_the_example_of_a_verdict_has_that_verdict(
    reducer: Reducer, values: Sequence[float | None], shown: int
) -> None:
    """`exemplary` gives the scores of `reduced`, with the first answer that passes or fails as all repeats do."""
    own = [sample("v", 0, repeat, value) for repeat, value in enumerate(values)]
    (example,), (whole,) = exemplary(own, reducer), reduced(own, reducer)
    assert example.answer == own[shown].answer
    assert replace(example.score, checks=()) == replace(whole.score, checks=())
