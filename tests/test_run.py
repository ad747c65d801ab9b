"""`harness run`, whole: real worker processes, real training, and whatever may go wrong on the way."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from interrupt import rounds
from small import GRID, RUN, findings, logs, run, small_suite, start

import harness
from harness.starter import make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small suite was run once, undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    small_suite(folder)
    code, out, error = run(folder)
    assert code == 0, error
    (folder / "out").write_text(out, encoding="utf-8")
    return folder


def test_a_run_ends_with_its_report(finished: Path) -> None:
    """A run leaves a page, results, samples and a frame, and names the best variant and the page."""
    out = (finished / "out").read_text(encoding="utf-8")
    assert "Best in this demonstration: lr=0.01" in out
    assert out.splitlines()[-1] == f"Report: {RUN / 'report.html'}"
    assert "<html" in (finished / RUN / "report.html").read_text(encoding="utf-8")
    lines = (finished / RUN / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    frame = harness.load_run(finished / RUN).frame()
    assert len(frame) == len(lines) == 3 * 4 + 2 * 2
    assert set(frame.variant) == {"base", "lr=1e-5", "lr=0.01"}
    assert {json.loads(line)["variant"] for line in lines} == set(frame.variant)


def test_a_new_suite_runs(tmp_path: Path) -> None:
    """What `harness new` makes of the workshop's rows runs as it is: it learns them, and keeps what the base can do."""
    rows = Path(__file__).parent.parent / "suites" / "workshop" / "train.jsonl"
    make(tmp_path / "small", rows)
    grid = tmp_path / "small" / "grids" / "quick.yaml"
    kept = [line for line in grid.read_text(encoding="utf-8").splitlines() if "name:" not in line or "bold" in line]
    grid.write_text("\n".join(kept), encoding="utf-8")
    code, out, error = run(tmp_path, "--json", "--confirm-seeds", "0")
    assert code == 0, error
    told = json.loads(out)
    assert told["best"] == "bold", told["reasons"]
    assert told["tuned"]["learn"]["passed"] >= 0.8 * told["tuned"]["learn"]["total"]
    assert told["base"]["retain"] == {"passed": 74, "total": 74}


def test_a_finished_run_is_not_done_again(finished: Path) -> None:
    """The same command once more starts no worker and finds the same."""
    before, workers = findings(finished), logs(finished)
    assert run(finished)[0] == 0
    assert (findings(finished), logs(finished)) == (before, workers)


def test_the_same_seed_gives_the_same(finished: Path, tmp_path: Path) -> None:
    """The same command elsewhere, with nothing cached, finds the same to the last digit of every loss."""
    small_suite(tmp_path)
    assert run(tmp_path)[0] == 0
    assert findings(tmp_path) == findings(finished)


def test_killed_runs_find_the_same(tmp_path: Path) -> None:
    """Killed twice at random moments and resumed, a run finds what an undisturbed one does."""
    told: list[str] = []
    assert rounds(tmp_path, 2, random.Random(3), told.append) == 0, told


def test_a_sweep_goes_on_on_another_machine(finished: Path, tmp_path: Path) -> None:
    """Killed on one machine and continued on another that has only the folder of `--sync`, it finds the same.

    What the first had finished is not done again by the second. What is trained beside fewer others than before rounds
    differently: losses are held to a tolerance, answers and verdicts are not.
    """
    one, two, shared = (tmp_path / name for name in ("one", "two", "drive"))
    for folder in (one, two):
        small_suite(folder)
    process = start(one, "--sync", str(shared))
    while not trained_trials(shared) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    copied = trained_trials(shared)
    shutil.rmtree(one)
    assert run(two, "--sync", str(shared))[0] == 0
    assert answers_of(two) == answers_of(finished)
    assert losses_of(two) == pytest.approx(losses_of(finished), rel=1e-3)
    first = json.loads((two / RUN / "workers" / "001.json").read_text(encoding="utf-8"))
    assert copied
    assert not copied & {task["trial"] for task in first["tasks"] if task["train"]}
    assert len(list(shared.glob("runs/*/report.html"))) == 1


def answers_of(folder: Path) -> dict[str, Any]:
    """Of all that a run found: answers, verdicts, how trials ended, and what was chosen."""
    found = findings(folder)
    samples = [(s.variant, s.seed, s.case, s.answer.text, s.score.passed) for s in found.pop("samples")]
    del found["steps"]
    return found | {"samples": samples}


def losses_of(folder: Path) -> list[float]:
    return [step.loss for row in findings(folder)["steps"] for _, steps, _ in row for step in steps]


def trained_trials(shared: Path) -> set[str]:
    return {path.parent.name for path in shared.glob("runs/*/trials/*/record.json")} - {"base"}


