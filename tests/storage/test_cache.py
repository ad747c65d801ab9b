"""Tests of the cache of trainings and answers: entries, damage, commits of several entries, size and clearing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

import harness.storage.cache
from harness.core.answers import Answer
from harness.core.errors import NewerFormatError, RunInUseError, StoreError, UnreadableFileError
from harness.core.formats import FORMAT
from harness.core.model import ConvertedModel, SavedBase
from harness.core.settings import Quantization
from harness.core.training_outcome import Status
from harness.storage.cache import Cache
from harness.storage.files import write_text
from harness.storage.manifest import MANIFEST, verify_manifest
from tests.support.stored_files import FULL, PASS, names, save_adapter
from tests.support.synthetic_runs import (
    training,
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# --- entries -----------------------------------------------------------------------------------------------------


def test_the_cache_returns_what_was_stored(cache: Cache) -> None:
    """The cache returns a training with its adapter, and all stored lists of answers to its prompts, oldest first."""
    more = replace(PASS, answers=(Answer("other", "\ud800", 1, True),))
    assert (cache.training("t" * 16), cache.answers("t" * 16)) == (None, ())
    cache.commit_training(training(), save_adapter)
    cache.commit_answers("t" * 16, PASS)
    cache.commit_answers("t" * 16, more)
    assert cache.training("t" * 16) == training()
    verify_manifest(cache.adapter("t" * 16))
    assert cache.answers("t" * 16) == (PASS, replace(more, answers=(Answer("other", "?", 1, True),)))


def test_leftovers_are_no_training(cache: Cache) -> None:
    """A folder without training.json is no training: it is ignored, and replaced when the training is stored."""
    leftover = cache.root / "trainings" / ".partial-0123"
    leftover.mkdir(parents=True)
    cache.adapter("id").mkdir()
    (cache.adapter("id") / "stale").touch()
    assert cache.training("id") is None
    cache.commit_training(replace(training(), id="id"), save_adapter)
    assert cache.training("id") is not None
    assert "stale" not in names(cache.adapter("id"))
    assert cache.held()[0].entries == 1


def test_two_commits_of_one_training(cache: Cache) -> None:
    """If several runs store the same training at the same time, all succeed, and one complete training is left."""
    errors: list[BaseException] = []

    def commit() -> None:
        try:
            for _ in range(30):
                cache.commit_training(training(), save_adapter)
        except BaseException as error:  # noqa: BLE001 - a thread's errors would be lost
            errors.append(error)

    threads = [threading.Thread(target=commit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cache.training("t" * 16) == training()
    verify_manifest(cache.adapter("t" * 16))
    assert names(cache.root / "trainings") == ["t" * 16]


def test_a_damaged_pass_is_forgotten(cache: Cache) -> None:
    """A damaged file of answers is deleted; the other files stay, and the next file does not overwrite them."""
    passes = [replace(PASS, answers=(Answer(f"key {n}", "", 0, False),)) for n in range(3)]
    for made in passes[:2]:
        cache.commit_answers("id", made)
    first, _ = sorted((cache.root / "answers" / "id").iterdir())
    first.write_text("{", encoding="utf-8")
    assert cache.answers("id") == (passes[1],)
    assert not first.exists()
    (first.parent / "2 of mine.json").touch()
    cache.commit_answers("id", passes[2])
    assert cache.answers("id") == (passes[1], passes[2])


def test_a_damaged_training_is_forgotten(cache: Cache) -> None:
    """If a training in the cache is damaged, it is deleted together with its answers."""
    cache.commit_training(training(), save_adapter)
    cache.commit_answers("t" * 16, PASS)
    (cache.adapter("t" * 16) / "training.json").write_text("{", encoding="utf-8")
    assert cache.training("t" * 16) is None
    assert cache.answers("t" * 16) == ()
    assert not cache.adapter("t" * 16).exists()


@pytest.mark.parametrize("kind", ["commits", "trainings", "answers"])
def test_a_cache_with_links_deletes_nothing_elsewhere(tmp_path: Path, kind: str) -> None:
    """If a folder of the cache is a link, the folders that it leads to are neither deleted nor replaced."""
    (tmp_path / "home" / "keys").mkdir(parents=True)
    (tmp_path / "home" / "keys" / "mine").touch()
    (tmp_path / "cache" / "commits" / "made" / "trainings" / "keys").mkdir(parents=True)
    (tmp_path / "cache" / "commits" / "made" / "answers" / "keys").mkdir(parents=True)
    if kind == "commits":
        shutil.rmtree(tmp_path / "cache" / "commits")
    (tmp_path / "cache" / kind).symlink_to("../home")
    cache = Cache(tmp_path / "cache")
    for read in (cache.training, cache.answers, cache.forget):
        with pytest.raises(StoreError, match=f"{kind} is a link to another folder\nDelete the link"):
            read("keys")
    assert (tmp_path / "home" / "keys" / "mine").exists()


def test_a_file_that_cannot_be_read_is_kept(cache: Cache) -> None:
    """If the system refuses to read an entry, an error says so, and the entry is not deleted as if it were damaged."""
    cache.commit_training(training(), save_adapter)
    outcome = cache.adapter("t" * 16) / "training.json"
    outcome.unlink()
    outcome.symlink_to("/proc/self/mem")  # reading it is an input/output error
    with pytest.raises(UnreadableFileError, match=r"cannot read .*training.json: Input/output error"):
        cache.training("t" * 16)
    assert (cache.adapter("t" * 16) / "adapter_model.safetensors").is_file()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A cache file of a newer format is kept, and the error says to upgrade the harness."""
    cache = Cache(tmp_path)
    cache.commit_training(training(), None)
    cache.commit_answers("t" * 16, PASS)
    paths = [*tmp_path.rglob("*.json")]
    assert len(paths) == 2
    for path in paths:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}), encoding="utf-8")
    for read in (cache.training, cache.answers):
        with pytest.raises(NewerFormatError, match=rf"has format {FORMAT + 1}, .* up to {FORMAT}\nUpgrade the harness"):
            read("t" * 16)
    assert all(path.is_file() for path in paths)


