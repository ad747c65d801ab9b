"""Tests of complete runs with real worker processes and real training. In some, a worker is killed or fails.

Most commands and their workers are forked from a process that has imported the libraries; see `fork_server`.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness.core import device_profiles
from harness.core.engines import Engine
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.engine.tokenization import tokenize
from harness.engine.worker import work
from harness.models.resolving import POCKET
from harness.runner import benchmark
from harness.runner.executors.inline import Inline
from harness.runner.executors.protocol import Executor
from harness.runner.request import Request
from harness.storage.runs import RunStore, find_run
from harness.suites.new import make
from tests.support.dying import die_once
from tests.support.fork_server import ForkedCommand
from tests.support.interruptions import GONE
from tests.support.made_once import made_once
from tests.support.preloaded import WORKER_NAME, Program
from tests.support.small_suite import GRID, LIMIT, RUN, WORDS, findings, logs, run, small_suite

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small suite was run once without interruptions."""
    return made_once(tmp_path_factory, "finished", finish)


def finish(folder: Path) -> None:
    small_suite(folder)
    ForkedCommand(["--version"], folder).communicate(timeout=LIMIT)  # starts the server, which takes longer than a run
    began = time.monotonic()
    code, out, error = run_forked(folder)
    assert code == 0, error
    (folder / "out").write_text(out, encoding="utf-8")
    (folder / "seconds").write_text(str(time.monotonic() - began), encoding="utf-8")


def fork(folder: Path, *options: str, worker: Program | None = None) -> ForkedCommand:
    """Start `harness run small`, like `start`, but in a process that has imported the libraries."""
    return ForkedCommand([*WORDS, *options], folder, worker)


def run_forked(folder: Path, *options: str, worker: Program | None = None) -> tuple[int | None, str, str]:
    """Run `harness run small` in a forked process, and return exit code, stdout and stderr."""
    process = fork(folder, *options, worker=worker)
    out, error = process.communicate(timeout=LIMIT)
    return process.returncode, out, error


def test_a_run_ends_with_its_report(finished: Path) -> None:
    """A run writes the report page, results and samples, and prints the best variant and the path of the page."""
    out = (finished / "out").read_text(encoding="utf-8")
    assert "Best in this demonstration: lr=0.01" in out
    assert out.splitlines()[-1] == f"Report: {RUN / 'report.html'}"
    assert "<html" in (finished / RUN / "report.html").read_text(encoding="utf-8")
    lines = (finished / RUN / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    frame = harness.load_run(finished / RUN).frame()
    assert len(frame) == len(lines) == 3 * 4 + 2 * 2
    assert set(frame.variant) == {"base", "lr=1e-5", "lr=0.01"}
    assert {json.loads(line)["variant"] for line in lines} == set(frame.variant)


def test_the_best_variant_is_confirmed_by_the_reference_engine(finished: Path) -> None:
    """In a fused run, the confirmation trains the best variant with the reference engine."""
    workers = sorted((finished / RUN / "workers").glob("*.json"))
    assert [json.loads(job.read_text(encoding="utf-8"))["engine"] for job in workers] == [
        "fused", "fused", "reference", "reference",
    ]  # fmt: skip


def test_a_new_suite_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite from `harness new` can be run unchanged: the model learns the rows and keeps what the base can do."""
    rows = Path(__file__).parents[2] / "suites" / "workshop" / "train.jsonl"
    make(tmp_path / "small", rows)
    grid = tmp_path / "small" / "grids" / "quick.yaml"
    kept = [line for line in grid.read_text(encoding="utf-8").splitlines() if "name:" not in line or "high-lr" in line]
    grid.write_text("\n".join(kept), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    store, failures = in_process(Inline(work), confirm_seeds=0)
    results = store.results()
    (tuned,) = results.variants
    assert failures == []
    assert results.choice.variant == "high-lr", results.choice.reasons
    assert tuned.rates[Role.LEARN].passed >= 0.8 * tuned.rates[Role.LEARN].total
    assert (results.base.rates[Role.RETAIN].passed, results.base.rates[Role.RETAIN].total) == (130, 130)


def test_a_finished_run_is_reused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a finished run is repeated, no worker starts and the results stay the same."""
    before, workers = findings(finished), logs(finished)
    monkeypatch.chdir(finished)
    assert in_process(Inline(no_work), confirm_seeds=1)[1] == []
    assert (findings(finished), logs(finished)) == (before, workers)


def no_work(*_: Any) -> None:
    raise AssertionError("a worker was started")


def test_killed_runs_give_the_same_results(finished: Path, tmp_path: Path) -> None:
    """A run that is killed up to twice and resumed has the results of an undisturbed run, to the last digit."""
    small_suite(tmp_path)
    seconds, moment = float((finished / "seconds").read_text(encoding="utf-8")), random.Random(3)
    for _ in range(2):
        process = fork(tmp_path)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moment.uniform(0.2, 0.9) * seconds)
        workers = workers_of(process)
        process.kill()
        process.communicate(timeout=LIMIT)
        assert psutil.wait_procs(workers, timeout=GONE)[1] == []
    assert run_forked(tmp_path)[0] == 0
    assert findings(tmp_path) == findings(finished)


