"""Tests of grids: the variants that they describe, with names and ids, and the errors for mistakes."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import GridError, SuiteError
from harness.core.setting_text import number
from harness.core.settings import AXES, OPTIMIZERS, Plan, Quantization, Scheduler, Settings
from harness.suites.grids import differing_settings, load_plan, parse_plan


def plan(text: str, seeds: tuple[int, ...] | None = None) -> Plan:
    return parse_plan(text, "quick.yaml", seeds=seeds)


def names(text: str) -> list[str]:
    return [variant.name for variant in plan(text).variants]


def refusal(text: str) -> str:
    with pytest.raises(GridError) as caught:
        plan(text)
    return str(caught.value)


# --- the product -------------------------------------------------------------------------------------------------


def test_axes_multiply() -> None:
    """Every combination of the axes' values is a variant, which also has the settings that are fixed for the grid."""
    found = plan("settings: {epochs: 10}\naxes: {learning_rate: [3e-4, 1e-3], rank: [2, 16]}")
    cells = [(v.settings.learning_rate, v.settings.rank) for v in found.variants]
    assert cells == [(3e-4, 2), (3e-4, 16), (1e-3, 2), (1e-3, 16)]
    assert {v.settings.epochs for v in found.variants} == {10.0}
    assert found.grid == "quick"


def test_every_seed_is_a_trial_of_each_variant() -> None:
    """Every variant has a trial for each seed. If the caller gives seeds, they replace the grid's."""
    text = "seeds: [0, 1, 2]\naxes: {rank: [2, 16]}"
    found = plan(text)
    assert [(t.settings.rank, t.seed) for t in found.trials] == [(2, 0), (2, 1), (2, 2), (16, 0), (16, 1), (16, 2)]
    assert {t.variant for t in found.trials} == {v.id for v in found.variants}
    assert [t.seed for t in plan(text, seeds=(7,)).trials] == [7, 7]
    assert plan(text, seeds=(7,)).trials[0].id not in {t.id for t in found.trials}


def test_paired_rows_vary_together() -> None:
    """Each row of `paired` is combined with the axes, and the row's name is the beginning of its variants' names."""
    text = "paired: [{name: small, rank: 2, alpha: 4}, {name: big, rank: 16, alpha: 64}]\n"
    assert names(text) == ["small", "big"]
    cells = names(text + "axes: {learning_rate: [1e-3, 3e-4], epochs: 5}")
    assert cells == ["small lr=1e-3", "small lr=3e-4", "big lr=1e-3", "big lr=3e-4"]
    assert [v.settings.alpha for v in plan(text).variants] == [4, 64]


def test_unnamed_paired_rows_show_what_differs() -> None:
    """If a row of `paired` has no name, its variants are named after the settings that differ."""
    assert names("paired: [{rank: 2, dropout: 0.1}, {rank: 4, dropout: 0}]") == ["r=2 drop=0.1", "r=4 drop=0"]


def test_excluded_cells_are_dropped() -> None:
    """A row of `exclude` removes every combination that has all settings of the row, but no variant of `rows`."""
    text = "axes: {learning_rate: [1e-3, 3e-3], rank: [2, 16]}\nexclude: [{learning_rate: 3e-3, rank: 16}]\n"
    assert names(text) == ["lr=1e-3 r=2", "lr=1e-3 r=16", "lr=3e-3 r=2"]
    assert names(text + "rows: [{name: hot, learning_rate: 3e-3, rank: 16}]")[-1] == "hot"


def test_rows_stand_beside_the_cells() -> None:
    """A row of `rows` adds one variant, which also has the settings that are fixed for the grid."""
    found = plan("settings: {rank: 8}\naxes: {epochs: [1, 2]}\nrows: [{name: hot, learning_rate: 1e-2}]").variants[-1]
    assert (found.name, found.settings.rank, found.settings.learning_rate) == ("hot", 8, 1e-2)


def test_equal_cells_collapse() -> None:
    """If a combination and a named row have equal settings, they are one variant with the row's name."""
    assert names("axes: {rank: [2, 2, 4]}\nrows: [{name: mine, rank: 4}]") == ["r=2", "mine"]


