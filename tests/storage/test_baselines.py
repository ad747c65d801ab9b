"""Tests of baseline files: they are read back unchanged, have one line per answer, and reveal edits by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import NewerFormatError, StoreError
from harness.core.formats import FORMAT
from harness.core.regression import Baseline, StoredAnswer
from harness.storage.baselines import read_baseline, write_baseline
from tests.support.stored_files import HARD, readable

COMMITTED = Path(__file__).parents[2] / "reports" / "baselines" / "workshop.json"
REMEDY = "Restore it (for example, from git), or create it again with `harness bless`."


def with_answer(text: str) -> Baseline:
    """Return the committed baseline with `text` as the base model's answer to the first case."""
    baseline = read_baseline(COMMITTED)
    first = next(iter(baseline.base.answers))
    changed = StoredAnswer(text, (0,), 3, passed=False, value=0.0)
    return replace(baseline, base=replace(baseline.base, answers=baseline.base.answers | {first: (changed,)}))


def test_a_baseline_comes_back(tmp_path: Path) -> None:
    """If the committed baseline is read, written and read again, only its digest may change."""
    path, baseline = tmp_path / "again.json", read_baseline(COMMITTED)
    write_baseline(path, baseline)
    assert replace(read_baseline(path), digest=baseline.digest) == baseline


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hostile_answers_come_back(tmp_path: Path, text: str) -> None:
    """Any answer in a baseline is read back unchanged, except that an unpaired surrogate becomes a question mark."""
    path = tmp_path / "baseline.json"
    write_baseline(path, with_answer(text))
    assert replace(read_baseline(path), digest="") == replace(with_answer(readable(text)), digest="")


def test_one_changed_answer_changes_one_line(tmp_path: Path) -> None:
    """If one answer of a baseline changes, only the line of this answer and the line of the digest change."""
    texts = []
    for answer in ("an answer", "a reply"):
        write_baseline(tmp_path / "baseline.json", with_answer(answer))
        texts.append((tmp_path / "baseline.json").read_text(encoding="utf-8").splitlines())
    assert len(texts[0]) == len(texts[1])
    changed = [line for line, other in zip(*texts, strict=True) if line != other]
    assert ["an answer" in changed[0], '"digest"' in changed[-1], len(changed)] == [True, True, 2]


def test_default_values_are_left_out_except_in_settings() -> None:
    """Fields with their default value are left out of a baseline file, except in settings, which are complete."""
    data: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert "critical" not in data["suite"]["cases"][0]
    assert {"weight_decay", "packing"} <= data["variants"][0]["settings"].keys()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "another"}, StoreError, "does not match its digest, so it was edited"),
        ({"digest": ""}, StoreError, "does not match its digest, so it was edited"),
        ({"format": FORMAT + 1}, NewerFormatError, f"has format {FORMAT + 1}"),
        ({"format": None}, StoreError, "edited"),
    ],
    ids=["edited", "without digest", "newer", "without format"],
)
def test_an_edited_baseline_is_refused(
    tmp_path: Path, change: dict[str, object], error: type[StoreError], message: str
) -> None:
    """A baseline that was edited by hand, or that has a newer format, is refused with an error that says which."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(json.loads(COMMITTED.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(StoreError, match=message) as caught:
        read_baseline(path)
    assert type(caught.value) is error
    assert (caught.value.remedy == REMEDY) is (error is StoreError)


def test_the_layout_of_a_baseline_does_not_matter(tmp_path: Path) -> None:
    """If only the layout of a baseline's JSON changes, the baseline is read as before."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(json.loads(COMMITTED.read_text(encoding="utf-8")), indent=4), encoding="utf-8")
    assert read_baseline(path) == read_baseline(COMMITTED)


def test_baselines_in_a_linked_folder(tmp_path: Path) -> None:
    """If the folder of the baselines is a link, nothing is written through it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "baselines").symlink_to("elsewhere")
    with pytest.raises(StoreError, match="baselines is a link to another folder"):
        write_baseline(tmp_path / "baselines" / "good.json", read_baseline(COMMITTED))
    assert not list((tmp_path / "elsewhere").iterdir())
