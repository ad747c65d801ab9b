"""Asks a judge behind an OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`)."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.core.judges import KEY, Question, Reply, is_loopback, masked
from harness.core.suite import JudgeRef

AT_ONCE = 8
"""Number of questions that are asked at the same time."""
SECONDS = 60.0
"""How long one reply may take."""
TRIES = 4
LONGEST = TRIES * SECONDS * 2
"""Seconds without any reply after which the endpoint counts as unreachable, whatever its threads wait for."""
_CHUNK = 2**16
_LARGEST = 2**20
_TOKENS = 512
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class Unanswered:
    """A question without a reply, and the reason."""

    question: Question
    reason: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key and the answers to another address."""

    def redirect_request(self, *_given: Any, **_named: Any) -> None:
        return None


@dataclass
class Endpoint:
    """A judge's endpoint. The key is sent, but neither stored nor shown."""

    judge: JudgeRef
    key: str = field(repr=False)
    wait: Callable[[float], None] = time.sleep
    _stop: threading.Event = field(default_factory=threading.Event)
    _reason: str = ""
    _short: bool = False
    """Whether the endpoint refused the usual settings, so that only those are sent that every model accepts."""

    def ask(self, questions: Sequence[Question], store: Callable[[Reply], None]) -> Iterator[Reply | Unanswered]:
        """Yield the reply to each question as it arrives. If the endpoint cannot be reached, the rest is not asked.

        `store` is called with each reply before the next question is asked in its place, in several threads. So if the
        process is killed, at most the questions that were under way are asked again.
        """
        waiting: queue.SimpleQueue[Question] = queue.SimpleQueue()
        done: queue.SimpleQueue[Reply | Unanswered | BaseException] = queue.SimpleQueue()
        open_questions = {question.key: question for question in questions}
        for question in questions:
            waiting.put(question)

        def work() -> None:
            try:
                while True:
                    done.put(self._one(waiting.get_nowait(), store))
            except queue.Empty:
                return
            except BaseException as problem:  # noqa: BLE001 - raised in the thread that waits for the replies
                done.put(problem)

        # Daemon threads, since a command that is ended must not wait for an endpoint.
        for _ in range(min(AT_ONCE, len(questions))):
            threading.Thread(target=work, name="judge", daemon=True).start()
        try:
            while open_questions:
                found = done.get(timeout=LONGEST)
                if isinstance(found, BaseException):
                    raise found
                open_questions.pop(found.question.key if isinstance(found, Unanswered) else found.key, None)
                yield found
        except queue.Empty:
            reason = f"the judge's endpoint sent no whole reply for {LONGEST:.0f} s{_ADDRESS}"
            yield from (Unanswered(question, reason) for question in open_questions.values())
        finally:
            self._stop.set()

    def _one(self, question: Question, store: Callable[[Reply], None]) -> Reply | Unanswered:
        is_short = False
        for attempt in range(TRIES):
            if self._stop.is_set():
                return self._stopped(question)
            try:
                is_short = self._short  # another thread may change it meanwhile
                reply = _reply(question, self._send(question, is_short), self.key)
            except _RefusedError as refused:
                if refused.status == 400 and not is_short:
                    self._short = True
                    continue
                if refused.status in _BUSY and attempt < TRIES - 1:
                    self.wait(refused.after or 2.0**attempt)
                    continue
                return self._refused(question, refused)
            except _WrongReplyError as wrong:
                return Unanswered(question, f"the judge's endpoint {wrong}")
            except (OSError, http.client.HTTPException, UnicodeError) as problem:  # the last one: of a host's name
                if attempt == TRIES - 1 or self._stop.is_set():
                    return self._broken(question, problem)
                self.wait(2.0**attempt)
            else:
                store(reply)
                return reply
        return Unanswered(question, "the judge's endpoint refused the question")

    def _stopped(self, question: Question) -> Unanswered:
        return Unanswered(question, self._reason or "the judge was interrupted")

    def _broken(self, question: Question, problem: Exception) -> Unanswered:
        if self._stop.is_set():
            return self._stopped(question)
        why = self._clean(str(getattr(problem, "reason", problem)))
        return self._unreachable(question, f"the judge cannot be reached: {why}{_ADDRESS}")

    def _refused(self, question: Question, refused: _RefusedError) -> Unanswered:
        reason = f"the judge's endpoint replied with {refused.status}: {refused.words}"
        remedy = _REMEDIES.get(refused.status, "")
        if refused.host:
            reason, remedy = f"the judge's endpoint redirects to {refused.host}, which is not followed", _ELSEWHERE
        return self._unreachable(question, reason + remedy) if remedy else Unanswered(question, reason)

    def _unreachable(self, question: Question, reason: str) -> Unanswered:
        self._reason = reason
        self._stop.set()
        return Unanswered(question, reason)

    def _send(self, question: Question, is_short: bool) -> Any:
        limits = {"max_completion_tokens": _TOKENS * 4} if is_short else {"max_tokens": _TOKENS, "temperature": 0}
        message = {"role": "user", "content": question.text}
        body = {"model": self.judge.model, "messages": [message], **limits}
        request = urllib.request.Request(
            f"{self.judge.base_url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})},
        )
        # A proxy of the environment is none for this machine: it would get the key.
        is_here = is_loopback(urlsplit(self.judge.base_url).hostname or "")
        opener = urllib.request.build_opener(_NoRedirects, *([urllib.request.ProxyHandler({})] if is_here else ()))
        deadline = time.monotonic() + SECONDS
        try:
            with opener.open(request, timeout=SECONDS) as response:
                text = self._read(response, _LARGEST + 1, deadline)
        except urllib.error.HTTPError as error:
            with error:
                words = self._read(error, 2000, deadline).decode(errors="replace")
            after = error.headers.get("Retry-After", "")
            host = _host(error.headers.get("Location", "")) if 300 <= error.code < 400 else ""
            seconds = float(after) if after.isdecimal() else 0.0
            raise _RefusedError(error.code, self._clean(words), seconds, self._clean(host)) from None
        if len(text) > _LARGEST:
            raise _WrongReplyError(f"replied with more than {_LARGEST >> 20} MiB")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise _WrongReplyError("replied with something that is not JSON") from None

    def _read(self, response: Any, most: int, deadline: float) -> bytes:
        """Return at most so many bytes of a response. The timeout of the connection is that of one packet."""
        text = b""
        while len(text) < most and (chunk := response.read1(min(_CHUNK, most - len(text)))):
            text += chunk
            if self._stop.is_set() or time.monotonic() > deadline:
                raise TimeoutError(f"a reply takes longer than {SECONDS:.0f} s")
        return text

    def _clean(self, words: str) -> str:
        """Shorten a text of the endpoint, and remove the key, which it may repeat."""
        without = masked(words, self.key)
        return " ".join((without.replace(self.key, "***") if self.key else without).split())[:200]


class _RefusedError(Exception):
    """The endpoint replied with an error. `after` is how many seconds it asks to wait, at most 30.

    `host` is the one to which it redirects; empty if it does not.
    """

    def __init__(self, status: int, words: str, after: float, host: str) -> None:
        super().__init__(words)
        self.status, self.words, self.after, self.host = status, words, min(after, 30.0), host


class _WrongReplyError(Exception):
    """The endpoint's reply has not the form that OpenAI defines."""


_AGAIN = "`harness score RUN` then asks again"
_KEY = f"; set {KEY} to the key of this endpoint, and {_AGAIN}"
_ADDRESS = f"; check the address, and {_AGAIN}"
_ELSEWHERE = "; name that address"
_REMEDIES = {401: _KEY, 403: _KEY, 404: f"; check the address and the name of the model, and {_AGAIN}"}
"""What the user must do after a status with which every other question would end, too."""


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url or "another address"
    except ValueError:
        return "another address"


def _reply(question: Question, found: Any, key: str) -> Reply:
    """Return the reply in what the endpoint sent, without the key, which the endpoint may repeat."""
    try:
        text = found["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise _WrongReplyError("replied without a message")
    usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
    read, written = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(question.key, masked(text, key), _count(read), _count(written))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0
