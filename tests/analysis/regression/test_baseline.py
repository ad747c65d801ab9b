"""Tests of baseline files: what they contain, and how they are found and read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.regression.bless import bless
from harness.cli import main
from harness.core.formats import FORMAT
from harness.core.measurement import Phase
from harness.storage.baselines import read_baseline
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import stored

GOOD = Path("reports/baselines/good.json")


def test_a_baseline_is_what_was_blessed(here: Path) -> None:
    """A baseline read from its file equals the one made from the run; storing the run again writes the same bytes."""
    first = GOOD.read_bytes()
    kept = read_baseline(GOOD)
    assert replace(kept, digest="") == replace(run_pairs.run(name="good"), provenance=kept.provenance)
    assert main(["bless", "first", "--name", "good"]) == 0
    assert GOOD.read_bytes() == first


def test_a_baseline_is_small_and_has_no_rows(here: Path) -> None:
    """If all seeds gave the same answer, a baseline stores it once, on its own line.

    A baseline contains neither training rows nor paths.
    """
    text = GOOD.read_text(encoding="utf-8")
    assert re.search(r'^ +"learn 0": \[\{"text": "good", "seeds": \[0, 1, 2, 3, 4\].*\}\],$', text, re.MULTILINE)
    assert "good day" not in text
    assert "suites/workshop" not in text
    assert len(text) < 30_000


def test_odd_texts_survive(tmp_path: Path) -> None:
    """If answers contain quotes, control characters, foreign scripts or lone surrogates, the baseline can be read."""
    results = run_pairs.results()
    odd = [
        replace(s, answer=replace(s.answer, text=synthetic_runs.HOSTILE[n % len(synthetic_runs.HOSTILE)]))
        for n, s in enumerate(results.samples)
    ]
    store = stored(replace(results, samples=tuple(odd)), tmp_path / "run")
    assert read_baseline(bless(store, "odd", tmp_path)).name == "odd"


def edited(change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(GOOD.read_text(encoding="utf-8"))
    change(data)
    GOOD.write_text(json.dumps(data), encoding="utf-8")


def pretend_better(data: dict[str, Any]) -> None:
    data["variants"][0]["answers"]["learn 0"][0]["passed"] = False


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: edited(lambda data: data.update(format=FORMAT + 1)), r"has format \d+.*\nUpgrade the harness"),
        (lambda: GOOD.write_text(GOOD.read_text()[:900]), r"good.json is damaged.*\nRestore it.*harness bless"),
        (lambda: edited(pretend_better), r"does not match its digest, so it was edited\nRestore it"),
        (lambda: edited(lambda data: data.pop("digest")), "so it was edited"),
        (lambda: GOOD.write_text("[]"), "good.json is damaged: it does not hold a JSON object"),
        (lambda: GOOD.unlink(), "there is no baseline 'good' in reports/baselines\nMake one with"),
    ],
    ids=["newer", "truncated", "edited", "no digest", "not an object", "missing"],
)
def test_a_bad_baseline_is_one_error(
    here: Path, spoil: Callable[[], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a baseline is too new, truncated, edited or missing, `harness gate` gives one error with a remedy."""
    spoil()
    capsys.readouterr()
    assert main(["gate", "first", "--baseline", "good"]) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err, re.DOTALL)
    assert (said.out, said.err.count("Error:")) == ("", 1)


def test_a_reformatted_baseline_is_the_same(here: Path) -> None:
    """If only the layout of a baseline's JSON changes, its digest still matches."""
    edited(lambda data: None)
    assert main(["gate", "first", "--baseline", "good"]) == 0


def test_another_run_can_be_the_baseline(here: Path) -> None:
    """`--baseline` also accepts a baseline file or the directory of another run."""
    assert main(["gate", "worse", "--baseline", "first"]) == 1
    assert main(["gate", "worse", "--baseline", str(GOOD)]) == 1
    assert main(["gate", "first", "--baseline", "worse"]) == 0


def test_phases_are_not_mixed() -> None:
    """A baseline stores only the costs of training, not those of loading or answering."""
    assert {cost.phase for cost in run_pairs.run().variants[0].costs} == {Phase.TRAIN}
