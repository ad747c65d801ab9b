"""Tests of predictions for a named model on this machine's GPU or on a T4, and of what is said of their reliability."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core import device_profiles
from harness.core.errors import ModelError
from harness.core.machine import Calibration
from harness.core.measurement import GIB
from harness.core.rehearsal import DECODING, Rehearsal, RehearsalAnswers, RehearsalRow
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Example, Message
from harness.hardware.estimate import SETUP, Fit, predictions
from harness.hardware.gpu import CONTEXT, Gpu
from harness.models.resolving import POCKET, resolve
from harness.storage.cache import Cache
from harness.suites import load_suite

SUITE = load_suite(Path(__file__).parents[3] / "suites" / "workshop")
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB)
COLAB = Gpu("Tesla T4", (7, 5), 15 * GIB)
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


def calibration(device: str) -> Calibration:
    return Calibration(device, 0.01, 1e-3, 20e-12, 10e12, 0.05, "2026-01-02T03:04:05+00:00", {"torch": "2.11.0"})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_folder_is_read_for_shape_and_lengths(tmp_path: Path) -> None:
    """A model's shape and token counts are read from the files in its folder; its weights are not needed."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    found = predictions.named_workload(str(folder), SUITE)
    assert (found.shape.hidden, found.shape.layers, found.notice) == (256, 8, "")
    assert found.lengths.counted


def test_only_the_tokens_of_answers_need_logits(cache: Cache) -> None:
    """A trial whose rows are mostly prompt is predicted to need less memory than one whose rows are mostly answer."""
    target = predictions.target_gpu(device_profiles.T4, cache, found=H100)
    assert target
    long, short = "Please say nothing else but this. " * 10, "Yes."
    peaks = [
        predictions.predict_trial(
            predictions.named_workload("shape:smollm2-135m", replace(SUITE, examples=rows)), Settings(), target
        ).memory
        for rows in (
            [Example((Message("user", question), Message("assistant", answer)))] * 30
            for question, answer in ((long, short), (short, long))
        )
    ]
    assert peaks[0].allocated < 0.95 * peaks[1].allocated


def test_a_missing_model_uses_a_public_shape() -> None:
    """If a Hub model is not found, but its name contains that of a public shape, this shape is used, with a notice."""
    found = predictions.named_workload(LLAMA, SUITE)
    assert found.shape == predictions.named_workload("shape:llama-2-7b", SUITE).shape
    assert not found.lengths.counted
    assert found.notice == f"{LLAMA} was not found; the prediction uses the shape of shape:llama-2-7b"
    with pytest.raises(ModelError, match="offline"):
        predictions.named_workload("someone/else", SUITE)


