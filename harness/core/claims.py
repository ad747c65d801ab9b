"""State in words where a figure comes from: measured, emulated or predicted, and on which device."""

from __future__ import annotations

from harness.core.device_profiles import REFERENCE, profile_of
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, PhaseCost
from harness.core.quantities import gib
from harness.core.wording import one, plural


def source(figure: Measurement | Machine) -> str:
    """Return a figure's basis and device: `measured on Tesla T4`."""
    return f"{figure.basis} on {figure.device}"


def claim(figure: Measurement | Machine, machine: Machine) -> str:
    """Return how a figure of a run on `machine` was obtained and, if not measured, on which GPU it is unproven."""
    if figure.basis is Basis.EMULATED:
        capped = f" capped at {gib(machine.memory_cap)}" if machine.memory_cap else ", with its memory capped"
        return f"emulated: {figure.device}{capped}; never run on {gpu_of(machine)}"
    return f"predicted; not validated on {gpu_of(machine)}" if figure.basis is Basis.PREDICTED else source(figure)


def short_claim(figure: Measurement, machine: Machine) -> str:
    """Return a figure's basis and device and, if it was emulated, the GPU on which it was never run.

    For example: `emulated on NVIDIA H200, with its memory capped; never run on a T4`.
    """
    never = f", with its memory capped; never run on {gpu_of(machine)}" if figure.basis is Basis.EMULATED else ""
    return f"{source(figure)}{never}"


def cost_claim(cost: PhaseCost, machine: Machine) -> str:
    """Return how the time and memory of a phase were obtained: measured, or estimated from a short probe.

    For example: `estimated for training alone from one probe of 5 steps (measured on Tesla T4)`.
    """
    words = claim(cost.seconds, machine)
    if cost.probes:
        words = f"estimated for training alone from {probes(cost)} ({words})"
    return f"{words}, {cost.note}" if cost.note else words


def probes(cost: PhaseCost) -> str:
    """Return how many probes a cost was estimated from, and their length: `one probe of 5 steps`; empty if none."""
    number = "one probe" if cost.probes == 1 else plural(cost.probes, "probe")
    return f"{number} of {plural(cost.probe_steps, 'step')}" if cost.probes else ""


def machine_claim(machine: Machine) -> str:
    """Return the claim that holds for every figure measured on a machine."""
    return claim(machine, machine)


def gpu_of(machine: Machine) -> str:
    """Return the GPU of the machine's profile with its article (`a T4`); without a profile, the reference GPU."""
    return one((profile_of(machine) or REFERENCE).title)
