"""Tests of `harness doctor`, which finds what could stop a run on this machine and measures the speed of its GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.tables import calibration_line
from harness.core import device_profiles
from harness.core.machine import Timing
from harness.core.measurement import GIB
from harness.hardware.doctor import Facts, Finding, Level, LlamaCpp, Torch, ask_torch, calibrated, findings
from harness.hardware.environment import STACK
from harness.hardware.estimate.predictions import public_shape
from harness.hardware.gpu import Gpu
from harness.storage.cache import Cache

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
    """Return the only finding of this level, after checking that it has a remedy."""
    (found,) = judged(given, profile)[level]
    assert found.remedy
    return found


# --- machines without problems -----------------------------------------------------------------------------------


def test_a_colab_with_its_t4_has_no_problem() -> None:
    """On a Colab runtime with a T4, no problem is found, and the only note recommends a calibration."""
    found = judged(COLAB, device_profiles.T4)
    assert not found[Level.PROBLEM]
    text = " ".join(finding.text for finding in found[Level.FINE])
    assert "Tesla T4, compute capability 7.5, 15.0 GiB, driver 580.1" in text
    assert "no bf16 in hardware at compute capability 7.5" in text
    assert "--calibrate" in only(Level.NOTE, COLAB, device_profiles.T4).remedy
    assert not judged(replace(COLAB, calibrated="2026-01-02T03:04:05"))[Level.NOTE]


def test_a_laptop_has_no_problem() -> None:
    """On a laptop without a GPU, no problem is found, and the only note says that there is no GPU."""
    found = judged(LAPTOP)
    assert not found[Level.PROBLEM]
    assert [finding.text[:13] for finding in found[Level.NOTE]] == ["no NVIDIA GPU"]


def test_what_is_missing_of_llama_cpp_is_no_problem() -> None:
    """Of llama.cpp, what is there is named with its version, and what is missing with the exports that need it."""
    whole = LlamaCpp(Path("/llama"), "0.3.36", "0.3.36")
    fine = [finding.text for finding in judged(replace(COLAB, calibrated="2026", llama_cpp=whole))[Level.FINE]]
    assert {"llama.cpp's converters in /llama", "llama-cpp-python 0.3.36"} <= set(fine)
    for change, text, remedy in (
        ({"converters": None}, "llama.cpp's converters: not installed", "gguf, gguf-lora and ollama need this"),
        ({"binding": ""}, "llama-cpp-python: not installed", "--install-llama-cpp"),
        ({"binding": "0.3.1"}, "llama-cpp-python 0.3.1, while exports are tested with 0.3.36", "If an export fails"),
    ):
        given = replace(COLAB, calibrated="2026", llama_cpp=replace(whole, **change))
        assert not judged(given)[Level.PROBLEM]
        found = only(Level.NOTE, given)
        assert text == found.text
        assert remedy in found.remedy


# --- problems ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "a Colab runtime without its GPU"),
        ({"tpu": True}, "a Colab TPU runtime"),
    ],
)
def test_a_colab_without_a_gpu_has_a_remedy(change: Mapping[str, bool], words: str) -> None:
    """If Colab has no GPU, a note names the menu that selects one; with `--profile t4` this is a problem."""
    given = replace(LAPTOP, colab=True, **change)  # type: ignore[arg-type]
    for profile, level in ((device_profiles.AUTO, Level.NOTE), (device_profiles.T4, Level.PROBLEM)):
        found = only(level, given, profile)
        assert words in found.text
        assert "Change runtime type > T4 GPU" in found.remedy


@pytest.mark.parametrize(
    ("given", "words", "remedy"),
    [
        (replace(LAPTOP, python=(3, 10)), "Python 3.10 is not supported", "3.11"),
        (replace(LAPTOP, versions={**VERSIONS, "peft": "not installed"}, needed={"peft": "0.21.0"}),
         "peft is not installed", "'peft>=0.21.0'"),
        (replace(COLAB, versions={**VERSIONS, "torch": "2.9.0+cu126"}, needed={"torch": "2.11"}),
         "torch 2.9.0+cu126 is older than 2.11", "newer runtime"),
        (replace(LAPTOP, torch=Torch(error="ImportError: libcudart.so.12")), "libcudart.so.12", "again"),
        (replace(LAPTOP, torch=Torch()), "does not restore a matrix", "bitsandbytes"),
        (replace(LAPTOP, writable=False), "cannot be written to", "where you can write"),
        (replace(LAPTOP, disk=10**8), "0 GB of disk free", "harness clean"),
    ],
)  # fmt: skip
def test_a_problem_has_a_remedy(given: Facts, words: str, remedy: str) -> None:
    """What would stop a run is listed first, as a problem with a remedy."""
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
def test_an_unusable_gpu(given: Facts, words: str) -> None:
    """If torch or bitsandbytes cannot use the GPU, a note says so; with `--profile t4` this is a problem."""
    assert any(words in finding.text for finding in judged(given)[Level.NOTE])
    assert any(words in finding.text for finding in judged(given, device_profiles.T4)[Level.PROBLEM])


def test_little_disk_and_no_hub_are_noted() -> None:
    """If the disk is too small for a 7B model, or HF_HUB_OFFLINE is set, a note says so."""
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
def test_a_crash_of_torch_is_reported(code: str, words: str) -> None:
    """If importing torch ends the process, the error gives the exit code."""
    assert words in ask_torch((sys.executable, "-c", code)).error


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a new folder, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_exit_code_depends_on_the_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine without a GPU, `doctor --profile t4` exits with 2, even if torch and bitsandbytes work there."""
    assert main(["doctor", "--profile", "t4"]) == 2
    said = capsys.readouterr().out
    assert said.startswith("problem no NVIDIA GPU")
    assert "--profile cpu" in said
    assert said.count("problem") == 1
    assert "bitsandbytes quantises to NF4 and back" in said


@pytest.mark.usefixtures("here")
def test_a_cpu_is_not_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine without a GPU, `doctor --calibrate` exits with 2."""
    assert main(["doctor", "--calibrate"]) == 2
    assert "--calibrate measures a GPU" in capsys.readouterr().err


# --- calibration -------------------------------------------------------------------------------------------------


def test_a_calibration_is_stored(tmp_path: Path) -> None:
    """The cache stores one calibration per GPU model. Clearing the cache keeps it. A damaged file is ignored."""
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


def test_unmeasurable_speeds_are_not_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`doctor --calibrate` does not print speeds whose times were too short to measure."""
    found = calibrated("NVIDIA H200", [Timing("llama-2-7b", 4, 1, n, 0.1) for n in (16, 512)], public_shape)
    unseen = replace(found, update=0.0, launch=0.008, dequantise=0.0, flops=1e30, error=0.18)
    calibration_line(unseen, tmp_path / "kept.json")
    assert capsys.readouterr().out.splitlines()[0] == (
        "Calibrated on an NVIDIA H200, within 18% of every step that was timed: 8.00 ms a layer. "
        "Times that were too short to measure are not shown."
    )
