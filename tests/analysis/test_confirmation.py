"""Tests of the verdict of the confirmation: confirmed, not confirmed or refuted, by its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.analysis.aggregate import assemble
from harness.core.run import TrialRecord
from harness.core.run_results import Confirmation, Finding
from harness.core.settings import Variant
from harness.core.suite import Case, Role, Split
from harness.core.training_outcome import Status
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

[ONE] = variants(1)
WORDS = [case(f"word {n}", Role.GENERALISE) for n in range(20)]
KEPT = [case(f"keep {n}", Role.RETAIN) for n in range(60)]
LATE_WORDS = [case(f"late word {n}", Role.GENERALISE, Split.CONFIRM) for n in range(30)]
LATE_KEPT = [case(f"late keep {n}", Role.RETAIN, Split.CONFIRM) for n in range(60)]
SEEDS = (100, 101, 102)


def late(row: Variant | None, learned: int, lost: int, seed: int = 0, status: Status = Status.SUCCEEDED) -> TrialRecord:
    """Return a trial on the held-out cases that passes `learned` words and fails `lost` of the guarded cases."""
    answers = {each.id: "good" if n < learned else "bad" for n, each in enumerate(LATE_WORDS)}
    answers |= {each.id: "bad" if n < lost else "good" for n, each in enumerate(LATE_KEPT)}
    given = answers if status is Status.SUCCEEDED else {}
    return record(row, given, seed=seed, split=Split.CONFIRM, status=status)


def confirmed(
    learned: int = 25,
    lost: int = 0,
    *,
    base: tuple[int, int] = (0, 0),
    held_out: Sequence[Case] = (*LATE_WORDS, *LATE_KEPT),
    last: Status = Status.SUCCEEDED,
) -> Confirmation:
    """Return the verdict on a variant that learns and loses these numbers of held-out cases under each fresh seed."""
    main = {each.id: "bad" for each in WORDS} | {each.id: "good" for each in KEPT}
    records = [
        record(None, main),
        record(ONE, dict.fromkeys(main, "good")),
        late(None, *base),
        *(late(ONE, learned, lost, seed) for seed in SEEDS[:-1]),
        late(ONE, learned, lost, SEEDS[-1], last),
    ]
    run = manifest(suite([*WORDS, *KEPT, *held_out], margin=15), [ONE])
    found = assemble(replace(run, confirm_seeds=SEEDS), records, score, "now").choice.confirmation
    assert found is not None
    return found


def test_a_gain_without_a_loss_is_confirmed() -> None:
    """If the held-out cases show a gain and no loss, the choice is confirmed, and the reasons give both."""
    found = confirmed()
    assert found.finding is Finding.CONFIRMED
    assert "better than the base" in found.reasons[0]
    assert "with 80% confidence; the suite allows 15" in found.reasons[1]
    assert found.upper is not None
    assert found.upper < 15


def test_eighty_percent_confirm() -> None:
    """A loss of 5 points on 60 cases is confirmed by the 80% bound, although the 95% bound exceeds the margin."""
    found = confirmed(lost=4)
    assert found.finding is Finding.CONFIRMED
    assert found.upper is not None
    assert 10 < found.upper < 15


def test_a_loss_near_the_margin_is_not_confirmed() -> None:
    """If the loss is near the margin, the choice is not confirmed, and the reason says how many cases would tell."""
    found = confirmed(lost=7)
    assert found.finding is Finding.NOT_CONFIRMED
    assert found.needed is not None
    assert found.needed > 60
    assert f"About {found.needed} held-out retain and avoid cases like these would confirm it." in found.reasons[0]


def test_a_loss_of_the_margin_cannot_be_confirmed() -> None:
    """If the loss seen reaches the margin, no number of cases like these is suggested."""
    found = confirmed(lost=10)
    assert (found.finding, found.needed) == (Finding.NOT_CONFIRMED, None)
    assert "No number of cases like these would confirm it." in found.reasons[0]


def test_a_clear_loss_is_refuted() -> None:
    """If the 95% lower bound of the loss exceeds the margin, the choice is refuted, and the reason gives the bound."""
    found = confirmed(lost=30)
    assert found.finding is Finding.REFUTED
    assert "50 points of what the base passes lost, and more than" in found.reasons[0]


def test_no_gain_is_not_confirmed_and_a_decline_is_refuted() -> None:
    """Without a shown gain, the choice is not confirmed; if it is worse than the base model, it is refuted."""
    assert confirmed(1).finding is Finding.NOT_CONFIRMED
    assert "not shown to be better" in confirmed(1).reasons[0]
    worse = confirmed(2, base=(25, 0))
    assert worse.finding is Finding.REFUTED
    assert "worse than the base" in worse.reasons[0]


def test_a_failed_training_is_refuted() -> None:
    """A fresh seed that could not be trained refutes the choice, and the reason gives its status."""
    found = confirmed(last=Status.DIVERGED)
    assert found.finding is Finding.REFUTED
    assert "Under 1 of 3 fresh seeds its training did not finish (diverged)." in found.reasons


def test_an_unfinished_confirmation_is_not_confirmed() -> None:
    """If a trial of the confirmation has no result, the choice is not confirmed, and the reason says how to go on."""
    found = confirmed(last=Status.CANCELLED)
    assert found.finding is Finding.NOT_CONFIRMED
    assert found.reasons == ("1 of 3 confirmation trials have no result. Run the same command again to continue.",)


@pytest.mark.parametrize(
    ("held_out", "lacking"), [(LATE_WORDS, "retain or avoid"), (LATE_KEPT, "generalise")], ids=["words", "kept"]
)
def test_missing_kinds_of_held_out_cases_are_named(held_out: list[Case], lacking: str) -> None:
    """If no held-out case has one of the needed roles, the choice is not confirmed, and the reason names the role."""
    found = confirmed(held_out=held_out)
    assert found.finding is Finding.NOT_CONFIRMED
    assert found.reasons == (f"The suite has no held-out {lacking} cases: mark some with `split: confirm`.",)


def test_a_base_that_passes_nothing_confirms_nothing() -> None:
    """If the base model passes no held-out `retain` or `avoid` case, the choice is not confirmed."""
    found = confirmed(base=(0, 60))
    assert found.finding is Finding.NOT_CONFIRMED
    assert "Add held-out cases that the base passes." in found.reasons[0]
