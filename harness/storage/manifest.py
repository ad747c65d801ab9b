"""Write and verify manifests. A manifest is a file in a folder, with the SHA-256 of every other file in the folder."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import StoreError
from harness.core.hashing import file_digest
from harness.storage.files import write_text

MANIFEST = "MANIFEST.sha256"


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder, in the format that `sha256sum --check` reads."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_text(folder / MANIFEST, "".join(f"{file_digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files))


def verify_manifest(folder: Path) -> None:
    """Check that all files in a folder's manifest are unchanged, since PEFT loads damaged adapters without an error.

    Raises:
        StoreError: the manifest is missing, or a file is missing or changed.
    """
    remedy = "Delete the folder, then run `harness run` again: it makes a new one."
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines:
        raise StoreError(f"{folder} has no readable {MANIFEST}, so it is incomplete", remedy=remedy)
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise StoreError(f"{path} is missing, or has changed since it was saved", remedy=remedy)
