"""What was measured: memory and time with the device and basis that each figure rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.units import Unit

GIB = 2**30
"""Bytes: sizes are kept in bytes and told in these."""


class Phase(StrEnum):
    LOAD = "load"
    ANSWER_BEFORE = "answer before"
    TRAIN = "train"
    ANSWER_AFTER = "answer after"


class Basis(StrEnum):
    """Where a figure comes from. Figures of different bases are never ranked against each other."""

    MEASURED = "measured"
    EMULATED = "emulated"
    PREDICTED = "predicted"


@dataclass(frozen=True)
class Measurement:
    """A figure with its unit and its source: `device` is the hardware's name."""

    value: float
    unit: Unit
    basis: Basis
    device: str


@dataclass(frozen=True)
class PhaseCost:
    """What one phase took. Memory is the peak within the phase, in bytes; CUDA's three are absent on a CPU."""

    phase: Phase
    seconds: Measurement
    tokens: int
    peak_resident: Measurement
    peak_allocated: Measurement | None = None
    peak_reserved: Measurement | None = None
    peak_device: Measurement | None = None
    """All that the GPU's driver (NVML) counts for this process, paged optimizer state and CUDA context included."""
    left_allocated: Measurement | None = None
    """What was still allocated at the phase's end: after loading, the base."""
    limit: Measurement | None = None
    """What the allocator may reserve: the profile's cap, else all of the GPU's memory."""
    note: str = ""
    """How the figures were come by, where that is not by measuring all of the phase alone."""
    models: int = 1
    """Number of models that answered in the batch: `seconds` is this model's share, peaks are those of the batch."""

    def peak(self) -> Measurement:
        """The peak that counts as the phase's memory: on a GPU what PyTorch's allocator reserved, else resident memory.

        Resident memory is the whole process's, Python and libraries included.
        """
        return self.peak_reserved or self.peak_resident

    def gpu_peak(self) -> Measurement | None:
        """Memory that the phase took of the GPU, with the CUDA context where the driver counted it; None on a CPU."""
        return self.peak_device or self.peak_reserved or self.peak_allocated

    @property
    def on_gpu(self) -> bool:
        """Whether the phase ran on a GPU."""
        return self.peak_reserved is not None

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds.value if self.tokens and self.seconds.value > 0 else None


@dataclass(frozen=True)
class Shortage:
    """How a trial ran out of memory. Peaks are of its last phase, up to the request that failed."""

    phase: Phase
    requested: Measurement | None
    """What was asked for in vain; None where the message does not say."""
    resident: Measurement
    """Of the process, when it failed."""
    peak_allocated: Measurement | None = None
    peak_reserved: Measurement | None = None
    device: Measurement | None = None
    """As the GPU's driver counts it, when it failed."""
    limit: Measurement | None = None
    """What the allocator might reserve."""
    memory_cap: int | None = None
    """Of the machine that it ran on: under another one it might fit."""
