"""Tests of `--track`: what a tracker is given, what it stores, and what happens if it fails."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.aggregate import assemble
from harness.cli import main
from harness.core.engines import Engine
from harness.core.errors import UsageError
from harness.core.job import Event
from harness.core.run import EpochAnswers, TrialRecord
from harness.core.run_results import Results
from harness.core.suite import Role, Split
from harness.runner.listeners import trackers
from harness.runner.listeners.protocol import Listener
from harness.storage.runs import RunStore
from tests.support import synthetic_runs
from tests.support.small_suite import LIMIT, RUN, SHORT, small_suite

CASES = [synthetic_runs.case(f"{role}-{n}", role) for role in Role for n in range(2)]
VARIANT = synthetic_runs.variants(1)[0]


def finished() -> tuple[Results, list[TrialRecord]]:
    """Return the results and the records of a run of one variant under two seeds, with answers after two epochs.

    Under seed 0, the first case of each role passes; under seed 1, both do; before the end of the training, none does.
    """
    run = synthetic_runs.manifest(synthetic_runs.suite(CASES), [VARIANT], (0, 1))
    records = [synthetic_runs.record(None, dict.fromkeys((case.id for case in CASES), "good"))]
    for seed in (0, 1):
        texts = {case.id: "good" if seed or case.id.endswith("0") else "bad" for case in CASES}
        own = synthetic_runs.record(VARIANT, texts, seed=seed, trained=synthetic_runs.training())
        bad = {id: tuple(replace(one, text="bad") for one in answers) for id, answers in own.answers.items()}
        records.append(replace(own, timeline=(EpochAnswers(1, bad), EpochAnswers(2, bad))))
    return assemble(run, records, synthetic_runs.score, "2026-01-02T03:24:05+00:00"), records


RESULTS, RECORDS = finished()


@dataclass
class Fake:
    """A tracker that keeps what it is given, and fails from the trial number `fails` on."""

    fails: int = 100
    sent: list[trackers.TrackedTrial] = field(default_factory=list)

    def send(self, trial: trackers.TrackedTrial, page: Path) -> None:
        if len(self.sent) >= self.fails:
            raise ConnectionError("no route to \x1b[31m host")
        self.sent.append(trial)


@dataclass
class Notices(Listener):
    """Collects notices."""

    said: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.said.append(event.message)


def track(folder: Path, client: Fake, records: Sequence[TrialRecord] = RECORDS) -> list[str]:
    """Give a listener the records and the results of the run, and return the notices."""
    notices = Notices()
    listener = trackers.TrackerListener("fake", lambda store: client, notices)
    for record in records:
        listener.on_record(record, ())
    listener.on_results(RunStore(folder), RESULTS)
    return notices.said


def test_a_tracker_gets_what_the_records_hold(tmp_path: Path) -> None:
    """Steps, settings, time and memory that a tracker is given are those of the record; pass rates are the trial's."""
    client = Fake()
    assert track(tmp_path, client) == []
    assert [trial.name for trial in client.sent] == ["base", f"{VARIANT.name}, seed 0", f"{VARIANT.name}, seed 1"]
    for trial, record in zip(client.sent, RECORDS, strict=True):
        steps = record.training.steps if record.training else ()
        for (number, metrics), step in zip(trial.steps if steps else (), steps, strict=True):
            assert number == step.step
            found = [metrics[name] for name in ("loss", "learning_rate", "grad_norm", "epoch", "supervised_tokens")]
            assert found == [step.loss, step.learning_rate, step.grad_norm, step.epoch, step.tokens]
        last = trial.steps[-1][1]
        for cost in record.costs:
            phase = cost.phase.replace(" ", "_")
            assert last[f"seconds/{phase}"] == cost.seconds.value
            assert last[f"peak_bytes/{phase}"] == cost.peak().value
        for name, value in (record.settings.as_dict() if record.settings else {}).items():
            assert trial.config[name] == (list(value) if isinstance(value, tuple) else value)
    rates = [[trial.steps[-1][1][f"pass_rate/{role}"] for role in Role] for trial in client.sent]
    assert rates == [[1.0] * 4, [0.5] * 4, [1.0] * 4]


def test_a_tracker_gets_the_engine_that_trained() -> None:
    """In a run with the fused engine, a trial with DoRA has the engine that trained it."""
    dora = replace(RECORDS[1], settings=replace(VARIANT.settings, use_dora=True))
    results = replace(RESULTS, run=replace(RESULTS.run, engine=Engine.FUSED))
    records = {(each.split, each.trial): each for each in (RECORDS[0], dora, RECORDS[2])}
    found = [trial.config["engine"] for trial in trackers.tracked_trials(results, records)]
    assert found == ["fused", "reference", "fused"]


