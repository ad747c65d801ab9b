"""Run directories: the manifest, records, worker jobs, parity checks, results and report of one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.core.errors import NewerFormatError, StoreError
from harness.core.hashing import file_digest
from harness.core.job import Job
from harness.core.parity import Parity
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.storage.files import PARTIAL, check_no_link, locked, write_text
from harness.storage.records import checked, copy_record, read_json, read_record, write_record
from harness.storage.verdicts import FOLDER as VERDICTS

_PAGES = ("run.json", "samples.jsonl", "report.html", "results.json")
"""The files that `copy_pages` copies, in this order."""


@dataclass(frozen=True)
class RunStore:
    """A run directory, with methods that read and write its files."""

    root: Path

    @contextmanager
    def locked(self, instead: str = "") -> Iterator[None]:
        """Lock the run directory for this process. The lock ends with the process, even if the process is killed.

        Raises:
            RunInUseError: another process has locked it. The remedy is to wait, to stop it, or `instead`.
        """
        remedy = f"Wait until it has ended{f', stop it, or {instead}' if instead else ', or stop it'}."
        with locked(self.root / ".lock", f"another process is working in {self.root}", remedy):
            yield

    @property
    def exists(self) -> bool:
        """Whether the directory contains a run, that is, a run.json."""
        return (self.root / "run.json").is_file()

    @property
    def has_results(self) -> bool:
        """Whether the run has results."""
        return (self.root / "results.json").is_file()

    @property
    def report(self) -> Path:
        """The path of the run's report."""
        return self.root / "report.html"

    def manifest(self) -> RunManifest:
        """Read run.json."""
        return read_record(self.root / "run.json", RunManifest)

    def write_manifest(self, manifest: RunManifest) -> None:
        """Write run.json."""
        write_record(self.root / "run.json", manifest)

    def record(self, split: Split, trial: str) -> TrialRecord | None:
        """Return the record of a trial, or None if there is none.

        Raises:
            StoreError: the record is damaged.
        """
        path = self._record_path(split, trial)
        return read_record(path, TrialRecord) if path.is_file() else None

    def record_or_none(self, split: Split, trial: str) -> TrialRecord | None:
        """Return the record of a trial, or None if there is none or it is damaged."""
        try:
            return self.record(split, trial)
        except NewerFormatError:
            raise
        except StoreError:
            return None

    def write_trial(self, record: TrialRecord) -> None:
        """Write the record of a trial."""
        write_record(self._record_path(record.split, record.trial), record, sealed=True)

    def records(self) -> tuple[TrialRecord, ...]:
        """Return the records of all trials. Trials of the confirmation come first."""
        paths = sorted([*self.root.glob("trials/*/record.json"), *self.root.glob("confirm/*/record.json")])
        return tuple(read_record(path, TrialRecord) for path in paths)

    def forget_records(self, keep: Iterable[tuple[Split, str]]) -> None:
        """Delete the records of all trials except those in `keep`.

        Raises:
            StoreError: the folder of the records is a link, so this would delete the files of another folder.
        """
        for name in ("trials", "confirm"):
            check_no_link(self.root / name)
        wanted = {self._record_path(split, trial).parent for split, trial in keep}
        for folder in (*self.root.glob("trials/*"), *self.root.glob("confirm/*")):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _record_path(self, split: Split, trial: str) -> Path:
        folder = "trials" if split is Split.MAIN else "confirm"
        return self.root / folder / trial / "record.json"

    def last_worker(self) -> int:
        """Return the number of the last job that was written for a worker; 0 if there is none."""
        names = (path.stem for path in (self.root / "workers").glob("*.json"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def new_worker(self, job: Job, number: int) -> tuple[Path, Path]:
        """Write a job for a worker under this number; return the paths of the job and of the log."""
        path = self.root / "workers" / f"{number:03}.json"
        write_record(path, job, durable=False, indent=None)  # only the worker reads it, and not after a power failure
        return path, path.with_suffix(".log")

    def parities(self) -> tuple[Parity, ...]:
        """Return all stored parity checks."""
        return tuple(read_record(path, Parity) for path in sorted((self.root / "parity").glob("*.json")))

    def write_parity(self, label: str, parity: Parity) -> None:
        """Write a parity check to parity/LABEL.json."""
        write_record(self.root / "parity" / f"{label}.json", parity)

    def check_results(self) -> None:
        """Check that the run has results.

        Raises:
            StoreError: it has none yet.
        """
        if not self.has_results:
            remedy = "Repeat its `harness run` command to finish it, or score its stored answers with `harness score`."
            raise StoreError(f"the run in {self.root} has no results yet", remedy=remedy)

    def results(self) -> Results:
        """Read results.json.

        Raises:
            StoreError: there are no results yet, or they are damaged.
        """
        self.check_results()
        path = self.root / "results.json"
        return checked(read_record(path, Results), path)

    def write_results(self, results: Results, samples: Iterable[Mapping[str, object]], page: Callable[[], str]) -> None:
        """Write samples.jsonl, then results.json, then report.html, which `page` makes of them."""
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_text(self.root / "samples.jsonl", lines)
        write_record(self.root / "results.json", results)
        write_text(self.report, page())

    def tracked(self, tracker: str) -> frozenset[str]:
        """Return the digests of the trials that this tracker was given, as `mark_tracked` stored them."""
        path = self.root / "tracked.json"
        found = read_json(path).get(tracker) if path.is_file() else None
        return frozenset(str(each) for each in found) if isinstance(found, list) else frozenset()

    def mark_tracked(self, tracker: str, digests: Iterable[str]) -> None:
        """Store the digests of the trials that an experiment tracker was given."""
        path = self.root / "tracked.json"
        known = read_json(path) if path.is_file() else {}
        write_text(path, json.dumps({**known, tracker: sorted(digests)}, indent=1) + "\n")

    def adopt(self, other: RunStore) -> None:
        """Copy the records of the run `other` that this run does not have. Damaged records are not copied."""
        for path in sorted([*other.root.glob("trials/*/record.json"), *other.root.glob("confirm/*/record.json")]):
            target = self.root / path.relative_to(other.root)
            if not target.is_file():
                copy_record(path, target, TrialRecord)

    def copy_pages(self, other: RunStore) -> None:
        """Copy the manifest, verdicts, results, samples and report of the run `other`. Equal files are not copied."""
        verdicts = sorted(f"{VERDICTS}/{path.name}" for path in (other.root / VERDICTS).glob("*.jsonl"))
        for name in (*verdicts, *_PAGES):
            source, target = other.root / name, self.root / name
            if source.is_file() and not (target.is_file() and file_digest(target) == file_digest(source)):
                write_text(target, source.read_text(encoding="utf-8"))


def find_run(path: Path) -> RunStore:
    """Return the run in the directory `path`; `path` may also be a file of the run, such as results.json.

    Raises:
        StoreError: there is no run. The remedy lists the runs in reports/runs.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / "run.json").is_file():
        return RunStore(folder)
    known = sorted(str(p.parent) for p in Path("reports/runs").glob("*/run.json"))
    remedy = "Runs here: " + ", ".join(known) if known else "Create one with `harness run SUITE`."
    raise StoreError(f"there is no run in {path}", remedy=remedy)


def open_run(parent: Path, name: str, run_digest: str) -> RunStore:
    """Return the first of the folders NAME, NAME-2, NAME-3, ... that contains this run (by its digest) or no run."""
    number = 1
    while True:
        store = RunStore(parent / (name if number == 1 else f"{name}-{number}"))
        if not store.exists or _digest_of(store) == run_digest:
            return store
        number += 1


def claim_run(folder: Path, run_digest: str) -> RunStore:
    """Return the run in the directory given by `--output`. It must be new or empty, or hold the run with this digest.

    Raises:
        StoreError: `folder` is a file, or contains another run or other files.
    """
    store = RunStore(folder)
    if folder.is_file():
        raise StoreError(f"{folder} is a file", remedy="Name a directory with --output.")
    if store.exists:
        if _digest_of(store) == run_digest:
            return store
        remedy = "Its suite, grid, model or library versions differ. Name another directory with --output."
        raise StoreError(f"{folder} holds another run", remedy=remedy)
    if folder.is_dir() and not all(_precedes_manifest(path.name) for path in folder.iterdir()):
        raise StoreError(f"{folder} is not empty and holds no run", remedy="Name a new directory with --output.")
    return store


def _precedes_manifest(name: str) -> bool:
    """Whether a run writes a file or folder with this name before run.json. A killed run may leave it behind."""
    return name in (".lock", "workers") or name.startswith(PARTIAL)


def _digest_of(store: RunStore) -> str:
    """Read only the digest from a run's manifest. This is fast, and works with any format version."""
    return cast(str, read_json(store.root / "run.json").get("digest", ""))
