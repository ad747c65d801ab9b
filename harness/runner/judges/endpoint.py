"""Asks a judge behind an OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`)."""

from __future__ import annotations

import http.client
import json
import math
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.core.judges import KEY, Question, Reply, is_loopback, masked
from harness.core.suite import JudgeRef

AT_ONCE = 8
"""Largest number of questions that are asked at the same time."""
SECONDS = 120.0
"""How long one question may take, with all attempts and the waits between them, whatever of a reply has arrived."""
TRIES = 4
GRACE = 5.0
"""How long a command that is interrupted waits for the replies to questions that are under way."""
_CHUNK = 2**16
_LARGEST = 2**20
_LONGEST = 10**5
"""Largest number of characters of a reply's text, of which at most 512 or 2,048 tokens are asked."""
_TOKENS = 512
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class Unanswered:
    """A question without a reply, the reason, and what the user must do, if that is known; it begins with a verb."""

    question: Question
    reason: str
    remedy: str = ""

    @property
    def words(self) -> str:
        """The reason with the remedy, for an answer that has no verdict."""
        return f"{self.reason}; {self.remedy}, and `harness score RUN` then asks again" if self.remedy else self.reason


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key and the answers to another address."""

    def redirect_request(self, *_given: Any, **_named: Any) -> None:
        return None


class _Pool:
    """Threads that ask questions, and the questions without a reply."""

    def __init__(self, questions: Sequence[Question], ask: Callable[[Question], Reply | Unanswered]) -> None:
        self.open = {question.key: question for question in questions}
        self.done: queue.SimpleQueue[Reply | Unanswered | BaseException] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self._ask = ask
        self._waiting: queue.SimpleQueue[Question] = queue.SimpleQueue()
        for question in questions:
            self._waiting.put(question)

    def start(self, count: int) -> None:
        # Daemon threads, since a command that is ended must not wait for an endpoint.
        for _ in range(count):
            self.threads.append(threading.Thread(target=self._work, name="judge", daemon=True))
            self.threads[-1].start()

    def _work(self) -> None:
        try:
            while True:
                self.done.put(self._ask(self._waiting.get_nowait()))
        except queue.Empty:
            return
        except BaseException as problem:  # noqa: BLE001 - raised in the thread that waits for the replies
            self.done.put(problem)


@dataclass
class Endpoint:
    """A judge's endpoint. The key is sent, but neither stored nor shown."""

    judge: JudgeRef
    key: str = field(repr=False)
    wait: Callable[[float], None] = time.sleep
    _stop: threading.Event = field(default_factory=threading.Event)
    _reason: str = ""
    """Why the endpoint cannot be reached, and what the user must do."""
    _remedy: str = ""
    _short: bool = False
    """Whether the endpoint refused the usual settings, so that only those are sent that every model accepts."""
    _begun: dict[str, float] = field(default_factory=dict)
    """When each question that is under way was begun, by its key."""
    _last: float = -math.inf
    """When the last reply arrived."""
    _end: float = math.inf
    """When all questions are given up."""

    def ask(self, questions: Sequence[Question], store: Callable[[Reply], None]) -> Generator[Reply | Unanswered]:
        """Yield the reply to each question as it arrives. If the endpoint cannot be reached, the rest is not asked.

        `store` is called with each reply as soon as it has arrived, and before the next question is asked in its place,
        in several threads. So if the process is killed, only questions whose reply had not arrived are asked again. If
        it is interrupted, it waits `GRACE` seconds for these.

        The first question is asked alone: it shows whether the endpoint can be reached, and how slow it is. As many are
        then asked at once as an endpoint that answers one after the other can answer in half of the time.
        """
        pool, began = _Pool(questions, lambda question: self._one(question, store)), time.monotonic()
        try:
            pool.start(1)
            while pool.open:
                yield from self._next(pool)
                if len(pool.threads) == 1:
                    pool.start(min(_at_once(time.monotonic() - began), len(questions)) - 1)
        finally:
            self._stop.set()
            if pool.open:
                self._finish(pool.threads)

    def _next(self, pool: _Pool) -> list[Reply | Unanswered]:
        """Wait for the next reply, or until questions have no time left."""
        try:
            found = pool.done.get(timeout=self._patience())
        except queue.Empty:
            late: list[Reply | Unanswered] = [
                self._late(pool.open.pop(key)) for key in self._overdue() if key in pool.open
            ]
            pool.start(len(late))  # in place of the threads that wait
            return late
        if isinstance(found, BaseException):
            raise found
        key = found.question.key if isinstance(found, Unanswered) else found.key
        return [found] if pool.open.pop(key, None) else []  # a question that was given up may have a reply later

    def _patience(self) -> float:
        """Return for how long every question that is under way still has time."""
        return max(0.0, min(self._begun.copy().values(), default=time.monotonic()) + SECONDS - time.monotonic())

    def _overdue(self) -> list[str]:
        """Return the keys of the questions that have no time left, and forget them."""
        late = [key for key, begun in self._begun.copy().items() if time.monotonic() - begun >= SECONDS]
        return [key for key in late if self._begun.pop(key, None)]

    def _finish(self, threads: Sequence[threading.Thread]) -> None:
        """Wait a little until the questions that are under way have their replies, so that these are stored."""
        self._end = time.monotonic() + GRACE
        for thread in threads:
            thread.join(max(0.0, self._end - time.monotonic()))

    def _one(self, question: Question, store: Callable[[Reply], None]) -> Reply | Unanswered:
        begun = self._begun[question.key] = time.monotonic()
        try:
            return self._answered(question, store, begun)
        finally:
            self._begun.pop(question.key, None)

    def _answered(self, question: Question, store: Callable[[Reply], None], begun: float) -> Reply | Unanswered:
        for attempt in range(TRIES):
            if self._stop.is_set():
                return self._stopped(question)
            found = self._attempt(question, store, attempt, begun)
            if isinstance(found, Reply):
                self._last = time.monotonic()
            if not isinstance(found, float):
                return found
            if found:
                self.wait(found)
        return Unanswered(question, "the judge's endpoint refused the question")

    def _attempt(
        self, question: Question, store: Callable[[Reply], None], attempt: int, begun: float
    ) -> Reply | Unanswered | float:
        """Send a question. Return the reply, or the reason why there is none, or seconds until the next attempt."""
        is_short, pause = self._short, 2.0**attempt  # another thread may change `_short` meanwhile
        is_last, deadline = attempt == TRIES - 1, begun + SECONDS
        try:
            return self._send(question, store, is_short, deadline)
        except _RefusedError as refused:
            if refused.status == 400 and not is_short:
                self._short = True
                return 0.0
            pause = refused.after or pause
            is_over = is_last or time.monotonic() + pause > deadline
            if refused.status in _BUSY and is_over and self._last < begun:  # as for all others: nobody was served
                return self._unreachable(question, self._words(refused), _LATER)
            return self._refused(question, refused) if is_over or refused.status not in _BUSY else pause
        except _WrongReplyError as wrong:
            return Unanswered(question, f"the judge's endpoint {wrong}")
        except (OSError, http.client.HTTPException, UnicodeError) as problem:  # the last one: of a host's name
            if time.monotonic() >= deadline:
                return self._late(question, begun)
            return self._broken(question, problem) if is_last or self._stop.is_set() else pause

    def _late(self, question: Question, begun: float | None = None) -> Unanswered:
        """Give up a question that has no time left, and all of them if meanwhile no other one had a reply."""
        reason = f"the judge sent no whole reply within {SECONDS:.0f} s"
        if self._last > (time.monotonic() - SECONDS if begun is None else begun):
            return Unanswered(question, reason)
        return self._unreachable(question, reason, _ADDRESS)

    def _stopped(self, question: Question) -> Unanswered:
        return Unanswered(question, self._reason or "the judge was interrupted", self._remedy)

    def _broken(self, question: Question, problem: Exception) -> Unanswered:
        if self._stop.is_set():
            return self._stopped(question)
        why = self._clean(str(getattr(problem, "reason", problem)))
        return self._unreachable(question, f"the judge cannot be reached: {why}", _ADDRESS)

    def _refused(self, question: Question, refused: _RefusedError) -> Unanswered:
        reason = self._words(refused)
        remedy = _REMEDIES.get(refused.status, "")
        if refused.host:
            reason, remedy = f"the judge's endpoint redirects to {refused.host}, which is not followed", _ELSEWHERE
        return self._unreachable(question, reason, remedy) if remedy else Unanswered(question, reason)

    def _words(self, refused: _RefusedError) -> str:
        return f"the judge's endpoint replied with {refused.status}: {refused.words}"

    def _unreachable(self, question: Question, reason: str, remedy: str) -> Unanswered:
        self._reason, self._remedy = reason, remedy
        self._stop.set()
        return Unanswered(question, reason, remedy)

    def _send(self, question: Question, store: Callable[[Reply], None], is_short: bool, deadline: float) -> Reply:
        """Send a question, and store the reply before the connection is closed."""
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
        try:
            with opener.open(request, timeout=max(0.1, deadline - time.monotonic())) as response:
                reply = _reply(question, _parsed(self._read(response, _LARGEST + 1, deadline)), self.key)
                store(reply)
                return reply
        except urllib.error.HTTPError as error:
            with error:
                words = self._read(error, 2000, deadline).decode(errors="replace")
            after = error.headers.get("Retry-After", "")
            host = _host(error.headers.get("Location", "")) if 300 <= error.code < 400 else ""
            seconds = float(after) if after.isdecimal() else 0.0
            raise _RefusedError(error.code, self._clean(words), seconds, self._clean(host)) from None

    def _read(self, response: Any, most: int, deadline: float) -> bytes:
        """Return at most so many bytes of a response. The timeout of the connection is that of one packet."""
        text = b""
        while len(text) < most and (chunk := response.read1(min(_CHUNK, most - len(text)))):
            text += chunk
            if time.monotonic() >= min(deadline, self._end):
                raise TimeoutError("the reply has not ended")
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


