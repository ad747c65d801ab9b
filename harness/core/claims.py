"""Say where a figure comes from: the only place that words what its basis and its device allow to be claimed."""

from __future__ import annotations

from harness.core.device_profiles import REFERENCE, profile_of
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement
from harness.core.quantities import gib
from harness.core.wording import one


def source(figure: Measurement | Machine) -> str:
    """The basis and the device: `measured on Tesla T4`."""
    return f"{figure.basis} on {figure.device}"


def claim(figure: Measurement | Machine, machine: Machine) -> str:
    """What may be claimed of a figure of a run on `machine`: how it was found, and what was never tried."""
    if figure.basis is Basis.EMULATED:
        capped = f" capped at {gib(machine.memory_cap)}" if machine.memory_cap else ", with its memory capped"
        return f"emulated: {figure.device}{capped}; never run on {gpu_of(machine)}"
    return f"predicted; not validated on {gpu_of(machine)}" if figure.basis is Basis.PREDICTED else source(figure)


def short_claim(figure: Measurement, machine: Machine) -> str:
    """The same without the cap's size: `emulated on NVIDIA H200, with its memory capped; never run on a T4`."""
    never = f", with its memory capped; never run on {gpu_of(machine)}" if figure.basis is Basis.EMULATED else ""
    return f"{source(figure)}{never}"


def machine_claim(machine: Machine) -> str:
    """What may be claimed of all figures that were measured on a machine."""
    return claim(machine, machine)


def gpu_of(machine: Machine) -> str:
    """The GPU that the run is about, with its article: of its profile, otherwise the reference one (`a T4`)."""
    return one((profile_of(machine) or REFERENCE).title)
