"""Files are written completely or not at all, read back unchanged, and reported when they are damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

import harness
from harness.core.answers import Answer, Likelihood
from harness.core.errors import NewerFormatError, RunInUseError, StoreError
from harness.core.formats import FORMAT
from harness.core.job import Job, Prompt, Task
from harness.core.measurement import Phase
from harness.core.model import SavedBase
from harness.core.run import TrialRecord
from harness.core.settings import Quantization
from harness.core.suite import Decoding, Message, Split
from harness.core.training import Status, Training
from harness.storage.cache import AnswerPass, Cache
from harness.storage.files import write_text, writing
from harness.storage.manifest import MANIFEST, verify_manifest, write_manifest
from harness.storage.records import read_record, write_record
from harness.storage.runs import RunStore, claim_run, find_run, open_run
from tests.support.synthetic_runs import (
    HOSTILE,
    case,
    cost,
    machine,
    manifest,
    record,
    results,
    suite,
    training,
    variants,
)

HARD = (*HOSTILE, "a line\u2028a paragraph\u2029a next line\x85a return\r\nand \\ \" ' \x7f\ufeff\uffff", "")
(VARIANT,) = variants(1)
LIKELY = (Likelihood(-1.5, 3), Likelihood(-0.1, 1))
PASS = AnswerPass((Answer("key", "text", 3, False, LIKELY[0], None, LIKELY),), (cost(Phase.ANSWER_AFTER, 2.0),))
REDO = "Restore the file, or delete it and run `harness run` again: it redoes only what is missing."


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- one file ----------------------------------------------------------------------------------------------------


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """A shorter text replaces a longer one completely, and no other file is left."""
    path = tmp_path / "deep" / "file"
    write_text(path, "a long text\n")
    write_text(path, "short\n")
    assert path.read_bytes() == b"short\n"
    assert names(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that fails while it serialises or writes leaves the old file, and no other."""
    path = tmp_path / "file"
    write_text(path, "old\n")
    with pytest.raises(Exception, match="serialize"):
        write_record(path, replace(PASS, answers=(object(),)))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_text(path, b"bytes")  # type: ignore[arg-type]
    assert (path.read_text(encoding="utf-8"), names(tmp_path)) == ("old\n", ["file"])


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    """While one thread writes, another thread reads only complete texts."""
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
    """Whatever the system's error is, the message names the path and a remedy, and no option of a command."""
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=f"cannot write {tmp_path / place}: ") as caught:
        write_text(tmp_path / place, "text")
    assert UNWRITABLE[place] in caught.value.remedy
    assert "--output" not in caught.value.remedy
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to the current folder is an error, and leaves no file in it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"cannot write \.: Is a directory"):
        write_text(Path(), "text")
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_library_is_not_an_error_of_the_place() -> None:
    """An OSError without an error number, which a library raised, is passed on unchanged."""
    with pytest.raises(OSError, match="Can't load the tokenizer"), writing(Path("place")):
        raise OSError("Can't load the tokenizer")


# --- round trips -------------------------------------------------------------------------------------------------


def readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hostile_text_comes_back(tmp_path: Path, text: str) -> None:
    """Ids, messages and answers are read back unchanged, except that an unpaired surrogate becomes a question mark."""
    path = tmp_path / "record.json"
    made = record(VARIANT, {text: text}, message=text, trained=replace(training(), message=text))
    write_record(path, made)
    found = read_record(path, TrialRecord)
    clean = readable(text)
    assert found.answers == {clean: (Answer(readable(f"key-{text}"), clean, len(text) // 4, False),)}
    assert (found.message, found.training) == (clean, replace(training(), message=clean))
    assert replace(found, answers={}, message="", training=None) == replace(made, answers={}, message="", training=None)


@pytest.mark.parametrize("status", Status)
def test_a_training_comes_back(tmp_path: Path, status: Status) -> None:
    """A training of every status is read back with all its steps, to the last digit."""
    made = replace(training(status), message=status.value)
    write_record(tmp_path / "training.json", made)
    assert read_record(tmp_path / "training.json", Training) == made


def test_figures_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    """NaN, infinity and a missing figure, which a diverging training may leave, stay distinct."""
    steps = [replace(training().steps[0], loss=loss, grad_norm=None) for loss in (float("inf"), float("nan"), None)]
    write_record(tmp_path / "training.json", replace(training(), steps=tuple(steps)))
    found = [step.loss for step in read_record(tmp_path / "training.json", Training).steps]
    assert str(found) == "[inf, nan, None]"


def test_a_job_comes_back(tmp_path: Path) -> None:
    """A worker reads the job that the sweep wrote, including the base's task, which has no settings."""
    prompts = (Prompt("key", (Message("user", "Grüße"),), "Tag", ("Tag", "Nacht")),)
    tasks = (
        Task("base", "b", None, 0, False, prompts),
        Task("t", "t", replace(VARIANT.settings, target_modules=("q_proj",)), 3, True, ()),
    )
    run = manifest(suite([case("c")]), [VARIANT], on=machine("cuda"))
    made = Job(
        run.model, run.provenance.machine, Quantization.NF4, "reference", str(tmp_path), run.suite.examples,
        Decoding(7, ("\n", "</s>"), 0.7), tasks,
    )  # fmt: skip
    path, log = RunStore(tmp_path).new_worker(made)
    assert read_record(path, Job) == made
    assert (path.name, log.name) == ("001.json", "001.log")
    assert RunStore(tmp_path).new_worker(made)[1].name == "002.log"


def test_results_come_back(tmp_path: Path) -> None:
    """The results of a run stay the same when they are read, written and read again."""
    made, store = results(), RunStore(tmp_path)
    store.write_results(made, [{"answer": text} for text in HARD], "<html>")
    once = store.results()
    assert (len(once.samples), once.choice, once.base.rates) == (len(made.samples), made.choice, made.base.rates)
    store.write_results(once, (), "<html>")
    assert store.results() == once


def test_samples_are_lines(tmp_path: Path) -> None:
    """Each sample is one line of UTF-8, whatever its answer contains."""
    RunStore(tmp_path).write_results(results(2, 3), ({"answer": text} for text in HARD), "")
    with (tmp_path / "samples.jsonl").open(encoding="utf-8") as lines:
        assert [json.loads(line)["answer"] for line in lines] == [readable(text) for text in HARD]


# --- broken files ------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a newer format is not taken for damaged: the remedy is to upgrade, and the cache keeps the file."""
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


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Expecting value"),
        (b'{"format": 1, "trial": "a", "vari', "Unterminated string"),
        (b"<html>", "Expecting value"),
        (b"\xff\xfe{}", "codec can't decode"),
        (b"[" * 100_000, "recursion depth"),
        (b"1" * 10_000, "integer string"),
        (b"[]", "does not hold a JSON object"),
        (b"{}", "has no format version"),
        (b'{"format": "new"}', "has no format version"),
        (b'{"format": 1}', "trial: Field required"),
        (b'{"format": 1, "trial": 5}', "trial: Input should be a valid string"),
    ],
)
def test_a_damaged_file_is_one_error(tmp_path: Path, content: bytes, what: str) -> None:
    """Whatever a damaged file contains, the error names the file, what is wrong and what to do."""
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=what) as caught:
        read_record(path, TrialRecord)
    assert type(caught.value) is StoreError
    assert caught.value.message.startswith(f"{path} is damaged: ")
    assert caught.value.remedy == REDO


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    """A truncated record is reported as damaged, wherever it is cut."""
    path = tmp_path / "record.json"
    write_record(path, record(VARIANT, {"c": "answer"}))
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(StoreError, match="is damaged"):
            read_record(path, TrialRecord)


