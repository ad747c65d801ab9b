"""Output folders of exports: filled under a temporary name, and renamed when every file is written.

Files that several exports share, a base and its adapters, are added to one folder, one by one (`add`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.core.errors import StoreError
from harness.core.export import ExportRecord
from harness.core.hashing import file_digest
from harness.storage.files import check_no_link, check_room, write_text, writing
from harness.storage.manifest import MANIFEST
from harness.storage.records import read_record, write_record

RECORD = "export.json"
TEXTS = 16 << 20
"""Bytes of disk space that must be free for configuration and tokenizer files."""


def staging(final: Path) -> Path:
    """Path of the temporary folder for `final`. No library loads it: its config.json is written last."""
    return final.with_name(f".partial-{final.name}")


def begin(final: Path, needed: int, *, keep: Collection[str] = ()) -> Path:
    """Create the temporary folder of `final`, after checking that the disk has `needed` bytes left.

    Files of an earlier attempt may belong to another export, so they are deleted, except those named in `keep`.

    Raises:
        StoreError: the disk has too little space, or the temporary folder is a link to another folder.
    """
    made = staging(final)
    check_room(made, needed + TEXTS)
    check_no_link(made)
    with writing(made):
        made.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in keep:
                path.unlink()
    return made


def existing(final: Path, record: ExportRecord) -> bool:
    """Whether `final` already holds this export.

    Raises:
        StoreError: `final` exists and contains something else, or was changed.
    """
    if not final.exists():
        return False
    if _holds(final / RECORD, record):
        _check_unchanged(final, _digests(final))
        return True
    remedy = "Delete it, or name another directory with --output."
    raise StoreError(f"{final} exists and contains something else", remedy=remedy)


def _holds(path: Path, record: ExportRecord) -> bool:
    """Whether a file holds this record. The versions of libraries may differ."""
    return path.is_file() and _content(read_record(path, ExportRecord)) == _content(record)


def _content(record: ExportRecord) -> ExportRecord:
    """Return what decides the exported weights. Those of a base model by itself are the same for every suite."""
    return replace(record, versions={}, suite=record.suite if record.training else "")


def copy(files: Iterable[Path], folder: Path) -> None:
    """Copy files into a temporary folder.

    Raises:
        StoreError: the disk is full.
    """
    for path in files:
        with writing(folder / path.name):
            shutil.copyfile(path, folder / path.name)


def commit(folder: Path, final: Path, record: ExportRecord, known: Mapping[str, str]) -> None:
    """Finish a folder: delete temporary files, write export.json and a manifest, and rename the folder to `final`.

    `known` maps file names to digests that are already known, so that they are not computed again.
    """
    for path in [*folder.glob(".partial-*"), folder / "progress.json"]:
        path.unlink(missing_ok=True)
    write_record(folder / RECORD, record)
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    lines = (f"{known.get(path.name) or file_digest(path)}  {path.name}\n" for path in files)
    write_text(folder / MANIFEST, "".join(lines))
    with writing(final):
        os.replace(folder, final)


def add(file: Path, needed: int, record: ExportRecord, write: Callable[[Path], None]) -> Path:
    """Add a file to a folder that several exports share, unless this export is there already, and return its path.

    `write` writes the path that it is given, in a temporary folder. The record is stored beside the file as
    `NAME.json`. The folder's manifest lists both; other files of the folder are left alone.

    Raises:
        StoreError: the disk has too little space, or the folder has another file of this name.
    """
    if added(file, record):
        return file
    described, digests = file.with_name(f"{file.name}.json"), _digests(file.parent)
    if not file.exists():
        made = begin(file, needed)
        write(made / file.name)
        write_record(described, record)
        with writing(file):
            os.replace(made / file.name, file)
        shutil.rmtree(made)
    digests |= {path.name: file_digest(path) for path in (file, described)}
    write_text(file.with_name(MANIFEST), "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))
    return file


def added(file: Path, record: ExportRecord) -> bool:
    """Whether `add` added this export already, and completely.

    Raises:
        StoreError: the folder has another file of this name, or the file was changed.
    """
    if not file.exists():
        return False
    if not _holds(file.with_name(f"{file.name}.json"), record):
        remedy = "Delete it, or name another directory with --output."
        raise StoreError(f"{file} exists and is of another export", remedy=remedy)
    digests = _digests(file.parent)
    _check_unchanged(file.parent, {name: digest for name, digest in digests.items() if name == file.name})
    return file.name in digests


def _check_unchanged(folder: Path, digests: Mapping[str, str]) -> None:
    """Check files by their digests, so that nobody gets a changed model for one that was evaluated.

    Raises:
        StoreError: a file is missing or differs.
    """
    for name, digest in digests.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            remedy = f"Delete {folder}, or name another directory with --output."
            raise StoreError(f"{folder / name} is missing, or has changed since it was exported", remedy=remedy)


def _digests(folder: Path) -> dict[str, str]:
    """The digests in a folder's manifest, by file name; empty if it has none."""
    manifest = folder / MANIFEST
    lines = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
