"""Tests that a judge is asked about the answers of a run, once each, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.core import programs
from harness.core.answers import Answer
from harness.core.errors import UsageError
from harness.core.job import Event
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.suite import Assertion, Case, JudgeRef, Message, Split, Suite
from harness.core.training_outcome import Status
from harness.runner.judges.asking import Asking
from harness.runner.judges.endpoint import Unanswered
from harness.scoring import score
from tests.support.judge_server import JudgeServer, follow_the_frame, serving

CASES = tuple(
    Case(f"c{n}", (Message("user", f"Say {n}"),), (Assertion("llm-rubric", f'says "{n}"'),)) for n in range(10)
)


def suite(url: str = "", *, repeats: int = 1, decides: bool = True) -> Suite:
    return Suite("s", "", "", CASES, (), judge=JudgeRef("tester", url, repeats, decides))


def record(seed: int, words: str = "I say {}.") -> TrialRecord:
    answers = {case.id: (Answer(case.id, words.format(case.id[1:]), 3, False),) for case in CASES}
    return TrialRecord("t", BASE, seed, None, Split.MAIN, Status.SUCCEEDED, "", None, (), answers)


def nobody(_questions: object, _store: object) -> Iterator[Unanswered]:
    raise AssertionError


def asking(of: Suite, folder: Path, said: list[str] | None = None) -> Asking:
    def on_event(event: Event) -> None:
        if said is not None:
            said.append(event.message)

    return Asking(of, False, folder / "cache", folder / "run", nobody, on_event)


def test_equal_answers_are_judged_once(tmp_path: Path) -> None:
    """Equal answers under several seeds are one question, and a second session asks nothing."""
    with serving() as server:
        first = asking(suite(server.url), tmp_path)
        first.about([record(0), record(1), record(2, "I say {}, too.")])
        assert (len(server.bodies), first.asked) == (20, 20)
        again = asking(suite(server.url), tmp_path)
        again.about([record(0), record(1)])
        assert (len(server.bodies), again.asked) == (20, 0)
    assert score(CASES[3], "I say 3.", again.scoring).passed
    assert not score(CASES[3], "I say 3, too.", first.scoring).error


def test_the_directory_of_a_run_is_enough(tmp_path: Path) -> None:
    """A copy of a run's directory has all verdicts that the run uses, without the cache."""
    with serving() as server:
        of = suite(server.url)
        asking(of, tmp_path).about([record(0)])
        copy = Asking(of, False, tmp_path / "empty", tmp_path / "run", nobody, lambda _: None)
        copy.about([record(0)])
        assert len(server.bodies) == 10
    assert score(CASES[0], "I say 0.", copy.scoring).passed


def test_a_sample_is_asked_again(tmp_path: Path) -> None:
    """With `repeats: 3`, every answer of a sample is asked two more times, also only once in all."""
    with serving() as server:
        asking(suite(server.url, repeats=3), tmp_path).about([record(0)])
        asking(suite(server.url, repeats=3), tmp_path).about([record(0)])
    assert set(server.asked.values()) == {3}


def test_a_judge_is_tried_once(tmp_path: Path) -> None:
    """`try_out` asks one question of the suite, which counts as asked, and no other question."""
    said: list[str] = []
    with serving() as server:
        first = asking(suite(server.url), tmp_path, said)
        first.try_out()
        first.try_out()
        assert (len(server.bodies), first.asked, first.opinions.questions) == (1, 1, {})
    assert "replied to a first question" in said[0]
    assert len(said) == 1


def test_a_judge_that_gives_no_verdict_is_a_mistake(tmp_path: Path) -> None:
    """If the reply to the first question is no verdict, `try_out` raises an error before anything is trained."""
    with serving(JudgeServer(lambda _, __: "As a poet, I cannot.")) as server:
        tried = asking(suite(server.url), tmp_path)
        with pytest.raises(UsageError, match="nothing was trained: the judge replied with no verdict") as refused:
            tried.try_out()
    assert refused.value.remedy.startswith("Name another judge with --judge. Or leave out --judge")


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "Set HARNESS_JUDGE_KEY"), (404, "the name of the model"), (422, "")]
)
def test_a_judge_that_cannot_be_used_is_a_mistake(tmp_path: Path, status: int, remedy: str) -> None:
    """If the judge refuses the first question, `try_out` raises an error with the status and a remedy."""
    with serving(JudgeServer(refuse=lambda _: status)) as server:
        tried = asking(suite(server.url), tmp_path)
        with pytest.raises(UsageError, match=str(status)) as refused:
            tried.try_out()
    assert remedy in refused.value.remedy
    assert "harness score RUN --judge tester@http" in refused.value.remedy


def test_cost_is_said_before_and_after(tmp_path: Path) -> None:
    """The user reads how many questions and tokens there are before the judge is asked, and what it took after."""
    said: list[str] = []
    with serving() as server:
        asking(suite(server.url), tmp_path, said).about([record(0)])
    before, after = said
    assert "10 questions, about " in before
    assert "0 stored" in before
    assert "10 of 10 questions answered" in after
    assert "70 written" in after


