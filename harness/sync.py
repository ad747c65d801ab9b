"""Keeps a copy of every finished trial in a folder that outlives this machine, and begins from what lies there.

    DIR/cache/trainings/ID, DIR/cache/answers/ID     adapters and answers, as the cache has them
    DIR/runs/NAME-DIGEST/                            run.json, records, results, samples and the page of one run

Whatever is copied, in either direction, is written under another name, checked and then renamed: half a copy, whether
of this machine's or of whoever synchronises the folder, is never taken for a whole one. Locks and logs stay local.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import NewerFormatError, StoreError, UsageError
from harness.records import Event, EventKind, RunManifest, TrialRecord
from harness.store import Cache, RunStore, writing


@dataclass(frozen=True)
class Mirror:
    """One run and what it took from the cache, here and in the synchronised folder."""

    run: RunStore
    cache: Cache
    far_run: RunStore
    far_cache: Cache

    def pull(self, trainings: Iterable[str], *, trained: bool) -> None:
        """Take over what is whole there and not here; with `trained` False these are bases, which have no adapter."""
        for training in trainings:
            self.cache.adopt(self.far_cache, training, trained=trained)

    def begin(self, manifest: RunManifest, *, fresh: bool) -> None:
        """Take over the records of the same run that are not here, and copy what the run was asked.

        A fresh run takes nothing, and what lies there goes.

        Raises:
            StoreError: the folder is full, or may not be written.
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
            return False  # half a copy

    def push(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Copy what a trial found: its adapter, its answers, and last its record.

        Raises:
            StoreError: the folder is full or gone.
        """
        for training in trainings:
            self.far_cache.adopt(self.cache, training, trained=record.settings is not None)
        if self.far_run.record_or_none(record.split, record.trial) != record:
            self.far_run.write_trial(record)

    def end(self, notify: Callable[[Event], None]) -> None:
        """Copy the results and the page; a folder that is full or gone costs the copies alone."""
        try:
            self.far_run.copy_pages(self.run)
        except (StoreError, OSError) as error:
            notify(Event(EventKind.NOTICED, message=f"the report was not copied by --sync: {error}"))

    def forget(self, training: str) -> None:
        self.far_cache.forget(training)


def mirror(folder: Path, run: RunStore, cache: Cache, digest: str) -> Mirror:
    """A mirror in `folder`, which is made if what it lies in is there.

    Raises:
        UsageError: it is a file, or what it lies in is not there, as when Google Drive is not mounted.
        StoreError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--sync {folder} is a file", remedy="Name a folder; it is made if need be.")
    if not folder.is_dir():
        if not folder.absolute().parent.is_dir():
            remedy = "On Colab mount Google Drive first: from google.colab import drive; drive.mount('/content/drive')"
            raise UsageError(f"--sync {folder}: there is no {folder.absolute().parent}", remedy=remedy)
        with writing(folder):
            folder.mkdir()
    far = folder / "runs" / f"{run.root.resolve().name}-{digest[:8]}"
    return Mirror(run, cache, RunStore(far), Cache(folder / "cache"))
