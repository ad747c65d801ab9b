"""Fixtures of the fused engine's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.engine.loading import Base
    from tests.support.exact_trainings import Tiny


@pytest.fixture(scope="session")
def tiny(base: Base) -> Tiny:
    """Return a tiny Llama with random rows, in double precision, so that rounding errors are negligible."""
    from tests.support.exact_trainings import tiny_llama

    return tiny_llama(base)