def test_pass_rates_by_epoch_are_at_the_ends_of_epochs(tmp_path: Path) -> None:
    """With a timeline, the steps that end an epoch have the pass rates of the variant after that epoch."""
    client = Fake()
    track(tmp_path, client)
    by_step = {number: metrics for number, metrics in client.sent[1].steps if "pass_rate_by_epoch/learn" in metrics}
    assert {number: metrics["pass_rate_by_epoch/learn"] for number, metrics in by_step.items()} == {
        10: 0.0,
        20: 0.0,
        30: 0.75,
    }


def test_a_failing_tracker_costs_a_notice(tmp_path: Path) -> None:
    """If a tracker fails, a notice says so without control characters, and the next session sends only the rest."""
    client = Fake(fails=1)
    (notice,) = track(tmp_path, client)
    assert "the run is complete" in notice
    assert "no route to" in notice
    assert "\x1b" not in notice
    client.fails = 100
    assert track(tmp_path, client) == []
    assert len(client.sent) == len({trial.id for trial in client.sent}) == len(RECORDS)


def test_a_changed_trial_is_sent_again(tmp_path: Path) -> None:
    """A trial that was sent is not sent again, unless its figures have changed."""
    client = Fake()
    track(tmp_path, client)
    slower = replace(RECORDS[1], costs=(synthetic_runs.cost(RECORDS[1].costs[0].phase, 99.0),))
    track(tmp_path, client, [RECORDS[0], slower, RECORDS[2]])
    assert [trial.id for trial in client.sent[3:]] == [client.sent[1].id]


@pytest.mark.parametrize("given", ["mlflow", "", "trackio:", "wandb: "])
def test_an_unknown_tracker_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown tracker, or a project without a name, ends the command with 2 before anything runs."""
    with pytest.raises(UsageError) as caught:
        trackers.listener(given, Listener())
    assert "--track" in caught.value.message
    assert "trackio" in caught.value.remedy or "wandb" in caught.value.remedy


def test_a_missing_package_is_named() -> None:
    """If the tracker's package is not installed, the error says which one to install."""
    with pytest.raises(UsageError) as caught:
        trackers.listener("wandb:mine", Listener(), installed=lambda name: None)
    assert "pip install wandb" in caught.value.remedy


