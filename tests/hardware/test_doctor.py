"""What a machine can do, from facts that are given, and how fast its GPU is, from steps that are timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.tables import calibration_line
from harness.core import device_profiles
from harness.core.device_profiles import Speed
from harness.core.machine import Timing
from harness.core.measurement import GIB
from harness.core.settings import Settings
from harness.engine import calibration as calibrate
from harness.hardware.doctor import Facts, Finding, Level, Torch, ask_torch, calibrated, findings
from harness.hardware.environment import STACK
from harness.hardware.estimate import ModelShape, batches, fitted, training_seconds
from harness.hardware.estimate.predictions import public_shape
from harness.hardware.gpu import Gpu
from harness.models.resolving import POCKET
from harness.storage.cache import Cache
from tests.support.short_trainings import one_core

VERSIONS = dict.fromkeys(STACK, "3.0.0")
GPU = Torch("13.0", cuda=True, bf16=True, nf4=True)
CPU = Torch(nf4=True)
T4 = Gpu("Tesla T4", (7, 5), 15 * GIB, "580.1")
LAPTOP = Facts(versions=VERSIONS, torch=CPU, memory=16 * GIB, disk=10**11)
COLAB = replace(LAPTOP, gpu=T4, torch=replace(GPU, bf16=False), colab=True)


def judged(given: Facts, profile: device_profiles.Profile = device_profiles.AUTO) -> dict[Level, list[Finding]]:
    found = findings(given, profile)
    return {level: [finding for finding in found if finding.level is level] for level in Level}


def only(level: Level, given: Facts, profile: device_profiles.Profile = device_profiles.AUTO) -> Finding:
    """The one finding of a level, which says what to do."""
    (found,) = judged(given, profile)[level]
    assert found.remedy
    return found


# --- what is fine ------------------------------------------------------------------------------------------------


def test_a_colab_with_its_t4_has_no_problem() -> None:
    """A T4 is named with its memory, computes in fp16, and only wants to be calibrated once."""
    found = judged(COLAB, device_profiles.T4)
    assert not found[Level.PROBLEM]
    text = " ".join(finding.text for finding in found[Level.FINE])
    assert "Tesla T4, compute capability 7.5, 15.0 GiB, driver 580.1" in text
    assert "no bf16 in hardware at compute capability 7.5" in text
    assert "--calibrate" in only(Level.NOTE, COLAB, device_profiles.T4).remedy
    assert not judged(replace(COLAB, calibrated="2026-01-02T03:04:05"))[Level.NOTE]


def test_a_laptop_has_no_problem() -> None:
    """Without a GPU the pocket model can be trained, and that is all that is noted."""
    found = judged(LAPTOP)
    assert not found[Level.PROBLEM]
    assert [finding.text[:13] for finding in found[Level.NOTE]] == ["no NVIDIA GPU"]


# --- what is not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "a Colab runtime without its GPU"),
        ({"tpu": True}, "a Colab TPU runtime"),
    ],
)
def test_a_colab_without_its_gpu_is_named_as_such(change: Mapping[str, bool], words: str) -> None:
    """A Colab runtime of another kind is called what it is, with where to change it; under `t4` that is a problem."""
    given = replace(LAPTOP, colab=True, **change)  # type: ignore[arg-type]
    for profile, level in ((device_profiles.AUTO, Level.NOTE), (device_profiles.T4, Level.PROBLEM)):
        found = only(level, given, profile)
        assert words in found.text
        assert "Change runtime type > T4 GPU" in found.remedy


@pytest.mark.parametrize(
    ("given", "words", "remedy"),
    [
        (replace(LAPTOP, python=(3, 13)), "Python 3.13 is not supported", "3.12"),
        (replace(LAPTOP, versions={**VERSIONS, "peft": "not installed"}, needed={"peft": "0.21.0"}),
         "peft is not installed", "'peft>=0.21.0'"),
        (replace(COLAB, versions={**VERSIONS, "torch": "2.9.0+cu126"}, needed={"torch": "2.11"}),
         "torch 2.9.0+cu126 is older than 2.11", "newer runtime"),
        (replace(LAPTOP, torch=Torch(error="ImportError: libcudart.so.12")), "libcudart.so.12", "again"),
        (replace(LAPTOP, torch=Torch()), "gives back another matrix", "bitsandbytes"),
        (replace(LAPTOP, writable=False), "cannot be written to", "folder of your own"),
        (replace(LAPTOP, disk=10**8), "0 GB of disk free", "harness clean"),
    ],
)  # fmt: skip
def test_a_problem_says_what_to_do(given: Facts, words: str, remedy: str) -> None:
    """Whatever would stop a run is a problem, is first, and has its remedy."""
    found = only(Level.PROBLEM, given)
    assert findings(given, device_profiles.AUTO)[0] == found
    assert words in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (replace(COLAB, torch=CPU), "torch is built for CPUs only"),
        (replace(COLAB, torch=replace(CPU, build="13.0")), "torch cannot use it"),
        (replace(COLAB, gpu=Gpu("Tesla K80", (3, 7), 11 * GIB)), "bitsandbytes needs 6.0"),
    ],
)
def test_a_gpu_that_cannot_be_used(given: Facts, words: str) -> None:
    """A GPU that torch or bitsandbytes cannot use is no problem for a CPU's run, and one for a T4's."""
    assert any(words in finding.text for finding in judged(given)[Level.NOTE])
    assert any(words in finding.text for finding in judged(given, device_profiles.T4)[Level.PROBLEM])


def test_little_disk_and_no_hub_are_noted() -> None:
    """What stops a 7B alone is a note: the disk that it takes, and a Hub that must not be asked."""
    notes = " ".join(finding.text for finding in judged(replace(LAPTOP, disk=5 * 10**9, offline=True))[Level.NOTE])
    assert "5 GB of disk free" in notes
    assert "HF_HUB_OFFLINE is set" in notes


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "exit code -6"),
        ("print('half a line')", "exit code 0"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_crash_of_torch_is_an_answer(code: str, words: str) -> None:
    """A library that takes its process along is found broken, and takes nothing else along."""
    assert words in ask_torch((sys.executable, "-c", code)).error


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_exit_code_is_about_the_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without a GPU ends with 2 for a T4, though torch and bitsandbytes, really asked, do work there."""
    assert main(["doctor", "--profile", "t4"]) == 2
    said = capsys.readouterr().out
    assert said.startswith("problem no NVIDIA GPU")
    assert "--profile cpu" in said
    assert said.count("problem") == 1
    assert "bitsandbytes quantises to NF4 and back" in said


