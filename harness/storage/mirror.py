"""Mirrors: folders (`--sync`) with copies of all finished trials, so that another machine can resume the run.

    DIR/cache/trainings/ID, DIR/cache/answers/ID     adapters and answers, with the layout of the cache
    DIR/cache/verdicts/SOURCE                        replies of judges, and similarities of texts
    DIR/runs/NAME-DIGEST/                            run.json, records, results, samples and report of one run

Every copy, to or from the mirror, is written under a temporary name, checked and then renamed. Therefore an incomplete
copy is never used, even if the program that synchronises the folder left it. Locks and logs are not copied.
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
from harness.storage.verdicts import copy_verdicts, sources


@dataclass(frozen=True)
class Mirror:
    """A run and its part of the cache, on this machine (`run`, `cache`) and in the mirror (`far_run`, `far_cache`)."""

    run: RunStore
    cache: Cache
    far_run: RunStore
    far_cache: Cache

    def pull(self, trainings: Iterable[str], *, trained: bool) -> None:
        """Copy complete trainings and their answers from the mirror to this machine's cache, unless the cache has them.

        `trained` is False if `trainings` are the keys of base models, which have answers but no adapter.
        """
        for training in trainings:
            self.cache.adopt(self.far_cache, training, trained=trained)

    def begin(self, manifest: RunManifest, *, fresh: bool) -> None:
        """Copy the records and verdicts that this run lacks from the mirror, and then its manifest to the mirror.

        If `fresh`, the records in the mirror are deleted instead.

        Raises:
            StoreError: the mirror's disk is full, or its folder cannot be written.
        """
        if fresh:
            self.far_run.forget_records(())
        elif self._is_of(manifest):
            self.run.adopt(self.far_run)
        copy_verdicts(self.far_cache.root, self.cache.root, sources(manifest.suite))
        self.far_run.copy_pages(self.run)

    def _is_of(self, manifest: RunManifest) -> bool:
        """Whether the mirror contains the run with this manifest."""
        try:
            return self.far_run.exists and self.far_run.manifest().digest == manifest.digest
        except NewerFormatError:
            raise
        except StoreError:
            return False  # a partial copy

    def push(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Copy a trial to the mirror: its adapter, its answers and, last, its record.

        Raises:
            StoreError: the mirror's disk is full, or its folder no longer exists.
        """
        self.push_trainings(trainings, trained=record.settings is not None)
        if self.far_run.record_or_none(record.split, record.trial) != record:
            self.far_run.write_trial(record)

    def push_trainings(self, trainings: Iterable[str], *, trained: bool) -> None:
        """Copy trainings and their answers to the mirror. `pull` explains `trained`.

        Raises:
            StoreError: the mirror's disk is full, or its folder no longer exists.
        """
        for training in trainings:
            self.far_cache.adopt(self.cache, training, trained=trained)

    def push_verdicts(self) -> None:
        """Copy new replies of the run's judge, and new similarities, to the mirror.

        Raises:
            StoreError: the mirror's disk is full, or its folder no longer exists.
        """
        copy_verdicts(self.cache.root, self.far_cache.root, sources(self.run.manifest().suite))

    def push_pages(self) -> None:
        """Copy the results and the report to the mirror.

        Raises:
            StoreError: the mirror's disk is full, or its folder no longer exists.
        """
        self.far_run.copy_pages(self.run)

    def forget(self, training: str) -> None:
        """Delete a training and its answers from the mirror."""
        self.far_cache.forget(training)


def mirror(folder: Path, run: RunStore, cache: Cache, digest: str) -> Mirror:
    """Return the mirror of a run in `folder`. The folder is created if its parent exists.

    Raises:
        UsageError: `folder` is a file, or its parent does not exist, for example because Google Drive is not mounted.
        StoreError: `folder` cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--sync {folder} is a file", remedy="Name a folder; it is created if it does not exist.")
    if not folder.is_dir():
        if not folder.absolute().parent.is_dir():
            remedy = "On Colab, mount Google Drive first: from google.colab import drive; drive.mount('/content/drive')"
            raise UsageError(f"--sync {folder}: there is no folder {folder.absolute().parent}", remedy=remedy)
        with writing(folder):
            folder.mkdir()
    far = folder / "runs" / f"{run.root.resolve().name}-{digest[:8]}"
    return Mirror(run, cache, RunStore(far), Cache(folder / "cache"))
