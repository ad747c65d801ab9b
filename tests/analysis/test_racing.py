"""Tests of which variants leave a race, and of how often the best one does, by simulation."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from harness.analysis import race_forecast, racing
from harness.analysis.race_forecast import Differences
from harness.analysis.racing import ERROR, LOSS_ERROR, Entrant, PlannedLook, Race, race_of
from harness.analysis.score_table import Cell, ScoreTable
from harness.core.settings import Scheduler, Settings, Variant
from harness.core.suite import Case, Role, Suite
from tests.support.synthetic_runs import case, suite

CASES = [case(f"g{n}", Role.GENERALISE) for n in range(40)] + [case(f"r{n}", Role.RETAIN) for n in range(40)]
SUITE = suite(CASES, margin=15.0)
RACE = Race(4, (PlannedLook(), PlannedLook()))


def table(generalise: int, retain: int, cases: list[Case] = CASES) -> ScoreTable:
    """Return the scores of one seed that passes the first cases of each role."""
    most = {Role.GENERALISE: generalise, Role.RETAIN: retain}
    passed = {each.id: int(each.id[1:]) < most[each.role] for each in cases}
    return ScoreTable((0,), {name: {0: Cell(int(good), 1, float(good))} for name, good in passed.items()})


def entrant(name: str, generalise: int, retain: int = 40, *, done: float = 1.0, failed: str = "") -> Entrant:
    return Entrant(name, table(generalise, retain), table(0, 40), (0,), done, failed)


def variants(*settings: Settings) -> list[Variant]:
    return [Variant(f"v{n}", f"v{n}", each) for n, each in enumerate(settings)]


def test_looks_come_at_planned_epochs() -> None:
    """Equal schedules are looked at after 30% and 60% of their epochs, others once, after 60% of their own."""
    ten, three = Settings(epochs=10.0), Settings(epochs=3.0)

    def looks(*settings: Settings) -> list[dict[str, int]]:
        return [dict(look.epochs) for look in race_of(variants(*settings)).looks]

    assert looks(ten, ten) == [{"v0": 3, "v1": 3}, {"v0": 6, "v1": 6}]
    assert looks(ten, three) == [{"v0": 6, "v1": 2}]
    assert looks(ten, replace(ten, scheduler=Scheduler.CONSTANT)) == [{"v0": 6, "v1": 6}]
    assert looks(ten, Settings(epochs=1.0)) == [{"v0": 6}]
    two = Settings(epochs=2.0)
    assert looks(two, two) == [{"v0": 1, "v1": 1}]
    assert looks(ten) == []


def test_the_look_comes_after_the_first_seed() -> None:
    """Under several seeds, variants with any schedules are looked at once, after the first seed."""
    some = variants(Settings(epochs=10.0), Settings(epochs=1.0))
    race = race_of(some, 4)
    assert race.looks == (PlannedLook(),)
    assert [race.trained(race.looks[0], each) for each in some] == [0.25, 0.25]
    assert race_of(some[:1], 3).looks == ()


def test_a_variant_that_is_shown_to_be_worse_leaves() -> None:
    """A variant leaves if the leader is better in so many cases that chance is excluded, and not with one case less."""
    least = RACE.least_groups
    assert 2.0**-least <= (ERROR - LOSS_ERROR) / (2 * 3) < 2.0 ** -(least - 1)
    gone = racing.leaving(
        SUITE, RACE, [entrant("best", 30), entrant("near", 30 - least + 1), entrant("far", 30 - least)]
    )
    assert gone == {"far": f"best is better: they pass 30 and {30 - least} of 40 generalise cases"}


def test_what_may_still_be_learned_counts_for_a_variant() -> None:
    """Early in its training, a variant stays although it would leave with the same answers at the end."""
    late = racing.leaving(SUITE, RACE, [entrant("best", 30), entrant("slow", 20)])
    early = racing.leaving(SUITE, RACE, [entrant("best", 30, done=0.3), entrant("slow", 20, done=0.3)])
    assert (set(late), early) == ({"slow"}, {})


def test_a_variant_that_forgets_does_not_lead() -> None:
    """A variant that passes more of the objective, but lost much, leaves, and stops no variant that keeps it all."""
    gone = racing.leaving(SUITE, RACE, [entrant("hot", 40, retain=12), entrant("cool", 10)])
    assert list(gone) == ["hot"]
    assert gone["hot"].startswith("loses more than ")
    assert gone["hot"].endswith(" points of what the base passes")


def test_a_variant_that_may_forget_stops_only_what_forgets_more() -> None:
    """If the cases cannot tell whether the leader forgets too much, it stops only variants that pass fewer of them."""
    unclear = entrant("unclear", 40, retain=35)
    assert racing.leaving(SUITE, RACE, [unclear, entrant("keeps", 10)]) == {}
    assert list(racing.leaving(SUITE, RACE, [unclear, entrant("worse", 10, retain=34)])) == ["worse"]


def test_a_failed_variant_leaves_and_stops_nobody() -> None:
    """A variant whose training failed leaves with that reason, and is no leader, whatever it passed."""
    gone = racing.leaving(SUITE, RACE, [entrant("broken", 40, failed="seed 0: diverged"), entrant("weak", 3)])
    assert gone == {"broken": "seed 0: diverged"}


def test_the_decision_does_not_depend_on_the_order() -> None:
    """The same variants leave in whatever order the trials were run."""
    entrants = [
        entrant(f"v{n}", passed, retain) for n, (passed, retain) in enumerate([(35, 40), (35, 38), (9, 36), (2, 9)])
    ]
    found = racing.leaving(SUITE, RACE, entrants)
    assert found
    assert all(racing.leaving(SUITE, RACE, entrants[n:] + entrants[:n]) == found for n in range(4))


# --- simulated -----------------------------------------------------------------------------------------------------


def simulated_suite(cases: int, group: int) -> Suite:
    """Return a suite with `generalise` cases in groups of this size, and as many single `retain` cases."""
    grouped = [replace(case(f"g{n}", Role.GENERALISE), group=f"group {n // group}") for n in range(cases)]
    return suite([*grouped, *(case(f"r{n}", Role.RETAIN) for n in range(cases))], margin=15.0)


EIGHT = variants(*[Settings(epochs=10.0)] * 8)
EQUAL = Differences(ability=0, failing=0, forgetting=0, seeds=0)
WEIGHTS = dict.fromkeys((each.id for each in EIGHT), 1.0)


def stopped_at_most(share: float, of: int) -> float:
    """Return the largest share that this many races may show if the true one is `share` (99.9% of the time)."""
    return share + NormalDist().inv_cdf(0.999) * (share * (1 - share) / of) ** 0.5


@pytest.mark.parametrize(
    ("differences", "seeds"),
    [(Differences(), 3), (EQUAL, 1), (replace(EQUAL, seeds=0.3), 3), (Differences(speeds=0.5), 1)],
    ids=["different", "equal", "seeds", "speeds"],
)
def test_the_best_variant_is_rarely_stopped(differences: Differences, seeds: int) -> None:
    """Simulated, at most 5% of races stop the best variant: of different or equal ones, of unequal seeds or speeds."""
    made = race_forecast.forecast(simulated_suite(48, 2), EIGHT, seeds, WEIGHTS, races=60, differences=differences)
    assert made.best_stopped <= stopped_at_most(ERROR, 60)


def test_a_race_saves_training_if_there_are_enough_cases() -> None:
    """Simulated, a race with 80 cases saves training; one with 8 groups of cases saves little."""
    many = race_forecast.forecast(simulated_suite(80, 1), EIGHT, 3, WEIGHTS, races=20)
    few = race_forecast.forecast(simulated_suite(24, 3), EIGHT, 3, WEIGHTS, races=20)
    assert many.low <= many.training <= many.high
    assert many.training > 0.2
    assert few.training < many.training / 2


def test_a_race_of_seeds_saves_answers_and_a_race_of_epochs_costs_some() -> None:
    """With several seeds, as large a share of answers is saved as of trainings; with one, looks cost answers."""
    seeds, one = (race_forecast.forecast(simulated_suite(48, 1), EIGHT, n, WEIGHTS, races=10) for n in (3, 1))
    assert seeds.asked == pytest.approx(1 - seeds.training)
    assert seeds.saved(lambda part: float(part.answers)) == pytest.approx(1 - seeds.asked)
    assert one.asked > 1.5


def test_a_forecast_repeats() -> None:
    """The same plan and suite have the same forecast, and the same race."""
    once, again = (race_forecast.forecast(simulated_suite(24, 1), EIGHT, 1, WEIGHTS, races=3) for _ in range(2))
    assert once == again
    race = race_of(EIGHT)
    first, second = (
        race_forecast.simulate(simulated_suite(24, 1), race, EIGHT, np.random.default_rng(1)) for _ in range(2)
    )
    assert first == second