def test_alpha_is_twice_the_rank_unless_given() -> None:
    """If alpha is missing or 0, it is twice the rank."""
    (found,) = plan("rows: [{rank: 4}, {rank: 4, alpha: 0}, {rank: 4, alpha: 8}]").variants
    assert found.settings.alpha == 8


def test_one_value_needs_no_list() -> None:
    """If an axis has a single value, it may be written without brackets."""
    assert len(plan("seeds: 3\naxes: {rank: 4, target_modules: qv}").trials) == 1


def test_target_modules_have_one_spelling() -> None:
    """Target modules may be written as a word or as a list of modules in any order, with the same meaning."""
    spelt = "[qv, [v_proj, q_proj], attention, [o_proj, q_proj, v_proj, k_proj], all-linear, [gate_proj]]"
    assert names(f"axes: {{target_modules: {spelt}}}") == ["qv", "attention", "all-linear", "targets=gate"]


def test_options_of_schedulers_have_one_spelling() -> None:
    """The order and the spelling of a scheduler's options make no difference."""
    rows = "{num_cycles: 2, min_lr: 1e-5}", "{min_lr: 0.00001, num_cycles: 2.0}"
    text = ", ".join(f"{{scheduler: cosine_with_min_lr, lr_scheduler_kwargs: {row}}}" for row in rows)
    [found] = plan(f"rows: [{text}]").variants
    assert found.settings.lr_scheduler_kwargs == (("min_lr", 1e-5), ("num_cycles", 2.0))
    assert [type(value) for _, value in found.settings.lr_scheduler_kwargs] == [float, float]


def test_values_are_of_plain_types() -> None:
    """The values of settings are Python's numbers and enums, however they are written in YAML."""
    row = "learning_rate: 1, epochs: 0x10, rank: 0o10, scheduler: cosine, quantization: none"
    (found,) = plan(f"rows: [{{{row}}}]").variants
    assert type(found.settings.learning_rate) is float
    assert type(found.settings.rank) is int
    assert found.settings == Settings(
        learning_rate=1.0, epochs=16.0, rank=8, alpha=16, scheduler=Scheduler.COSINE, quantization=Quantization.NONE
    )


# --- names -------------------------------------------------------------------------------------------------------


def test_names_show_only_what_differs() -> None:
    """A variant's name leaves out settings that are equal in all variants, and alpha if it is always twice the rank."""
    found = plan(
        "settings: {epochs: 9}\naxes: {learning_rate: [1e-3], rank: [2, 16], target_modules: [qv, all-linear]}"
    )
    assert [v.name for v in found.variants] == ["r=2 qv", "r=2 all-linear", "r=16 qv", "r=16 all-linear"]
    assert differing_settings(found) == ("rank", "target_modules")


def test_named_rows_rename_nobody() -> None:
    """If a setting differs only in a named row, it is not in the names of the other variants."""
    assert names("axes: {rank: [2, 16]}\nrows: [{name: short, epochs: 1}]") == ["r=2", "r=16", "short"]


def test_alpha_is_shown_where_it_matters() -> None:
    """If the alpha of any variant is not twice its rank, the variants' names contain alpha."""
    assert names("rows: [{rank: 2}, {rank: 2, alpha: 2}]") == ["a=4", "a=2"]


def test_a_name_of_its_own_is_told_apart() -> None:
    """A variant records whether its name was written in the grid or derived from its settings."""
    plan = parse_plan("seeds: [0]\nrows: [{name: mine, rank: 4}, {rank: 8}]", "g.yaml")
    assert [(variant.name, variant.named) for variant in plan.variants] == [("mine", True), ("lr=2e-4 r=8", False)]


def test_a_single_variant_has_a_name() -> None:
    """If a grid has a single variant, it is named after the grid's axes, or else after learning rate and rank."""
    assert names("axes: {epochs: [3]}") == ["ep=3"]
    assert names("rows: [{}]") == ["lr=2e-4 r=16"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "1e-3"), (2.5e-4, "2.5e-4"), (0.03, "0.03"), (10.0, "10"), (0, "0"), (16, "16"), (0.1, "0.1"),
        (3e-4, "3e-4"), (100.0, "100"), (1.5, "1.5"), (5e-324, "5e-324"), (1e300, "1e300"),
    ],
)  # fmt: skip
def test_numbers_are_brief(value: float, text: str) -> None:
    """Numbers in names are written in the shortest form."""
    assert number(value) == text


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12))
def test_numbers_are_exact(value: float) -> None:
    """A number in a name is exact, so that different numbers have different texts."""
    assert float(number(value)) == float(value)


