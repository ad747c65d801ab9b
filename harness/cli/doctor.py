"""`harness doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.options import PROFILE
from harness.cli.output import echo
from harness.core.device_profiles import PROFILES, Profile

if TYPE_CHECKING:
    from harness.core.machine import Calibration, Machine, Timing


@click.command()
@PROFILE
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the speed of this GPU (about two minutes), so that `harness plan` predicts times more accurately.",
)
@click.option(
    "--install-llama-cpp",
    is_flag=True,
    help="Install llama.cpp: download its converter and build its Python binding. GGUF exports need both.",
)
def doctor(profile: str, calibrate: bool, install_llama_cpp: bool) -> int:
    """Check GPU, libraries and disk, and show how to fix problems.

    The exit code is 2 if a problem would stop a run with the given profile.
    """
    from harness.cli.tables import calibration_line, findings_table
    from harness.export.llama_cpp import found, install
    from harness.hardware.doctor import Level, facts, findings
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE

    if install_llama_cpp:
        install(echo)
        return 0
    cache, on = Cache(CACHE), _gpu_machine(PROFILES[profile]) if calibrate else None
    judged = findings(facts(cache, found()), PROFILES[profile])
    findings_table(judged)
    if any(finding.level is Level.PROBLEM for finding in judged):
        return 2
    if on:
        calibrated = _calibrate(on)
        calibration_line(calibrated, cache.commit_calibration(calibrated))
    return 0


def _gpu_machine(profile: Profile) -> Machine:
    """This machine, whose GPU is to be calibrated.

    Raises:
        UsageError: the machine has no GPU.
    """
    from harness.core.errors import UsageError
    from harness.core.units import DeviceKind
    from harness.hardware.environment import machine

    on = machine(profile)
    if on.kind is not DeviceKind.CUDA:
        remedy = "Run the command on the machine that will train."
        raise UsageError("--calibrate measures a GPU, and no GPU was found on this machine", remedy=remedy)
    return on


def _calibrate(on: Machine) -> Calibration:
    from harness.engine.calibration import timings
    from harness.hardware.doctor import calibrated
    from harness.hardware.estimate.predictions import public_shape
    from harness.models.resolving import POCKET, SHAPES

    return calibrated(on.device, timings(on, SHAPES, POCKET, _print_timing), public_shape)


def _print_timing(step: Timing) -> None:
    size = f"{step.shape}, {step.layers} layers, {step.rows} x {step.length} tokens"
    echo(f"  {size}: {step.seconds:.3f} s a step", err=True)