def test_forgetting_concerns_one_training(cache: Cache) -> None:
    """Deleting a training also deletes its answers. Other trainings stay, and an unknown training is not an error."""
    for id in ("a", "b"):
        cache.commit_training(replace(training(), id=id), save_adapter)
        cache.commit_answers(id, PASS)
    cache.forget("a")
    cache.forget("never there")
    assert (cache.training("a"), cache.answers("a")) == (None, ())
    assert cache.training("b") is not None
    assert cache.answers("b") == (PASS,)


# --- commits -----------------------------------------------------------------------------------------------------


class KilledCache(Cache):
    """A cache whose process is killed after a commit, before the entries are moved to their final places."""

    def finish(self) -> None:
        pass


def committed(cache: Cache, *ids: str) -> Path:
    """Commit a training and answers for each id as a KilledCache does; return the commit's folder."""
    with KilledCache(cache.root).together() as commit:
        for id in ids:
            commit.training(replace(training(), id=id), save_adapter)
            commit.answers(id, PASS)
    (folder,) = (path for path in (cache.root / "commits").iterdir() if path.name != ".lock")
    return folder


def has(cache: Cache, *ids: str) -> bool:
    """Check that all these trainings are complete in the cache; return whether every commit has been moved."""
    for id in ids:
        assert cache.training(id) == replace(training(), id=id)
        verify_manifest(cache.adapter(id))
        assert names(cache.adapter(id)) == [MANIFEST, "adapter_model.safetensors", "sub", "training.json"]
        assert cache.answers(id) == (PASS,)
    return names(cache.root / "commits") == [".lock"]


@pytest.mark.parametrize("moved", range(5))
def test_the_next_reader_finishes_a_commit(cache: Cache, moved: int) -> None:
    """If a process is killed while it moves the entries of a commit, the next reader moves the rest."""
    cache.commit_training(replace(training(Status.DIVERGED), id="b"), None)
    folder = committed(cache, "a", "b")
    members = sorted((*folder.glob("trainings/*"), *folder.glob("answers/*/*")))
    assert len(members) == 4
    for number, member in enumerate(members[: moved + 1]):
        final = cache.root / member.relative_to(folder)
        if member.is_dir() and final.is_dir():
            (final / "training.json").unlink()
            final.rmdir()
        if number < moved:
            final.parent.mkdir(parents=True, exist_ok=True)
            member.rename(final)
    assert has(Cache(cache.root), "b", "a")