# --- ids ---------------------------------------------------------------------------------------------------------


def test_ids_are_pinned() -> None:
    """The ids of variants and trials never change, because stored results are found by them."""
    found = plan("axes: {learning_rate: 1e-3, rank: 2}")
    assert (found.variants[0].id, found.trials[0].id) == ("c0669022029a", "f51bae6512fd")


@settings(deadline=None)
@given(st.permutations(["learning_rate: [1e-3, 3e-4]", "rank: [16, 2]", "epochs: [1, 2]"]))
def test_ids_do_not_depend_on_order(axes: list[str]) -> None:
    """The id of a variant does not depend on the order of axes or values, nor on the grid's other variants."""
    base = plan("axes: {learning_rate: [3e-4, 1e-3], rank: [2, 16], epochs: [1, 2]}")
    other = plan(f"description: more\naxes: {{{', '.join(axes)}}}\nrows: [{{name: more, rank: 64}}]")
    assert {v.id for v in base.variants} == {v.id for v in other.variants[:-1]}
    assert {t.id for t in base.trials} < {t.id for t in other.trials}


values: dict[str, list[Any]] = {
    "learning_rate": [1e-4, 1e-3, 3e-3],
    "epochs": [1, 2, 3],
    "rank": [2, 4, 8],
    "warmup": [0, 0.1, 5],
    "packing": [True, False],
    "target_modules": ["qv", "attention", "all-linear"],
    "scheduler": ["linear", "cosine"],
}
axes = st.fixed_dictionaries(
    {}, optional={name: st.lists(st.sampled_from(options), min_size=1, unique=True) for name, options in values.items()}
).filter(bool)


@settings(deadline=None)
@given(axes, st.integers(1, 3))
def test_the_product_has_its_size(axes: dict[str, list[Any]], seeds: int) -> None:
    """If the values of each axis differ, every combination is a variant with its own id and name."""
    found = plan(json.dumps({"axes": axes, "seeds": list(range(seeds))}))
    size = len(list(itertools.product(*axes.values())))
    assert len(found.variants) == len({v.id for v in found.variants}) == len({v.name for v in found.variants}) == size
    assert len(found.trials) == len({t.id for t in found.trials}) == size * seeds