def test_a_race_that_nobody_leaves_has_the_results_of_a_run(finished: Path, tmp_path: Path) -> None:
    """Training in parts, with a kill between, gives the results of a run without a race, to the last digit."""
    small_suite(tmp_path)
    process = fork(tmp_path, "--race")
    states = tmp_path / "reports" / "cache" / "trainings"
    while process.poll() is None and not list(states.glob("*-epoch-2-state")):
        time.sleep(0.05)
    workers = workers_of(process)
    process.kill()
    process.communicate(timeout=LIMIT)
    assert psutil.wait_procs(workers, timeout=GONE)[1] == []
    code, out, error = run_forked(tmp_path, "--race")
    assert code == 0, error
    assert "Look 1 of 2: no variant stops." in error
    assert "Race:" not in out
    assert findings(tmp_path) == findings(finished)


SEARCH = """\
settings: {epochs: 4, batch_size: 2, warmup: 0.1, alpha: 8}
search:
  trials: 10
  ranges: {learning_rate: {low: 1e-5, high: 1e-2, log: true}, rank: {low: 2, high: 4}}
"""


def test_a_search_ends_with_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search trains its variants in two batches, confirms the best, and says which settings mattered."""
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    small_suite(tmp_path, grid=SEARCH)
    request = Request(suite=Path("small"), profile=device_profiles.CPU, confirm_seeds=1)
    store, results = benchmark.run(request, Inline(work))
    assert len(results.variants) == len(results.run.plan.variants) == 10
    assert {status for row in results.variants for status in row.statuses} == {Status.SUCCEEDED}
    assert store.manifest().plan == results.run.plan
    assert results.confirmed is not None
    assert set(results.importance) in (set(), {"learning_rate", "rank"})
    assert "Search: Optuna&#39;s Gaussian process chose 10 variants" in store.report.read_text(encoding="utf-8")
    again, same = benchmark.run(request, Inline(no_work))
    assert (again.root, same.variants) == (store.root, results.variants)


def test_a_run_resumes_on_another_machine(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a run is killed and another machine resumes it from the folder of `--sync`, the answers are the same.

    The second machine does not repeat finished trials. With fewer trials, sums are rounded differently, so losses are
    compared with a tolerance; answers and verdicts must be equal.
    """
    one, two, shared = (tmp_path / name for name in ("one", "two", "drive"))
    for folder in (one, two):
        small_suite(folder)
    process = fork(one, "--sync", str(shared))
    wait_for(process, lambda: trained_trials(shared))
    process.kill()
    process.communicate(timeout=LIMIT)
    copied = trained_trials(shared)
    shutil.rmtree(one)
    monkeypatch.chdir(two)
    assert in_process(Inline(work), confirm_seeds=1, sync=shared)[1] == []
    assert answers_of(two) == answers_of(finished)
    assert losses_of(two) == pytest.approx(losses_of(finished), rel=1e-3)
    first = json.loads((two / RUN / "workers" / "001.json").read_text(encoding="utf-8"))
    assert copied
    assert not copied & {task["trial"] for task in first["tasks"] if task["train"]}
    assert len(list(shared.glob("runs/*/report.html"))) == 1


def answers_of(folder: Path) -> dict[str, Any]:
    """Return the results of a run without the figures that depend on rounding."""
    found = findings(folder)
    samples = [(s.variant, s.seed, s.case, s.answer.text, s.score.passed) for s in found.pop("samples")]
    del found["steps"]
    return found | {"samples": samples}


def losses_of(folder: Path) -> list[float]:
    return [step.loss for row in findings(folder)["steps"] for _, steps, _ in row for step in steps]


def trained_trials(shared: Path) -> set[str]:
    return {path.parent.name for path in shared.glob("runs/*/trials/*/record.json")} - {"base"}


