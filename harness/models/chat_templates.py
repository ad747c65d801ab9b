"""Renders conversations with a model's chat template. The template is untrusted, so it runs in a limited process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.core.conversations import as_chat
from harness.core.errors import ModelError
from harness.core.limited_process import LimitedProcess, LimitReachedError, Refused
from harness.core.suite import Message

CHILD = "harness.models.chat_template_process"


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the special tokens that it can name, such as `bos_token`.

    `process` replaces the child process that renders; without it, all templates share one.
    """

    source: str
    special: Mapping[str, str]
    process: LimitedProcess | None = None

    def render(self, conversations: Sequence[tuple[Sequence[Message], bool]]) -> list[str | Refused]:
        """Render pairs of (messages, whether to open the assistant's answer after them).

        A conversation that the template refuses, for example for its roles, gives a `Refused`.

        Raises:
            ModelError: the template reached a limit of time, memory or output.
        """
        items = [{"messages": as_chat(messages), "ask": ask} for messages, ask in conversations]
        shared = {"template": self.source, "special": dict(self.special)}
        try:
            return (self.process or _shared_process()).work(shared, items)
        except LimitReachedError as reached:
            remedy = "Correct the template, in chat_template.jinja or tokenizer_config.json of the model's folder."
            raise ModelError(f"the model's chat template {reached} to render one conversation", remedy=remedy) from None


@lru_cache(maxsize=1)
def _shared_process() -> LimitedProcess:
    return LimitedProcess(CHILD)