def test_layers_have_one_spelling() -> None:
    """The order of layers makes no difference, names of variants list them, and none means all layers."""
    found = plan("settings: {target_modules: qv}\naxes: {layers_to_transform: [[3, 1, 3], [], [0]]}")
    assert [variant.settings.layers_to_transform for variant in found.variants] == [(1, 3), (), (0,)]
    assert [variant.name for variant in found.variants] == ["layers=1+3", "layers=all", "layers=0"]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "quick.yaml:1:1: the grid is empty"),
        ("description: nothing", "quick.yaml:1:1: the grid is empty"),
        ("axes: {}", "the grid is empty"),
        ("axes: {rank: []}", "quick.yaml:1:14: rank: is empty"),
        ("axes: {rnk: [1]}", 'quick.yaml:1:8: unknown key "rnk"\nDid you mean "rank"?'),
        ("axes: {use_rslora: [1]}", 'unknown key "use_rslora"\nDid you mean "rslora"?'),
        ("axes: {seed: [1]}", 'quick.yaml:1:8: unknown key "seed"'),
        ("axs: {rank: [1]}", 'unknown key "axs"\nDid you mean "axes"?'),
        ("settings: {lerning_rate: 1}\naxes: {rank: 2}", 'quick.yaml:1:12: unknown key "lerning_rate"'),
        ("axes: {lr_scheduler_type: [cosine]}", 'unknown key "lr_scheduler_type"\nDid you mean "scheduler"?'),
        ("rows: [{num_train_epochs: 2}]", 'unknown key "num_train_epochs"\nDid you mean "epochs"?'),
        ("axes: {rank: [2, 0]}", "quick.yaml:1:18: rank: should be greater than or equal to 1, found 0"),
        ("axes: {rank: 1.5}", "quick.yaml:1:14: rank: expected a whole number, found 1.5"),
        ("axes: {rank: true}", "rank: expected a whole number, found true"),
        ("axes: {learning_rate: [-1e-3]}", "quick.yaml:1:24: learning_rate: should be greater than 0"),
        ("axes: {learning_rate: [high]}", 'quick.yaml:1:24: learning_rate: expected a number, found "high"'),
        ("axes: {learning_rate: .inf}", "learning_rate: expected a finite number"),
        ("axes: {dropout: [0, 1.5]}", "quick.yaml:1:21: dropout: should be less than 1"),
        ("axes: {epochs: [1e308]}", "quick.yaml:1:17: epochs: should be less than or equal to 1000000"),
        ("axes: {warmup: [1e300]}", "quick.yaml:1:17: warmup: should be less than or equal to 1000000"),
        ("axes: {warmup: 1.5}", "warmup: below 1 it is a share"),
        ("axes: {packing: no}", 'packing: expected true or false, found "no"'),
        ("axes: {scheduler: cosin}", 'unknown scheduler "cosin"\nDid you mean "cosine"?'),
        ("axes: {optimizer: paged_adam_8bit}", 'unknown optimizer "paged_adam_8bit"\nDid you mean "paged_adamw_8bit"?'),
        ("axes: {target_modules: [q_proj]}", 'quick.yaml:1:25: unknown target modules "q_proj"'),
        ("axes: {target_modules: [[]]}", "target_modules: expected all-linear"),
        ("axes: {target_modules: ''}", 'unknown target modules ""'),
        ("settings: {target_modules: 'q_proj, v_proj'}", 'unknown target modules "q_proj, v_proj"'),
        ('axes: {target_modules: ".*\\e[31m\\n"}', "has invisible characters"),
        ("axes: {target_modules: '(q|v'}", 'quick.yaml:1:24: target_modules: "(q|v" is no regular expression'),
        (f"axes: {{target_modules: '{'.*' * 501}'}}", "a pattern has 1002 characters"),
        ("axes: {loraplus_lr_ratio: 0}", "loraplus_lr_ratio: should be greater than or equal to 1, found 0"),
        ("axes: {loraplus_lr_ratio: [.nan]}", "loraplus_lr_ratio: expected a finite number"),
        ("axes: {scheduler: greedy}", "quick.yaml:1:19: the scheduler greedy cannot be used: it follows a metric"),
        ("axes: {lr_scheduler_kwargs: [linear]}", "lr_scheduler_kwargs: expected options with values"),
        ("axes: {lr_scheduler_kwargs: {min_lr_rat: 1}}", 'unknown option of a scheduler "min_lr_rat"\nDid you mean'),
        ("axes: {lr_scheduler_kwargs: {min_lr_rate: 2}}", "min_lr_rate: 2 is not allowed\nWrite a number from 0 to 1."),
        (
            "settings: {lr_scheduler_kwargs: {min_lr_rate: 0.1}}\naxes: {scheduler: [cosine_with_min_lr, linear]}",
            "quick.yaml:2:7: the scheduler linear has no option min_lr_rate\nIt takes none. Give each",
        ),
        (
            "rows: [{rank: 2}, {scheduler: warmup_stable_decay}]",
            "1:19: the scheduler warmup_stable_decay needs",
        ),
        (
            "settings: {scheduler: polynomial}\naxes: {learning_rate: 1e-7}",
            "1e-07 is not above the end",
        ),
        (
            "settings: {lr_scheduler_kwargs: {min_lr: 1e-2}}\naxes: {scheduler: cosine_with_min_lr}",
            "min_lr 0.01 is above the learning rate 0.0002",
        ),
        (
            "rows: [{packing: true, scheduler: warmup_stable_decay, lr_scheduler_kwargs: {num_decay_steps: 1}}]",
            "warmup_stable_decay cannot be combined with packing",
        ),
        (
            "settings: {lr_scheduler_kwargs: {min_lr: 0, min_lr_rate: 0}}\naxes: {scheduler: cosine_with_min_lr}",
            "takes min_lr or min_lr_rate, not both\nRemove min_lr.",
        ),
        ("axes: {layers_to_transform: [[0]]}", "layers_to_transform needs names of target modules"),
        ("settings: {layers_to_transform: [-1]}", "layers_to_transform: expected a list of numbers of layers"),
        ("axes: {layers_to_transform: [0, 1]}", "layers_to_transform: expected a list of numbers of layers"),
        ("axes: {rank: [2]}\nexclude: [{rank: 4}]", "quick.yaml:2:11: excludes nothing"),
        ("axes: {rank: [2]}\nexclude: [{}]", "quick.yaml:2:11: an empty row would exclude every combination"),
        ("axes: {rank: [2]}\nexclude: [{rank: 2}]", "quick.yaml:2:10: every combination is excluded"),
        (
            "rows: [{rank: 2}]\nexclude: [{rank: 2}]",
            "2:10: the grid has `exclude`, but no `axes` or `paired`",
        ),
        ("rows: [{name: Base}]", 'quick.yaml:1:15: the name "Base" is taken'),
        ("rows: [{name: base quant=none}]", 'quick.yaml:1:15: the name "base quant=none" is taken'),
        ("rows: [{name: a}, {name: a, rank: 2}]", 'quick.yaml:1:26: two variants are called "a"'),
        ("rows: [{name: a}, {name: b}]", 'quick.yaml:1:26: "b" has the same settings as "a"'),
        ("axes: {rank: [2, 4]}\nrows: [{name: r=2, rank: 8}]", 'quick.yaml:2:15: two variants are called "r=2"'),
        ("rows: [{name: ' '}]", "name: expected one line of text"),
        ("settings: {rank: 2}\naxes: {rank: [2]}", "quick.yaml:2:8: rank is under axes and settings"),
        ("paired: [{rank: 2}]\naxes: {rank: [2]}", "quick.yaml:2:8: rank is under axes and paired"),
        ("seeds: [0, 0]\naxes: {rank: 2}", "quick.yaml:1:8: a seed is given twice"),
        ("seeds: []\naxes: {rank: 2}", "quick.yaml:1:8: seeds: is empty"),
        ("seeds: [-1]\naxes: {rank: 2}", "quick.yaml:1:9: seeds: should be greater than or equal to 0"),
        ("axes: {rank: 2}\naxes: {rank: 4}", 'quick.yaml:2:1: the key "axes" is given twice'),
    ],
)
def test_a_bad_grid_is_refused_at_its_place(text: str, expected: str) -> None:
    """If a grid has a mistake, the error gives line and column, and for a misspelt name the most similar valid one."""
    assert expected in refusal(text)


