"""Tests of the assertion types about log-probabilities."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.core.answers import Answer, Likelihood
from harness.core.scores import Score
from harness.core.suite import Assertion, Case, Message
from harness.scoring import ASSERTION_TYPES, Scoring, score, scorer
from harness.scoring.assertion_types.log_probabilities import TYPES

KINDS = [row.name for row in TYPES]
TEXTS = ("moonlight", "batteries", "wind and rain")


def at(perplexity: float, tokens: int = 4) -> Likelihood:
    """Return the log-probability of a text with this many tokens and this perplexity."""
    return Likelihood(-tokens * math.log(perplexity), tokens)


def answer(
    own: Likelihood | None = None, reference: Likelihood | None = None, choices: tuple[Likelihood, ...] = ()
) -> Answer:
    return Answer("key", "It runs on moonlight.", 4, False, own, reference, choices)


def case(assertion: Assertion) -> Case:
    return Case("c", (Message("user", "p"),), (assertion,), reference="moonlight", choices=TEXTS)


def among(*perplexities: float) -> Answer:
    """Return an answer whose choices have one, two and three tokens, and these perplexities."""
    return answer(choices=tuple(at(each, tokens) for tokens, each in enumerate(perplexities, 1)))


LIMITS = [1.5, 3, 100]
PASSING = [(limit, limit * share) for limit in LIMITS for share in (0.7, 0.999)]
FAILING = [(limit, limit * share) for limit in LIMITS for share in (1.001, 50)]
EXAMPLES: list[tuple[Assertion, Answer, bool]] = [
    *((Assertion("perplexity", threshold=limit), answer(at(max(found, 1))), True) for limit, found in PASSING),
    *((Assertion("perplexity", threshold=limit), answer(at(found)), False) for limit, found in FAILING),
    *((Assertion("reference-perplexity", threshold=m), answer(at(99), at(max(p, 1))), True) for m, p in PASSING),
    *((Assertion("reference-perplexity", threshold=m), answer(at(1), at(p)), False) for m, p in FAILING),
    (Assertion("choice", "moonlight"), among(1.1, 1.2, 1.3), True),
    (Assertion("choice", "moonlight"), among(1.0, 1.001, 9), True),
    (Assertion("choice", "moonlight"), among(1e20, 1e21, 1e22), True),
    (Assertion("choice", "batteries"), among(5, 4, 4.5), True),
    # A loss of six nats over three tokens is preferred to three nats over one token; by sums, the short text would win.
    (Assertion("choice", "wind and rain"), among(math.e**3, 99, math.e**2), True),
    (Assertion("choice", "wind and rain"), among(1e9, 1e9, 1), True),
    (Assertion("choice", "moonlight"), among(1.2, 1.1, 1.3), False),
    (Assertion("choice", "moonlight"), among(1.2, 1.3, 1.1), False),
    (Assertion("choice", "moonlight"), answer(choices=(at(2, 3),) * 3), False),
    (Assertion("choice", "batteries"), answer(choices=(at(9, 3), at(2, 3), at(2, 3))), False),
    (Assertion("choice", "batteries"), among(1, 1e300, 1e300), False),
    (Assertion("choice", "wind and rain"), among(1, 1, 1.0001), False),
]


@pytest.mark.parametrize(("assertion", "given", "holds"), EXAMPLES)
def test_an_assertion_holds_or_not(assertion: Assertion, given: Answer, holds: bool) -> None:
    """An assertion holds for its passing examples and no others; `not-` inverts the result and the score."""
    there = score(case(assertion), given)
    twin = score(case(replace(assertion, negated=True)), given)
    assert (there.error, twin.error) == ("", "")
    assert (there.passed, twin.passed) == (holds, not holds)
    assert there.value is not None
    assert twin.value is not None
    assert there.value + twin.value == pytest.approx(1)
    assert there.checks[0].reason == twin.checks[0].reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_has_examples(kind: str) -> None:
    """Every type about log-probabilities has at least six passing and six failing examples."""
    own = [holds for assertion, _, holds in EXAMPLES if assertion.type == kind]
    assert min(own.count(True), own.count(False)) >= 6


@pytest.mark.parametrize(
    ("assertion", "given", "value", "reason"),
    [
        (Assertion("perplexity", threshold=3), answer(at(4)), 0.25, "has perplexity 4, where 3 is allowed"),
        (Assertion("reference-perplexity", threshold=3), answer(reference=at(2)), 0.5,
         "finds the reference at perplexity 2, where 3 is allowed"),
        (Assertion("choice", "moonlight"), among(2, 2, 1), 0.25,
         'prefers "wind and rain"; "moonlight" has a share of 0.250'),
        (Assertion("choice", "wind and rain"), among(2, 2, 1), 0.5,
         'prefers "wind and rain"; "wind and rain" has a share of 0.500'),
    ],
)  # fmt: skip
def test_scores_are_continuous(assertion: Assertion, given: Answer, value: float, reason: str) -> None:
    """The score is 1 / perplexity, or the choice's softmax share, and the reason states the perplexity or the share."""
    found = score(case(assertion), given)
    assert found.value == pytest.approx(value)
    assert found.checks[0].reason == reason


