"""Tests of finding the adapter to export by its variant and seed."""

from __future__ import annotations

import pytest

from harness.core.errors import UsageError
from harness.core.settings import Settings, Variant
from harness.export.source import find, pick
from harness.storage.runs import RunStore
from tests.support.trained_run import cache_of, source_of

NAMED = [Variant(str(n), name, Settings()) for n, name in enumerate(("lr=1e-3 r=4", "lr=1e-3 r=16", "lr=1e-3"))]


@pytest.mark.parametrize(("text", "expected"), [("r=16", "lr=1e-3 r=16"), ("lr=1e-3", "lr=1e-3"), ("0", "lr=1e-3 r=4")])
def test_a_variant_is_found_by_any_unique_part(text: str, expected: str) -> None:
    """A variant is found by its name, its id, or any part that only its name has; an exact match has priority."""
    assert pick(NAMED, text).name == expected


@pytest.mark.parametrize(("text", "message"), [(" r=", "' r=' names 2 variants"), ("lora", "is no variant 'lora'")])
def test_an_ambiguous_variant_is_refused(text: str, message: str) -> None:
    """If no variant or several variants have the given name, the error lists the names to choose from."""
    with pytest.raises(UsageError, match=message) as refused:
        pick(NAMED, text)
    assert "'lr=1e-3 r=16'" in refused.value.remedy


def test_a_seed_that_was_not_trained_is_refused(trained_run: RunStore) -> None:
    """If a seed was not trained, the error lists the trained seeds. If no seed is given, the grid's first is used."""
    name = trained_run.manifest().plan.variants[0].name
    assert source_of(trained_run).seed == 0
    with pytest.raises(UsageError, match="was not trained under seed 7") as refused:
        find(trained_run, name, 7, cache_of(trained_run))
    assert "--seed 0" in refused.value.remedy
