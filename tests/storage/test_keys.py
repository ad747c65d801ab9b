"""Tests of the keys of trainings and answers in the cache."""

from __future__ import annotations

from dataclasses import replace

from harness.core.settings import Quantization, Settings
from tests.support.fake_workers import SETUP


def test_tokens_of_the_first_version_leave_keys_as_they_are() -> None:
    """Keys depend on the tokens' key only if it is not empty; the quantised base never depends on it."""
    other = replace(SETUP, tokens="0123")
    settings = Settings()
    assert other.training_id(settings, 0) != SETUP.training_id(settings, 0)
    assert other.base_id(Quantization.NF4) != SETUP.base_id(Quantization.NF4)
    assert other.saved_base(Quantization.NF4) == SETUP.saved_base(Quantization.NF4)
    assert replace(other, tokens="").training_id(settings, 0) == SETUP.training_id(settings, 0)
