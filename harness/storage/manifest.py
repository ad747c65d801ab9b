"""Write and verify manifests. A manifest is a file in a folder, with the SHA-256 of every other file in the folder."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import StoreError
from harness.core.hashing import file_digest
from harness.storage.files import PARTIAL, read_text, write_text

MANIFEST = "MANIFEST.sha256"
OUTCOME = "training.json"
"""The record of a training beside its adapter. It is written after the manifest, which therefore does not list it."""


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder, in the format that `sha256sum --check` reads."""
    names = sorted(_files(folder) - {OUTCOME})
    write_text(folder / MANIFEST, "".join(f"{file_digest(folder / name)}  {name}\n" for name in names))


def _files(folder: Path) -> set[str]:
    """Return the names of all entries below a folder that are not folders, except manifests and temporary files."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path for path in found if path.name != MANIFEST and not path.name.startswith(PARTIAL))
    return {path.relative_to(folder).as_posix() for path in names}


def verify_manifest(folder: Path) -> None:
    """Check that a folder has exactly the files of its manifest, unchanged.

    PEFT loads damaged adapters without an error.

    Raises:
        StoreError: the manifest is missing, or a file is missing, changed or not listed in it.
    """
    remedy = "Delete the folder, then run `harness run` again: it makes a new one."
    try:
        lines = read_text(folder / MANIFEST).splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines:
        raise StoreError(f"{folder} has no readable {MANIFEST}, so it is incomplete", remedy=remedy)
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise StoreError(f"{path} is missing, or has changed since it was saved", remedy=remedy)
    if unknown := sorted(_files(folder) - {line.partition("  ")[2] for line in lines} - {OUTCOME}):
        raise StoreError(f"{folder / unknown[0]} was added after the folder was saved", remedy=remedy)
