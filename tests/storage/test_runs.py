"""Tests of run directories: their files, their locks, finding an existing run, and choosing where a run goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness.core.errors import RunInUseError, StoreError
from harness.core.job import Job, Prompt, Task
from harness.core.settings import Quantization
from harness.core.suite import Decoding, Message, Split
from harness.storage.records import read_record
from harness.storage.runs import RunStore, claim_run, find_run, open_run
from tests.support.made_results import machine
from tests.support.stored_files import HARD, VARIANT, names, readable
from tests.support.synthetic_runs import (
    case,
    manifest,
    record,
    results,
    suite,
)

# --- files -------------------------------------------------------------------------------------------------------


def begun(folder: Path, digest: str) -> RunStore:
    store = RunStore(folder)
    store.write_manifest(replace(manifest(suite([case("c")]), [VARIANT]), digest=digest))
    return store


def test_records_in_another_folder_are_not_deleted(tmp_path: Path) -> None:
    """If the run has a link in place of its folder of records, the folders that it leads to are not deleted."""
    (tmp_path / "precious" / "thesis").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials").symlink_to("../precious")
    with pytest.raises(StoreError, match="trials is a link to another folder"):
        RunStore(tmp_path / "run").forget_records(())
    assert (tmp_path / "precious" / "thesis").exists()


def test_records_of_a_run(tmp_path: Path) -> None:
    """Records of the two splits are stored separately. `forget_records` deletes all records except the given ones."""
    store = RunStore(tmp_path)
    made = [record(VARIANT, {"c": "x"}, split=split, seed=seed) for split in Split for seed in (0, 1)]
    for each in made:
        assert store.record(each.split, each.trial) is None
        store.write_trial(each)
    assert store.records() == (made[2], made[3], made[0], made[1])
    store.forget_records([(Split.MAIN, made[0].trial), (Split.CONFIRM, made[3].trial)])
    assert store.records() == (made[3], made[0])
    (tmp_path / "trials" / made[0].trial / "record.json").unlink()  # killed before its last write
    assert store.record(Split.MAIN, made[0].trial) is None


def test_a_job_comes_back(tmp_path: Path) -> None:
    """The file of a job is read back unchanged, including the task of the base model, which has no settings."""
    prompts = (Prompt("key", (Message("user", "Grüße"),), "Tag", ("Tag", "Nacht")),)
    tasks = (
        Task("base", "b", None, 0, False, prompts),
        Task("t", "t", replace(VARIANT.settings, target_modules=("q_proj",)), 3, True, ()),
    )
    run = manifest(suite([case("c")]), [VARIANT], on=machine("cuda"))
    made = Job(
        run.model, run.provenance.machine, Quantization.NF4, "reference", str(tmp_path), run.suite.examples,
        Decoding(7, ("\n", "</s>"), 0.7), tasks,
    )  # fmt: skip
    store = RunStore(tmp_path)
    assert store.last_worker() == 0
    path, log = store.new_worker(made, 1)
    assert read_record(path, Job) == made
    assert (path.name, log.name) == ("001.json", "001.log")
    assert store.last_worker() == 1
    (path.parent / "3 of mine.json").touch()
    assert store.last_worker() == 1
    assert store.new_worker(made, 2)[1].name == "002.log"


def test_results_come_back(tmp_path: Path) -> None:
    """If the results of a run are read, written and read again, they stay the same."""
    made, store = results(), RunStore(tmp_path)
    store.write_results(made, [{"answer": text} for text in HARD], lambda: "<html>")
    once = store.results()
    assert (len(once.samples), once.choice, once.base.rates) == (len(made.samples), made.choice, made.base.rates)
    store.write_results(once, (), lambda: "<html>")
    assert store.results() == once


def test_samples_are_lines(tmp_path: Path) -> None:
    """Each sample in samples.jsonl is one line of UTF-8, whatever its answer contains."""
    RunStore(tmp_path).write_results(results(2, 3), ({"answer": text} for text in HARD), lambda: "")
    with (tmp_path / "samples.jsonl").open(encoding="utf-8") as lines:
        assert [json.loads(line)["answer"] for line in lines] == [readable(text) for text in HARD]


# --- locks -------------------------------------------------------------------------------------------------------

LOCKING = """\
import sys
from pathlib import Path
from harness.storage.runs import RunStore
with RunStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locking_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock on the run directory `tmp_path / "run"`."""
    environment = os.environ | {"PYTHONPATH": str(Path(harness.__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(tmp_path / "run")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(tmp_path: Path, locking_process: subprocess.Popen[str]) -> None:
    """While one process works in a run directory, other processes are refused; the error names it and a remedy."""
    with (
        pytest.raises(RunInUseError, match=f"another process is working in {tmp_path / 'run'}\nWait"),
        RunStore(tmp_path / "run").locked(),
    ):
        raise AssertionError("two processes have locked it")


def test_the_lock_of_a_killed_process_ends(tmp_path: Path, locking_process: subprocess.Popen[str]) -> None:
    """If the process that locked a run directory is killed with SIGKILL, other processes can lock the directory."""
    locking_process.send_signal(signal.SIGKILL)
    locking_process.wait()
    for _ in range(2):
        with RunStore(tmp_path / "run").locked():
            pass


# --- finding and claiming ----------------------------------------------------------------------------------------


def test_a_run_is_resumed_where_it_was_begun(tmp_path: Path) -> None:
    """If a run has the inputs of an earlier run, it gets that run's folder; otherwise it gets the next free folder."""
    assert open_run(tmp_path, "name", "one").root.name == "name"
    for digest, folder in [("one", "name"), ("two", "name-2"), ("three", "name-3")]:
        assert begun(open_run(tmp_path, "name", digest).root, digest).root.name == folder
    for digest, folder in [("one", "name"), ("two", "name-2"), ("three", "name-3"), ("four", "name-4")]:
        assert open_run(tmp_path, "name", digest).root.name == folder


