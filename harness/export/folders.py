"""A folder that appears whole: made under another name beside its place, and renamed when everything is in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import StoreError
from harness.records import ExportRecord
from harness.store import MANIFEST, check_room, file_digest, read_record, write_record, write_text, writing

RECORD = "export.json"
TEXTS = 16 << 20
"""Bytes to keep for the configuration and the tokenizer."""


def staging(final: Path) -> Path:
    """Where `final` is made; nothing that loads models takes it for one, since config.json comes last."""
    return final.with_name(f".partial-{final.name}")


def begin(final: Path, needed: int, *, keep: Collection[str] = ()) -> Path:
    """The folder in which `final` is made, on a disk that has so many bytes for it.

    Of an earlier attempt it holds what is to be kept; the rest was perhaps at something else, under the same name.

    Raises:
        StoreError: it has not.
    """
    made = staging(final)
    check_room(made, needed + TEXTS)
    with writing(made):
        made.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            if path.name not in keep:
                path.unlink()
    return made


def existing(final: Path, record: ExportRecord) -> bool:
    """Whether `final` holds this very export already.

    Raises:
        StoreError: it holds something else.
    """
    if not final.exists():
        return False
    if (final / RECORD).is_file():
        found = read_record(final / RECORD, ExportRecord)
        if replace(found, versions={}) == replace(record, versions={}):  # made with older libraries it is no worse
            return True
    remedy = "Delete it, or name another directory with --output."
    raise StoreError(f"{final} is there and holds something else", remedy=remedy)


def copy(files: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder that is being made.

    Raises:
        StoreError: the disk is full.
    """
    for path in files:
        with writing(folder / path.name):
            shutil.copyfile(path, folder / path.name)


def commit(folder: Path, final: Path, record: ExportRecord, known: Mapping[str, str]) -> None:
    """Finish a folder: what was in the making goes, export.json and a manifest come, and it gets its name.

    `known` are digests that need not be computed again.
    """
    for path in [*folder.glob(".partial-*"), folder / "progress.json"]:
        path.unlink(missing_ok=True)
    write_record(folder / RECORD, record)
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    lines = (f"{known.get(path.name) or file_digest(path)}  {path.name}\n" for path in files)
    write_text(folder / MANIFEST, "".join(lines))
    with writing(final):
        os.replace(folder, final)