_KEY = f"set {KEY} to the key of this endpoint"
_ADDRESS = "check the address"
_LATER = "wait until it is free, or check the limit and the credit of your account"
_ELSEWHERE = "name that address"
_REMEDIES = {401: _KEY, 403: _KEY, 404: f"{_ADDRESS} and the name of the model"}
"""What the user must do after a status with which every other question would end, too."""


def _at_once(seconds: float) -> int:
    """Return how many questions are asked at once, if the first one took so many seconds."""
    return max(1, min(AT_ONCE, int(SECONDS / 2 / max(seconds, 1e-3))))


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url or "another address"
    except ValueError:
        return "another address"


def _parsed(text: bytes) -> Any:
    if len(text) > _LARGEST:
        raise _WrongReplyError(f"replied with more than {_LARGEST >> 20} MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _WrongReplyError("replied with something that is not JSON") from None


def _reply(question: Question, found: Any, key: str) -> Reply:
    """Return the reply in what the endpoint sent, without the key, which the endpoint may repeat.

    A message without content is an empty reply, which was paid: models that think may have no tokens left for one.
    """
    try:
        message = found["choices"][0]["message"]
        text = "" if isinstance(message, dict) and message.get("content") is None else message["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise _WrongReplyError("replied without a message")
    if len(text) > _LONGEST:
        raise _WrongReplyError(f"replied with more than {_LONGEST:,} characters")
    usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
    read, written = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(question.key, masked(text, key), _count(read), _count(written))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0
