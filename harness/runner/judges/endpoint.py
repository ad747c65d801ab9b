"""Asks a judge behind an OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`)."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from harness.core.judges import Question, Reply
from harness.core.suite import JudgeRef

AT_ONCE = 8
"""Number of questions that are asked at the same time."""
SECONDS = 60.0
"""How long one reply may take."""
TRIES = 4
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
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="judge")
        try:
            for done in as_completed([pool.submit(self._one, question, store) for question in questions]):
                yield done.result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _one(self, question: Question, store: Callable[[Reply], None]) -> Reply | Unanswered:
        is_short = False
        for attempt in range(TRIES):
            if self._stop.is_set():
                return Unanswered(question, self._reason or "the judge was interrupted")
            try:
                is_short = self._short  # another thread may change it meanwhile
                reply = _reply(question, self._send(question, is_short))
            except _RefusedError as refused:
                if refused.status == 400 and not is_short:
                    self._short = True
                    continue
                if refused.status in _BUSY and attempt < TRIES - 1:
                    self.wait(refused.after or 2.0**attempt)
                    continue
                reason = f"the judge's endpoint replied with {refused.status}: {refused.words}"
                is_final = refused.status in (401, 403, 404)
                return self._unreachable(question, reason) if is_final else Unanswered(question, reason)
            except _WrongReplyError as wrong:
                return Unanswered(question, f"the judge's endpoint {wrong}")
            except (OSError, http.client.HTTPException) as problem:
                if attempt == TRIES - 1:
                    why = getattr(problem, "reason", problem)
                    return self._unreachable(question, f"the judge cannot be reached: {self._clean(str(why))}")
                self.wait(2.0**attempt)
            else:
                store(reply)
                return reply
        return Unanswered(question, "the judge's endpoint refused the question")

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
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=SECONDS) as response:
                text = response.read(_LARGEST + 1)
        except urllib.error.HTTPError as error:
            with error:
                words = error.read(2000).decode(errors="replace")
            after = error.headers.get("Retry-After", "")
            raise _RefusedError(error.code, self._clean(words), float(after) if after.isdecimal() else 0.0) from None
        if len(text) > _LARGEST:
            raise _WrongReplyError(f"replied with more than {_LARGEST >> 20} MiB")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise _WrongReplyError("replied with something that is not JSON") from None

    def _clean(self, words: str) -> str:
        """Shorten a text of the endpoint, and remove the key, which it may repeat."""
        return " ".join((words.replace(self.key, "***") if self.key else words).split())[:200]


class _RefusedError(Exception):
    """The endpoint replied with an error. `after` is how many seconds it asks to wait, at most 30."""

    def __init__(self, status: int, words: str, after: float) -> None:
        super().__init__(words)
        self.status, self.words, self.after = status, words, min(after, 30.0)


class _WrongReplyError(Exception):
    """The endpoint's reply has not the form that OpenAI defines."""


def _reply(question: Question, found: Any) -> Reply:
    try:
        text = found["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise _WrongReplyError("replied without a message")
    usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
    read, written = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(question.key, text, *(n if isinstance(n, int) and 0 <= n < 2**40 else 0 for n in (read, written)))
