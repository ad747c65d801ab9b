"""Tests of the lines of samples.jsonl."""

from __future__ import annotations

import json

from harness.report import samples_file
from tests.support.synthetic_runs import HOSTILE, results

SMALL = results(8, 12, seeds=(0, 1))


def test_samples_have_the_names_of_lm_evaluation_harness() -> None:
    """Every line of samples.jsonl is JSON and uses the names of fields of lm-evaluation-harness."""
    lines = [json.loads(json.dumps(line)) for line in samples_file.samples(SMALL)]
    assert len(lines) == len(SMALL.samples) + len(SMALL.confirmed_samples)
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps"} < set(lines[0])
    assert {line["resps"][0][0] for line in lines} >= {HOSTILE[0]}
