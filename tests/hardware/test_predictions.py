"""What a named model is predicted to take on the GPU that is here, or on a T4, and what may be claimed of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.core import device_profiles
from harness.core.errors import ModelError
from harness.core.machine import Calibration
from harness.core.measurement import GIB
from harness.core.settings import Settings
from harness.hardware.estimate import SETUP, Fit, predictions
from harness.hardware.gpu import CONTEXT, Gpu
from harness.models.resolving import POCKET
from harness.storage.cache import Cache
from harness.suites import load_suite
from tests.support.small_suite import small_suite

SUITE = load_suite(Path(__file__).parents[2] / "suites" / "workshop")
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB)
COLAB = Gpu("Tesla T4", (7, 5), 15 * GIB)
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


def calibration(device: str) -> Calibration:
    return Calibration(device, 0.01, 1e-3, 20e-12, 10e12, 0.05, "2026-01-02T03:04:05+00:00", {"torch": "2.11.0"})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_folder_is_read_for_shape_and_lengths(tmp_path: Path) -> None:
    """A model's folder gives its own shape and the rows' lengths in its own tokens; weights are not looked at."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    found = predictions.subject(str(folder), SUITE)
    assert (found.shape.hidden, found.shape.layers, found.notice) == (256, 8, "")
    assert found.lengths.counted


def test_a_known_name_is_known_without_its_files() -> None:
    """Of a Hub model that is not here, the public shape is taken by its name and lengths are estimated; it is said."""
    found = predictions.subject(LLAMA, SUITE)
    assert found.shape == predictions.subject("shape:llama-2-7b", SUITE).shape
    assert not found.lengths.counted
    assert found.notice == f"{LLAMA} is not here; its shape is that of shape:llama-2-7b"
    with pytest.raises(ModelError, match="offline"):
        predictions.subject("someone/else", SUITE)


def test_another_architecture_is_not_predicted(tmp_path: Path) -> None:
    """A model whose layers are of another kind has no prediction, and the error says that training needs none."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mixtral"}), encoding="utf-8")
    with pytest.raises(ModelError, match="'mixtral' are not predicted"):
        predictions.subject(str(folder), SUITE)


@pytest.mark.parametrize(
    ("profile", "gpu", "device", "capacity", "speeds"),
    [
        (device_profiles.T4, H100, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.T4, COLAB, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.AUTO, COLAB, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.AUTO, H100, H100.name, H100.memory - CONTEXT, None),
    ],
)
def test_where_it_is_predicted_for(
    cache: Cache, profile: device_profiles.Profile, gpu: Gpu, device: str, capacity: int, speeds: object
) -> None:
    """A T4 is taken from its data sheet wherever one stands; another GPU's memory is known, its time is not."""
    place = predictions.where(profile, cache, found=gpu)
    assert place
    assert (place.device, place.capacity, place.speeds) == (device, capacity, speeds)
    assert predictions.where(device_profiles.CPU, cache, found=gpu) is None


def test_a_calibrated_gpu_says_so(cache: Cache) -> None:
    """Once a benchmark has run on a GPU, time there lies close around what it found, and says when that was."""
    before = predictions.where(device_profiles.AUTO, cache, found=H100)
    cache.commit_calibration(calibration(H100.name))
    after = predictions.where(device_profiles.AUTO, cache, found=H100)
    assert before
    assert after
    assert "time is not predicted" in before.claim
    assert after.claim == "time calibrated on an NVIDIA H100 80GB HBM3 on 2026-01-02"
    made = predictions.of(predictions.subject("pocket", SUITE), Settings(), after)
    assert (made.seconds.high - SETUP.high) / (made.seconds.low - SETUP.low) == pytest.approx(1.15**2)
    other = predictions.where(device_profiles.T4, cache, found=H100)
    assert other
    assert "not validated on a T4" in other.claim


def test_the_whole_grid_is_summed(cache: Cache) -> None:
    """The time of several trials is the sum of theirs."""
    place = predictions.where(device_profiles.T4, cache, found=H100)
    assert place
    made = predictions.of(predictions.subject("pocket", SUITE), Settings(), place)
    both = predictions.total([made, made])
    assert (both.low, both.high) == (2 * made.seconds.low, 2 * made.seconds.high)
    assert made.fit is Fit.FITS
    assert (
        predictions.of(predictions.subject("pocket", SUITE), Settings(), replace(place, capacity=1)).fit
        is Fit.TOO_LARGE
    )


# --- harness plan ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_plan_shows_memory_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Every variant has its memory, whether it fits and its time on a T4; what may be claimed of them stands below."""
    assert main(["plan", "small", "--model", LLAMA]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("lr=")]
    assert len(rows) == 2
    assert all("GiB, fits" in row and row.endswith(("min", " s")) for row in rows)
    assert "Predicted for meta-llama/Llama-2-7b-chat-hf on a Tesla T4" in said
    assert "nothing was measured" in said
    assert "not validated on a T4" in said
    assert "Lengths estimated at 3.5 characters a token" in said


@pytest.mark.usefixtures("here")
def test_plan_without_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that cannot be predicted is no reason not to show the plan; a CPU's figures are not predicted at all."""
    assert main(["plan", "small", "--model", "someone/else"]) == 0
    said = capsys.readouterr().out
    assert "No prediction: there is no folder someone/else" in said
    assert said.count("lr=") == 2
    assert main(["plan", "small", "--profile", "cpu"]) == 0
    assert "GiB" not in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_plan_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """A variant that is far too large for a T4 is called so before anything is trained."""
    grid = Path("small/grids/quick.yaml")
    grid.write_text("axes: {rank: [16, 2048]}\n", encoding="utf-8")
    assert main(["plan", "small", "--model", LLAMA, "--profile", "t4"]) == 0
    fits, too_large = [line for line in capsys.readouterr().out.splitlines() if line.startswith("r=")]
    assert "fits" in fits
    assert "does not fit" in too_large
