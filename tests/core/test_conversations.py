"""Tests of the messages that a model is given for a case, and of their form for chat templates."""

from __future__ import annotations

from dataclasses import replace

from harness.core.conversations import as_chat, messages_of, with_system_prompt
from harness.core.suite import Message
from tests.support.synthetic_runs import case, suite

HELLO = (Message("user", "Hello"),)
KIND = Message("system", "Be kind.")


def test_a_cases_own_system_message_wins() -> None:
    """The suite's system prompt comes before a case's messages, unless the case has a system message of its own."""
    plain, own = case("plain"), replace(case("own"), messages=(Message("system", "Be brief."), *HELLO))
    asked = replace(suite((plain, own)), system_prompt=KIND.content)
    assert messages_of(asked, own) == own.messages
    assert messages_of(asked, plain) == (KIND, *plain.messages)
    assert messages_of(replace(asked, system_prompt=None), plain) == plain.messages


def test_an_empty_system_prompt_is_a_prompt() -> None:
    """An empty system prompt becomes a message; only None means that a suite has no system prompt."""
    assert with_system_prompt("", HELLO) == (Message("system", ""), *HELLO)
    assert with_system_prompt(None, HELLO) == HELLO


def test_a_template_reads_roles_and_contents() -> None:
    """For chat templates, messages become dictionaries with `role` and `content`, in this order."""
    assert [list(entry.items()) for entry in as_chat((KIND, *HELLO))] == [
        [("role", "system"), ("content", "Be kind.")],
        [("role", "user"), ("content", "Hello")],
    ]
