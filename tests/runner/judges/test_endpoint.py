"""Tests that a judge's endpoint is asked, and what happens if it cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.core.judges import Question, Reply
from harness.core.suite import JudgeRef
from harness.runner.judges.endpoint import Endpoint, Unanswered
from tests.support.judge_server import KEY, JudgeServer, serving


def asking(server: JudgeServer, count: int = 3, *, key: str = KEY) -> tuple[Sequence[Reply | Unanswered], list[float]]:
    """Ask `count` questions, and return the replies and the waits between attempts."""
    waits: list[float] = []
    judge = Endpoint(JudgeRef("tester", server.url), key, wait=waits.append)
    return list(judge.ask([Question(f"question {n}") for n in range(count)], lambda _: None)), waits


def test_every_question_gets_its_reply() -> None:
    """Each question is sent once, with the model's name and the key, and its reply counts the tokens."""
    with serving(JudgeServer(lambda text, _: text.upper())) as server:
        found, _ = asking(server, 20)
    replies = {reply.key: reply for reply in found if isinstance(reply, Reply)}
    first = Question("question 7")
    assert len(replies) == 20
    assert replies[first.key] == Reply(first.key, "QUESTION 7", 2, 7)
    assert set(server.asked.values()) == {1}
    assert server.keys == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.bodies} == {"tester"}
    assert {body["temperature"] for body in server.bodies} == {0}


def test_a_busy_endpoint_is_asked_again() -> None:
    """If the endpoint is busy, the question is asked again after a wait that grows."""
    with serving(JudgeServer(lambda text, _: text, refuse=lambda count: 429 if count < 3 else 0)) as server:
        found, waits = asking(server, 1)
    assert isinstance(found[0], Reply)
    assert waits == [1, 2]


def test_an_endpoint_that_stays_busy_leaves_the_question_unanswered() -> None:
    """After four attempts, a question is left without a reply, and the reason has the status."""
    with serving(JudgeServer(refuse=lambda _: 503)) as server:
        found, waits = asking(server, 1)
    assert isinstance(found[0], Unanswered)
    assert "503" in found[0].reason
    assert len(waits) == 3


def test_a_refused_key_ends_the_asking_and_is_not_shown() -> None:
    """If the endpoint refuses the key, no further question is sent, and no reason shows the key."""
    with serving(JudgeServer(refuse=lambda _: 401)) as server:
        found, _ = asking(server, 40)
    assert len(server.bodies) <= 16
    reasons = {each.reason for each in found if isinstance(each, Unanswered)}
    assert len(found) == 40
    assert all("401" in reason and KEY not in reason for reason in reasons)


def test_a_redirect_is_not_followed() -> None:
    """The endpoint cannot send the answers and the key to another address."""
    with serving(JudgeServer(refuse=lambda count: 302 if count == 1 else 0)) as server:
        found, _ = asking(server, 1)
    assert isinstance(found[0], Unanswered)
    assert len(server.bodies) == 1


def test_an_endpoint_that_is_not_there_is_reported_once() -> None:
    """If nothing listens at the address, every question has the reason, after the attempts for the first ones."""
    with serving() as server:
        pass
    found, waits = asking(server, 30)
    assert {each.reason.partition(":")[0] for each in found if isinstance(each, Unanswered)} == {
        "the judge cannot be reached"
    }
    assert len(found) == 30
    assert len(waits) <= 3 * 8


@pytest.mark.parametrize("models_settings", [{"max_tokens"}, {"temperature", "max_tokens"}])
def test_a_model_that_refuses_settings_is_asked_without_them(models_settings: set[str]) -> None:
    """Models that refuse `temperature` and `max_tokens` are asked with what every model accepts."""
    server = JudgeServer(lambda text, _: text)
    server.refuse = lambda _: 400 if models_settings & server.bodies[-1].keys() else 0
    with serving(server):
        found, _ = asking(server, 12)
    assert all(isinstance(each, Reply) for each in found)


def test_a_reply_in_another_form_is_no_reply() -> None:
    """A reply that has not the form of OpenAI's leaves the question unanswered."""
    server = JudgeServer()
    server.reply = lambda _body, _key: (200, {"choices": []})  # type: ignore[method-assign]
    with serving(server):
        found, _ = asking(server, 1)
    assert found == [Unanswered(Question("question 0"), "the judge's endpoint replied without a message")]