def test_a_run_with_a_used_up_budget_exits_with_0(tmp_path: Path) -> None:
    """A run whose budget is too short for any training writes its page, prints what is unfinished, and exits with 0."""
    small_suite(tmp_path)
    code, out, error = run(tmp_path, "--budget", "1s")
    assert code == 0, error
    assert "The time budget is used up. Not done: " in error
    assert "Not finished" in out
    assert (tmp_path / RUN / "report.html").is_file()


def test_two_workers_give_the_results_of_one(tmp_path: Path) -> None:
    """With two workers, results are the same as with one, to the last digit of each loss and log-probability."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, count in ((one, "1"), (two, "2")):
        small_suite(folder)
        assert run_forked(folder, "--width", "1", "--workers", count, "--confirm-seeds", "0")[0] == 0
    assert findings(one) == findings(two)


def test_a_changed_assertion_trains_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an assertion is edited, a new run scores the cached answers, and no worker starts."""
    suite = finished / "small" / "suite.yaml"
    original = suite.read_text(encoding="utf-8")
    suite.write_text(original.replace('"Paris"', '"Rome"'), encoding="utf-8")
    monkeypatch.chdir(finished)
    try:
        assert in_process(Inline(no_work), confirm_seeds=1)[1] == []
    finally:
        suite.write_text(original, encoding="utf-8")
    beside = finished / f"{RUN}-2"
    assert not list(beside.glob("workers/*"))
    base = [s for s in harness.load_run(beside).results.samples if (s.variant, s.case) == ("base", "retain-capital")]
    assert [sample.score.passed for sample in base] == [False]


def run_dying(folder: Path, *options: str) -> tuple[int | None, str]:
    """Run `harness run small` with a worker that kills itself at the first training step; return code and stderr."""
    code, _, error = run_forked(folder, *options, worker=partial(die_once, folder / "died"))
    assert (folder / "died").exists()
    return code, error


def in_process(executor: Executor, **asked: Any) -> tuple[RunStore, list[str]]:
    """Run the suite `small` of the working directory; return the run and its failures."""
    request = Request(suite=Path("small"), profile=device_profiles.CPU, **asked)
    store, results = benchmark.run(request, executor)
    return store, benchmark.failures(results, store.root)


def test_a_killed_worker_fails_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a worker is killed, one trial fails, the failure names the log, and the next run repeats only that trial."""
    small_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, error = run_dying(tmp_path, "--confirm-seeds", "0", "--engine", "reference")
    assert (code, error.count("failed: the worker was killed by SIGKILL")) == (3, 1)
    assert f"(log: {RUN / 'workers' / '002.log'})" in error
    assert (tmp_path / RUN / "report.html").is_file()
    store, failures = in_process(Inline(work), confirm_seeds=0, engine=Engine.REFERENCE)
    assert failures == []
    # The base has the first job. Then a worker was killed, the other trial ran, and the failed trial was repeated.
    trials = [[task["trial"] for task in json.loads(job.read_text(encoding="utf-8"))["tasks"]] for job in jobs(store)]
    assert [len(tasks) for tasks in trials] == [1, 1, 1, 1]
    assert trials[0] == ["base"]
    assert trials[3] == trials[1] != trials[2]


def jobs(store: RunStore) -> list[Path]:
    return sorted((store.root / "workers").glob("*.json"))


def test_a_pass_whose_worker_was_killed_is_repeated(finished: Path, tmp_path: Path) -> None:
    """If a worker that trains trials together is killed, a notice says so, and the results do not change."""
    small_suite(tmp_path)
    code, error = run_dying(tmp_path)
    assert code == 0, error
    assert "unfinished trials start again: the worker was killed by SIGKILL" in error
    assert findings(tmp_path) == findings(finished)


def wait_for(process: subprocess.Popen[str] | ForkedCommand, happened: Callable[[], object]) -> None:
    """Wait until `happened` returns something true; fail if the process ends before that."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str] | ForkedCommand) -> list[psutil.Process]:
    """Return the worker processes of a run. It has other children, which render chat templates and draw charts."""
    try:
        children = psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:  # a forked command that has ended
        return []
    return [child for child in children if child.name() == WORKER_NAME or "harness.engine.worker" in child.cmdline()]


