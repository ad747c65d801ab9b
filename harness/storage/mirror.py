"""A mirror: a folder that outlives this machine, with a copy of every finished trial, from which a run resumes.

    DIR/cache/trainings/ID, DIR/cache/answers/ID     adapters and answers, as the cache has them
    DIR/runs/NAME-DIGEST/                            run.json, records, results, samples and the page of one run

Every copy, in either direction, is written under a temporary name, checked and then renamed, so that a partial copy
(by this machine or by the program that synchronises the folder) is never used. Locks and logs are not copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import NewerFormatError, StoreError, UsageError
from harness.core.run import RunManifest, TrialRecord
from harness.storage.cache import Cache
from harness.storage.files import writing
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Mirror:
    """One run and its part of the cache, on this machine and in the mirror (`far_run`, `far_cache`)."""

    run: RunStore
    cache: Cache
    far_run: RunStore
    far_cache: Cache

    def pull(self, trainings: Iterable[str], *, trained: bool) -> None:
        """Copy complete trainings that this cache lacks; `trained` is False for bases, which have no adapter."""
        for training in trainings:
            self.cache.adopt(self.far_cache, training, trained=trained)

    def begin(self, manifest: RunManifest, *, fresh: bool) -> None:
        """Copy the records of the same run that are missing here, and copy the run's request to the mirror.

        A fresh run copies no records and deletes those in the mirror.

        Raises:
            StoreError: the folder is full, or cannot be written.
        """
        if fresh:
            self.far_run.forget_records(())
        elif self._is_of(manifest):
            self.run.adopt(self.far_run)
        self.far_run.copy_pages(self.run)

    def _is_of(self, manifest: RunManifest) -> bool:
        try:
            return self.far_run.exists and self.far_run.manifest().digest == manifest.digest
        except NewerFormatError:
            raise
        except StoreError:
            return False  # a partial copy

    def push(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Copy a trial: its adapter, its answers, and last its record.

        Raises:
            StoreError: the folder is full or gone.
        """
        for training in trainings:
            self.far_cache.adopt(self.cache, training, trained=record.settings is not None)
        if self.far_run.record_or_none(record.split, record.trial) != record:
            self.far_run.write_trial(record)

    def push_pages(self) -> None:
        """Copy the results and the page.

        Raises:
            StoreError: the folder is full or gone.
        """
        self.far_run.copy_pages(self.run)

    def forget(self, training: str) -> None:
        self.far_cache.forget(training)


def mirror(folder: Path, run: RunStore, cache: Cache, digest: str) -> Mirror:
    """A mirror in `folder`, which is created if its parent exists.

    Raises:
        UsageError: it is a file, or its parent does not exist (as when Google Drive is not mounted).
        StoreError: it cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--sync {folder} is a file", remedy="Name a folder; it is created if it does not exist.")
    if not folder.is_dir():
        if not folder.absolute().parent.is_dir():
            remedy = "On Colab mount Google Drive first: from google.colab import drive; drive.mount('/content/drive')"
            raise UsageError(f"--sync {folder}: there is no {folder.absolute().parent}", remedy=remedy)
        with writing(folder):
            folder.mkdir()
    far = folder / "runs" / f"{run.root.resolve().name}-{digest[:8]}"
    return Mirror(run, cache, RunStore(far), Cache(folder / "cache"))
