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
    """A chat template with the special tokens that it can name, such as `bos_token`."""

    source: str
    special: Mapping[str, str]
    owner: str = "the model"
    """The model or the folder that messages name."""
    process: LimitedProcess | None = None
    """Replaces the child process that renders. By default, all templates share one."""

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
            remedy = "Correct it in chat_template.jinja or tokenizer_config.json there, or take another model."
            what = f"the chat template of {self.owner} {reached} to render one conversation"
            raise ModelError(what, remedy=remedy) from None


@lru_cache(maxsize=1)
def _shared_process() -> LimitedProcess:
    return LimitedProcess(CHILD)
