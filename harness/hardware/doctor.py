"""Check whether this machine can run the benchmark: collect facts, and derive findings with remedies from them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import psutil

from harness.core import programs
from harness.core.device_profiles import REFERENCE, Profile
from harness.core.machine import Calibration, Timing
from harness.core.quantities import gib
from harness.core.units import DeviceKind
from harness.hardware import estimate
from harness.hardware.environment import STACK, now, stack_versions
from harness.hardware.gpu import Gpu, gpu
from harness.storage.cache import Cache

_DISK_FOR_7B = 22e9
"""Bytes of disk space that a 7B model needs for its weights in fp16, the quantised base model, and adapters."""
_PROBE = """
import json, sys
found = {}
try:
    import torch
    found["build"] = torch.version.cuda or ""
    found["cuda"] = torch.cuda.is_available()
    if found["cuda"]:
        found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        found["kernels"] = torch.cuda.get_arch_list()
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    given = torch.ones(64, 64, device="cuda" if found["cuda"] else "cpu")
    back = dequantize_4bit(*quantize_4bit(given, quant_type="nf4"))
    found["nf4"] = bool((back - given).abs().max() < 0.01)
except BaseException as error:
    found["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
print(json.dumps(found))
"""
_COLAB_GPU = f"Choose {REFERENCE.colab}. If Colab offers no GPU, today's quota is used up: try again later."


class Level(StrEnum):
    FINE = "fine"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check; `remedy` tells the user what to do."""

    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Torch:
    """The state of torch and bitsandbytes. A separate process determines it, because importing them may crash."""

    build: str = ""
    """The CUDA version that torch was built for; empty for a CPU build."""
    cuda: bool = False
    bf16: bool = False
    """Whether the GPU computes bf16 in hardware."""
    nf4: bool = False
    """Whether a matrix was quantised to NF4 and dequantised correctly."""
    error: str = ""


@dataclass(frozen=True)
class LlamaCpp:
    """What of llama.cpp is on this machine."""

    converters: Path | None
    """The folder with both converters; None if one of them is missing."""
    binding: str
    """Version of llama-cpp-python; empty if it is not installed."""
    wanted: str
    """Version of llama-cpp-python with which exports are tested."""


@dataclass(frozen=True)
class Facts:
    """The facts about a machine from which findings are derived."""

    python: tuple[int, int] = (3, 11)
    versions: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)
    """Lowest supported version of each library; empty if the harness is not installed as a package."""
    gpu: Gpu | None = None
    torch: Torch = Torch()
    colab: bool = False
    tpu: bool = False
    offline: bool = False
    memory: int = 0
    disk: int = 0
    writable: bool = True
    calibrated: str = ""
    llama_cpp: LlamaCpp | None = None
    """None: it was not looked for."""


# --- facts -------------------------------------------------------------------------------------------------------


def facts(cache: Cache, llama_cpp: LlamaCpp | None = None) -> Facts:
    """Collect the facts about this machine; what `harness.export` finds of llama.cpp is given."""
    here = Path.cwd()
    found = gpu()
    known = cache.calibration(found.name) if found else None
    return Facts(
        python=sys.version_info[:2],
        versions=stack_versions(),
        needed=_needed(),
        gpu=found,
        torch=ask_torch(),
        colab="COLAB_RELEASE_TAG" in os.environ,
        tpu=_has_tpu(os.environ),
        offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        memory=psutil.virtual_memory().total,
        disk=shutil.disk_usage(here).free,
        writable=os.access(here, os.W_OK),
        calibrated=known.made if known else "",
        llama_cpp=llama_cpp,
    )


def ask_torch(command: Sequence[str] = programs.python("-c", _PROBE)) -> Torch:
    """Check torch and bitsandbytes in a separate process; return a crash as an error."""
    try:
        done = programs.run(command, seconds=180)
    except subprocess.TimeoutExpired:
        return Torch(error="importing torch takes more than three minutes")
    last = next(iter(done.stdout.strip().splitlines()[-1:]), "")
    try:
        answer = json.loads(last)
    except ValueError:
        return Torch(error=f"importing torch ended with exit code {done.returncode}")
    known = {name: answer[name] for name in ("build", "cuda", "bf16", "nf4", "error") if name in answer}
    return Torch(**known)