@pytest.mark.parametrize("given", ["mlflow", ""])
def test_the_command_refuses_an_unknown_tracker(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness run --track` with an unknown tracker, or an empty name, exits with 2, before the suite is read."""
    assert main(["run", "suites/workshop", "--track", given]) == 2
    assert f"unknown tracker {given!r}" in capsys.readouterr().err


# --- with the trackers' own packages -----------------------------------------------------------------------------


@pytest.fixture
def package(request: pytest.FixtureRequest) -> None:
    """Skip the test if the tracker's package is missing; with HARNESS_TRACKERS=1, fail."""
    name = request.param
    if find_spec(name) is None:
        problem = f"{name} is not installed (`nox -s trackers` installs it)"
        pytest.fail(problem) if os.environ.get("HARNESS_TRACKERS") else pytest.skip(problem)


TRIALS = [
    trackers.TrackedTrial("id-0", "lr=1, seed 0", "suite-grid", {"rank": 4, "target_modules": ["q"], "chosen": True},
                          ((1, {"loss": 1.5, "learning_rate": 0.1}), (2, {"loss": 0.5, "pass_rate/learn": 1.0}))),
    trackers.TrackedTrial("id-1", "lr=1, seed 1", "suite-grid", {"rank": 8}, ((0, {"seconds/train": 2.5}),)),
]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process whose trackers have no key and no network, and write into a folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "TRACKIO"))}
    own = {"TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    return kept | own | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def send(name: str, folder: Path) -> None:
    """Give the trials to a tracker in a process of its own, with its files in a folder and without a key."""
    page = folder / "report.html"
    page.write_text("<p>the page", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from harness.runner.listeners import trackers;"
        "from tests.runner.test_trackers import TRIALS; folder = Path(sys.argv[2]);"
        "client = getattr(trackers, sys.argv[1])('mine', folder);"
        "[client.send(trial, folder / 'report.html') for trial in TRIALS]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(folder)],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("package", ["trackio"], indirect=True)
def test_trackio_reads_back_what_it_was_given(package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """trackio's own interface returns the steps, the configuration and the page of each trial."""
    send("Trackio", tmp_path)
    code = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S;"
        "runs = list(trackio.Api().runs('mine'));"
        "print(json.dumps([[r.name, r.config, S.get_logs('mine', r.name)] for r in runs], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=True
    )
    found = {name: (config, logs) for name, config, logs in json.loads(done.stdout.splitlines()[-1])}
    assert found.keys() == {trial.name for trial in TRIALS}
    for trial in TRIALS:
        config, logs = found[trial.name]
        assert {key: config[key] for key in trial.config} == dict(trial.config)
        stored = tuple(
            (log["step"], {key: log[key] for key in log if key not in ("step", "timestamp")}) for log in logs
        )
        assert stored == trial.steps
    pages = [path for path in (tmp_path / "trackio/artifacts").rglob("*") if path.is_file()]
    assert "<p>the page" in {path.read_text(encoding="utf-8") for path in pages}


def records_of(path: Path) -> Iterator[Any]:
    """Read the records of a file of wandb: blocks of 32 KiB in LevelDB's log format, with protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def read_wandb(path: Path) -> tuple[Any, dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    """Return the run in a file of wandb, its configuration, and the figures of each step."""
    found, steps = list(records_of(path)), []
    run = next(record.run for record in found if record.HasField("run"))
    for record in found:
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            steps.append((items["_step"], {key: value for key, value in items.items() if key[0] != "_"}))
    return run, {item.key: json.loads(item.value_json) for item in run.config.update}, steps


@pytest.mark.parametrize("package", ["wandb"], indirect=True)
def test_wandb_writes_what_it_was_given(package: None, tmp_path: Path) -> None:
    """Without a key, wandb's files in the run's folder hold the steps, the configuration and the page of each trial."""
    send("Wandb", tmp_path)
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in files] == ["run-id-0.wandb", "run-id-1.wandb"]
    for path, trial in zip(files, TRIALS, strict=True):
        run, config, steps = read_wandb(path)
        assert (run.display_name, run.run_group, run.project) == (trial.name, trial.group, "mine")
        assert {key: config[key] for key in trial.config} == dict(trial.config)
        assert tuple(steps) == trial.steps
        found = list(records_of(path))
        artifacts = [
            record.request.log_artifact.artifact for record in found if record.request.HasField("log_artifact")
        ]
        artifacts += [record.artifact for record in found if record.HasField("artifact")]
        assert [artifact.name for artifact in artifacts] == ["report"]


# --- with a real training ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[Engine.REFERENCE, Engine.FUSED])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small suite with an engine, with `--track` for one tracker after the other, and return the folder."""
    if missing := [name for name in trackers.TrackerName if find_spec(name) is None]:
        problem = f"{missing[0]} is not installed (`nox -s trackers` installs it)"
        pytest.fail(problem) if os.environ.get("HARNESS_TRACKERS") else pytest.skip(problem)
    folder: Path = tmp_path_factory.mktemp(request.param)
    small_suite(folder, grid=SHORT)
    command = [sys.executable, "-m", "harness", "run", "small", "--engine", request.param, "--profile", "cpu"]
    for name in trackers.TrackerName:
        done = subprocess.run(
            [*command, "--timeline", "--track", f"{name}:mine"], cwd=folder, env=environment(folder),
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "--track" not in done.stdout + done.stderr
    return folder


def check_history(store: RunStore, history: dict[str, tuple[dict[str, Any], dict[int, dict[str, Any]]]]) -> None:
    """Check what was read from a tracker against the run: `history` has the configuration and the steps by run id."""
    results, records = store.results(), store.records()
    assert len(history) == len(records)
    for config, steps in history.values():
        [record] = [one for one in records if (one.trial, one.split) == (config["trial"], config["split"])]
        taken = record.training.steps if record.training else ()
        for step in taken:
            figures = {"loss": step.loss, "learning_rate": step.learning_rate, "grad_norm": step.grad_norm}
            assert figures.items() <= steps[step.step].items()
        assert len(steps) == max(1, len(taken))
        last = steps[max(steps)]
        costs = {f"seconds/{cost.phase.replace(' ', '_')}": cost.seconds.value for cost in record.costs}
        assert costs.items() <= last.items()
        confirmed = [one for one in (results.confirmed_base, results.confirmed) if one]
        outcomes = [*results.every_base, *results.variants] if record.split is Split.MAIN else confirmed
        [rates] = [one.rates for one in outcomes if one.name == config["variant"]]
        assert {f"pass_rate/{role}": rate.value for role, rate in rates.items()}.items() <= last.items()
        if record.settings and record.split is Split.MAIN:
            assert [step for step in steps.values() if "pass_rate_by_epoch/learn" in step]
            assert config["learning_rate"] == record.settings.learning_rate


def test_trackio_holds_the_records_of_a_real_training(real: Path) -> None:
    """What trackio's own interface returns for a real run of each engine is what the run's records hold."""
    read = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S;"
        "runs = list(trackio.Api().runs('mine'));"
        "print(json.dumps([[r.config, S.get_logs('mine', r.name)] for r in runs], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", read], env=environment(real), capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    check_history(
        RunStore(real / RUN), {config["id"]: (config, {log["step"]: log for log in logs}) for config, logs in found}
    )


def test_wandb_holds_the_records_of_a_real_training(real: Path) -> None:
    """What wandb's files of a real run of each engine hold is what the run's records hold."""
    history = {}
    for path in (real / RUN / "wandb").glob("offline-run-*/*.wandb"):
        run, config, steps = read_wandb(path)
        history[run.run_id] = (config, dict(steps))
    check_history(RunStore(real / RUN), history)