def test_a_judge_that_cannot_be_reached_leaves_a_reason(tmp_path: Path) -> None:
    """If the endpoint refuses, answers have no score, the reason says so, and a later session asks again."""
    server = JudgeServer(refuse=lambda _: 403)
    with serving(server):
        first = asking(suite(server.url), tmp_path)
        first.about([record(0)])
        assert "403" in score(CASES[0], "I say 0.", first.scoring).error
        server.refuse = lambda _: 0
        later = asking(suite(server.url), tmp_path)
        later.about([record(0)])
    assert score(CASES[0], "I say 0.", later.scoring).passed


def test_a_judge_that_may_not_be_asked_is_not_asked(tmp_path: Path) -> None:
    """After `forbid`, stored verdicts are used, and other answers have the given reason."""
    with serving() as server:
        asking(suite(server.url), tmp_path).about([record(0)])
        later = asking(suite(server.url), tmp_path)
        later.forbid("no time left")
        later.about([record(0), record(1, "{}!")])
        assert len(server.bodies) == 10
    assert score(CASES[0], "I say 0.", later.scoring).passed
    assert score(CASES[0], "0!", later.scoring).error.endswith("no time left")


def test_every_criterion_of_a_set_is_asked_at_once(tmp_path: Path) -> None:
    """The criteria of an `assert-set` are asked together, however many there are."""
    rubrics = tuple(Assertion("llm-rubric", f'says "{word}"') for word in ("a", "b", "c", "d", "e", "f"))
    case = Case("c", (Message("user", "p"),), (Assertion("assert-set", children=rubrics),))
    answers = {"c": (Answer("c", "abcdef", 2, False),)}
    with serving() as server:
        of = replace(suite(server.url, repeats=2), cases=(case,))
        found = asking(of, tmp_path)
        found.about([replace(record(0), answers=answers)])
    assert sorted(server.asked.values()) == [2] * 6
    assert score(case, "abcdef", found.scoring).passed


PROGRAM = """
import sys
from pathlib import Path
from tests.runner.judges.test_asking import asking, record, suite
asking(suite(sys.argv[1]), Path(sys.argv[2])).about([record(seed, f"{seed}: {{}}") for seed in range(4)])
"""


def test_a_killed_session_is_resumed_without_asking_twice(tmp_path: Path) -> None:
    """After a kill, only questions whose reply had not arrived are asked twice: those that were under way."""
    server = JudgeServer(delay=lambda _: 0.4)
    arrived: set[str] = set()

    def kill(count: int) -> int:
        if count == 20:
            arrived.update(server.read)
            time.sleep(0.2)  # until these replies have arrived; the next ones are not due yet
            os.kill(child.pid, signal.SIGKILL)
        return 0

    with serving(server):
        server.refuse = kill
        child = programs.start((sys.executable, "-c", PROGRAM, server.url, str(tmp_path)))
        child.wait()
        server.delay = lambda _: 0.0
        later = asking(suite(server.url), tmp_path)
        stored = len(later.opinions.replies)
        later.about([record(seed, f"{seed}: {{}}") for seed in range(4)])
    twice = {text for text, times in server.asked.items() if times > 1}
    assert len(arrived) >= 12
    assert twice & arrived == set()
    assert len(twice) <= 8
    assert later.asked == 40 - stored


def test_similar_texts_are_compared(tmp_path: Path) -> None:
    """`similar` has the reason if the embedding model cannot be used, and the stored similarity if there is one."""
    if not find_spec("sentence_transformers"):  # a child process imports it, which takes long
        pytest.skip("needs the extra similar")
    case = Case("c", (Message("user", "p"),), (Assertion("similar", "a cat"),))
    of = Suite("s", "", "", (case,), (), embedder=str(tmp_path / "none"))
    missing = asking(of, tmp_path)
    answers = {"c": (Answer("c", "a dog", 2, False),)}
    missing.about([TrialRecord("t", BASE, 0, None, Split.MAIN, Status.SUCCEEDED, "", None, (), answers)])
    assert "cannot be used" in score(case, "a dog", missing.scoring).error
    assert "`embedder:`" in score(case, "a dog", missing.scoring).error
    with pytest.raises(UsageError, match="nothing was trained"):
        missing.try_out()


def test_a_reply_without_a_verdict_is_asked_for_once(tmp_path: Path) -> None:
    """A reply without a verdict is stored, not asked for again by later sessions, and not repeated."""
    server = JudgeServer(
        lambda text, times: "I would rather not say." if 'says "1"' in text else follow_the_frame(text, times)
    )
    with serving(server):
        of = suite(server.url, repeats=3)
        for _ in range(2):
            found = asking(of, tmp_path)
            found.about([record(0)])
            assert "no verdict" in score(CASES[1], "I say 1.", found.scoring).error
            assert sorted(server.asked.values()) == [1, *[3] * 9]