def test_a_budget_is_kept(tmp_path: Path) -> None:
    """With time for nothing but a look, a run ends in time, with a page and exit code 0, and says what is left."""
    small_suite(tmp_path)
    began = time.monotonic()
    code, out, error = run(tmp_path, "--budget", "10s")
    took = time.monotonic() - began
    assert code == 0, error
    assert "The budget is used up. Left: " in error
    assert "Not finished" in out
    assert (
        took < 10 * 1.05 + 5
    )  # starting Python and writing a page take seconds that a budget of hours does not notice
    assert (tmp_path / RUN / "report.html").is_file()


def test_a_changed_assertion_trains_nothing(finished: Path) -> None:
    """An edited assertion makes a new run beside the old one, from cached answers, without a worker."""
    suite = finished / "small" / "suite.yaml"
    original = suite.read_text(encoding="utf-8")
    suite.write_text(original.replace('"Paris"', '"Rome"'), encoding="utf-8")
    try:
        assert run(finished)[0] == 0
    finally:
        suite.write_text(original, encoding="utf-8")
    beside = finished / f"{RUN}-2"
    assert not list(beside.glob("workers/*"))
    assert harness.load_run(beside).results.void.keys() >= {"retain-capital"}


def test_a_killed_worker_fails_one_trial(tmp_path: Path) -> None:
    """A worker's sudden death is a failed trial with its log named and exit code 3; the next run does only that."""
    small_suite(tmp_path)
    alone = "--confirm-seeds", "0", "--engine", "reference"
    process = start(tmp_path, *alone)
    kill_worker_in_training(process.pid, tmp_path)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 3
    assert "killed by SIGKILL" in error
    assert f"{RUN}/workers/001.log" in error
    assert (tmp_path / RUN / "report.html").is_file()
    assert run(tmp_path, *alone)[0] == 0
    assert len(logs(tmp_path)) == 3  # the one that was killed, the one that took the rest, the one that made up for it


def test_a_worker_killed_in_a_pass_is_made_up_for(finished: Path, tmp_path: Path) -> None:
    """Another begins its pass again in the same run, which says so and finds what it would have found."""
    small_suite(tmp_path)
    process = start(tmp_path)
    kill_worker_in_training(process.pid, tmp_path)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "unfinished trials start again: the worker was killed by SIGKILL" in error
    assert findings(tmp_path) == findings(finished)


def kill_worker_in_training(parent: int, folder: Path) -> None:
    """SIGKILL for the worker as soon as it has logged a step of training."""
    log = folder / RUN / "workers" / "001.log"
    while not (log.is_file() and "'loss'" in log.read_text(encoding="utf-8")):
        time.sleep(0.01)
    psutil.Process(parent).children()[0].send_signal(signal.SIGKILL)


def test_interrupting_keeps_what_is_finished(tmp_path: Path) -> None:
    """Ctrl-C ends the run and its worker with exit code 130; what was answered is not asked again."""
    small_suite(tmp_path)
    process = start(tmp_path, "--engine", "reference")
    base = tmp_path / RUN / "trials" / "base" / "record.json"
    while not base.is_file():
        time.sleep(0.01)
    worker = psutil.Process(process.pid).children()[0]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command" in error
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    record = base.read_bytes()
    assert run(tmp_path, "--engine", "reference", "--confirm-seeds", "1")[0] == 0
    assert base.read_bytes() == record


def test_a_trial_that_takes_too_long_stops_nothing(tmp_path: Path) -> None:
    """With a limit that the long variant cannot meet, the short one still ends, and the exit code is 3."""
    rows = ("{name: long, epochs: 100000}", "{name: brief, epochs: 1}")
    small_suite(tmp_path, grid=f"settings: {{learning_rate: 1e-4, batch_size: 2}}\nrows: [{', '.join(rows)}]\n")
    code, out, error = run(tmp_path, "--timeout", "25", "--confirm-seeds", "0", "--json")
    assert code == 3
    assert "long, seed 0: timed out: stopped after 25 s" in error
    assert json.loads(out)["statuses"] == {"long": ["timed out"], "brief": ["succeeded"]}


def test_a_diverged_trial_is_a_result(tmp_path: Path) -> None:
    """A learning rate that breaks training is shown as diverged, with the step, and the exit code is 0."""
    small_suite(tmp_path, grid=GRID.replace("[1e-5, 1e-2]", "[1e30]"))
    code, out, error = run(tmp_path, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["statuses"] == {"lr=1e30": ["diverged"]}


def test_a_worker_killed_in_the_confirmation_is_told(tmp_path: Path) -> None:
    """Whatever the confirmation did when its worker died, the exit code is 3, and the next run makes up for it."""
    small_suite(tmp_path)
    process = start(tmp_path)
    log = tmp_path / RUN / "workers" / "002.log"
    while not log.is_file():
        time.sleep(0.01)
    psutil.Process(process.pid).children()[0].send_signal(signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, "killed by SIGKILL" in error) == (3, True), error
    assert run(tmp_path)[0] == 0
    assert harness.load_run(tmp_path / RUN).results.confirmed_samples
