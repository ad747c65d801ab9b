"""Tests that a judge's endpoint is asked, and what happens if it cannot be reached."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

import pytest

from harness.core import programs
from harness.core.judges import Question, Reply
from harness.core.suite import JudgeRef
from harness.runner.judges import endpoint
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
    assert len(server.bodies) == 1
    reasons = {each.words for each in found if isinstance(each, Unanswered)}
    assert len(found) == 40
    assert all("401" in reason and KEY not in reason for reason in reasons)
    assert all("set HARNESS_JUDGE_KEY" in reason and "`harness score RUN`" in reason for reason in reasons)


def test_a_redirect_is_not_followed() -> None:
    """The endpoint cannot send the answers and the key to another address."""
    with serving(JudgeServer(refuse=lambda count: 302 if count == 1 else 0)) as server:
        found, _ = asking(server, 1)
    assert found == [
        Unanswered(
            Question("question 0"),
            f"the judge's endpoint redirects to {server.url[7:-3]}, which is not followed",
            "name that address",
        )
    ]
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


def test_a_message_without_content_is_an_empty_reply() -> None:
    """A model that had no tokens left for its content has replied, and its tokens count."""
    server = JudgeServer()
    reply = {"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": 3, "completion_tokens": 512}}
    server.reply = lambda _body, _key: (200, reply)  # type: ignore[method-assign]
    with serving(server):
        found, _ = asking(server, 1)
    assert found == [Reply(Question("question 0").key, "", 3, 512)]


def dripping() -> JudgeServer:
    return JudgeServer(lambda text, _: text, drips=True)


def stop(server: JudgeServer) -> None:
    server.drips = False


def test_a_reply_that_drips_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that arrives byte by byte is given up after the time of one reply."""
    monkeypatch.setattr(endpoint, "SECONDS", 0.2)
    began = time.monotonic()
    with serving(dripping()) as server:
        found, _ = asking(server, 2)
        stop(server)
    assert time.monotonic() - began < 5
    assert all(isinstance(each, Unanswered) and "no whole reply within" in each.reason for each in found)


def test_a_header_that_drips_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that never ends is given up after the time of one question, and so are all questions."""
    monkeypatch.setattr(endpoint, "SECONDS", 0.2)
    began = time.monotonic()
    with serving(JudgeServer(lambda text, _: text, drips_headers=True)) as server:
        found, _ = asking(server, 3)
        server.drips_headers = False
    assert time.monotonic() - began < 5
    assert len(found) == 3
    assert all(isinstance(each, Unanswered) and "no whole reply within" in each.reason for each in found)


def test_one_slow_question_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the judge takes too long for one question and answers others meanwhile, only that one has no reply."""
    monkeypatch.setattr(endpoint, "SECONDS", 1.5)
    server = JudgeServer(lambda text, _: text, delay=lambda text: 2.0 if text == "question 1" else 0.0)
    with serving(server):
        found, _ = asking(server, 20)
    assert [each.question.text for each in found if isinstance(each, Unanswered)] == ["question 1"]


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 8), (10, 6), (25, 2), (50, 1), (119, 1)])
def test_a_slow_endpoint_is_asked_fewer_questions_at_once(seconds: float, count: int) -> None:
    """As many questions are asked at once as can be answered one after the other in half of the time."""
    assert endpoint._at_once(seconds) == count


def test_an_interrupted_command_stores_replies_under_way() -> None:
    """If the command is interrupted, replies that arrive soon are still stored, and no further question is asked."""
    stored: list[Reply] = []
    with serving(JudgeServer(lambda text, _: text, delay=lambda _: 0.1)) as server:
        replies = Endpoint(JudgeRef("tester", server.url), "").ask(
            [Question(f"q {n}") for n in range(30)], stored.append
        )
        next(replies)
        next(replies)
        replies.close()
        assert len(stored) == len(server.bodies) < 20


PROGRAM = """
import sys
from harness.cli import main
from tests.runner.judges.test_endpoint import asking
from tests.support.judge_server import JudgeServer
import click
server = JudgeServer(url=sys.argv[1])
sys.exit(main([], click.Command("ask", callback=lambda: asking(server))))
"""


def test_a_signal_ends_a_command_whose_endpoint_drips() -> None:
    """SIGTERM ends the command within seconds, while replies arrive that never end."""
    with serving(dripping()) as server:
        child = programs.start((sys.executable, "-c", PROGRAM, server.url))
        while not server.bodies:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGTERM)
        try:
            assert child.wait(timeout=30) == 128 + signal.SIGTERM
        finally:
            child.kill()
            child.wait()
            stop(server)


def test_a_proxy_gets_nothing_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to an endpoint on this machine do not go to a proxy that the environment names."""
    with serving() as proxy, serving(JudgeServer(lambda text, _: text)) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        found, _ = asking(server, 2)
    assert all(isinstance(each, Reply) for each in found)
    assert proxy.bodies == []


ESCAPED = "".join(f"\\u{ord(sign):04X}" for sign in KEY)


@pytest.mark.parametrize("written", [KEY, ESCAPED, ESCAPED.replace("\\", "\\\\"), KEY.replace("-", "\\u002d")])
def test_a_key_in_a_reply_is_masked(written: str) -> None:
    """If the endpoint repeats the key in a reply, also with JSON's escapes, the stored text has not the key."""
    with serving(JudgeServer(lambda _, __: f"your key is {written}.")) as server:
        (found,), _ = asking(server, 1)
    assert isinstance(found, Reply)
    assert found.text == "your key is ***."


def test_a_host_that_is_no_name_cannot_be_reached() -> None:
    """A host whose name has a part that is too long is a reason, not a bug."""
    judge = Endpoint(JudgeRef("m", f"http://{'a' * 70}.example/v1"), "", wait=lambda _: None)
    (found,) = judge.ask([Question("q")], lambda _: None)
    assert isinstance(found, Unanswered)
    assert "cannot be reached" in found.reason
    assert found.remedy == "check the address"


def test_tokens_are_numbers() -> None:
    """A number of tokens that is true or false counts as 0."""
    server = JudgeServer()
    usage = {"prompt_tokens": True, "completion_tokens": 5}
    server.reply = lambda _body, _key: (200, {"choices": [{"message": {"content": "x"}}], "usage": usage})  # type: ignore[method-assign]
    with serving(server):
        (found,), _ = asking(server, 1)
    assert found == Reply(Question("question 0").key, "x", 0, 5)
