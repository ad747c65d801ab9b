"""Tests that an adapter's configuration is judged before PEFT gets it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.errors import GridError, ModelError
from harness.core.limited_process import Limits
from harness.models.adapter_config import check_config, check_patterns, matching_modules, ranks_allowed

MODULES = [f"model.layers.{n}.self_attn.{name}" for n in range(3) for name in ("q_proj", "v_proj", "o_proj_long")]
SOUND = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "base_model_name_or_path": None}


@pytest.mark.parametrize(
    "changed",
    [
        {"r": "abc"}, {"r": [1]}, {"r": float("inf")}, {"r": True}, {"r": 0}, {"r": None}, {"r": 3_000_000},
        {"lora_alpha": "x"}, {"lora_alpha": float("nan")}, {"target_modules": 5}, {"target_modules": [1]},
        {"target_modules": "x" * 20_000}, {"exclude_modules": {}}, {"layers_pattern": 3},
        {"rank_pattern": {"a": 3_000_000}}, {"rank_pattern": [1]}, {"rank_pattern": {"a": "b"}},
        {"alpha_pattern": {"a": None}}, {"base_model_name_or_path": ["x"]},
    ],
    ids=lambda changed: str(changed)[:40],
)  # fmt: skip
def test_a_setting_that_peft_cannot_use_is_an_error(changed: dict[str, Any]) -> None:
    """A setting of another type or size gives an error with its name and a remedy."""
    with pytest.raises(ModelError, match=f"mine: {next(iter(changed))} is ") as caught:
        check_config("mine", SOUND | changed, 1024)
    assert caught.value.remedy
    assert len(caught.value.message) < 250


@pytest.mark.parametrize(
    "changed",
    [{}, {"target_modules": r".*\\.(q|v)_proj"}, {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 0.5}}],
    ids=str,
)
def test_a_sound_configuration_passes(changed: dict[str, Any]) -> None:
    """Settings as PEFT writes them pass, also with patterns."""
    check_config("mine", SOUND | changed, 1024)
    check_patterns("mine", SOUND | changed, MODULES)


def test_the_highest_rank_is_that_of_the_weights() -> None:
    """A rank above 1024 is allowed only if the adapter's weights have it."""
    assert ranks_allowed({"x.lora_A.weight": (3, 10**6)}) == 1024
    assert ranks_allowed({"x.lora_A.weight": (4096, 10), "x.lora_B.weight": (10**6, 4096)}) == 4096
    assert ranks_allowed({}) == 1024


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "layers_pattern", "rank_pattern"])
def test_a_pattern_without_end_is_refused(setting: str) -> None:
    """A pattern that would take hours to match is given up."""
    pattern = "(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)*Q"
    config = {setting: {pattern: 3} if setting == "rank_pattern" else pattern}
    with pytest.raises(ModelError, match=r"matching its patterns with modules took more than 0\.3 s"):
        check_patterns("mine", config, MODULES, limits=Limits(seconds=0.3))


def test_a_pattern_that_is_none_is_refused() -> None:
    """A text that is no regular expression gives an error."""
    with pytest.raises(ModelError, match="a pattern is no regular expression"):
        check_patterns("mine", {"target_modules": "(q_proj"}, MODULES)


def test_a_pattern_matches_whole_names_with_a_limit() -> None:
    """A grid's pattern matches whole names of modules; one that would take hours gives an error."""
    assert matching_modules(r"(?i).*\.[01]\..*Q_proj", MODULES) == {MODULES[0], MODULES[3]}
    assert not matching_modules("q_proj", MODULES)
    with pytest.raises(GridError, match=r"matching the pattern with modules took more than 0\.3 s"):
        matching_modules("(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)*Q", MODULES, limits=Limits(seconds=0.3))