@pytest.mark.parametrize("place", ["none.json", "none/record.json", "file/record.json"])
def test_a_file_that_is_not_there(tmp_path: Path, place: str) -> None:
    """The error for a missing file names the file and a remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=str(tmp_path)) as caught:
        read_record(tmp_path / place, TrialRecord)
    assert caught.value.remedy


# --- folders with a manifest -------------------------------------------------------------------------------------


def saved(folder: Path) -> None:
    """Save files as an engine might."""
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (folder / "sub").mkdir()
    (folder / "sub" / "a name with  blanks").write_text("{}", encoding="utf-8")


def test_sha256sum_can_check_a_manifest(tmp_path: Path) -> None:
    """`sha256sum --check` reads a manifest, including its subfolders and names with spaces."""
    saved(tmp_path)
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
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_bytes(b""),
        lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / MANIFEST).write_bytes(b"nonsense\n"),
    ],
    ids=["changed", "missing", "no manifest", "empty manifest", "binary manifest", "nonsense manifest"],
)
def test_a_folder_that_is_not_what_was_saved(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """A changed or missing file, or a missing or damaged manifest, is an error that names the folder."""
    saved(tmp_path)
    write_manifest(tmp_path)
    damage(tmp_path)
    with pytest.raises(StoreError, match=str(tmp_path)) as caught:
        verify_manifest(tmp_path)
    assert caught.value.remedy == "Delete the folder, then run `harness run` again: it makes a new one."


# --- cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_cache_returns_what_was_stored(cache: Cache) -> None:
    """The cache returns a training with its adapter, and every pass of answers, oldest first."""
    more = replace(PASS, answers=(Answer("other", "\ud800", 1, True),))
    assert (cache.training("t" * 16), cache.answers("t" * 16)) == (None, ())
    cache.commit_training(training(), saved)
    cache.commit_answers("t" * 16, PASS)
    cache.commit_answers("t" * 16, more)
    assert cache.training("t" * 16) == training()
    verify_manifest(cache.adapter("t" * 16))
    assert cache.answers("t" * 16) == (PASS, replace(more, answers=(Answer("other", "?", 1, True),)))


def test_leftovers_are_no_training(cache: Cache) -> None:
    """A partial folder and a folder without training.json are ignored, and a new commit replaces them."""
    leftover = cache.root / "trainings" / ".partial-0123"
    leftover.mkdir(parents=True)
    cache.adapter("id").mkdir()
    (cache.adapter("id") / "stale").touch()
    assert cache.training("id") is None
    cache.commit_training(replace(training(), id="id"), saved)
    assert cache.training("id") is not None
    assert "stale" not in names(cache.adapter("id"))
    assert cache.held()[0].entries == 1


def test_two_commits_of_one_training(cache: Cache) -> None:
    """Runs that commit the same training at the same time all succeed, and leave one complete training."""
    errors: list[BaseException] = []

    def commit() -> None:
        try:
            for _ in range(30):
                cache.commit_training(training(), saved)
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
    """A damaged pass is deleted; the other passes stay, and the next pass does not overwrite them."""
    passes = [replace(PASS, answers=(Answer(f"key {n}", "", 0, False),)) for n in range(3)]
    for made in passes[:2]:
        cache.commit_answers("id", made)
    first, _ = sorted((cache.root / "answers" / "id").iterdir())
    first.write_text("{", encoding="utf-8")
    assert cache.answers("id") == (passes[1],)
    assert not first.exists()
    cache.commit_answers("id", passes[2])
    assert cache.answers("id") == (passes[1], passes[2])


def test_a_damaged_training_is_forgotten(cache: Cache) -> None:
    """A damaged training is deleted with its answers, since its adapter will be trained again."""
    cache.commit_training(training(), saved)
    cache.commit_answers("t" * 16, PASS)
    (cache.adapter("t" * 16) / "training.json").write_text("{", encoding="utf-8")
    assert cache.training("t" * 16) is None
    assert cache.answers("t" * 16) == ()
    assert not cache.adapter("t" * 16).exists()


def test_forgetting_concerns_one_training(cache: Cache) -> None:
    """Forgetting a training deletes its answers and no other training; an unknown training is not an error."""
    for id in ("a", "b"):
        cache.commit_training(replace(training(), id=id), saved)
        cache.commit_answers(id, PASS)
    cache.forget("a")
    cache.forget("never there")
    assert (cache.training("a"), cache.answers("a")) == (None, ())
    assert cache.training("b") is not None
    assert cache.answers("b") == (PASS,)


# --- commits -----------------------------------------------------------------------------------------------------


class Halted(Cache):
    """A cache of a process that is killed right after committing, before it moves the entries."""

    def finish(self) -> None:
        pass


def committed(cache: Cache, *ids: str) -> Path:
    """Commit a training and a pass of answers for each id without moving them; return the commit's folder."""
    with Halted(cache.root).together() as commit:
        for id in ids:
            commit.training(replace(training(), id=id), saved)
            commit.answers(id, PASS)
    (folder,) = (path for path in (cache.root / "commits").iterdir() if path.name != ".lock")
    return folder


def has(cache: Cache, *ids: str) -> bool:
    """Check that every training is complete in the cache; return whether nothing of the commits is left."""
    for id in ids:
        assert cache.training(id) == replace(training(), id=id)
        verify_manifest(cache.adapter(id))
        assert names(cache.adapter(id)) == [MANIFEST, "adapter_model.safetensors", "sub", "training.json"]
        assert cache.answers(id) == (PASS,)
    return names(cache.root / "commits") == [".lock"]


@pytest.mark.parametrize("moved", range(5))
def test_the_next_reader_finishes_a_commit(cache: Cache, moved: int) -> None:
    """A commit is complete even if the process was killed before, between or after moving its entries."""
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
    """The first reader of one entry of a commit moves all entries to their final places."""
    folder = committed(cache, "a", "b")
    assert read(cache, "b")
    assert not folder.exists()
    assert names(cache.root / "trainings") == names(cache.root / "answers") == ["a", "b"]


