"""The machine that trials run on, the measured training speed of its GPU, and the provenance of a run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.measurement import Basis
from harness.core.units import DeviceKind


@dataclass(frozen=True)
class Machine:
    """The machine that trials run on: `kind` is `cpu` or `cuda`, `device` the hardware's name."""

    kind: DeviceKind
    device: str
    compute_dtype: str
    basis: Basis = Basis.MEASURED
    memory_cap: int | None = None
    """Bytes that PyTorch's allocator may reserve; None means no cap."""
    threads: int = 0


@dataclass(frozen=True)
class Timing:
    """Seconds of an optimizer step with `rows` rows of `length` tokens, on the first `layers` layers of a model."""

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
    """Seconds of an optimizer step that are spent outside the forward and backward passes."""
    launch: float
    """Minimum seconds of one pass through one layer."""
    dequantise: float
    """Seconds per dequantised parameter."""
    flops: float
    """Floating-point operations per second in matrix products."""
    error: float
    """Largest relative error of the step times predicted from `update`, `launch`, `dequantise` and `flops`, on the
    benchmark from which they were fitted."""
    made: str
    """Date and time of the measurement."""
    versions: dict[str, str]
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """The command, versions, commit and machine that are needed to repeat a run."""

    command: str
    started: str
    versions: dict[str, str]
    python: str
    platform: str
    git_commit: str
    """The commit that the package `harness` is from; empty if it is not in a git repository, as an installed wheel."""
    git_dirty: bool
    """Whether the package's files differ from that commit."""
    machine: Machine