def test_the_product_is_bounded() -> None:
    """If a grid has millions of combinations, it is refused before the variants are built."""
    some = str(list(range(1, 400)))
    grid = f"axes: {{rank: {some}, batch_size: {some}, epochs: {some}}}"
    assert "the grid has 63521199 combinations" in refusal(grid)


shapes = st.recursive(
    st.sampled_from([None, True, 0, 1, 2, 0.5, -1, "x", "qv", "linear", "base", 1e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*AXES, "name"]), inner, max_size=3),
    max_leaves=10,
)
parts = st.sampled_from(["description", "seeds", "settings", "axes", "paired", "exclude", "rows"])


@settings(deadline=None)
@given(st.text() | st.dictionaries(parts, shapes, max_size=5).map(json.dumps))
def test_nothing_breaks_the_reader(text: str) -> None:
    """Any text is read as a grid or raises a `GridError`."""
    with suppress(GridError):
        assert plan(text).variants


# --- files -------------------------------------------------------------------------------------------------------


def test_a_grid_is_read_from_its_file(tmp_path: Path) -> None:
    """A grid that is read from a file has the file's name."""
    (tmp_path / "warm.yaml").write_text("axes: {warmup: [0, 0.1]}", encoding="utf-8")
    assert load_plan(tmp_path / "warm.yaml").grid == "warm"


def test_a_grid_that_is_a_link_to_another_folder(tmp_path: Path) -> None:
    """If a grid is a link to a file outside the suite, it is refused, and nothing of the file is shown."""
    (tmp_path / "private").write_text("TOP-SECRET", encoding="utf-8")
    (tmp_path / "s" / "grids").mkdir(parents=True)
    (tmp_path / "s" / "grids" / "quick.yaml").symlink_to("../../private")
    with pytest.raises(SuiteError, match=r"grids/quick\.yaml leads out of the suite's folder") as raised:
        load_plan(tmp_path / "s" / "grids" / "quick.yaml")
    assert "SECRET" not in str(raised.value)


