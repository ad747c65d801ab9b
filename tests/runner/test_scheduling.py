"""What a run leaves out, and in which words, where its model is known, is another kind of model, or has no GPU."""

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
from tests.support.synthetic_runs import case, machine, record
from tests.support.synthetic_runs import manifest as made_manifest
from tests.support.synthetic_runs import suite as made_suite

SMALL, HUGE = (Variant(f"r{rank}", f"r={rank}", Settings(rank=rank)) for rank in (16, 2048))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache, on a machine whose driver shows no GPU: predictions are for a T4."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Cache(tmp_path / "cache")


def manifest(on: Machine, model: str = "shape:llama-2-7b") -> RunManifest:
    found = made_manifest(made_suite([case("one"), case("kept", split=Split.CONFIRM)]), [SMALL, HUGE], on=on)
    return replace(found, model=resolve(model))


def left_out(of: RunManifest, cache: Cache) -> tuple[dict[str, str], list[str]]:
    told: list[Event] = []
    found = scheduling.predicted_oom(of, device_profiles.T4, cache, told.append)
    return found, [event.message for event in told]


def test_only_the_hopeless_are_left_out(cache: Cache) -> None:
    """Of a 7B on a T4, rank 16 is tried and rank 2048 is not; why is said in GiB."""
    found, told = left_out(manifest(machine("cuda")), cache)
    assert list(found) == ["r2048-s0"]
    assert found["r2048-s0"].startswith("predicted not to fit and not tried: it needs about ")
    assert found["r2048-s0"].endswith("GiB, and 14.2 GiB can be had")
    assert told == []


def test_nothing_is_left_out_without_a_gpu(cache: Cache) -> None:
    """On a CPU nothing is predicted, so nothing is left out, and that is told."""
    assert left_out(manifest(machine("cpu")), cache) == (
        {},
        ["--skip-hopeless skips no trial: memory is predicted for GPUs, and this run has none"],
    )


def test_nothing_is_left_out_of_another_kind(cache: Cache, tmp_path: Path) -> None:
    """A model of an architecture that is not predicted is trained as it is; a budget then counts in epochs."""
    shutil.copytree(POCKET, tmp_path / "mine")
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config | {"model_type": "mixtral"}), encoding="utf-8")
    given = manifest(machine("cuda"), str(tmp_path / "mine"))
    found, told = left_out(given, cache)
    assert found == {}
    assert "'mixtral' are not predicted" in told[0]
    assert scheduling.weights(given, given.plan.trials) == {"r16-s0": 3.0, "r2048-s0": 3.0}


def test_weights_are_of_what_trials_take(cache: Cache) -> None:
    """Every twenty epochs weigh the same, and answering, which takes as long after few as after many, comes on top."""
    given = manifest(machine("cpu"), "pocket")
    trials = [replace(given.plan.trials[0], id=str(n), settings=Settings(epochs=n)) for n in (20, 40, 220)]
    once, twice, often = scheduling.weights(given, trials).values()
    assert often - twice == pytest.approx(9 * (twice - once))
    assert 1.5 < twice / once < 2


@pytest.mark.parametrize(
    ("done", "took", "chosen", "words"),
    [
        ([], 0, None, "Not done: 2 of 2 trials, and the confirmation of the best."),
        ([SMALL], 600, None, "Not done: 1 of 2 trials, about 10 min, and the confirmation of the best."),
        ([SMALL], 7200, None, "Not done: 1 of 2 trials, about 2.0 h, and the confirmation of the best."),
        ([SMALL, HUGE], 60, SMALL, "Not done: the confirmation of r=16."),
    ],
)
def test_what_is_left_is_said(done: list[Variant], took: float, chosen: Variant | None, words: str) -> None:
    """How many trials, how long they will take once that is known, and that the same command goes on."""
    budget = Budget(100, {"r16-s0": 1.0, "r2048-s0": 1.0})
    if took:
        budget.learn("r16-s0", took)
    records = [record(None, {"one": "good"}), *(record(variant, {"one": "good"}) for variant in done)]
    said = scheduling.unfinished(budget, manifest(machine()), records, chosen)
    assert words in said
    assert said.endswith("Run the same command again to continue.")
