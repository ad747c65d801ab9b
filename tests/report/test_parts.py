"""What the page's figures are, before they are laid out: intervals, fronts, effects, differences, epochs."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from harness.core import device_profiles
from harness.core.measurement import GIB, Basis  # fmt: skip
from harness.core.results import EpochRates, Milestone, Results, Timeline  # fmt: skip
from harness.core.scores import Rate  # fmt: skip
from harness.core.suite import Role  # fmt: skip
from harness.core.training import Status, Together  # fmt: skip
from harness.hardware.environment import machine as machine_of
from harness.hardware.gpu import Gpu
from harness.report import boundary, charts, costs, effects, rates, render, tradeoff
from harness.report.difference import difference
from harness.report.tradeoff import BEYOND, WITHIN, Point, front, trade_offs
from harness.report.variants import verdict
from tests.report.test_page import parse
from tests.support.synthetic_runs import machine, results


@cache
def made(kind: str = "cpu") -> Results:
    return results(8, 18, seeds=(0, 1), hostile=False, toy=kind == "cpu", on=machine(kind))


def point(name: str, cost: float, quality: float, kind: str = WITHIN, basis: Basis = Basis.MEASURED) -> Point:
    return Point(1, name, cost, "", quality, "", kind, Status.SUCCEEDED, None, basis, "GPU")


# --- rates -------------------------------------------------------------------------------------------------------


def test_intervals_hold_the_rate() -> None:
    """Every interval holds its rate, is not empty where nothing ever failed, and void cases are in none."""
    whole = made()
    for (name, role), own in rates.marks(whole, whole.samples).items():
        if not own.cases:
            continue
        outcome = next(o for o in (whole.base, *whole.variants) if o.name == name)
        span, rate = own.span, outcome.rates[role].value
        assert span
        assert rate is not None
        assert span.low - 1e-9 <= rate <= span.high + 1e-9
        assert span.high - span.low > 0.05
        assert not set(own.cases) & set(whole.void)


# --- trade-off ---------------------------------------------------------------------------------------------------


def test_each_basis_has_its_own_front() -> None:
    """Figures of two bases are never on one front, and what may not be chosen is on none."""
    lines = front(
        [
            point("cheap", 1, 50), point("dear", 3, 80), point("worse", 2, 40), point("unsafe", 1, 99, BEYOND),
            point("predicted", 0.5, 60, basis=Basis.PREDICTED),
        ]
    )  # fmt: skip
    assert [[p.name for p in line] for line in lines] == [["cheap", "dear"], ["predicted"]]


def test_each_basis_has_its_own_mark() -> None:
    """No two bases share a shape."""
    assert len(set(tradeoff.SHAPES.values())) == len(Basis)


def test_the_t4_line_is_where_trials_are_capped() -> None:
    """The line stands at the memory that the profile `t4` holds a trial to on a larger GPU."""
    held = machine_of(device_profiles.T4, ask=lambda: Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB))
    assert held.memory_cap is not None
    assert tradeoff._memory(made("cuda")).limit == held.memory_cap / GIB


def test_out_of_memory_stands_beyond_the_line() -> None:
    """On the axis of GPU memory a variant that ran out of it stands at the limit, and needs more than it reached."""
    whole = made("cuda")
    name = next(v.name for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses)
    _, memory = trade_offs(whole, rates.marks(whole, whole.samples))
    row = next(row for row in memory.table.rows if row[1] == name)
    assert row[2].startswith("more than")
    assert row[5] == "Out of memory"
    assert name in memory.svg


def test_the_boundary_has_a_cell_for_every_training() -> None:
    """Rank, length and batch of every training on a GPU stand beside what it reserved, or that it did not fit; one cell
    of several says the worst. Where all fitted, or no GPU ran, answers are shown and no boundary is."""
    whole = made("cuda")
    drawn = boundary.boundary(whole)
    assert drawn
    told = {row[-1]: row[5] for row in drawn.table.rows}
    short = {v.name for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses}
    assert short
    assert {name for name, size in told.items() if size == "out of memory"} == short
    assert all(float(size) > 0 for name, size in told.items() if name not in short)
    assert str(drawn.svg).count(boundary.NONE) == str(drawn.narrow).count(boundary.NONE) == len(short)
    fitted = replace(whole, variants=tuple(v for v in whole.variants if v.name not in short))
    assert boundary.boundary(fitted) is None
    assert boundary.boundary(made()) is None


def test_two_trainings_of_one_cell_say_the_worst() -> None:
    """Of two trainings of one rank, length and batch the larger is shown, and that one did not fit before either."""
    whole = made("cuda")
    small = next(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses and v.settings)
    assert small.settings
    tried = [boundary._Tried(str(n), small.settings, size, False) for n, size in enumerate((3.0, 5.0))]
    assert list(boundary._cells(tried).values()) == [5.0]
    tried.insert(0, replace(tried[0], reserved=None))
    assert list(boundary._cells(tried).values()) == [None]


def test_random_weights_have_a_boundary_and_no_trade_off() -> None:
    """Of a model whose answers mean nothing, what fits is drawn and not what quality costs, even where all did."""
    whole = made("cuda")
    sound = tuple(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses)
    model = replace(whole.run.model, shape_only=True)
    html = render(replace(whole, variants=sound, run=replace(whole.run, model=model)), now="now")
    assert "What fits" in html
    assert "What quality costs" not in html
    assert "What quality costs" in render(whole, now="now")


def test_a_stopped_training_stands_at_its_whole_work() -> None:
    """On the axis of work a diverged variant is drawn where its whole training would be, not where it stopped."""
    whole = made()
    work, _ = trade_offs(whole, rates.marks(whole, whole.samples))
    shown = {row[1]: row[2] for row in work.table.rows}
    diverged = next(v for v in whole.variants if Status.DIVERGED in v.statuses)
    sound = next(v for v in whole.variants if v.trainable_parameters == diverged.trainable_parameters and v.rates)
    assert diverged.supervised_tokens < sound.supervised_tokens
    assert shown[diverged.name] == shown[sound.name]


def test_a_prediction_has_another_mark_and_another_word() -> None:
    """A variant that was not tried, because it would not fit, stands in the strip with its own mark and says so."""
    whole = made("cuda")
    failed = next(v for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses)
    others = tuple(
        replace(v, bases=(Basis.PREDICTED,) * 2, costs=failed.costs) if v is failed else v for v in whole.variants
    )
    told = replace(whole, variants=others)
    _, memory = trade_offs(told, rates.marks(told, told.samples))
    row = next(row for row in memory.table.rows if row[1] == failed.name)
    assert row[5] == "Out of memory (predicted)"
    assert row[6] == "predicted"
    _, tried = trade_offs(whole, rates.marks(whole, whole.samples))
    assert memory.svg.count("<path") == tried.svg.count("<path")
    assert memory.svg != tried.svg


# --- variants ----------------------------------------------------------------------------------------------------


def test_eligibility_says_why() -> None:
    """Everyone is told why they may be chosen or not: lost, not shown, or not finished."""
    whole = made()
    told = {v.name: verdict(whole, v) for v in whole.variants}
    for variant in whole.variants:
        found = told[variant.name]
        assert (found.word == "yes") == (variant.name in whole.choice.eligible)
        assert found.why
    assert "did not finish" in told[whole.variants[-1].name].why


@pytest.mark.parametrize(("upper", "said"), [(10.49, 11), (10.51, 11), (11.0, 11)])
def test_less_than_is_never_said_of_less(upper: float, said: int) -> None:
    """A loss that lies below 10.49 points is not said to be less than 10."""
    whole = made()
    variants = tuple(replace(v, safety=v.safety and replace(v.safety, upper=upper)) for v in whole.variants)
    eligible = [v for v in variants if v.name in whole.choice.eligible and v.safety]
    assert eligible
    assert {verdict(whole, v).why for v in eligible} == {f"loses less than {said} points"}


def test_settings_that_vary_together_are_one() -> None:
    """Rank and alpha, which always change together, are one row; learning rates are compared like for like."""
    whole = made()
    found = effects.effects(whole, rates.marks(whole, whole.samples))
    assert {effect.setting for effect in found} == {"Learning rate", "Rank, alpha"}
    rate = next(effect for effect in found if effect.setting == "Learning rate")
    assert rate.levels[0].value == "1e-4"
    assert sum(level.variants for level in rate.levels) == len(whole.variants)
    assert rate.levels[1].alike.endswith("pair")
    assert [e.spread or 0 for e in found] == sorted((e.spread or 0 for e in found), reverse=True)


def test_pairs_are_compared_both_ways() -> None:
    """A is above B by what B is below A; a pair is told apart only where its interval excludes no difference."""
    whole = made()
    found = effects.pairwise(whole, rates.marks(whole, whole.samples))
    assert found
    size = len(found.names)
    assert found.pairs == size * (size - 1) // 2
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear"}
    for row in range(size):
        assert found.rows[row][row] is None
        for column in range(row):
            one, other = found.rows[row][column], found.rows[column][row]
            assert one
            assert other
            assert int(one.text) == -int(other.text)
            assert other.told == opposite[one.told]
    unclear = sum(d.told == "unclear" for row in found.rows for d in row if d)
    assert unclear == 2 * found.unclear


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "marked", "dropped"),
    [
        ("The sky is blue today.", "The sky is green today.", ["green "], (3,)),
        ("One two three four.", "One two three four. Stay bright!", [], (3,)),
        ("I do not know.", "Paris, of course", [], ()),
        ("same words here", "same words here now", ["now"], ()),
        ("", "anything", [], ()),
        ("x " * 900, "y " * 900, [], ()),
    ],
)
def test_words_that_differ(old: str, new: str, marked: list[str], dropped: tuple[int, ...]) -> None:
    """New words are marked and missing ones counted; texts that share little, or are long, have no marks."""
    found = difference(old, new)
    assert "".join(piece.text for piece in found.new) == new
    if marked:
        assert [piece.text for piece in found.new if piece.marked] == marked
        assert found.dropped == dropped


# --- epochs ------------------------------------------------------------------------------------------------------


def test_the_timeline_is_drawn() -> None:
    """Where a run was asked after every epoch, a chart and a table say when behaviours came and went."""
    whole = made()
    name = whole.variants[3].name
    epochs = tuple(EpochRates(n, {Role.LEARN: Rate(n, 3), Role.RETAIN: Rate(6 - n, 6)}) for n in (1, 2, 3))
    milestones = (Milestone("c000", Role.LEARN, 2.0, None), Milestone("c002", Role.RETAIN, None, 3.0))
    told = replace(whole, timelines=(Timeline(name, epochs, milestones, 2.0),))
    chart = charts.timelines(told)
    assert chart
    assert name in chart.svg
    assert chart.table.rows[1][:2] == (name, "2")
    [reached] = charts.reached(told)
    assert reached.enough == "2"
    assert reached.learned == ("epoch 2: 1 case (c000)",)
    assert reached.lost == ("epoch 3: 1 case (c002)",)


def test_seeds_spread() -> None:
    """A curve is the mean over seeds between the lowest and the highest of them; a stopped training is by itself."""
    whole = made()
    sound, diverged = whole.variants[0], next(v for v in whole.variants if Status.DIVERGED in v.statuses)
    other = replace(sound.training[1], steps=tuple(replace(s, loss=(s.loss or 0) + 1) for s in sound.training[1].steps))
    rows = charts._lines(whole, 1, replace(sound, training=(sound.training[0], other)), "loss", 1e9)
    assert len(rows) == len(sound.training[0].steps)
    assert all(row["high"] - row["low"] == pytest.approx(1) for row in rows)
    assert all(row["value"] == pytest.approx((row["high"] + row["low"]) / 2) for row in rows)
    alone = charts._lines(whole, 1, diverged, "loss", 1e9)
    assert sum(row["end"] for row in alone) == len(diverged.training)


# --- the notebook ------------------------------------------------------------------------------------------------


def test_the_workshops_notebook_stands_beside_cuda_figures_only() -> None:
    """A toy run does not name it; a CUDA run sets its own figure beside it; a real CPU run says that it cannot."""
    assert costs.notebook(made()) == ()
    beside = " ".join(costs.notebook(made("cuda")))
    assert "13.8 of 15.0 GB" in beside
    assert "published" in beside
    assert "measured on Tesla T4" in beside
    cpu = replace(made("cuda"), run=replace(made("cuda").run, provenance=made().run.provenance))
    assert "cannot be set beside it" in " ".join(costs.notebook(cpu))


def test_a_pass_of_several_trials_counts_for_all_that_a_run_took() -> None:
    """From loading to the last answer it may be where the most memory was taken."""
    whole = made("cuda")
    first = whole.variants[0]
    spent = first.training[0].cost
    assert spent
    assert spent.peak_device
    most = replace(spent, peak_device=replace(spent.peak_device, value=13.9e9))
    trained = tuple(replace(training, together=Together("pass", 8, most)) for training in first.training)
    told = replace(whole, variants=(replace(first, training=trained), *whole.variants[1:]))
    assert "13.9 GB at most" in " ".join(costs.notebook(told))
    assert "13.9 GB at most" not in " ".join(costs.notebook(whole))


def test_variants_without_settings_have_no_effects() -> None:
    """Nothing is said about settings where there is one variant, or none that is known."""
    whole = made()
    assert effects.effects(replace(whole, variants=()), {}) == ()
    assert effects.pairwise(replace(whole, variants=whole.variants[:1]), {}) is None


def test_shared_passes_stand_apart() -> None:
    """What a pass of several trials took is told once, apart from what each of them costs alone."""
    whole = made()
    first = whole.variants[0]
    spent = first.training[0].cost
    assert spent
    assert costs.passes(whole) == ()
    shared = Together("pass", 2, replace(spent, seconds=replace(spent.seconds, value=40.0)))
    trained = tuple(replace(training, together=shared) for training in first.training)
    told = replace(whole, variants=(replace(first, training=trained), *whole.variants[1:]))
    [line] = costs.passes(told)
    assert line.startswith("2 trials together in 40 s")
    assert "measured on Example CPU" in line


# --- the sample --------------------------------------------------------------------------------------------------


def test_the_sample_can_be_read() -> None:
    """The committed sample is a whole page of three seeds with its timeline, under 1.5 MB, and names no home folder."""
    file = Path(__file__).parents[2] / "reports" / "sample" / "report.html"
    html = file.read_text(encoding="utf-8")
    page = parse(html)
    assert file.stat().st_size < 1_500_000
    assert "3 seeds" in page.all("header")[0].text
    assert page.id("timeline").all("svg")
    assert len(page.all("article", class_="case")) > 100
    assert not re.search(r"/(home|root|tmp|work|Users)/", html)
