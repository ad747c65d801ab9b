"""Settings and fixtures of all tests. No test may use the network, and tests of the engine share one loaded base."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.engine.loading import Base
    from harness.storage.runs import RunStore

with contextlib.suppress(ImportError):  # tests in a browser run without hypothesis
    from hypothesis import HealthCheck, settings

    # The time of an example depends on the load of the machine.
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")

pytest.register_assert_rewrite("tests.support.closeness")

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in workers, since tests run in parallel


def pytest_configure() -> None:
    """Collect garbage less often: with the training libraries imported, collections take a tenth of the tests' time."""
    gc.set_threshold(50_000, 20, 50)


def pytest_runtest_setup() -> None:
    """Once the training libraries are imported, exclude their objects from garbage collection.

    Every measured phase starts with a collection, which would take 0.3 s for these objects.
    """
    if "trl.trainer.sft_trainer" in sys.modules:
        _freeze_once()


@functools.cache  # `gc.get_freeze_count` would count all objects before every test, which takes 0.06 s
def _freeze_once() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def base() -> Base:
    """Load the pocket model in NF4 once for all tests. A test must leave no adapters on it."""
    from trl import SFTTrainer  # noqa: F401 - its objects are to be frozen, too

    from harness.core.settings import Quantization
    from harness.engine.loading import load_base
    from harness.models.resolving import resolve
    from tests.support.short_trainings import one_core

    loaded = load_base(resolve("pocket"), Quantization.NF4, one_core())
    gc.freeze()
    return loaded


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Return a finished run of one variant, with a real training.

    Tests may add exports and parity stages to the run, but no answers.
    """
    from harness.storage.runs import find_run
    from tests.support.made_once import made_once
    from tests.support.trained_run import small_run

    folder = made_once(tmp_path_factory, "trained", small_run)
    return find_run(next(folder.glob("reports/runs/*")))
