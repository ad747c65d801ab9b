"""Tests of `harness score`, which scores stored answers and log-probabilities again, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.core.answers import Likelihood
from harness.core.errors import SuiteError
from harness.core.run import TrialRecord
from harness.core.run_results import Outcome, Results
from harness.core.scores import Score
from harness.core.suite import Decoding
from harness.report import formatting, provenance
from harness.runner.rescoring import assemble, rescore
from harness.storage.runs import RunStore
from harness.suites import load_suite
from tests.support.committed_runs import FOLDERS, records_of, results_in
from tests.support.synthetic_runs import manifest, record, variants

(ONE,) = variants(1)
CASE = """\
decoding: {max_new_tokens: 9}
tests:
  - id: fact
    prompt: What does it run on?
    reference: Moonlight.
    choices: [Moonlight., Batteries.]
    assert:
      - {type: contains, value: Moonlight}
"""
ROW = '{"prompt": "p", "completion": "c"}\n'
LATER = """\
      - {type: perplexity, threshold: 2}
      - {type: reference-perplexity, threshold: 2}
      - {type: choice, value: Moonlight.}
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "suite.yaml").write_text(text, encoding="utf-8")
    (folder / "train.jsonl").write_text(ROW, encoding="utf-8")
    return folder


def with_likelihoods(made: TrialRecord, loss: float) -> TrialRecord:
    """Add log-probabilities to a record: `loss` for the answer, the reference and choice 1, and loss 1 for choice 2."""
    (given,) = made.answers["fact"]
    own, rival = Likelihood(-loss, 1), Likelihood(-3.0, 3)
    return replace(made, answers={"fact": (replace(given, likelihood=own, reference=own, choices=(own, rival)),)})


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    """A run in which base and tuned model give the same answer, but the base gives it with a lower probability."""
    store = RunStore(tmp_path / "run")
    store.write_manifest(manifest(load_suite(write(tmp_path / "suite", CASE)), [ONE]))
    store.write_trial(with_likelihoods(record(None, {"fact": "Moonlight."}), 2.0))
    store.write_trial(with_likelihoods(record(ONE, {"fact": "Moonlight."}), 0.25))
    return store


def scores(run: RunStore) -> list[Score]:
    return [sample.score for sample in run.results().samples]


def test_assertions_about_log_probabilities_can_be_added_later(run: RunStore, tmp_path: Path) -> None:
    """Assertions about log-probabilities can be added after the run, and can give equal answers different scores."""
    rescore(run, None)
    before, after = scores(run)
    assert before == after
    rescore(run, write(tmp_path / "later", CASE + LATER))
    before, after = scores(run)
    assert [check.passed for check in before.checks] == [True, False, False, False]
    assert [check.passed for check in after.checks] == [True] * 4
    assert before.value is not None
    assert after.value is not None
    assert before.value < after.value < 1


def test_scoring_again_keeps_when_the_run_ended(run: RunStore) -> None:
    """Scoring again keeps the end of the run, and records its own time apart. Damaged results have no end to keep."""
    ended = "2026-01-02T03:24:00+00:00"
    run.write_results(replace(rescore(run, None), finished=ended, rescored=""), [], str)
    again = rescore(run, None)
    assert again.finished == run.results().finished == ended
    assert again.rescored > ended
    shown = dict(provenance.facts(again))
    assert shown["Finished"] == "2026-01-02 03:24 UTC"
    assert shown["Scored again"] == formatting.moment(again.rescored)
    (run.root / "results.json").write_text("{", encoding="utf-8")
    damaged = rescore(run, None)
    assert damaged.finished == damaged.rescored


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("reference: Moonlight.", "reference: Moonshine.", "case fact"),
        ("Batteries.]", "Cheese.]", "case fact"),
        ("[Moonlight., Batteries.]", "[Batteries., Moonlight.]", "case fact"),
        ("{max_new_tokens: 9}", "{max_new_tokens: 9, temperature: 1}", "this system prompt, decoding or repeats"),
        ("{max_new_tokens: 9}", "{max_new_tokens: 9, temperature: 1}\nrepeats: 2", "this system prompt, decoding"),
    ],
)
def test_a_suite_with_other_prompts_is_refused(run: RunStore, tmp_path: Path, old: str, new: str, what: str) -> None:
    """If references, choices, decoding or repeats have changed since the run, `harness score` asks for a new run."""
    with pytest.raises(SuiteError, match=what) as caught:
        rescore(run, write(tmp_path / "other", CASE.replace(old, new)))
    assert "harness run" in caught.value.remedy