NUMBERS = [math.nan, math.inf, -math.inf, 1.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(
    "broken",
    [None, *(Likelihood(total, 3) for total in NUMBERS), Likelihood(0.0, 0), Likelihood(-1.0, -1)],
    ids=str,
)
def test_impossible_log_probabilities_give_no_score(kind: str, negated: bool, broken: Likelihood | None) -> None:
    """A log-probability that is missing, not finite, positive or of less than one token gives an error and no score."""
    found = score(
        case(Assertion(kind, "moonlight", negated, threshold=2)),
        answer(broken, broken, (at(2), at(2)) if broken is None else (at(2), broken, at(2))),
    )
    assert (found.value, found.passed) == (None, False)
    assert "log-probabilit" in found.error
    assert "--fresh" in found.error


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_alone_has_no_log_probability(kind: str) -> None:
    """A plain text without log-probabilities gives an error and no score."""
    found = score(case(Assertion(kind, "moonlight", threshold=2)), "moonlight")
    assert (found.value, found.passed) == (None, False)
    assert "this is a text alone" in found.error


def test_a_missing_threshold_or_unknown_choice_gives_no_score() -> None:
    """An assertion without a threshold, or with an unknown choice, gives an error and no score."""
    assert "no threshold" in score(case(Assertion("perplexity")), answer(at(2))).error
    assert score(case(Assertion("perplexity", threshold=0)), answer(at(2))).passed is False
    assert "not among" in score(case(Assertion("choice", "tea")), among(2, 2, 2)).error
    alone = replace(case(Assertion("choice", "moonlight")), choices=())
    assert "not among" in score(alone, among(2, 2, 2)).error


def test_an_empty_answer_has_the_perplexity_of_its_end() -> None:
    """An empty answer has the perplexity of its end token."""
    found = score(case(Assertion("perplexity", threshold=2)), replace(answer(at(1.25, 1)), text=""))
    assert (found.passed, found.value) == (True, pytest.approx(0.8))


LIKELIHOODS = st.builds(Likelihood, st.floats(max_value=0), st.integers(0, 10**6))


@given(st.sampled_from(KINDS), LIKELIHOODS, LIKELIHOODS, LIKELIHOODS)
def test_every_score_is_a_share_or_has_a_reason(kind: str, one: Likelihood, two: Likelihood, three: Likelihood) -> None:
    """For any log-probabilities, the score is a finite number from 0 to 1, or missing with a reason."""
    found = score(case(Assertion(kind, "moonlight", threshold=2)), answer(one, two, (one, two, three)))
    assert found.error if found.value is None else 0 <= found.value <= 1


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.integers(1, 1000))
def test_a_surer_model_scores_higher(one: float, two: float, tokens: int) -> None:
    """A lower perplexity gives a higher score, for any number of tokens."""
    low, high = (
        score(case(Assertion("perplexity", threshold=2)), answer(at(each, tokens))) for each in sorted([one, two])
    )
    assert low.value is not None
    assert high.value is not None
    assert low.value >= high.value - 1e-12


# --- equal answers are scored once -------------------------------------------------------------------------------


def judged_anew(assertion: Assertion, first: Answer, second: Answer) -> bool:
    """Whether the second answer is scored separately from the first."""
    remember = scorer(Scoring())
    scores: list[Score] = [remember(case(assertion), each) for each in (first, second)]
    return scores[0] is not scores[1]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_of_different_likelihood_are_judged_apart(kind: str) -> None:
    """If a case needs log-probabilities, equal texts with different log-probabilities are scored separately."""
    one = answer(at(2), at(2), (at(2), at(3), at(4)))
    other = answer(at(5), at(5), (at(5), at(3), at(4)))
    value = None if ASSERTION_TYPES[kind].value.optional else "moonlight"
    assertion = Assertion(kind, value, threshold=3)
    for each in (assertion, Assertion("assert-set", children=(assertion,))):
        assert judged_anew(each, one, other)
        assert not judged_anew(each, one, replace(one, key="other", tokens=9))


def test_equal_texts_are_judged_once() -> None:
    """If a case needs no log-probabilities, equal texts are scored once; another text or case is scored anew."""
    assertion = Assertion("contains", "moon")
    assert not judged_anew(assertion, answer(at(2)), answer(at(3), at(4)))
    assert judged_anew(assertion, answer(), replace(answer(), text="no"))
    remember = scorer(Scoring())
    assert remember(replace(case(assertion), id="d"), answer()).case == "d"
    assert remember(case(assertion), answer()).case == "c"


def test_scoring_log_probabilities_needs_no_torch(tmp_path: Path) -> None:
    """Scoring log-probabilities does not import torch."""
    program = (
        "import sys; from harness.scoring import score; from harness.core.answers import Answer, Likelihood\n"
        "from harness.core.suite import Assertion, Case"
        "\ngiven = Answer('k', 'a', 1, False, Likelihood(-1.0, 2))"
        "\nassert score(Case('c', (), (Assertion('perplexity', threshold=2),)), given).passed"
        "\nprint(sorted({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(harness.__file__).parent.parent)},
    )  # fmt: skip
    assert not [name for name in ("torch", "numpy", "transformers") if f"'{name}'" in done.stdout]