def _has_tpu(environment: Mapping[str, str]) -> bool:
    names = ("COLAB_TPU_ADDR", "TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")
    return any(environment.get(name) for name in names) or Path("/dev/accel0").exists()


def _needed() -> dict[str, str]:
    try:
        wanted = metadata.requires("qlora-harness") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match}


# --- findings ----------------------------------------------------------------------------------------------------


def findings(given: Facts, profile: Profile) -> tuple[Finding, ...]:
    """Derive findings for a run with this profile from the facts; problems come first."""
    checks = (_python, _libraries, _torch, _accelerator, _precision, _disk, _hub, _calibration, _llama_cpp)
    found = [finding for check in checks for finding in check(given, profile)]
    return tuple(sorted(found, key=lambda finding: list(Level)[::-1].index(finding.level)))


def _python(given: Facts, _: Profile) -> Iterator[Finding]:
    major, minor = given.python
    text = f"Python {major}.{minor}"
    if given.python >= (3, 11):
        yield Finding(Level.FINE, text)
    else:
        yield Finding(Level.PROBLEM, f"{text} is not supported", "Use Python 3.11 or newer.")


def _libraries(given: Facts, _: Profile) -> Iterator[Finding]:
    for name in STACK:
        version, least = given.versions.get(name, "not installed"), given.needed.get(name, "")
        if version == "not installed":
            yield Finding(Level.PROBLEM, f"{name} is not installed", f"pip install '{name}>={least}'" if least else "")
        elif least and _numbers(version) < _numbers(least):
            keep = " (on Colab: take a newer runtime)" if name == "torch" and given.colab else ""
            remedy = f"pip install --upgrade '{name}>={least}'{keep}"
            yield Finding(Level.PROBLEM, f"{name} {version} is older than {least}", remedy)
        else:
            yield Finding(Level.FINE, f"{name} {version}")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: (2, 11, 0) for `2.11.0+cu130`. A shorter version has fewer numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _torch(given: Facts, _: Profile) -> Iterator[Finding]:
    if given.torch.error:
        remedy = "Install torch and bitsandbytes again; on Colab restart the runtime after installing."
        yield Finding(Level.PROBLEM, f"torch and bitsandbytes do not work: {given.torch.error}", remedy)
    elif not given.torch.nf4:
        remedy = "pip install --upgrade bitsandbytes"
        yield Finding(Level.PROBLEM, "bitsandbytes does not restore a matrix that it quantised", remedy)
    else:
        yield Finding(Level.FINE, "bitsandbytes quantises to NF4 and back")


def _accelerator(given: Facts, profile: Profile) -> Iterator[Finding]:
    missing = Level.PROBLEM if profile.kind is DeviceKind.CUDA else Level.NOTE
    if given.gpu is None:
        yield _no_gpu(given, missing)
    elif not given.torch.cuda and not given.torch.error:
        built = "is built for CPUs only" if not given.torch.build else "cannot use it (the driver may be too old)"
        remedy = (
            "Install a CUDA build of torch (https://pytorch.org/get-started); on Colab keep the preinstalled torch."
        )
        yield Finding(missing, f"found a {given.gpu.name}, but torch {built}: trainings run on the CPU", remedy)
    elif given.gpu.capability < (6, 0):
        text = f"{given.gpu.name} has compute capability {_capability(given.gpu)}, and bitsandbytes needs 6.0"
        yield Finding(missing, text, "Use a newer GPU, or --profile cpu.")
    else:
        yield Finding(Level.FINE, f"{_described(given.gpu)}, driver {given.gpu.driver or 'unknown'}")


def _no_gpu(given: Facts, level: Level) -> Finding:
    if given.tpu:
        where = "a Colab TPU runtime" if given.colab else "a machine with a TPU"
        text = f"this is {where}: bitsandbytes has no kernels for TPUs, so trainings would run on the CPU"
        return Finding(level, text, _COLAB_GPU if given.colab else "Use a machine with an NVIDIA GPU.")
    if given.colab:
        return Finding(level, "this is a Colab runtime without its GPU: trainings would run on the CPU", _COLAB_GPU)
    text = "no NVIDIA GPU: on the CPU, the pocket model trains in minutes, and a 7B model would take days"
    return Finding(level, text, "" if level is Level.NOTE else "Use --profile cpu, or a machine with an NVIDIA GPU.")