def test_another_architecture_is_not_predicted(tmp_path: Path) -> None:
    """If a model's architecture is not supported, an error says that memory and time are not predicted."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mixtral"}), encoding="utf-8")
    with pytest.raises(ModelError, match="memory and time cannot be predicted for models of type 'mixtral'"):
        predictions.named_workload(str(folder), SUITE)


@pytest.mark.parametrize(
    ("profile", "gpu", "device", "capacity", "speeds"),
    [
        (device_profiles.T4, H100, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.T4, COLAB, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.AUTO, COLAB, "Tesla T4", device_profiles.T4.memory_cap, device_profiles.SPEEDS),
        (device_profiles.AUTO, H100, H100.name, H100.memory - CONTEXT, None),
    ],
)
def test_the_target_gpu_of_a_profile(
    cache: Cache, profile: device_profiles.Profile, gpu: Gpu, device: str, capacity: int, speeds: object
) -> None:
    """For a T4, speeds are those of its data sheet. For another GPU without a calibration, only its memory is known."""
    target = predictions.target_gpu(profile, cache, found=gpu)
    assert target
    assert (target.device, target.capacity, target.speeds) == (device, capacity, speeds)
    assert predictions.target_gpu(device_profiles.CPU, cache, found=gpu) is None


def test_a_calibration_changes_times_and_their_claim(cache: Cache) -> None:
    """After a calibration of the GPU, times are predicted within 15%, and the date of the calibration is stated."""
    before = predictions.target_gpu(device_profiles.AUTO, cache, found=H100)
    cache.commit_calibration(calibration(H100.name))
    after = predictions.target_gpu(device_profiles.AUTO, cache, found=H100)
    assert before
    assert after
    assert "time is not predicted" in before.claim
    assert after.claim == "time calibrated on an NVIDIA H100 80GB HBM3 on 2026-01-02"
    made = predictions.predict_trial(predictions.named_workload("pocket", SUITE), Settings(), after)
    assert (made.seconds.high - SETUP.high) / (made.seconds.low - SETUP.low) == pytest.approx(1.15**2)
    other = predictions.target_gpu(device_profiles.T4, cache, found=H100)
    assert other
    assert "not validated on a T4" in other.claim


def test_times_of_trials_are_added(cache: Cache) -> None:
    """The predicted time of several trials is the sum of their predicted times."""
    target = predictions.target_gpu(device_profiles.T4, cache, found=H100)
    assert target
    made = predictions.predict_trial(predictions.named_workload("pocket", SUITE), Settings(), target)
    both = predictions.total_seconds([made, made])
    assert (both.low, both.high) == (2 * made.seconds.low, 2 * made.seconds.high)
    assert made.fit is Fit.FITS
    assert (
        predictions.predict_trial(
            predictions.named_workload("pocket", SUITE), Settings(), replace(target, capacity=1)
        ).fit
        is Fit.TOO_LARGE
    )


# --- rehearsal -----------------------------------------------------------------------------------------------------

PROMPTS = Rehearsal(("Why?", "What is the tallest tree that you can think of?", "How?"), 0)


def test_rehearsal_rows_are_reckoned_with_the_longest_answers() -> None:
    """Until there are answers, each rehearsal row has the tokens of its prompt and of the longest answer."""
    found = predictions.named_workload("pocket", SUITE, PROMPTS)
    assert len(found.rehearsal) == 3
    assert found.rehearsal[0] > found.rehearsal[1]
    assert all(DECODING.max_new_tokens < tokens < DECODING.max_new_tokens + 40 for tokens in found.rehearsal)
    assert found.tokens(Settings()) == found.lengths.tokens
    assert found.tokens(Settings(rehearsal=2)) == (*found.lengths.tokens, *found.rehearsal[:2])
    most = DECODING.max_new_tokens
    assert found.supervised(Settings(rehearsal=2)) == (*found.lengths.supervised, most, most)


def test_rehearsal_makes_a_trial_longer() -> None:
    """A trial with rehearsal is predicted to take longer, and to need more memory where its rows are longer."""
    target = predictions.target_gpu(device_profiles.PROFILES["t4"], Cache(Path("nowhere")))
    assert target
    what = predictions.named_workload("pocket", SUITE, PROMPTS)
    without, with_rows = (predictions.predict_trial(what, Settings(rehearsal=n), target) for n in (0, 3))
    assert with_rows.seconds.high > without.seconds.high
    assert with_rows.memory.allocated > without.memory.allocated


def test_known_answers_replace_the_longest_ones() -> None:
    """Once the base model has answered, the tokens of its rows count."""
    rows = tuple(RehearsalRow((Message("user", str(n)), Message("assistant", "x")), n) for n in (20, 31, 25))
    known = replace(PROMPTS, answers=(RehearsalAnswers(Quantization.NF4, rows, {}),))
    assert predictions.resolved_workload(resolve("pocket"), SUITE, known).rehearsal == (31, 25, 20)


def test_fewer_passes_and_answers_take_less_time(cache: Cache) -> None:
    """Half of the passes and answers take half of the predicted time, but for the worker's start; half epochs less."""
    target = predictions.target_gpu(device_profiles.T4, cache, found=H100)
    assert target
    what = predictions.named_workload("shape:smollm2-135m", SUITE)
    trials = [Trial(f"t{n}", "v", Settings(epochs=4.0), n) for n in range(8)]
    one, two, part = (
        predictions.grid_seconds(what, [trials] * passes, 1000 * passes, target, shares)
        for passes, shares in ((1, {}), (2, {}), (1, {"v": 0.5}))
    )
    for low, high, half, start in (
        (one.low, two.low, part.low, SETUP.low),
        (one.high, two.high, part.high, SETUP.high),
    ):
        assert high - start == pytest.approx(2 * (low - start))
        assert half < low