def test_other_training_rows_are_refused(run: RunStore, tmp_path: Path) -> None:
    """If the training rows have changed since the run, `harness score` asks for a new run."""
    other = write(tmp_path / "other", CASE)
    (other / "train.jsonl").write_text(ROW.replace('"c"', '"d"'), encoding="utf-8")
    with pytest.raises(SuiteError, match="other training rows"):
        rescore(run, other)


def test_answers_without_log_probabilities_have_no_score(run: RunStore, tmp_path: Path) -> None:
    """If an assertion needs a log-probability and none is stored, the answer has no score, and the error says why."""
    run.write_trial(record(ONE, {"fact": "Moonlight."}))
    rescore(run, write(tmp_path / "later", CASE + LATER))
    assert scores(run)[1].value is None
    assert "no log-probability of the answer is stored" in scores(run)[1].error


def test_the_reducer_can_be_changed_later(tmp_path: Path) -> None:
    """After `reducer` is changed in the suite, `harness score` combines the stored repeats with the new reducer."""
    text = CASE.replace("decoding: {", "repeats: 2\ndecoding: {temperature: 1, ")
    store = RunStore(tmp_path / "run")
    store.write_manifest(manifest(load_suite(write(tmp_path / "suite", text)), [ONE]))
    store.write_trial(record(None, {"fact": ["no", "no"]}))
    store.write_trial(record(ONE, {"fact": ["Moonlight.", "no"]}))
    assert store.manifest().suite.decoding == Decoding(9, temperature=1.0)
    rates = {}
    for reducer in ("mean", "all", "any"):
        found = rescore(store, write(tmp_path / "other", f"reducer: {reducer}\n{text}"))
        rates[reducer] = [(rate.passed, rate.total) for rate in found.variants[0].rates.values()]
    assert rates == {"mean": [(1, 2)], "all": [(0, 1)], "any": [(1, 1)]}


def test_the_command_needs_no_torch(run: RunStore, tmp_path: Path) -> None:
    """`harness score` works even if torch and the other training libraries cannot be imported."""
    write(tmp_path / "later", CASE + LATER)
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'trl', 'bitsandbytes', 'datasets')))\n"
        "from harness.cli import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "score", "run", "--suite", "later"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(harness.__file__).parent.parent)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(scores(run)[1].checks) == 4


def figures(results: Results) -> dict[str, Any]:
    """Return what the answers of a run decide: pass rates, losses and changes, the choice, and its confirmation."""

    def of(outcome: Outcome | None) -> dict[str, Any]:
        names = ("name", "rates", "fixed", "broken", "truncated", "loss", "losses", "changes", "by_label")
        return {name: getattr(outcome, name) for name in names} if outcome else {}

    tested = [of(each) for each in (results.confirmed_base, results.confirmed)]
    made = [of(each) for each in (*results.every_base, *results.variants)]
    # Rounded, because the last digits can differ between processors.
    return _rounded({"outcomes": made, "confirmed": tested, "choice": asdict(results.choice)})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {str(key): _rounded(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(own) for own in value]
    return _rounded(asdict(value)) if hasattr(value, "__dataclass_fields__") else value


def test_the_sample_is_a_committed_run() -> None:
    """The sample report is among the committed runs whose figures are checked."""
    assert "sample" in [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_runs_have_the_figures_of_their_answers(folder: Path, tmp_path: Path) -> None:
    """If the answers of a committed run are scored again, verdicts, pass rates, losses and the choice are the same."""
    stored = results_in(folder, tmp_path)
    again = assemble(stored.run, records_of(stored))
    assert [each.score for each in again.samples] == [each.score for each in stored.samples]
    assert [each.score for each in again.confirmed_samples] == [each.score for each in stored.confirmed_samples]
    assert figures(again) == figures(stored)
