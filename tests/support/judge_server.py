"""A small OpenAI-compatible endpoint with a deterministic judge that follows only the frame of the question.

The judge knows one kind of criterion: `says "WORD"` holds if the word is between the tags of the answer. If the answer
has broken the frame, so that there is not exactly one part of each name, the judge says that the answer passes.
"""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "key-of-the-tests"
PART = re.compile(r"<(question|criterion|reference|answer)>\n(.*?)\n</\1>", re.DOTALL)
WORD = re.compile(r'says "(.+?)"')


def parts(text: str) -> dict[str, str] | None:
    """Return the framed parts of a question by their names; None if a tag stands anywhere else than in the frame."""
    found = PART.findall(text)
    tags = re.findall(r"</?(?:question|criterion|reference|answer)>", text)
    if len(tags) != 2 * len(found) or len({name for name, _ in found}) != len(found):
        return None
    return {name: html.unescape(content) for name, content in found}


def follow_the_frame(text: str, _times: int) -> str:
    """Reply with a verdict on the framed answer."""
    found = parts(text)
    if found is None:
        return json.dumps({"reason": "the frame is broken", "pass": True, "score": 1})
    if "reference" in found:
        same = found["reference"].casefold() in found["answer"].casefold()
        return json.dumps({"reason": "compared", "category": "C" if same else "D"})
    if "criterion" not in found:
        return f"What is {found['answer']}?"
    word = WORD.search(found["criterion"])
    passes = word is not None and word[1].casefold() in found["answer"].casefold()
    return json.dumps({"reason": f"{'found' if passes else 'missed'} it", "pass": passes, "score": float(passes)})


@dataclass
class JudgeServer:
    """A running endpoint.

    `judge` gets a question, and how often it was asked before. `refuse` gets the number of requests so far, and returns
    an HTTP status, or 0.
    """

    judge: Callable[[str, int], str] = follow_the_frame
    refuse: Callable[[int], int] = lambda _: 0
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    """How often each question was asked."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    """The questions whose replies were sent in whole."""
    read: list[str] = field(default_factory=list)
    """The questions whose replies were read to their ends: the other side closed the connection without a reset."""
    delay: Callable[[str], float] = lambda _: 0.0
    """How many seconds the reply to a question takes."""
    drips: bool = False
    """Whether a reply arrives byte by byte, and never ends."""
    drips_headers: bool = False
    """Whether the header of a reply arrives line by line, and never ends."""
    location: str = ""
    """The address that a redirect names; empty for one of this endpoint."""
    keys: set[str] = field(default_factory=set)
    """The values of the header Authorization."""

    def reply(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        self.bodies.append(body)
        self.keys.add(key)
        if status := self.refuse(len(self.bodies)):
            return status, {"error": {"message": f"no, {key}"}}
        (message,) = body["messages"]
        text = message["content"]
        self.asked[text] += 1
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 7}
        return 200, {"choices": [{"message": {"content": self.judge(text, self.asked[text] - 1)}}], "usage": usage}


@contextmanager
def serving(server: JudgeServer | None = None) -> Iterator[JudgeServer]:
    """Run the endpoint on a free port of this machine while the block runs."""
    found = server or JudgeServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            written = self.rfile.read(length)
            if len(written) < length:  # the other side was killed
                return
            body = json.loads(written)
            with lock:
                status, reply = found.reply(body, self.headers.get("Authorization", ""))
            data = json.dumps(reply).encode()
            text = body["messages"][0]["content"]
            time.sleep(found.delay(text))
            self.send_response(status)
            with suppress(OSError):
                while found.drips_headers:
                    self.send_header("X-Drip", "drop")
                    self.flush_headers()
                    time.sleep(0.02)
            if 300 <= status < 400:
                self.send_header("Location", found.location or f"{found.url}/elsewhere")
            self.send_header("Content-Length", str(10**6 if found.drips else len(data)))
            self.end_headers()
            with suppress(OSError):
                while found.drips:
                    self.wfile.write(b" ")
                    time.sleep(0.02)
            with suppress(OSError):
                self.wfile.write(data)
                found.sent.append(text)
                if not self.rfile.read(1):
                    found.read.append(text)

        def log_message(self, *_given: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        found.url = f"http://127.0.0.1:{running.server_port}/v1"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            running.shutdown()
            thread.join()
