"""Tests that replies of judges are stored."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.judges import Reply
from harness.core.suite import JudgeRef
from harness.storage.verdicts import VerdictStore, copy_verdicts, source_of


def test_a_reply_is_stored_at_once(tmp_path: Path) -> None:
    """A reply that was added is known to every other process, even before the run is scored."""
    reply = Reply("k", "a\nb\u2028", 1, 2)
    VerdictStore("s", tmp_path / "cache", tmp_path / "run").add(reply)
    assert VerdictStore("s", tmp_path / "cache", None).known() == {"k": reply}
    assert VerdictStore("other", tmp_path / "cache", None).known() == {}


def test_a_run_keeps_what_it_uses(tmp_path: Path) -> None:
    """The directory of a run has the replies that it uses, so that it can be scored without the cache."""
    store = VerdictStore("s", tmp_path / "cache", tmp_path / "run")
    store.add(Reply("a", "1"))
    store.add(Reply("b", "2"))
    store.keep([Reply("a", "1")])
    assert VerdictStore("s", None, tmp_path / "run").known() == {"a": Reply("a", "1")}


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    """If a process was killed while it wrote a reply, only this reply is lost."""
    store = VerdictStore("s", tmp_path, None)
    store.add(Reply("a", "1"))
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_text(path.read_text() + '{"key": "b", "te')
    assert store.known() == {"a": Reply("a", "1")}


def test_verdicts_are_copied_between_caches(tmp_path: Path) -> None:
    """Replies are copied to another cache once, and again if there are more of them; damaged files are not."""
    here, there = tmp_path / "here", tmp_path / "there"
    store, key = VerdictStore("s", here, None), ("s",)
    store.add(Reply("a", "1"))
    copy_verdicts(here, there, key)
    store.add(Reply("b", "2"))
    copy_verdicts(here, there, key)
    (there / "verdicts" / "s" / "damaged.jsonl").write_bytes(b"\xff" * 1000)
    os.mkfifo(there / "verdicts" / "s" / "pipe.jsonl")
    VerdictStore("other", there, None).add(Reply("c", "3"))
    copy_verdicts(there, tmp_path / "third", key)
    assert VerdictStore("s", tmp_path / "third", None).known() == {"a": Reply("a", "1"), "b": Reply("b", "2")}
    assert VerdictStore("other", tmp_path / "third", None).known() == {}


def test_every_judge_has_its_own_replies() -> None:
    """Model, address and the digest of a local model's files decide which replies are used."""
    judges = [JudgeRef("m"), JudgeRef("m", digest="d"), JudgeRef("m", "https://h/v1"), JudgeRef("n"), "m"]
    assert len({source_of(judge) for judge in judges}) == 5
    assert source_of(JudgeRef("m", repeats=9, decides=True)) == source_of(JudgeRef("m"))
