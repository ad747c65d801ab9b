"""Settings for all tests: no network. Fixtures that several rooms share: a loaded base model and a trained run."""

from __future__ import annotations

import contextlib
import os
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


@pytest.fixture(scope="session")
def base() -> Base:
    """The pocket model in NF4, loaded once. A test that adds an adapter must remove it again."""
    import gc

    from trl import SFTTrainer  # noqa: F401 - imported before gc.freeze

    from harness.core.settings import Quantization
    from harness.engine.loading import load_base
    from harness.models.resolving import resolve
    from tests.support.short_trainings import one_core

    loaded = load_base(resolve("pocket"), Quantization.NF4, one_core())
    # Every phase collects garbage first. Frozen objects are not searched again, which saves time.
    gc.freeze()
    return loaded


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A finished run of one trained variant. Tests may add exports and parity records to it, but no answers."""
    from harness.storage.runs import find_run
    from tests.support.made_once import made_once
    from tests.support.trained_run import small_run

    folder = made_once(tmp_path_factory, "trained", small_run)
    return find_run(next(folder.glob("reports/runs/*")))