def test_a_run_of_another_format_keeps_its_place(tmp_path: Path) -> None:
    """A run is recognised by the digest in its run.json, even if this file has a newer format."""
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "run.json").write_text('{"format": 99, "digest": "new"}', encoding="utf-8")
    assert open_run(tmp_path, "name", "new").root.name == "name"
    assert open_run(tmp_path, "name", "mine").root.name == "name-2"


def test_claiming_a_directory(tmp_path: Path) -> None:
    """`--output` accepts a new or empty directory, one of a run killed at its start, and one of the same run."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed" / "workers").mkdir(parents=True)
    for name in (".lock", ".partial-0123"):
        (tmp_path / "killed" / name).touch()
    begun(tmp_path / "mine", "digest")
    for name in ("new", "deep/new", "empty", "killed", "mine"):
        assert claim_run(tmp_path / name, "digest") == RunStore(tmp_path / name)


def test_other_directories_are_not_claimed(tmp_path: Path) -> None:
    """`--output` refuses a file, a folder with other files, and another run's folder, each with its own message."""
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    begun(tmp_path / "other", "other")
    for name, words in [
        ("file", "is a file"),
        ("thesis", "is not empty and holds no run"),
        ("other", "holds another run"),
    ]:
        with pytest.raises(StoreError, match=f"{tmp_path / name} {words}\n.*--output"):
            claim_run(tmp_path / name, "digest")
    assert names(tmp_path / "thesis") == ["chapter"]


def test_finding_a_run(tmp_path: Path) -> None:
    """A run is found by its directory, its report or its results. If it is not found, the error lists existing runs."""
    with chdir(tmp_path):
        with pytest.raises(StoreError, match="there is no run in elsewhere\nCreate one with `harness run SUITE`"):
            find_run(Path("elsewhere"))
        for name in ("b", "a"):
            begun(Path("reports/runs") / name, name)
        for path in ("reports/runs/a", "reports/runs/a/report.html", "reports/runs/a/results.json"):
            assert find_run(Path(path)).manifest().digest == "a"
        with pytest.raises(StoreError, match="Runs here: reports/runs/a, reports/runs/b"):
            find_run(Path("elsewhere"))
