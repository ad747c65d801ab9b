"""Trainings that differ only in their seed have equal fingerprints; other settings, rows or saved files change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.settings import Settings
from harness.core.training_outcome import Fingerprint
from harness.engine.adapters import save_adapter
from harness.engine.fingerprint import WEIGHTS, described, trained_on, with_saved
from harness.engine.loading import Base
from harness.engine.tokenization import IGNORED
from tests.support.short_trainings import SHORT, rows_of, trained_once, training

QUICK = replace(SHORT, epochs=1)
"""Settings of a training of two steps."""
ROWS = [([1, 2, 3], [IGNORED, 2, 3]), ([1, 4], [IGNORED, 4])]


def made(rows: Sequence[tuple[list[int], list[int]]] = ROWS, **other: Any) -> Fingerprint:
    given = {"template": "{{ x }}", "trainable": ["b", "a"], "optimizer": "AdamW()", "rates": [0.5, 1.0, 0.0]}
    return trained_on(rows, **{**given, **other})


def changed(one: Fingerprint, other: Fingerprint) -> list[str]:
    return [field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)]


@pytest.fixture(scope="module")
def plain(base: Base) -> Fingerprint:
    found = trained_once(base, QUICK).fingerprint
    assert found is not None
    return found


def test_a_fingerprint_counts_rows_and_tokens() -> None:
    """Whatever the number of epochs, a fingerprint counts each row, token and supervised token once."""
    found = made()
    assert (found.rows, found.tokens, found.supervised_tokens) == (2, 5, 3)
    assert found.schedule.startswith("3 steps, highest 1 at step 2, last 0, ")
    assert found.trainable.startswith("2 parameters, ")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (made([([1, 2, 3], [1, 2, 3]), ROWS[1]]), ["supervised_tokens", "labels"]),
        (made([([1, 2, 9], [IGNORED, 2, 9]), ROWS[1]]), ["labels"]),
        (made(ROWS[::-1]), ["labels"]),
        (made(template="{{ y }}"), ["chat_template"]),
        (made(trainable=["a", "c"]), ["trainable"]),
        (made(trainable=["a", "b"]), []),
        (made(rates=[0.5, 1.0, 0.1]), ["schedule"]),
        (made(rates=[0.5, 1.0 + 1e-9, 0.0]), []),
    ],
)
def test_each_part_sees_its_own_change(other: Fingerprint, expected: list[str]) -> None:
    """A change of the training changes only those parts of the fingerprint that describe it; rounding changes none."""
    assert changed(made(), other) == expected


def test_an_optimizer_is_described() -> None:
    """An optimizer's description has its arguments, except the learning rate and those that are switched off."""
    words = described("AdamW", {"lr": 1.0, "eps": 1e-08, "fused": None, "amsgrad": False, "betas": (0.9, 0.95)})
    assert words == "AdamW(betas=(0.9, 0.95), eps=1e-08)"


@pytest.mark.slow
def test_seeds_do_not_change_a_fingerprint(base: Base, plain: Fingerprint) -> None:
    """Two trainings that differ only in their seed have the same fingerprint."""
    assert trained_once(base, QUICK, seed=7).fingerprint == plain


@pytest.mark.slow
def test_a_real_fingerprint_describes_the_trainer(base: Base, plain: Fingerprint) -> None:
    """The fingerprint of a training has the trainer's optimizer and schedule, and the numbers of rows and tokens."""
    rows = rows_of(base)
    assert (plain.rows, plain.tokens) == (8, sum(len(row.input_ids) for row in rows))
    assert plain.supervised_tokens == sum(row.supervised for row in rows)
    assert plain.optimizer.startswith("AdamW(batch=4x1, betas=(0.9, 0.999)")
    assert plain.schedule.startswith("2 steps, highest 0.005 at step 1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (replace(QUICK, learning_rate=1e-3), ["schedule"]),
        (replace(QUICK, target_modules="all-linear"), ["trainable"]),
        (replace(QUICK, weight_decay=0.1, optimizer="adamw_torch_fused"), ["optimizer"]),
    ],
)
def test_a_setting_changes_its_own_part(
    base: Base, plain: Fingerprint, settings: Settings, expected: list[str]
) -> None:
    """If a setting changes, only the part of the fingerprint that describes the setting changes."""
    found = trained_once(base, settings).fingerprint
    assert found is not None
    assert changed(plain, found) == expected


@pytest.mark.slow
def test_a_loss_on_all_tokens_is_seen(base: Base, plain: Fingerprint) -> None:
    """If a training takes the loss on all tokens, its fingerprint has other supervised tokens and labels."""
    rows = [replace(row, labels=list(row.input_ids)) for row in rows_of(base)]
    found = trained_once(base, QUICK, rows=rows).fingerprint
    assert found is not None
    assert changed(plain, found) == ["supervised_tokens", "labels"]
    assert found.supervised_tokens == found.tokens


@pytest.mark.slow
def test_a_fingerprint_describes_the_saved_file(base: Base, tmp_path: Path) -> None:
    """A fingerprint has dtype, names and shapes of the saved file, so casting an adapter changes its fingerprint."""
    import torch
    from safetensors.torch import load_file, save_file

    with training(base, QUICK) as found:
        save_adapter(found.model, tmp_path)
        count = sum(1 for _, parameter in found.model.named_parameters() if parameter.requires_grad)
    full = with_saved(found.fingerprint, tmp_path)
    assert full.saved_dtype == "F32"
    assert full.saved_shapes.startswith(f"{count} tensors, ")
    held = load_file(str(tmp_path / WEIGHTS))
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in held.items()}, str(tmp_path / WEIGHTS))
    assert changed(full, with_saved(found.fingerprint, tmp_path)) == ["saved_dtype"]
    save_file({name: tensor[:1] for name, tensor in held.items()}, str(tmp_path / WEIGHTS))
    assert changed(full, with_saved(found.fingerprint, tmp_path)) == ["saved_shapes"]