def test_a_missing_grid_is_told_of_its_neighbours(tmp_path: Path) -> None:
    """If a grid does not exist, the error gives the most similar name and all existing grids."""
    for name in ("quick", "t4"):
        (tmp_path / f"{name}.yaml").write_text("rows: [{}]", encoding="utf-8")
    with pytest.raises(GridError, match=r'Did you mean "quick"\? Grids here: quick, t4') as caught:
        load_plan(tmp_path / "quik.yaml")
    assert "quik.yaml" in str(caught.value)


@pytest.mark.slow
def test_optimizers_are_known_to_transformers() -> None:
    """transformers knows every optimizer that a grid may name."""
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) <= {optimizer.value for optimizer in OptimizerNames}


def test_too_many_seeds_are_refused() -> None:
    """A grid with more trials than the limit is refused at its seeds, before an id is computed for each."""
    seeds = ", ".join(map(str, range(200_000)))
    error = refusal(f"axes: {{rank: [2]}}\nseeds: [{seeds}]\n")
    assert error.startswith("quick.yaml:2:")
    assert "more than 20,000 trials" in error


def test_a_missing_grid_can_be_written_as_the_error_says(tmp_path: Path) -> None:
    """If a suite has no grids, the error names a line; a file with this line is a grid."""
    with pytest.raises(GridError, match="there is no such grid") as caught:
        load_plan(tmp_path / "grids" / "quick.yaml")
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "quick.yaml").write_text(caught.value.remedy.partition("the line ")[2], encoding="utf-8")
    assert len(load_plan(tmp_path / "grids" / "quick.yaml").variants) == 4


# --- searches ------------------------------------------------------------------------------------------------------


SEARCH = "search: {trials: 20, ranges: {learning_rate: {low: 1e-5, high: 1e-2, log: true}, rank: {low: 2, high: 9}}}"


def test_a_search_begins_with_variants_over_the_whole_range() -> None:
    """A search's plan has its first eight variants, or fewer if it has fewer trials, named after what it varies."""
    found = plan(SEARCH)
    assert len(found.variants) == 8
    assert len(plan(SEARCH.replace("20", "3")).variants) == 3
    assert {variant.settings.rank for variant in found.variants} == set(range(2, 10))
    assert found.variants[0].name.startswith("lr=")
    assert plan(SEARCH) == found


def test_rows_count_as_trials_of_a_search() -> None:
    """Rows beside a search are trained first, and are part of its number of trials."""
    found = plan(f"rows: [{{name: usual, rank: 4}}]\n{SEARCH.replace('20', '3')}")
    assert found.variants[0].name == "usual"
    assert len(found.variants) == 3


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("search: {trials: 20}", "the search varies no setting"),
        ("search: {ranges: {rank: {low: 2, high: 9}}}", "trials"),
        ("search: {trials: 20, ranges: {rank: {low: 9, high: 2}}}", "low is 9, which is not below high"),
        ("search: {trials: 20, ranges: {dropout: {low: 0, high: 0.5, log: true}}}", "a logarithmic scale has no 0"),
        ("search: {trials: 20, ranges: {learning_rate: {low: 0, high: 1}}}", "should be greater than 0"),
        ("search: {trials: 20, choices: {quantization: [nf4, none]}}", "a search cannot vary quantization"),
        ("settings: {rank: 4}\nsearch: {trials: 20, choices: {rank: [1, 2]}}", "rank is under choices and settings"),
        ("axes: {rank: [2]}\nsearch: {trials: 20, choices: {lora: [1]}}", "unknown key"),
        (
            "search: {trials: 20, choices: {scheduler: [linear, warmup_stable_decay]}}",
            "needs the option num_decay_steps",
        ),
        ("axes: {rank: [2]}\nsearch: {trials: 20, choices: {epochs: [1]}}", "the grid has `search` and `axes`"),
    ],
)
def test_mistakes_in_a_search_are_named(search: str, message: str) -> None:
    """A search without settings, with wrong ranges, or beside axes is refused, with the place of the mistake."""
    error = refusal(search)
    assert message in error
    assert error.startswith("quick.yaml:")