@pytest.mark.parametrize("read", [Cache.training, Cache.answers])
def test_no_reader_sees_some_of_a_commit(cache: Cache, read: Callable[[Cache, str], object]) -> None:
    """If one entry of a commit is read, all its entries are moved to their final places."""
    folder = committed(cache, "a", "b")
    assert read(cache, "b")
    assert not folder.exists()
    assert names(cache.root / "trainings") == names(cache.root / "answers") == ["a", "b"]


def test_a_failed_commit_leaves_no_entries(cache: Cache) -> None:
    """A commit that fails leaves no files. Files of a commit that was killed count as used space, but are not read."""

    def failing() -> None:
        with cache.together() as commit:
            commit.training(training(), save_adapter)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert names(cache.root / "commits") == []
    folder = committed(cache, "a")
    folder.rename(folder.with_name(".partial-0123"))
    assert (cache.training("a"), cache.answers("a")) == (None, ())
    held = cache.held()[-1]
    assert (held.kind, held.entries, held.bytes > 256) == ("commits", 0, True)
    cache.clear()
    assert names(cache.root) == ["clearing.lock"]


def test_readers_finish_a_commit_at_the_same_time(cache: Cache) -> None:
    """If several readers move the entries of the same commit at the same time, all of them see all entries."""
    ids = [f"{number:02}" for number in range(20)]
    for _ in range(5):
        committed(cache, *ids)
        start, errors = threading.Barrier(4), list[BaseException]()

        def read() -> None:
            try:
                start.wait()  # noqa: B023 - the threads end in this turn of the loop
                assert [id for id in ids if cache.training(id) is None] == []
            except BaseException as error:  # noqa: BLE001 - a thread's errors would be lost
                errors.append(error)  # noqa: B023

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert has(cache, *ids)
        cache.clear()


def test_a_commit_is_finished_before_it_is_copied_or_forgotten(cache: Cache, tmp_path: Path) -> None:
    """Before a training is copied from another cache or deleted, entries of earlier commits are moved into place."""
    far = Cache(tmp_path / "far")
    far.commit_training(replace(training(), id="a", message="from elsewhere"), save_adapter)
    committed(cache, "a", "b")
    cache.adopt(far, "a", trained=True)
    assert has(cache, "a", "b")
    with KilledCache(far.root).together() as commit:
        commit.training(replace(training(Status.DIVERGED), id="c"), None)
    cache.adopt(far, "c", trained=True)
    assert cache.training("c") is not None
    committed(cache, "d")
    cache.forget("d")
    assert (cache.training("d"), cache.answers("d")) == (None, ())


# --- size and clearing -------------------------------------------------------------------------------------------


def test_the_size_of_the_cache(cache: Cache) -> None:
    """The cache reports how many entries and bytes it has of each kind. Clearing it deletes even temporary folders."""
    nothing = [("trainings", 0, 0), ("answers", 0, 0), ("bases", 0, 0), ("converted", 0, 0), ("commits", 0, 0)]
    assert [(held.kind, held.entries, held.bytes) for held in cache.held()] == nothing
    cache.commit_training(training(), save_adapter)
    cache.commit_answers("base", PASS)
    cache.commit_answers("base", replace(PASS, answers=()))
    base = SavedBase("base", "pocket", Quantization.NF4, "cpu", "float32")
    cache.commit_base(base, 10, lambda folder: write_text(folder / "weights", "weights"))
    made = ConvertedModel("made", "model.gguf", "0" * 64, "Q4_1, dequantised")
    cache.commit_converted(made, 10, lambda folder: write_text(folder / "weights", "weights"))
    (cache.root / "trainings" / ".partial-0123").mkdir()
    (cache.root / "trainings" / ".partial-0123" / "left").write_bytes(b"x" * 5000)
    sizes = {
        kind: sum(path.stat().st_size for path in (cache.root / kind).rglob("*") if path.is_file())
        for kind in ("trainings", "answers", "bases", "converted")
    }
    assert sizes["trainings"] > 5000
    *kinds, _ = ((held.kind, held.entries, held.bytes) for held in cache.held())
    assert kinds == [(kind, 1, size) for kind, size in sizes.items()]
    cache.clear()
    assert [(held.kind, held.entries, held.bytes) for held in cache.held()] == nothing
    assert names(cache.root) == ["clearing.lock"]