def test_a_failed_commit_leaves_no_entries(cache: Cache) -> None:
    """A failed commit leaves nothing; an interrupted one is not read but counted until the cache is cleared."""

    def failing() -> None:
        with cache.together() as commit:
            commit.training(training(), saved)
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
    assert names(cache.root) == []


def test_readers_finish_a_commit_at_the_same_time(cache: Cache) -> None:
    """Readers that finish the same commit at the same time all succeed and see all entries."""
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
    """A pending commit is finished before a training is copied from another cache or deleted."""
    far = Cache(tmp_path / "far")
    far.commit_training(replace(training(), id="a", message="from elsewhere"), saved)
    committed(cache, "a", "b")
    cache.adopt(far, "a", trained=True)
    assert has(cache, "a", "b")
    with Halted(far.root).together() as commit:
        commit.training(replace(training(Status.DIVERGED), id="c"), None)
    cache.adopt(far, "c", trained=True)
    assert cache.training("c") is not None
    committed(cache, "d")
    cache.forget("d")
    assert (cache.training("d"), cache.answers("d")) == (None, ())


def test_the_size_of_the_cache(cache: Cache) -> None:
    """The cache counts entries and bytes of every kind, and clearing it deletes everything, including leftovers."""
    nothing = [("trainings", 0, 0), ("answers", 0, 0), ("bases", 0, 0), ("commits", 0, 0)]
    assert [(held.kind, held.entries, held.bytes) for held in cache.held()] == nothing
    cache.commit_training(training(), saved)
    cache.commit_answers("base", PASS)
    cache.commit_answers("base", replace(PASS, answers=()))
    base = SavedBase("base", "pocket", Quantization.NF4, "cpu", "float32")
    cache.commit_base(base, 10, lambda folder: write_text(folder / "weights", "weights"))
    (cache.root / "trainings" / ".partial-0123").mkdir()
    (cache.root / "trainings" / ".partial-0123" / "left").write_bytes(b"x" * 5000)
    sizes = {
        kind: sum(path.stat().st_size for path in (cache.root / kind).rglob("*") if path.is_file())
        for kind in ("trainings", "answers", "bases")
    }
    assert sizes["trainings"] > 5000
    *kinds, _ = ((held.kind, held.entries, held.bytes) for held in cache.held())
    assert kinds == [(kind, 1, size) for kind, size in sizes.items()]
    cache.clear()
    assert [(held.kind, held.entries, held.bytes) for held in cache.held()] == nothing
    assert names(cache.root) == []


def test_a_cache_that_a_run_uses_is_not_cleared(cache: Cache, tmp_path: Path) -> None:
    """The cache cannot be cleared while a run uses it, wherever the run's directory is."""
    cache.commit_training(training(), saved)
    with (
        cache.in_use(tmp_path / "far away" / "run"),
        pytest.raises(RunInUseError, match="a run is using") as held,
    ):
        cache.clear()
    assert "Wait until it has ended" in (held.value.remedy or "")
    assert cache.training(training().id) is not None
    cache.clear()
    assert cache.training(training().id) is None


# --- runs --------------------------------------------------------------------------------------------------------

