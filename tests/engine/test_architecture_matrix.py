"""Tiny models of the architectures in docs/models.md are trained, answer, are merged and reloaded, or are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.core.training_outcome import Status
from harness.engine.worker import work
from harness.storage.cache import Cache
from tests.studies.merges import loaded, merged
from tests.support.architectures import FAMILIES, made
from tests.support.short_trainings import SHORT, SUITE, ask, one_core, prompts

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TEXTS = ("What is 3 plus 4?", "Say hello.")
DECODING = Decoding(24)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Row:
    """A row of the table in docs/models.md: what happens with `target_modules: all-linear`."""

    attention: str = "SDPA"
    refused: str = ""
    """Part of the message with which the worker refuses the training; empty if it trains."""
    not_merged: str = ""
    """Part of the message with which the merge is refused; empty if the trained model can be merged."""

    @property
    def words(self) -> str:
        if self.refused:
            return "refused, because PEFT would adapt the experts; trained and merged with named modules"
        return "trained; exported as an adapter only" if self.not_merged else "trained and merged"


ROWS = {
    name: {
        "Gemma 2": Row("eager"),
        "GPT-2": Row(not_merged="Conv1D"),
        "Mixtral": Row(refused="would train the model's experts"),
        "gpt-oss": Row("eager"),
    }.get(name, Row())
    for name in FAMILIES
}


def trained(ref: ModelRef, folder: Path, targets: str | tuple[str, ...]) -> tuple[Cache, list[Event]]:
    """Let a worker train two trials in one fused pass and answer with them. Return its cache and its events."""
    settings = replace(SHORT, target_modules=targets)
    tasks = tuple(Task(name, name, settings, seed, True, prompts(*TEXTS)) for seed, name in enumerate("ab"))
    job = Job(
        model=ref, machine=one_core(), quantization=Quantization.NF4, engine=Engine.FUSED, cache=str(folder / "cache"),
        examples=SUITE.examples[:4], decoding=DECODING, tasks=tasks,
    )  # fmt: skip
    events: list[Event] = []
    work(job, events.append)
    return Cache(folder / "cache"), events


def check_trained(cache: Cache, attention: str) -> None:
    for name in "ab":
        found = cache.training(name)
        assert found is not None
        assert found.status is Status.SUCCEEDED
        first, last = found.steps[0].loss, found.steps[-1].loss
        assert first is not None
        assert last is not None
        assert last < first
        assert found.fingerprint is not None
        assert (found.fingerprint.attention or "SDPA") == attention


def check_merged(cache: Cache, ref: ModelRef, folder: Path) -> None:
    """Merge the first trial's adapter, and check that the reloaded model gives the answers that the worker stored."""
    model = loaded(merged(ref, cache.adapter("a"), folder / "merged", "float32"), Quantization.NONE)
    (given,) = cache.answers("a")
    assert [plain(each) for each in ask(model, None, TEXTS, DECODING)] == [plain(each) for each in given.answers]


def plain(answer: Answer) -> tuple[str, int, bool]:
    return answer.text, answer.tokens, answer.truncated


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_an_architecture_is_used_as_the_table_says(name: str, tmp_path: Path) -> None:
    """A model of each architecture trains in NF4, answers, and answers the same when merged, unless it is refused.

    Without SDPA in transformers, attention is eager, and the fingerprint of the training says so.
    """
    row, ref = ROWS[name], made(name, tmp_path / "base")
    cache, events = trained(ref, tmp_path, "all-linear")
    refusals = [event.message for event in events if event.kind is EventKind.REFUSED]
    if row.refused:
        assert [row.refused in refusal for refusal in refusals] == [True]
        assert cache.training("a") is None
        cache, events = trained(ref, tmp_path, ATTENTION)
        assert f"target_modules: [{', '.join(sorted(ATTENTION))}]" in refusals[0]
    check_trained(cache, row.attention)
    if row.not_merged:
        with pytest.raises(EngineError, match=row.not_merged):
            check_merged(cache, ref, tmp_path)
    else:
        check_merged(cache, ref, tmp_path)


def test_the_table_of_architectures_is_current() -> None:
    """The table of architectures in docs/models.md has a row for each architecture that is tested."""
    found = re.findall(r"^\| (.+?) \| (SDPA|eager) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == [(name, row.attention, row.words) for name, row in ROWS.items()]
