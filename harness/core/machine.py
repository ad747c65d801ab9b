"""The machine that trials run on, and how fast its GPU was found to be."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.measurement import Basis
from harness.core.units import DeviceKind


@dataclass(frozen=True)
class Machine:
    """Where trials run: `kind` is `cpu` or `cuda`, `device` the hardware's name."""

    kind: DeviceKind
    device: str
    compute_dtype: str
    basis: Basis = Basis.MEASURED
    memory_cap: int | None = None
    threads: int = 0


@dataclass(frozen=True)
class Timing:
    """How long an optimizer step over `rows` rows of `length` tokens takes on the first `layers` layers of a shape."""

    shape: str
    layers: int
    rows: int
    length: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """The training speed of one GPU (`harness.core.device_profiles.Speed`), measured by a benchmark on it."""

    device: str
    update: float
    """Seconds that an optimizer step takes besides passes and products."""
    launch: float
    """Seconds that one pass through one layer takes at least."""
    dequantise: float
    """Seconds for each parameter that is dequantised."""
    flops: float
    """Floating-point operations a second in the matrix products."""
    error: float
    """Largest relative error of these four on the benchmark's own steps."""
    made: str
    versions: dict[str, str]
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """All that is needed to repeat a run."""

    command: str
    started: str
    versions: dict[str, str]
    python: str
    platform: str
    git_commit: str
    git_dirty: bool
    machine: Machine