HOLDER = """\
import sys
from pathlib import Path
from harness.storage.runs import RunStore
with RunStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has locked the run `tmp_path / "run"`."""
    environment = os.environ | {"PYTHONPATH": str(Path(harness.__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A second process cannot lock a run directory; the error names the directory and a remedy."""
    with (
        pytest.raises(RunInUseError, match=f"another process is working in {tmp_path / 'run'}\nWait"),
        RunStore(tmp_path / "run").locked(),
    ):
        raise AssertionError("two processes have locked it")


def test_a_killed_holder_holds_no_longer(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """The lock ends when its process is killed, even with kill -9, and can then be taken repeatedly."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with RunStore(tmp_path / "run").locked():
            pass


def begun(folder: Path, digest: str) -> RunStore:
    store = RunStore(folder)
    store.write_manifest(replace(manifest(suite([case("c")]), [VARIANT]), digest=digest))
    return store


def test_a_run_is_resumed_where_it_was_begun(tmp_path: Path) -> None:
    """A run with the same inputs is found again; other inputs get the first free number."""
    assert open_run(tmp_path, "name", "one").root.name == "name"
    for digest, folder in [("one", "name"), ("two", "name-2"), ("three", "name-3")]:
        assert begun(open_run(tmp_path, "name", digest).root, digest).root.name == folder
    for digest, folder in [("one", "name"), ("two", "name-2"), ("three", "name-3"), ("four", "name-4")]:
        assert open_run(tmp_path, "name", digest).root.name == folder


def test_a_run_of_another_format_keeps_its_place(tmp_path: Path) -> None:
    """The digest of a run is read even from a manifest of a newer format."""
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "run.json").write_text('{"format": 99, "digest": "new"}', encoding="utf-8")
    assert open_run(tmp_path, "name", "new").root.name == "name"
    assert open_run(tmp_path, "name", "mine").root.name == "name-2"


def test_claiming_a_directory(tmp_path: Path) -> None:
    """A directory can be claimed if it is new, empty, left by a run killed at its start, or of the same run."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed" / "workers").mkdir(parents=True)
    for name in (".lock", ".partial-0123"):
        (tmp_path / "killed" / name).touch()
    begun(tmp_path / "mine", "digest")
    for name in ("new", "deep/new", "empty", "killed", "mine"):
        assert claim_run(tmp_path / name, "digest") == RunStore(tmp_path / name)


def test_other_directories_are_not_claimed(tmp_path: Path) -> None:
    """A file, a folder with other files and another run are refused, each with its own message, and not changed."""
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    begun(tmp_path / "other", "other")
    for name, words in [
        ("file", "is a file"),
        ("thesis", "is not empty and holds no run"),
        ("other", "holds another run"),
    ]:
        with pytest.raises(StoreError, match=f"{tmp_path / name} {words}\n.*--output"):
            claim_run(tmp_path / name, "digest")
    assert names(tmp_path / "thesis") == ["chapter"]


def test_finding_a_run(tmp_path: Path) -> None:
    """A run is found by its directory, its report or its results; otherwise the error lists the existing runs."""
    with chdir(tmp_path):
        with pytest.raises(StoreError, match="there is no run in elsewhere\nCreate one with `harness run SUITE`"):
            find_run(Path("elsewhere"))
        for name in ("b", "a"):
            begun(Path("reports/runs") / name, name)
        for path in ("reports/runs/a", "reports/runs/a/report.html", "reports/runs/a/results.json"):
            assert find_run(Path(path)).manifest().digest == "a"
        with pytest.raises(StoreError, match="Runs here: reports/runs/a, reports/runs/b"):
            find_run(Path("elsewhere"))


def test_records_of_a_run(tmp_path: Path) -> None:
    """Main and confirmation records are stored separately, and records that are not kept are deleted."""
    store = RunStore(tmp_path)
    made = [record(VARIANT, {"c": "x"}, split=split, seed=seed) for split in Split for seed in (0, 1)]
    for each in made:
        assert store.record(each.split, each.trial) is None
        store.write_trial(each)
    assert store.records() == (made[2], made[3], made[0], made[1])
    store.forget_records([(Split.MAIN, made[0].trial), (Split.CONFIRM, made[3].trial)])
    assert store.records() == (made[3], made[0])
    (tmp_path / "trials" / made[0].trial / "record.json").unlink()  # killed before its last write
    assert store.record(Split.MAIN, made[0].trial) is None


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


FULL = "Free some space (`harness clean` shows what the cache holds), then run the same command again."


def test_a_full_disk_is_one_error(small_disk: Path) -> None:
    """On a full disk, the error names the file and a remedy; the old file stays, and no partial one."""
    path = small_disk / "file"
    write_text(path, "old")
    with pytest.raises(StoreError, match=f"the disk is full: could not write {path}") as caught:
        write_text(path, "x" * 2_000_000)
    assert caught.value.remedy == FULL
    assert (path.read_text(encoding="utf-8"), names(small_disk)) == ("old", ["file"])


def test_a_disk_that_fills_while_an_adapter_is_saved(small_disk: Path) -> None:
    """A disk that fills up is the same error; nothing of the adapter stays, and it can be committed later."""
    cache = Cache(small_disk)

    def large(folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 2_000_000)

    with pytest.raises(StoreError, match=f"the disk is full: could not write {cache.adapter('t' * 16)}") as caught:
        cache.commit_training(training(), large)
    assert caught.value.remedy == FULL
    assert [*small_disk.rglob("*.safetensors"), *small_disk.glob("trainings/*")] == []
    cache.commit_training(training(), saved)
    assert cache.training("t" * 16) == training()


def test_a_full_disk_reported_by_safetensors(tmp_path: Path) -> None:
    """The exception of safetensors for a full disk becomes the same error; its other exceptions pass unchanged."""

    def failing(words: str) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            raise SafetensorError(words)

        return save

    cache = Cache(tmp_path)
    with pytest.raises(StoreError, match="the disk is full"):
        cache.commit_training(training(), failing("Error while serializing: No space left on device (os error 28)"))
    with pytest.raises(SafetensorError, match="another"):
        cache.commit_training(training(), failing("another"))
