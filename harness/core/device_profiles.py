"""Device profiles: one row for each value of `--profile`, with what the harness knows about that device.

The table holds data only and stands in `core`, because the command line lists it in `--help`, the wording of claims and
recommendations names a profile, and the engine looks up its attention kernels. `harness.hardware.environment.machine`
turns a profile into the machine that a run computes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.machine import Machine
from harness.core.measurement import GIB
from harness.core.units import DeviceKind
from harness.core.wording import listed, one

AMPERE = (8, 0)
"""Compute capability from which a GPU has bf16 in hardware, and from which FlashAttention and cuDNN attention run."""


@dataclass(frozen=True)
class Speed:
    """Speeds of a GPU when it trains with QLoRA, measured or taken from its data sheet."""

    update: float
    """Seconds of an optimizer step beside the passes: the trainer's own work."""
    launch: float
    """Least seconds of one pass through one layer, however small: launching its kernels."""
    dequantise: float
    """Seconds for each parameter that is dequantised, written and read again."""
    flops: float
    """Floating-point operations a second in the matrix products."""


@dataclass(frozen=True)
class Profile:
    """A device that a run can be held to. A GPU's profile also holds larger GPUs to its memory and precision."""

    name: str
    """As `--profile` takes it."""
    kind: DeviceKind | None = None
    """None: whatever the machine has."""
    title: str = ""
    """The GPU's short name in texts and on charts; a driver's name that has it as a word is this GPU."""
    device: str = ""
    """The GPU's full name, as its driver gives it."""
    memory_cap: int = 0
    """Bytes that the GPU leaves to PyTorch's allocator beside the CUDA context; 0: no cap. No two profiles share a cap,
    since a run's files record the cap and not the profile."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability."""
    speeds: tuple[Speed, Speed] | None = None
    """At the GPU's best and at its worst, from its data sheet; None: time is predicted after a calibration only."""

    @property
    def dtype(self) -> str:
        """The dtype that trainings compute in."""
        return compute_dtype(self.capability)

    @property
    def flash_attention(self) -> bool:
        """Whether the attention kernels run that need an Ampere GPU (FlashAttention's and cuDNN's)."""
        return self.capability is None or self.capability >= AMPERE

    @property
    def colab(self) -> str:
        """How to get this GPU on Colab."""
        return f"Runtime > Change runtime type > {self.title} GPU"

    def is_device(self, name: str) -> bool:
        """Whether `name`, given by a driver, is this GPU."""
        return bool(self.title) and self.title in name.split()


def compute_dtype(capability: tuple[int, int] | None) -> str:
    """The dtype to compute in; None stands for a CPU. A T4 claims bf16, but only emulates it."""
    if capability is None:
        return "float32"
    return "bfloat16" if capability >= AMPERE else "float16"


SPEEDS = (
    Speed(update=0.02, launch=1e-3, dequantise=18e-12, flops=20e12),
    Speed(update=0.1, launch=5e-3, dequantise=36e-12, flops=6e12),
)
"""A T4 at its best and at its worst; also what orders trials where a GPU's own speeds are not known.

Data sheet: 320 GB/s, and 65 TFLOP/s in fp16 tensor cores, of which 70 W sustain about a third. A dequantised parameter
is written and read in 2 bytes each, at 80% and at 40% of the bandwidth. Launching depends on the host: hosts of H100s
took 3 to 4.5 ms, and a slower GPU hides part of it. The range holds the time published for Llama-2-7b on Alpaca, 1.61 s
a sample (README of unsloth, December 2023)."""

AUTO = Profile("auto")
CPU = Profile("cpu", DeviceKind.CPU)
T4 = Profile("t4", DeviceKind.CUDA, "T4", "Tesla T4", int(14.2 * GIB), capability=(7, 5), speeds=SPEEDS)
PROFILES = {profile.name: profile for profile in (AUTO, CPU, T4)}
"""Every profile by name, in the order in which `--help` lists them."""
REFERENCE = T4
"""The GPU that a page or a prediction refers to where a run names no other: Colab's free one."""


def profile_of(machine: Machine) -> Profile | None:
    """The GPU profile that a run was held to; None for a CPU, and for a GPU that was used as it is."""
    held = (profile for profile in PROFILES.values() if profile.memory_cap == machine.memory_cap)
    return next(held, None) if machine.memory_cap else None


def profile_for(gpu: str) -> Profile | None:
    """The profile of the GPU that a driver calls `gpu`."""
    return next((profile for profile in PROFILES.values() if profile.is_device(gpu)), None)


def help_text() -> str:
    """What `--help` says about `--profile`."""
    limits = (
        f"{p.name} limits a larger GPU to {one(p.title)}'s memory and precision" for p in PROFILES.values() if p.title
    )
    return f"auto uses a GPU if there is one; cpu uses none; {listed(limits)}."
