"""Tests of the table of training settings, of what depends on it, and of what stays the same when an axis is added."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from harness.core.hashing import digest
from harness.core.settings import (
    AXES,
    Plan,
    Quantization,
    Scheduler,
    Settings,
    Trial,
    Variant,
    axes,
    fusible,
    unfusible,
)
from harness.core.trainer_arguments import lora_arguments, sft_arguments
from harness.storage.baselines import read_baseline
from harness.storage.records import read_record, write_record
from harness.suites.grids import trial_id, variant_id
from tests.support.synthetic_runs import MoreSettings

BASELINE = Path(__file__).parents[2] / "reports" / "baselines" / "workshop.json"
GIVEN = Settings(
    learning_rate=3e-5, epochs=2.5, warmup=7, scheduler=Scheduler.COSINE, rank=4, alpha=3, dropout=0.1, rslora=True,
    target_modules=("q_proj", "v_proj"), batch_size=2, gradient_accumulation=5, optimizer="paged_adamw_8bit",
    max_length=77, weight_decay=0.01, max_grad_norm=0.3, packing=True, quantization=Quantization.NONE,
)  # fmt: skip


def later(settings: Settings) -> MoreSettings:
    """Return the same settings in a later version of the harness, which has one more axis."""
    return MoreSettings(**settings.as_dict())


def plan(settings: Settings) -> Plan:
    variants = (Variant(variant_id(settings), "one", settings),)
    trials = (Trial(trial_id(settings, 3), variants[0].id, settings, 3),)
    return Plan("quick", variants, (3,), trials)


# --- the table ---------------------------------------------------------------------------------------------------


def test_every_setting_has_a_row() -> None:
    """Every field of `Settings` has a row with its default, and a label and a title that no other row has."""
    assert {name: axis.default for name, axis in AXES.items()} == Settings().as_dict()
    assert len({axis.label for axis in AXES.values()}) == len({axis.title for axis in AXES.values()}) == len(AXES)


def test_every_setting_but_three_is_a_library_argument() -> None:
    """Every setting except quantisation, rehearsal and LoRA+ becomes one argument of SFTConfig or of LoraConfig."""
    others = [axis.name for axis in AXES.values() if bool(axis.sft) == bool(axis.lora)]
    assert others == ["quantization", "rehearsal", "loraplus_lr_ratio"]


@pytest.mark.slow
def test_the_libraries_know_the_arguments() -> None:
    """SFTConfig and LoraConfig have all arguments that the table of settings names."""
    from peft import LoraConfig
    from trl import SFTConfig

    assert {axis.sft for axis in AXES.values()} - {""} <= {field.name for field in fields(SFTConfig)}
    assert {axis.lora for axis in AXES.values()} - {""} <= {field.name for field in fields(LoraConfig)}


def test_arguments_are_plain_values() -> None:
    """Settings become plain text, numbers and lists as arguments, and an alpha of 0 becomes twice the rank."""
    given = sft_arguments(GIVEN, 5) | lora_arguments(GIVEN)
    assert json.loads(json.dumps(given)) == given
    assert (given["lr_scheduler_type"], given["target_modules"], given["lora_alpha"]) == (
        "cosine", ["q_proj", "v_proj"], 3,
    )  # fmt: skip
    assert lora_arguments(Settings(rank=4))["lora_alpha"] == 8


def test_what_the_fused_engine_cannot_train_is_named() -> None:
    """Settings are fusible unless a setting that the fused engine does not support differs from its default."""
    assert fusible(Settings())
    assert fusible(replace(GIVEN, packing=False))
    assert unfusible(GIVEN) == ("packing",)
    assert unfusible(replace(later(GIVEN), noise=5.0)) == ("packing", "noise")
    assert unfusible(Settings(neftune_noise_alpha=5.0)) == ("neftune_noise_alpha",)


# --- an axis added later -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "variant", "trial", "content"),
    [
        (Settings(), "a7dcda457024", "23d1f9722e93", "a7dcda457024bee6"),
        (replace(GIVEN, quantization=Quantization.NF4), "9a9a15146f9e", "ea7466537774", "9a9a15146f9eabfa"),
    ],
)
def test_ids_and_digests_are_pinned(settings: Settings, variant: str, trial: str, content: str) -> None:
    """Ids and digests of settings are those of format 1, even with an added axis that has its default."""
    for each in (settings, later(settings)):
        assert (variant_id(each), trial_id(each, 3), digest(each)) == (variant, trial, content)


def test_a_plan_keeps_its_digest() -> None:
    """An added axis changes the digest of a plan, which identifies a run, only where it differs from its default."""
    assert digest(plan(later(GIVEN))) == digest(plan(GIVEN))
    assert digest(plan(replace(later(GIVEN), noise=5.0))) != digest(plan(GIVEN))


def test_an_added_axis_changes_ids_where_it_is_used() -> None:
    """Settings that differ only in the value of an added axis have different ids and digests."""
    noisy = [replace(later(GIVEN), noise=noise) for noise in (0.0, 5.0, 10.0)]
    assert len({variant_id(each) for each in noisy}) == len({digest(each) for each in noisy}) == 3


def test_an_added_axis_is_no_argument_at_its_default() -> None:
    """An added setting that has its default is not among the arguments of SFTConfig."""
    assert sft_arguments(later(GIVEN), 0) == sft_arguments(GIVEN, 0)
    assert sft_arguments(replace(later(GIVEN), noise=5.0), 0)["label_smoothing_factor"] == 5.0


def test_records_of_before_are_read(tmp_path: Path) -> None:
    """Settings that were written before an axis was added are read with the default of that axis."""
    write_record(tmp_path / "settings.json", GIVEN)
    assert read_record(tmp_path / "settings.json", MoreSettings) == later(GIVEN)


def test_the_baseline_of_before_is_read() -> None:
    """A version of the harness with one more axis can read the settings in the committed baseline."""
    from pydantic import TypeAdapter

    rows = [row.settings for row in read_baseline(BASELINE).variants if row.settings]
    assert rows
    for row in rows:
        assert TypeAdapter(MoreSettings).validate_json(json.dumps(row.as_dict())) == later(row)


def test_a_class_of_settings_has_a_table_of_its_own() -> None:
    """The table of a class that extends `Settings` has the rows of `Settings`, followed by those of the added axes."""
    assert list(axes(MoreSettings)) == [*AXES, "noise"]
