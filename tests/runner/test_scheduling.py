"""Tests of trials that `--skip-hopeless` skips, of trials' relative durations, and of the notice that time is up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core import device_profiles
from harness.core.job import Event
from harness.core.machine import Machine
from harness.core.run import RunManifest
from harness.core.settings import Settings, Variant
from harness.core.suite import Split
from harness.models.resolving import POCKET, resolve
from harness.runner import scheduling
from harness.runner.budget import Budget
from harness.storage.cache import Cache
from tests.support.made_results import machine
from tests.support.synthetic_runs import case, record
from tests.support.synthetic_runs import manifest as made_manifest
from tests.support.synthetic_runs import suite as made_suite

SMALL, HUGE = (Variant(f"r{rank}", f"r={rank}", Settings(rank=rank)) for rank in (16, 2048))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache on a machine whose GPUs are hidden, so that predictions are for a T4."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Cache(tmp_path / "cache")


def manifest(on: Machine, model: str = "shape:llama-2-7b") -> RunManifest:
    found = made_manifest(made_suite([case("one"), case("kept", split=Split.CONFIRM)]), [SMALL, HUGE], on=on)
    return replace(found, model=resolve(model))


def skipped(of: RunManifest, cache: Cache) -> tuple[dict[str, str], list[str]]:
    events: list[Event] = []
    found = scheduling.predicted_oom(of, device_profiles.T4, cache, events.append)
    return found, [event.message for event in events]


def test_trials_that_cannot_fit_are_skipped(cache: Cache) -> None:
    """For a 7B model on a T4, rank 2048 is skipped and its predicted memory is given, and rank 16 is not skipped."""
    found, notices = skipped(manifest(machine("cuda")), cache)
    assert list(found) == ["r2048-s0"]
    assert found["r2048-s0"].startswith("predicted not to fit and not tried: it needs about ")
    assert found["r2048-s0"].endswith("GiB, and 14.2 GiB can be had")
    assert notices == []


def test_nothing_is_skipped_without_a_gpu(cache: Cache) -> None:
    """On a CPU no trial is skipped, and a notice says why."""
    assert skipped(manifest(machine("cpu")), cache) == (
        {},
        ["--skip-hopeless skips no trial: memory is predicted for GPUs, and this run has none"],
    )


def test_nothing_is_skipped_for_an_unknown_architecture(cache: Cache, tmp_path: Path) -> None:
    """If memory and time cannot be predicted, no trial is skipped, and a trial's epochs are its relative duration."""
    shutil.copytree(POCKET, tmp_path / "mine")
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config | {"model_type": "mixtral"}), encoding="utf-8")
    given = manifest(machine("cuda"), str(tmp_path / "mine"))
    found, notices = skipped(given, cache)
    assert found == {}
    assert "memory and time cannot be predicted for models of type 'mixtral'" in notices[0]
    assert scheduling.weights(given, given.plan.trials) == {"r16-s0": 3.0, "r2048-s0": 3.0}


def test_weights_grow_with_epochs(cache: Cache) -> None:
    """The relative duration of a trial is a constant for answering, plus a part in proportion to its epochs."""
    given = manifest(machine("cpu"), "pocket")
    trials = [replace(given.plan.trials[0], id=str(n), settings=Settings(epochs=n)) for n in (20, 40, 220)]
    once, twice, often = scheduling.weights(given, trials).values()
    assert often - twice == pytest.approx(9 * (twice - once))
    assert 1.5 < twice / once < 2


@pytest.mark.parametrize(
    ("done", "took", "chosen", "words"),
    [
        ([], 0, None, "Not done: 2 of 2 trials, and the confirmation of the best variant."),
        ([SMALL], 600, None, "Not done: 1 of 2 trials, about 10 min, and the confirmation of the best variant."),
        ([SMALL], 7200, None, "Not done: 1 of 2 trials, about 2.0 h, and the confirmation of the best variant."),
        ([SMALL, HUGE], 60, SMALL, "Not done: the confirmation of r=16."),
    ],
)
def test_the_notice_names_unfinished_work(done: list[Variant], took: float, chosen: Variant | None, words: str) -> None:
    """When time is up, a notice gives the number of unfinished trials, their time if known, and how to continue."""
    budget = Budget(100, {"r16-s0": 1.0, "r2048-s0": 1.0})
    if took:
        budget.learn("r16-s0", took)
    records = [record(None, {"one": "good"}), *(record(variant, {"one": "good"}) for variant in done)]
    notice = scheduling.unfinished(budget, manifest(machine()), records, chosen)
    assert words in notice
    assert notice.endswith("Run the same command again to continue.")
