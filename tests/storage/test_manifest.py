"""Tests of MANIFEST.sha256, which lists the digests of all files in a folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import StoreError
from harness.storage.manifest import MANIFEST, verify_manifest, write_manifest
from tests.support.stored_files import save_adapter


def test_sha256sum_can_check_a_manifest(tmp_path: Path) -> None:
    """`sha256sum --check` can read a manifest, even if it has subfolders and names with spaces."""
    save_adapter(tmp_path)
    write_manifest(tmp_path)
    verify_manifest(tmp_path)
    out = subprocess.run(
        ["sha256sum", "--check", "--strict", MANIFEST], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout.count(": OK") == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(bytes(range(255)) + b"x"),
        lambda folder: (folder / "sub" / "a name with  blanks").unlink(),
        lambda folder: (folder / "more.safetensors").write_bytes(b"x"),
        lambda folder: (folder / "sub" / "link").symlink_to("/etc/passwd"),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_bytes(b""),
        lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / MANIFEST).write_bytes(b"nonsense\n"),
        lambda folder: ((folder / MANIFEST).unlink(), os.mkfifo(folder / MANIFEST)),
    ],
    ids=[
        "changed",
        "missing",
        "added",
        "added link",
        "no manifest",
        "empty manifest",
        "binary manifest",
        "nonsense manifest",
        "manifest that is a pipe",
    ],
)
def test_a_folder_that_is_not_what_was_saved(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """If a file differs from the manifest, or the manifest is missing or damaged, an error names the folder."""
    save_adapter(tmp_path)
    write_manifest(tmp_path)
    damage(tmp_path)
    with pytest.raises(StoreError, match=str(tmp_path)) as caught:
        verify_manifest(tmp_path)
    assert caught.value.remedy == "Delete the folder, then run `harness run` again: it makes a new one."
