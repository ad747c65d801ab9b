"""Tests of writing files: a file is written completely or not at all, even if the path is bad or the disk is full."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import StoreError
from harness.storage.files import read_text, write_text, writing
from harness.storage.records import write_record
from tests.support.stored_files import FULL, PASS, names


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """If a shorter text replaces a longer text in a file, nothing of the longer text and no temporary file is left."""
    path = tmp_path / "deep" / "file"
    write_text(path, "a long text\n")
    write_text(path, "short\n")
    assert path.read_bytes() == b"short\n"
    assert names(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """If writing a file fails, the old file is unchanged, and no temporary file is left."""
    path = tmp_path / "file"
    write_text(path, "old\n")
    with pytest.raises(Exception, match="serialize"):
        write_record(path, replace(PASS, answers=(object(),)))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_text(path, b"bytes")  # type: ignore[arg-type]
    assert (path.read_text(encoding="utf-8"), names(tmp_path)) == ("old\n", ["file"])


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    """While one thread writes a file, another thread reads either the complete old text or the complete new text."""
    path, seen, texts = tmp_path / "file", set(), {letter * 100_000 for letter in "ab"}
    write_text(path, "a" * 100_000)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        write_text(path, "ab"[number % 2] * 100_000)
    done.set()
    reader.join()
    assert seen <= texts


UNWRITABLE = {
    "file/below": "Name another place",
    "file/further/below": "Name another place",
    "folder": "Name a file",
    "x" * 300: "shorter",
    "/proc/nothing/below": "Name another place",
    "/": "Name a file",
}


@pytest.mark.parametrize("place", UNWRITABLE, ids=lambda place: place[:20])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    """If a path cannot be written, the error names it and a remedy, and nothing is created."""
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=f"cannot write {tmp_path / place}: ") as caught:
        write_text(tmp_path / place, "text")
    assert UNWRITABLE[place] in caught.value.remedy
    assert "--output" not in caught.value.remedy
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the current folder is given as the path to write, an error says so, and no file is left in it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"cannot write \.: Is a directory"):
        write_text(Path(), "text")
    assert not list(tmp_path.iterdir())


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """If the path to write is a pipe or a device, an error says so, and it stays what it was."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("pipe", "device"):
        with pytest.raises(StoreError, match=f"cannot write .*{name}: it is a device or a pipe\nName a regular file"):
            write_text(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "device").is_char_device()


def test_a_device_is_not_read() -> None:
    """A device in place of a file is refused, also one that has an end."""
    with pytest.raises(OSError, match="it is not a regular file"):
        read_text(Path(os.devnull))


def test_an_error_of_a_library_is_not_an_error_of_the_place() -> None:
    """An OSError without an error number, as some libraries raise it, is passed on unchanged."""
    with pytest.raises(OSError, match="Can't load the tokenizer"), writing(Path("place")):
        raise OSError("Can't load the tokenizer")


def test_a_full_disk_is_one_error(small_disk: Path) -> None:
    """If the disk is full, the error names the file and a remedy; the old file stays, and no temporary file is left."""
    path = small_disk / "file"
    write_text(path, "old")
    with pytest.raises(StoreError, match=f"the disk is full: could not write {path}") as caught:
        write_text(path, "x" * 2_000_000)
    assert caught.value.remedy == FULL
    assert (path.read_text(encoding="utf-8"), names(small_disk)) == ("old", ["file"])
