"""Figures of time and memory, each with its unit, its device and its basis (measured, emulated or predicted)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.units import Unit

GIB = 2**30
"""Number of bytes in one GiB. Files store sizes in bytes; texts give them in GiB."""


class Phase(StrEnum):
    """The phases of a trial, in the order in which they run."""

    LOAD = "load"
    REHEARSE = "rehearse"
    """The base model answers the rehearsal prompts: once per run, not once per trial."""
    ANSWER_BEFORE = "answer before"
    TRAIN = "train"
    ANSWER_AFTER = "answer after"


class Basis(StrEnum):
    """Where a figure comes from. Figures with different bases are not ranked against each other."""

    MEASURED = "measured"
    """Measured on the device."""
    EMULATED = "emulated"
    """Measured on a larger GPU that was limited to the memory and precision of the profile's GPU."""
    PREDICTED = "predicted"
    """Computed, not measured."""


@dataclass(frozen=True)
class Measurement:
    """A figure with its unit, its basis and the name of the device that it belongs to."""

    value: float
    unit: Unit
    basis: Basis
    device: str


@dataclass(frozen=True)
class PhaseCost:
    """Time, tokens and peak memory (in bytes) of one phase. Figures of GPU memory are None on a CPU."""

    phase: Phase
    seconds: Measurement
    tokens: int
    """Number of tokens that the phase processed."""
    peak_resident: Measurement
    """Peak resident memory of the whole process, including Python and its libraries."""
    peak_allocated: Measurement | None = None
    """Peak GPU memory in use by tensors."""
    peak_reserved: Measurement | None = None
    """Peak GPU memory that PyTorch's allocator reserved."""
    peak_device: Measurement | None = None
    """Peak GPU memory of this process, including paged optimizer state and the CUDA context.

    NVML reports it. Its basis is `PREDICTED` where NVML does not know the process, as in many containers: it is then
    the reserved memory, the paged state, and the usual size of a context."""
    left_allocated: Measurement | None = None
    """GPU memory that is still allocated at the end of the phase: after loading, that of the base model."""
    limit: Measurement | None = None
    """GPU memory that the allocator may reserve: the profile's cap, else all of the GPU's memory."""
    note: str = ""
    """How the figures were obtained; empty if exactly this phase was measured, alone and completely."""
    models: int = 1
    """Number of models that ran together. `seconds` is the share of this model, and memory peaks are those of all."""
    probes: int = 0
    """Number of short probes from which the figures are estimated; 0 if the phase itself was measured."""
    probe_steps: int = 0
    """Optimizer steps of each probe."""

    def peak(self) -> Measurement:
        """Return the figure that reports show as peak memory: reserved memory on a GPU, else resident memory."""
        return self.peak_reserved or self.peak_resident

    def gpu_peak(self) -> Measurement | None:
        """Return the peak of GPU memory, including the CUDA context if the driver measured it; None on a CPU."""
        return self.peak_device or self.peak_reserved or self.peak_allocated

    @property
    def on_gpu(self) -> bool:
        """Whether the phase ran on a GPU."""
        return self.peak_reserved is not None

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput of the phase; None if tokens or time are 0."""
        return self.tokens / self.seconds.value if self.tokens and self.seconds.value > 0 else None


@dataclass(frozen=True)
class Shortage:
    """How a trial ran out of memory. Peaks are those of the phase in which it failed, up to the failed allocation."""

    phase: Phase
    requested: Measurement | None
    """Size of the allocation that failed; None if the error message does not give it."""
    resident: Measurement
    """Resident memory of the process at the failure."""
    peak_allocated: Measurement | None = None
    peak_reserved: Measurement | None = None
    device: Measurement | None = None
    """GPU memory of the process at the failure, according to the driver; None if it does not know the process."""
    limit: Measurement | None = None
    """GPU memory that the allocator was allowed to reserve."""
    memory_cap: int | None = None
    """The memory cap under which the trial failed; it may succeed under a larger cap. None if there was no cap."""
