"""The conversation that a model is given for a case, and its form in chat templates."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.suite import Case, Message, Suite


def messages_of(suite: Suite, case: Case) -> tuple[Message, ...]:
    """Return the messages that a model is given for a case, including the suite's system prompt."""
    return with_system_prompt(suite.system_prompt, case.messages)


def with_system_prompt(system_prompt: str | None, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Put a system prompt before the messages, unless it is None or the messages already contain one."""
    if system_prompt is None or any(message.role == "system" for message in messages):
        return tuple(messages)
    return (Message("system", system_prompt), *messages)


def as_chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the messages in the form that chat templates and llama.cpp read."""
    return [{"role": message.role, "content": message.content} for message in messages]
