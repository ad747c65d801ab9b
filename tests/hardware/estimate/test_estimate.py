"""Tests of whether a trial fits into memory, and of the coefficients of predictions, fitted to recorded runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.device_profiles import PROFILES
from harness.core.settings import Settings
from harness.hardware.estimate import Fit, coefficients, predict
from harness.hardware.estimate.predictions import named_workload, predict_trial, target_gpu
from harness.storage.cache import Cache
from harness.suites import load_suite
from tests.studies import estimate_fit
from tests.studies.padded_rows import errors_again, predicted_again, predicted_from
from tests.support.model_shapes import KNOWN, LLAMA, QLORA

REPORTS = Path(__file__).parents[3] / "reports" / "gpu" / "t4"


def test_fit_considers_the_prediction_error() -> None:
    """A trial is said to fit, or to be too large, only if this holds within the error of the prediction."""
    held = predict(LLAMA, QLORA, [512] * 30, known=KNOWN).memory
    needs, base = held.allocated, held.base
    most = 1.07 * needs + 0.4 * (1.07 * needs - base)

    def at(capacity: float) -> Fit | None:
        return predict(LLAMA, QLORA, [512] * 30, capacity=capacity, known=KNOWN).fit

    assert at(most + 1) is Fit.FITS
    assert at(most - 1) is Fit.CLOSE
    assert at(needs * 0.93 + 1) is Fit.CLOSE
    assert at(needs * 0.93 - 1) is Fit.TOO_LARGE
    assert predict(LLAMA, QLORA, [512], known=KNOWN).fit is None


def test_only_training_memory_fragments() -> None:
    """Memory lost to fragmentation is predicted as a share of the memory that training adds to the base model."""
    made = predict(LLAMA, QLORA, [512] * 30, known=KNOWN)
    added = made.memory.allocated - made.memory.base
    low, high = made.reserved.low - made.memory.allocated, made.reserved.high - made.memory.allocated
    assert (low, high) == pytest.approx((0.1 * added, 0.4 * added))


def test_packaged_coefficients_are_plausible() -> None:
    """The coefficients in the package are within plausible limits, and a sentence says how they were obtained."""
    known = coefficients()
    assert known.measured
    assert "on rows that the fit has not seen (fitted on" in known.claim
    assert "not compared with recorded runs" in replace(known, measured=False).claim
    assert 0 <= known.fragments[0] < known.fragments[1]
    assert 12 <= known.scores <= 17


def test_the_stated_error_covers_rows_that_no_fit_has_seen() -> None:
    """The stated error is at least the largest one on padded rows, on a real model and in the record made on a CPU."""
    on_cpu = json.loads((REPORTS.parents[1] / "studies" / "memory-on-cpu.json").read_text(encoding="utf-8"))
    known = coefficients()
    assert max(estimate_fit.UNSEEN, on_cpu["worst_error"]) <= known.error < 0.07
    assert f"within {100 * known.error:.0f}%" in known.claim


def test_the_stated_error_covers_the_recorded_trainings_on_padded_rows() -> None:
    """Each of the 30 recorded trainings on padded rows is predicted again within the stated error, and the largest
    error is the one that the source of the coefficients names."""
    record = json.loads((REPORTS / estimate_fit.PADDED).read_text(encoding="utf-8"))
    known, errors = coefficients(), errors_again(record)
    assert len(errors) == 30
    assert {name: error for name, error in errors.items() if abs(error) > known.error} == {}
    assert f"30 on padded rows up to {100 * max(map(abs, errors.values())):.1f}% off" in known.source


def test_a_record_of_padded_rows_gives_the_prediction_again() -> None:
    """What the study of padded rows records of a training, read from JSON, gives the prediction of that training."""
    target = target_gpu(PROFILES["t4"], Cache(Path("nowhere")))
    assert target
    work = named_workload("pocket", load_suite(REPORTS.parents[2] / "suites" / "workshop"))
    settings = Settings(batch_size=4, target_modules=("q_proj",))
    run, trial = json.loads(json.dumps([predicted_from(work), {"settings": settings.as_dict()}]))
    assert predicted_again(run, trial) == predict_trial(work, settings, target).memory


def test_recorded_trainings_are_predicted() -> None:
    """In the recorded runs, architectures left out of the fit are predicted within the stated error; a fit to all runs
    gives the packaged coefficients."""
    text = json.loads((REPORTS / "t4-sweep.json").read_text(encoding="utf-8"))
    trials = estimate_fit.observed(text)
    known = coefficients()
    assert [words for words, holds in estimate_fit.claims(estimate_fit.held_out(trials), known) if not holds] == []
    again = estimate_fit.fit(trials)
    assert (again.scores, again.constant) == pytest.approx((known.scores, known.constant), rel=0.01)
