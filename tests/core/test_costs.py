"""Tests of costs combined over passes and seeds, and of the claims and units of figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.claims import claim, cost_claim, gpu_of, machine_claim, probes, short_claim, source
from harness.core.costs import comparable, mean, pool
from harness.core.device_profiles import PROFILES
from harness.core.hashing import digest
from harness.core.measurement import Basis, Measurement, Phase
from harness.core.quantities import gib, memory, quantity
from harness.core.units import DeviceKind, Unit
from harness.storage.records import decode_line, encode_line
from tests.support.made_results import MIB, cost, machine

EMULATED = machine("cuda", Basis.EMULATED)


def test_seeds_pool_to_mean_seconds_and_the_largest_peaks() -> None:
    """Pooled over seeds, seconds and tokens are means, memory is the largest of all peaks, and a note is kept."""
    first, second = cost(Phase.TRAIN, 4, EMULATED, 900 * MIB), cost(Phase.TRAIN, 8, EMULATED, 700 * MIB)
    pooled = pool([first, replace(second, note="probed")], mean)
    assert (pooled.seconds.value, pooled.tokens, pooled.peak(), pooled.note) == (6, 3000, first.peak(), "probed")


def test_seeds_of_one_probe_count_as_one() -> None:
    """If three seeds were estimated from one probe, their pooled cost names one probe, not three measurements."""
    first = replace(cost(Phase.TRAIN, 4, machine("cuda")), probes=1, probe_steps=5)
    words = "estimated for training alone from one probe of 5 steps (measured on Tesla T4)"
    assert cost_claim(pool([first] * 3, mean), machine("cuda")) == words
    second = replace(first, seconds=replace(first.seconds, value=5.0))
    assert probes(pool([first, second], mean)) == "2 probes of 5 steps"
    assert probes(cost(Phase.TRAIN, 4)) == ""


def test_passes_pool_to_their_sum() -> None:
    """Pooled over passes, times and tokens add up, memory is the largest peak, and a single pass is unchanged."""
    first, second = cost(Phase.ANSWER_AFTER, 4), cost(Phase.ANSWER_AFTER, 8, peak=1000 * MIB)
    pooled = pool([first, replace(second, models=3)], sum)
    assert (pooled.seconds.value, pooled.tokens, pooled.peak(), pooled.models) == (12, 6000, second.peak(), 3)
    assert pool([first], sum) == pool([first], mean) == first


def test_seconds_of_other_machines_are_left_out() -> None:
    """`comparable` leaves out costs whose seconds have another basis or device than those of the first cost."""
    own, other = cost(Phase.TRAIN, 4, EMULATED), cost(Phase.TRAIN, 9, machine("cuda"))
    assert comparable([own, other, own]) == [own, own]


@pytest.mark.parametrize(
    ("basis", "long", "short"),
    [
        (Basis.MEASURED, "measured on NVIDIA H200", "measured on NVIDIA H200"),
        (
            Basis.EMULATED,
            "emulated: NVIDIA H200 capped at 14.2 GiB; never run on a T4",
            "emulated on NVIDIA H200, with its memory capped; never run on a T4",
        ),
        (Basis.PREDICTED, "predicted; not validated on a T4", "predicted on NVIDIA H200"),
    ],
)
def test_each_basis_has_its_own_claim(basis: Basis, long: str, short: str) -> None:
    """A claim says whether a figure was measured, emulated or predicted, and on which GPU it was never run."""
    figure = replace(cost(Phase.TRAIN, 1, EMULATED).seconds, basis=basis)
    assert (claim(figure, EMULATED), short_claim(figure, EMULATED)) == (long, short)
    assert source(figure) == f"{basis} on NVIDIA H200"


def test_a_machine_claims_what_its_figures_do() -> None:
    """A machine has the same claim as figures of its basis; if its memory cap is unknown, the claim gives no size."""
    assert machine_claim(EMULATED) == claim(cost(Phase.TRAIN, 1, EMULATED).seconds, EMULATED)
    assert "with its memory capped" in machine_claim(replace(EMULATED, memory_cap=None))


def test_a_claim_names_the_profiles_gpu() -> None:
    """A claim names the GPU of the run's profile, or the reference GPU if the run has no profile."""
    for profile in (profile for profile in PROFILES.values() if profile.memory_cap):
        assert profile.title in gpu_of(replace(EMULATED, memory_cap=profile.memory_cap))
    assert gpu_of(machine()) == "a T4"


def test_figures_carry_their_unit() -> None:
    """Figures are shown with their unit: seconds as a duration, bytes in GiB from one GiB on and in MiB below."""
    figure = cost(Phase.TRAIN, 7.5).seconds
    assert quantity(figure) == "7.5 s"
    assert quantity(replace(figure, value=1.5 * 2**30, unit=Unit.BYTES)) == memory(1.5 * 2**30) == "1.50 GiB"
    assert memory(900 * MIB) == "900 MiB"
    assert gib(900 * MIB) == "0.9 GiB"


def test_older_measurements_are_read() -> None:
    """A measurement of an earlier version, which also named the base model, is read without that field."""
    older = '{"value": 1.5, "unit": "bytes", "basis": "measured", "device": "Tesla T4", "model": "pocket"}'
    read = decode_line(older, Measurement)
    assert read == Measurement(1.5, Unit.BYTES, Basis.MEASURED, "Tesla T4")
    assert encode_line(read) == older.replace(', "model": "pocket"', "")


def test_ids_do_not_change_with_enums() -> None:
    """A device kind has the same digest as its plain text, which earlier versions hashed, so caches are still found."""
    assert digest({"device": DeviceKind.CUDA}) == digest({"device": "cuda"})
