"""What a model is asked for a case, and the form of a conversation in chat templates."""

from __future__ import annotations

from dataclasses import replace

from harness.core.conversations import as_chat, messages_of, with_system_prompt
from harness.core.suite import Message
from tests.support.synthetic_runs import case, suite

HELLO = (Message("user", "Hello"),)
KIND = Message("system", "Be kind.")


def test_a_cases_own_system_message_wins() -> None:
    """The suite's system prompt goes before a case's messages, unless the case has one of its own."""
    plain, own = case("plain"), replace(case("own"), messages=(Message("system", "Be brief."), *HELLO))
    asked = replace(suite((plain, own)), system_prompt=KIND.content)
    assert messages_of(asked, own) == own.messages
    assert messages_of(asked, plain) == (KIND, *plain.messages)
    assert messages_of(replace(asked, system_prompt=None), plain) == plain.messages


def test_an_empty_system_prompt_is_a_prompt() -> None:
    """Only None means that a suite has no system prompt: the ids of stored answers depend on it."""
    assert with_system_prompt("", HELLO) == (Message("system", ""), *HELLO)
    assert with_system_prompt(None, HELLO) == HELLO


def test_a_template_reads_roles_and_contents() -> None:
    """Messages become dictionaries with `role` and `content`, in this order."""
    assert [list(entry.items()) for entry in as_chat((KIND, *HELLO))] == [
        [("role", "system"), ("content", "Be kind.")],
        [("role", "user"), ("content", "Hello")],
    ]
