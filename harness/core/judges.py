"""Judges: models that say whether an answer meets a criterion. What they are asked, what they reply, and the results.

A verdict of a judge is the opinion of a model, not a measurement: it has a basis of its own, and it is measured itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from harness.core.hashing import digest
from harness.core.suite import JudgeRef, Role, Suite
from harness.core.wording import plural

REPEATED = 30
"""Number of answers about which the judge is asked again, to measure how often it contradicts itself."""
CHARACTERS_PER_TOKEN = 4
"""How many characters of English a token has on average, to estimate what a judge will cost."""


@dataclass(frozen=True)
class Question:
    """A text that a judge replies to. `repeat` counts from 0: the same text is asked again to measure the judge."""

    text: str
    repeat: int = 0
    verdicts: tuple[str, ...] = ()
    """The replies that a local judge chooses from, by their log-probabilities; empty if it writes a reply."""

    @property
    def key(self) -> str:
        """The key under which the reply is stored. The text holds the criterion and the answer."""
        return digest({"question": self.text} | ({"repeat": self.repeat} if self.repeat else {}))

    @property
    def tokens(self) -> int:
        """The estimated number of tokens of the text."""
        return len(self.text) // CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class Reply:
    """What a judge replied, with the tokens that it read and wrote as it counted them; 0 if it did not say."""

    key: str
    text: str
    tokens_read: int = 0
    tokens_written: int = 0


KEY = "HARNESS_JUDGE_KEY"
"""The environment variable with the key of an endpoint."""
OPENAI_KEY = "OPENAI_API_KEY"
"""The environment variable with the key of OpenAI's endpoint."""
_SHORTEST = 8
"""Length of the shortest key that is masked; shorter ones are placeholders such as `none`, which are also words."""
DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


def embedder(suite: Suite) -> str:
    """Return the name or the folder of the model that measures the similarity of texts."""
    return suite.embedder or DEFAULT_EMBEDDER


def url_problem(url: str) -> str:
    """Describe an address that is none of an endpoint; else return an empty text."""
    if any(not "!" <= sign <= "~" for sign in url):  # urlsplit removes some of them without a word
        return "holds white space, a control character or one outside ASCII (write %20 for a space, xn-- for a host)"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is not valid"
    if parts.scheme not in ("http", "https") or not host:
        return "does not begin with http:// or https:// and a host"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "ends with /chat/completions, which is added to it (leave this out)"
    if parts.username or parts.password or parts.query or parts.fragment:
        return f"holds more than a host and a path (a key belongs into the environment variable {KEY})"
    return ""


def masked(text: str, key: str) -> str:
    """Return a text without a key, also where it is written as Python or JSON writes text."""
    for written in {key, key.strip()} if len(key.strip()) >= _SHORTEST else ():
        for form in (written, repr(written)[1:-1], ascii(written)[1:-1], repr(written.encode(errors="replace"))[2:-1]):
            text = text.replace(form, "***")
        text = _escaped(written).sub("***", text.replace(quote(written, ""), "***"))
    return text


def _escaped(written: str) -> re.Pattern[str]:
    """Return the pattern of a text in which JSON writes any character as it is, or with an escape such as `\\u0041`."""
    return re.compile("".join(rf"\\{{0,4}}(?:{re.escape(sign)}|u(?i:{ord(sign):04x}))" for sign in written))


def without_keys(text: str) -> str:
    """Return a text without the keys of endpoints that are in the environment."""
    for name in (KEY, OPENAI_KEY):
        text = masked(text, os.environ.get(name, ""))
    return text


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def title(judge: JudgeRef) -> str:
    """Return the name of a judge, with the host of its endpoint."""
    return f"{judge.model} at {urlsplit(judge.base_url).netloc}" if judge.base_url else judge.model


@dataclass(frozen=True)
class JudgedRate:
    """How a judge found the answers of one variant to the cases of one role that have something to judge."""

    variant: str
    role: Role
    passed: int
    total: int
    """Number of answers with a verdict. Equal answers to one case under several seeds count once each."""
    without: int
    """Number of answers without a verdict."""
    low: float | None = None
    """Ends of the 95% interval of the pass rate over cases and seeds; None without verdicts."""
    high: float | None = None
    points: float | None = None
    """Difference from the base model's judged pass rate on the same cases, in points; None for the base model."""
    points_low: float | None = None
    """Ends of the 95% interval of `points`, over cases and seeds."""
    points_high: float | None = None
    noise: float | None = None
    """Largest effect (95%) that the judge's contradictions alone have on `points`; None if it was not asked twice.

    The upper end of the interval of `Judging.contradictions` counts."""

    @property
    def is_noise(self) -> bool:
        """Whether the difference is smaller than what the judge's contradictions alone can make."""
        return self.points is not None and self.noise is not None and abs(self.points) < self.noise


@dataclass(frozen=True)
class Share:
    """A share of `of` observations, with its 95% interval."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class Judging:
    """What a judge said about the answers of a run, what that cost, and how far it can be trusted."""

    judge: JudgeRef
    questions: int
    """Number of different questions, without those that were asked again to measure the judge."""
    again: int
    """Number of questions that were asked again."""
    asked: int
    """Number of questions that were asked in the session that wrote these results; the others were stored."""
    tokens_read: int
    tokens_written: int
    """Tokens of all replies, including stored ones."""
    rates: tuple[JudgedRate, ...] = ()
    contradictions: Share | None = None
    """Chance that two verdicts on the same answer differ; None if no answer was judged twice."""
    agreement: Share | None = None
    """Share of answers on which the judge and the plain assertions of the case agree; None if no answer has both."""
    absent: Mapping[str, int] = field(default_factory=dict)
    """Reasons why answers have no verdict, with the number of answers."""

    @property
    def cost(self) -> str:
        """What was asked, in words."""
        asked = f"{self.asked:,} asked now" if self.asked else "nothing asked now"
        total = plural(self.questions + self.again, "question")
        again = f", {self.again:,} of them only to measure how often it contradicts itself" if self.again else ""
        return f"{total}{again} ({asked}); {self.tokens_read:,} tokens read and {self.tokens_written:,} written"