def test_interrupting_keeps_finished_work(tmp_path: Path) -> None:
    """Ctrl-C ends the worker and then the run, with exit code 130; the next run does not ask answered prompts again."""
    # The training takes so long that Ctrl-C arrives before its end.
    small_suite(tmp_path, grid="rows: [{name: endless, epochs: 1000000}]\n")
    process = fork(tmp_path)
    base = tmp_path / RUN / "trials" / "base" / "record.json"
    wait_for(process, base.is_file)
    worker = workers_of(process)[0]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "same command" in error
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    before = set(logs(tmp_path))
    again = fork(tmp_path)
    wait_for(again, lambda: set(logs(tmp_path)) - before)  # a log appears after the job file is complete
    again.kill()
    again.communicate(timeout=LIMIT)
    (log,) = set(logs(tmp_path)) - before
    job = (tmp_path / RUN / "workers" / log).with_suffix(".json")
    tasks = json.loads(job.read_text(encoding="utf-8"))["tasks"]
    assert [bool(task["settings"]) for task in tasks] == [True]


def test_a_timeout_is_reported(tmp_path: Path) -> None:
    """A trial that exceeds --timeout is reported as timed out, and the exit code is 3."""
    small_suite(tmp_path, grid="rows: [{name: endless, epochs: 1000000}]\n")
    code, out, error = run_forked(tmp_path, "--timeout", "0.1", "--json")
    assert code == 3
    assert "endless, seed 0: timed out: stopped after 0.1 s" in error
    assert json.loads(out)["statuses"] == {"endless": ["timed out"]}


def test_a_diverged_trial_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that diverges is reported as diverged, and is no failure."""
    small_suite(tmp_path, grid=GRID.replace("[1e-5, 1e-2]", "[1e30]"))
    monkeypatch.chdir(tmp_path)
    store, failures = in_process(Inline(work))
    assert failures == []
    assert [(row.name, row.statuses) for row in store.results().variants] == [("lr=1e30", (Status.DIVERGED,))]


def test_a_worker_killed_in_the_confirmation_is_reported(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a worker is killed during the confirmation, the exit code is 3; the next run completes the confirmation."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    again = ("--confirm-seeds", "2")  # another run, which finds the trials of the grid in the cache
    runs = folder / Path(RUN).parent
    known = set(runs.iterdir())  # other tests may have made further runs in the folder that is copied
    process = fork(folder, *again)

    def new_logs() -> list[Path]:
        return [log for log in runs.glob("*/workers/001.log") if log.parents[1] not in known]

    wait_for(process, new_logs)
    (log,) = new_logs()
    wait_for(process, lambda: workers_of(process))  # the log is created before the worker starts
    workers_of(process)[0].send_signal(signal.SIGKILL)
    _, error = process.communicate(timeout=LIMIT)
    assert (process.returncode, "killed by SIGKILL" in error) == (3, True), error
    monkeypatch.chdir(folder)
    assert in_process(Inline(work), confirm_seeds=2)[1] == []
    assert harness.load_run(log.parents[1]).results.confirmed_samples


REHEARSED = """\
seeds: [0]
settings: {epochs: 2, batch_size: 4, warmup: 0.1, rank: 4, alpha: 8, learning_rate: 1e-2}
axes: {rehearsal: [0, 5, 7]}
"""


def test_a_run_trains_on_the_rehearsal_rows_that_it_records(tmp_path: Path) -> None:
    """After a worker was killed in training, every training still has the rehearsal rows that run.json records.

    Its fingerprint counts the suite's four rows and the recorded rows, and their tokens and labels.
    """
    suite = small_suite(tmp_path, grid=REHEARSED)
    prompts = (json.dumps({"prompt": f"Say the number {number}."}) + "\n" for number in range(12))
    (suite / "rehearsal.jsonl").write_text("".join(prompts), encoding="utf-8")
    code, error = run_dying(tmp_path, "--confirm-seeds", "0", "--timeline")
    assert code == 0, error
    assert "Rehearsal: the base model answered " in error
    store = find_run(tmp_path / RUN)
    manifest = store.manifest()
    records = [record for record in store.records() if record.settings]
    assert len(records) == 3
    for record in records:
        assert record.settings
        assert record.training
        assert record.training.fingerprint
        added = manifest.added_rows(record.settings, record.seed)
        assert len(added) == record.settings.rehearsal
        rows = tokenize((*manifest.suite.examples, *added), tokenizer(), record.settings.max_length)
        assert record.training.fingerprint.rows == len(rows)
        assert record.training.fingerprint.tokens == sum(len(row.input_ids) for row in rows)
        assert record.training.fingerprint.supervised_tokens == sum(row.supervised for row in rows)


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(POCKET), local_files_only=True)
