"""Device profiles: one row for each value of `--profile`, with the facts about that device.

The table is in `core` because several rooms read it: the command line lists it in `--help`, claims and
recommendations name a profile, and the engine looks up which attention kernels a device has.
`harness.hardware.environment.machine` turns a profile into the machine that a run computes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.machine import Machine
from harness.core.measurement import GIB
from harness.core.units import DeviceKind
from harness.core.wording import listed, one

AMPERE = (8, 0)
"""The lowest CUDA compute capability that has bf16 in hardware, FlashAttention and cuDNN attention."""


@dataclass(frozen=True)
class Speed:
    """Speeds of a GPU in QLoRA training, measured or taken from its data sheet."""

    update: float
    """Seconds of an optimizer step that are spent outside the forward and backward passes."""
    launch: float
    """Minimum seconds of one pass through one layer: the time to launch its kernels."""
    dequantise: float
    """Seconds per dequantised parameter, including writing it to memory and reading it again."""
    flops: float
    """Floating-point operations per second in matrix products."""


@dataclass(frozen=True)
class Profile:
    """Hardware limits that a run keeps to. On a larger GPU, memory and precision are those of the profile's GPU."""

    name: str
    """The value of `--profile`."""
    kind: DeviceKind | None = None
    """The kind of device; None means a GPU if the machine has one, otherwise the CPU."""
    title: str = ""
    """The GPU's short name in texts and on charts. It is a word of the name that the GPU's driver reports."""
    device: str = ""
    """The GPU's full name, as its driver reports it."""
    memory_cap: int = 0
    """Bytes that PyTorch's allocator may reserve: the GPU's memory minus the CUDA context; 0 means no cap.

    Every GPU profile has a different cap, which identifies it: a run's files record the cap and not the profile.
    """
    capability: tuple[int, int] | None = None
    """CUDA compute capability; None for a CPU."""
    speeds: tuple[Speed, Speed] | None = None
    """The fastest and the slowest speeds to expect, from the data sheet; None if only a calibration can tell."""

    @property
    def dtype(self) -> str:
        """The dtype that trainings on this device compute in."""
        return compute_dtype(self.capability)

    @property
    def flash_attention(self) -> bool:
        """Whether the device can run FlashAttention and cuDNN attention: GPUs before Ampere cannot."""
        return self.capability is None or self.capability >= AMPERE

    @property
    def colab(self) -> str:
        """The menu entries that select this GPU on Colab."""
        return f"Runtime > Change runtime type > {self.title} GPU"

    def is_device(self, name: str) -> bool:
        """Whether `name`, as reported by a GPU's driver, is a name of this profile's GPU."""
        return bool(self.title) and self.title in name.split()


def compute_dtype(capability: tuple[int, int] | None) -> str:
    """Return the dtype that trainings compute in on a GPU of this CUDA compute capability, or on a CPU (None).

    GPUs older than Ampere compute in fp16: PyTorch reports that a T4 supports bf16, but the T4 only emulates it.
    """
    if capability is None:
        return "float32"
    return "bfloat16" if capability >= AMPERE else "float16"


SPEEDS = (
    Speed(update=0.02, launch=1e-3, dequantise=18e-12, flops=20e12),
    Speed(update=0.1, launch=5e-3, dequantise=36e-12, flops=6e12),
)
"""The fastest and the slowest speeds to expect of a T4. They also order the trials on a GPU of unknown speed.

The data sheet gives 320 GB/s, and 65 TFLOP/s in fp16 tensor cores, of which the power limit of 70 W allows about a
third. A dequantised parameter is written and read with 2 bytes each, at 80% (fastest) or 40% (slowest) of the
bandwidth. Launch times depend on the host: 3 to 4.5 ms were measured on hosts of H100s, part of which a slower GPU
hides. The predicted range contains the published time for Llama-2-7b on Alpaca, 1.61 s per sample (README of unsloth,
December 2023)."""

AUTO = Profile("auto")
CPU = Profile("cpu", DeviceKind.CPU)
T4 = Profile("t4", DeviceKind.CUDA, "T4", "Tesla T4", int(14.2 * GIB), capability=(7, 5), speeds=SPEEDS)
PROFILES = {profile.name: profile for profile in (AUTO, CPU, T4)}
"""All profiles by name, in the order of `--help`."""
REFERENCE = T4
"""The GPU that reports and predictions refer to if a run has no GPU profile: the free GPU of Colab."""


def profile_of(machine: Machine) -> Profile | None:
    """Return the GPU profile that a run kept to; None for a CPU, and for a GPU that was used without limits."""
    matching = (profile for profile in PROFILES.values() if profile.memory_cap == machine.memory_cap)
    return next(matching, None) if machine.memory_cap else None


def profile_for(gpu: str) -> Profile | None:
    """Return the profile of the GPU that its driver calls `gpu`, or None if there is no such profile."""
    return next((profile for profile in PROFILES.values() if profile.is_device(gpu)), None)


def help_text() -> str:
    """Return the help text of `--profile`."""
    limits = (
        f"{p.name} limits a larger GPU to {one(p.title)}'s memory and precision" for p in PROFILES.values() if p.title
    )
    return f"auto uses a GPU if there is one; cpu uses none; {listed(limits)}."