def _precision(given: Facts, _: Profile) -> Iterator[Finding]:
    if given.gpu is None or not given.torch.cuda:
        return
    if given.torch.bf16:
        yield Finding(Level.FINE, "bf16 in hardware")
    else:
        text = f"no bf16 in hardware at compute capability {_capability(given.gpu)}: trainings compute in fp16"
        yield Finding(Level.FINE, text)


def _disk(given: Facts, _: Profile) -> Iterator[Finding]:
    if not given.writable:
        yield Finding(Level.PROBLEM, f"{Path.cwd()} cannot be written to", "Run in a folder where you can write files.")
    text = f"{given.disk / 1e9:.0f} GB of disk free here, {given.memory / 1e9:.0f} GB of memory"
    if given.disk < 1e9:
        yield Finding(Level.PROBLEM, text, "Free some space: `harness clean` shows what the harness's cache holds.")
    elif given.disk < _DISK_FOR_7B:
        remedy = f"A 7B model takes about {_DISK_FOR_7B / 1e9:.0f} GB: its weights, the quantised base, adapters."
        yield Finding(Level.NOTE, text, remedy)
    else:
        yield Finding(Level.FINE, text)


def _hub(given: Facts, _: Profile) -> Iterator[Finding]:
    if given.offline:
        remedy = "The pocket model, folders, and models in the Hub's cache work. Unset HF_HUB_OFFLINE for other models."
        yield Finding(Level.NOTE, "HF_HUB_OFFLINE is set: models are not downloaded from the Hub", remedy)


def _calibration(given: Facts, _: Profile) -> Iterator[Finding]:
    if given.gpu is None or not given.torch.cuda:
        return
    if given.calibrated:
        yield Finding(Level.FINE, f"predicted times are calibrated on this GPU ({given.calibrated[:10]})")
    else:
        text = "predicted times are not calibrated on this GPU"
        yield Finding(Level.NOTE, text, "Run `harness doctor --calibrate` (about two minutes).")


def _llama_cpp(given: Facts, _: Profile) -> Iterator[Finding]:
    found = given.llama_cpp
    if found is None:
        return
    parts = (
        ("llama.cpp's converters", bool(found.converters), "exports to gguf, gguf-lora and ollama"),
        (
            "llama-cpp-python",
            bool(found.binding),
            "exports in q4_k_m and to ollama, `harness chat --gguf` and the GGUF stages of `harness parity`",
        ),
    )
    for name, there, use in parts:
        if not there:
            remedy = f"Only {use} need this: `harness doctor --install-llama-cpp` (about 8 minutes on two cores)."
            yield Finding(Level.NOTE, f"{name}: not installed", remedy)
    if found.converters:
        yield Finding(Level.FINE, f"llama.cpp's converters in {found.converters}")
    if found.binding == found.wanted:
        yield Finding(Level.FINE, f"llama-cpp-python {found.binding}")
    elif found.binding:
        text = f"llama-cpp-python {found.binding}, while exports are tested with {found.wanted}"
        yield Finding(Level.NOTE, text, "If an export fails, run `harness doctor --install-llama-cpp`.")


def _described(found: Gpu) -> str:
    return f"{found.name}, compute capability {_capability(found)}, {gib(found.memory)}"


def _capability(found: Gpu) -> str:
    return f"{found.capability[0]}.{found.capability[1]}"


# --- calibration -------------------------------------------------------------------------------------------------


def calibrated(device: str, timings: Sequence[Timing], shape: Callable[[str], estimate.ModelShape]) -> Calibration:
    """Return a device's speeds, fitted to timed training steps. `shape` returns the shape of a model by its name."""
    shapes = {name: shape(name) for name in dict.fromkeys(each.shape for each in timings)}
    speed, error = estimate.fit_speeds(timings, shapes)
    made = Calibration(
        device, speed.update, speed.launch, speed.dequantise, speed.flops, error, now(), stack_versions()
    )
    return replace(made, timings=tuple(timings))