RECURSIVE = pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 follows deep folders without recursion")


@pytest.mark.parametrize(
    ("name", "depth"), [pytest.param("d", 1500, id="deep", marks=RECURSIVE), pytest.param("d" * 250, 20, id="long")]
)
def test_folders_that_python_cannot_follow(cache: Cache, name: str, depth: int) -> None:
    """If folders of the cache are nested too deeply, or their paths are too long, an error says how to delete them."""
    (cache.root / "trainings").mkdir(parents=True)
    with contextlib.chdir(cache.root / "trainings"):
        for _ in range(depth):
            Path(name).mkdir()
            os.chdir(name)
    try:
        with pytest.raises(StoreError, match=r"cannot read .*trainings: .*\nDelete it with `rm -r "):
            cache.held()
    finally:
        subprocess.run(["rm", "-r", str(cache.root / "trainings")], check=True)


def test_a_cache_that_a_run_uses_is_not_cleared(cache: Cache, tmp_path: Path) -> None:
    """While a run uses the cache, it cannot be cleared, wherever the run's directory is."""
    cache.commit_training(training(), save_adapter)
    with (
        cache.in_use(tmp_path / "far away" / "run"),
        pytest.raises(RunInUseError, match="a run is using") as held,
    ):
        cache.clear()
    assert "Wait until it has ended" in (held.value.remedy or "")
    assert cache.training(training().id) is not None
    cache.clear()
    assert cache.training(training().id) is None


def test_no_run_begins_while_the_cache_is_cleared(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that begins while the cache is being emptied is refused, because what it commits would vanish."""
    monkeypatch.setattr(harness.storage.cache, "_PATIENCE", 0.1)
    cache.commit_training(training(), save_adapter)
    refused: list[str] = []

    def begin_a_run(folder: Path, **options: bool) -> None:
        with pytest.raises(RunInUseError) as error, cache.in_use(tmp_path / "run"):
            pass
        refused.append(str(error.value))

    monkeypatch.setattr(shutil, "rmtree", begin_a_run)
    cache.clear()
    assert refused[0] == f"another process is emptying {cache.root}\nWait until it has finished."


def test_a_changed_answer_is_made_again(cache: Cache) -> None:
    """A stored answer that was changed afterwards is not used: its file is deleted, so that it is asked again."""
    cache.commit_answers("base", PASS)
    (file,) = (cache.root / "answers" / "base").glob("*.json")
    text = PASS.answers[0].text
    file.write_text(file.read_text(encoding="utf-8").replace(f'"{text}"', f'"{text}!"'), encoding="utf-8")
    assert cache.answers("base") == ()
    assert not file.exists()


# --- a full disk -------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_while_an_adapter_is_saved(small_disk: Path) -> None:
    """If the disk fills up while an adapter is saved, none of its files is left, and it can be saved again later."""
    cache = Cache(small_disk)

    def large(folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 2_000_000)

    with pytest.raises(StoreError, match=f"the disk is full: could not write {cache.adapter('t' * 16)}") as caught:
        cache.commit_training(training(), large)
    assert caught.value.remedy == FULL
    assert [*small_disk.rglob("*.safetensors"), *small_disk.glob("trainings/*")] == []
    cache.commit_training(training(), save_adapter)
    assert cache.training("t" * 16) == training()


def test_a_full_disk_reported_by_safetensors(tmp_path: Path) -> None:
    """If safetensors reports a full disk, a StoreError is raised. Other exceptions of safetensors pass unchanged."""

    def failing(words: str) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            raise SafetensorError(words)

        return save

    cache = Cache(tmp_path)
    with pytest.raises(StoreError, match="the disk is full"):
        cache.commit_training(training(), failing("Error while serializing: No space left on device (os error 28)"))
    with pytest.raises(SafetensorError, match="another"):
        cache.commit_training(training(), failing("another"))