@pytest.mark.usefixtures("here")
def test_a_cpu_is_not_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a GPU there is nothing to time, and that is said at once."""
    assert main(["doctor", "--calibrate"]) == 2
    assert "--calibrate times a GPU" in capsys.readouterr().err


# --- calibrating -------------------------------------------------------------------------------------------------


def test_speeds_are_found_again() -> None:
    """From steps that were made with known speeds, these speeds are found, and nothing is off."""
    true = Speed(update=0.02, launch=8e-4, dequantise=25e-12, flops=12e12)
    timed = [replace(each, seconds=a_step(each, true)) for each in calibrate.BENCHMARKS]
    found, error = fitted(timed, {each.shape: public_shape(each.shape) for each in timed})
    assert found.update == pytest.approx(true.update, rel=1e-3)
    assert found.launch == pytest.approx(true.launch, rel=1e-3)
    assert found.dequantise == pytest.approx(true.dequantise, rel=1e-3)
    assert found.flops == pytest.approx(true.flops, rel=1e-3)
    assert error < 1e-6


def a_step(of: Timing, speed: Speed) -> float:
    shape: ModelShape = replace(public_shape(of.shape), layers=of.layers)
    settings = Settings(batch_size=of.rows, epochs=1, max_length=of.length)
    return training_seconds(shape, batches(settings, [of.length] * of.rows), speed)


def test_a_calibration_is_kept_and_found(tmp_path: Path) -> None:
    """What was timed is kept with the speeds, under the device's name, and a damaged file counts as none."""
    timed = [Timing("llama-2-7b", 4, 1, n, 0.1 + n / 1000) for n in (16, 64, 256, 512)]
    made = calibrated("Tesla T4", timed, public_shape)
    cache = Cache(tmp_path / "cache")
    path = cache.commit_calibration(made)
    assert cache.calibration("Tesla T4") == made
    assert cache.calibration("NVIDIA L4") is None
    cache.clear()
    assert cache.calibration("Tesla T4") == made
    path.write_text("{", encoding="utf-8")
    assert cache.calibration("Tesla T4") is None


@pytest.mark.slow
def test_real_steps_are_timed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The benchmark trains for real, here on a CPU and on tiny layers: longer rows take longer, and each is told.

    Nothing else is: no trainer's log, no bar.
    """
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    wanted = [Timing("tiny", 2, 1, 8), Timing("tiny", 2, 8, 256)]
    told: list[Timing] = []
    found = calibrate.timings(one_core(), tmp_path, POCKET, told.append, wanted)
    assert told == found
    assert [replace(each, seconds=0.0) for each in found] == wanted
    assert 0 < found[0].seconds < found[1].seconds
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("floor", "flops", "rows"), [(0.4, 12e12, ()), (0.09, 300e12, (16,)), (0.09, 1e18, (16, 32, 64))]
)
def test_a_fast_gpu_is_given_more_rows(tmp_path: Path, floor: float, flops: float, rows: tuple[int, ...]) -> None:
    """Until its products show beside what every step takes; a T4's do at once, and there is an end to it."""
    speed = Speed(update=floor, launch=0, dequantise=0, flops=flops)
    told: list[Timing] = []
    found = calibrate.timings(
        one_core(), tmp_path, POCKET, told.append,
        make=lambda *_: None, measure=lambda _, each: replace(each, seconds=a_step(each, speed)),
    )  # fmt: skip
    assert told == found
    assert tuple(each.rows for each in found[len(calibrate.BENCHMARKS) :]) == rows


def test_what_was_not_told_apart_is_not_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A speed that took no time in any step is no figure."""
    found = calibrated("NVIDIA H200", [Timing("llama-2-7b", 4, 1, n, 0.1) for n in (16, 512)], public_shape)
    unseen = replace(found, update=0.0, launch=0.008, dequantise=0.0, flops=1e30, error=0.18)
    calibration_line(unseen, tmp_path / "kept.json")
    assert capsys.readouterr().out.splitlines()[0] == (
        "Calibrated on an NVIDIA H200, within 18% of every step that was timed: 8.00 ms a layer. "
        "Times that were too short to measure are not shown."
    )
