"""`harness doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.check import PROFILE
from harness.core.device_profiles import PROFILES, Profile

if TYPE_CHECKING:
    from harness.core.machine import Calibration, Machine, Timing


@click.command()
@PROFILE
@click.option("--calibrate", is_flag=True, help="Time this GPU (about two minutes) to make its predictions accurate.")
@click.option(
    "--install-llama-cpp",
    is_flag=True,
    help="Download llama.cpp's converter and build its Python binding, for GGUF files.",
)
def doctor(profile: str, calibrate: bool, install_llama_cpp: bool) -> int:
    """Check what this machine can do, and how to fix problems.

    Exits with 2 if a problem would stop a run with this profile.
    """
    from harness.cli.tables import calibration_line, findings_table
    from harness.export.llama_cpp import install
    from harness.hardware.doctor import Level, facts, findings
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE

    if install_llama_cpp:
        install(click.echo)
        return 0
    cache, on = Cache(CACHE), _gpu(PROFILES[profile]) if calibrate else None
    found = findings(facts(cache), PROFILES[profile])
    findings_table(found)
    if any(finding.level is Level.PROBLEM for finding in found):
        return 2
    if on:
        calibrated = _measure(on)
        calibration_line(calibrated, cache.commit_calibration(calibrated))
    return 0


def _gpu(profile: Profile) -> Machine:
    """The machine to calibrate.

    Raises:
        UsageError: it has no GPU.
    """
    from harness.core.errors import UsageError
    from harness.core.units import DeviceKind
    from harness.hardware.environment import machine

    on = machine(profile)
    if on.kind is not DeviceKind.CUDA:
        remedy = "Run it where trainings will run."
        raise UsageError("--calibrate times a GPU, and this machine shows none", remedy=remedy)
    return on


def _measure(on: Machine) -> Calibration:
    from harness.engine.calibration import timings
    from harness.hardware.doctor import calibrated
    from harness.hardware.estimate.predictions import public_shape
    from harness.models.resolving import POCKET, SHAPES

    return calibrated(on.device, timings(on, SHAPES, POCKET, _tell), public_shape)


def _tell(step: Timing) -> None:
    size = f"{step.shape}, {step.layers} layers, {step.rows} x {step.length} tokens"
    click.echo(f"  {size}: {step.seconds:.3f} s a step", err=True)
