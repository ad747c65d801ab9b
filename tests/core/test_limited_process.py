"""Tests of the child process in which untrusted programs run, with chat templates as the programs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused

TWO_LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LARGE = "{% set x = 'a' * (10**9) %}{% set y = x * 60 %}{{ y | length }}"
LONG = "{% for a in range(50000) %}{{ 'x' * 500 }}{% endfor %}"


@pytest.fixture
def process() -> Iterator[LimitedProcess]:
    made = LimitedProcess("harness.models.chat_template_process", Limits(seconds=1.0))
    yield made
    made.close()


def render(process: LimitedProcess, template: str, items: int = 1) -> list[Any]:
    given = [{"messages": [{"role": "user", "content": str(number)}], "ask": False} for number in range(items)]
    return process.work({"template": template, "special": {}}, given)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (TWO_LOOPS, "took more than 1 s"),
        (LARGE, "needed more than 512 MiB of memory"),
        (LONG, "wrote more than 16,777,216 characters"),
    ],
    ids=["time", "memory", "output"],
)
def test_each_limit_ends_the_item_and_is_named(process: LimitedProcess, template: str, reason: str) -> None:
    """A program that reaches a limit of time, memory or output is ended, and the error names the limit."""
    with pytest.raises(LimitReachedError, match=reason):
        render(process, template)


def test_the_time_limit_does_not_depend_on_the_parent(process: LimitedProcess) -> None:
    """An item whose time is up ends the process by the kernel's timer, even if the parent does not wait for it."""
    messages = [{"role": "user", "content": "0"}]
    process._send({"shared": {"template": TWO_LOOPS, "special": {}}, "items": [{"messages": messages, "ask": False}]})
    child = process._child
    assert child is not None
    assert child.wait(timeout=60) == -signal.SIGALRM


def test_the_process_works_again_after_a_limit(process: LimitedProcess) -> None:
    """After an item reached a limit, the next items are done in a new process, and none gets an older result."""
    with pytest.raises(LimitReachedError):
        render(process, "{% if messages[0].content == '1' %}" + LARGE + "{% endif %}old", 3)
    assert render(process, "new") == ["new"]


def test_results_are_in_the_order_of_the_items(process: LimitedProcess) -> None:
    """Every item has its own result, in order, also if there are too many for one request."""
    found = render(process, "{{ messages[0].content }}" + "{# " + "x" * 3000 + " #}", 2000)
    assert found == [str(number) for number in range(2000)]


def test_an_error_of_one_item_leaves_the_others(process: LimitedProcess) -> None:
    """If the program raises an error for an item, the result is its first line, and other items have theirs."""
    template = "{% if messages[0].content == '1' %}{{ raise_exception('not\\nthis') }}{% endif %}fine"
    assert render(process, template, 3) == ["fine", Refused("not"), "fine"]


def test_one_process_does_all_work(process: LimitedProcess) -> None:
    """Items of several calls are done in one child process, because its start takes long."""
    render(process, "one")
    first = process._child
    render(process, "two")
    assert first is not None
    assert process._child is first


def test_closing_ends_the_process(process: LimitedProcess) -> None:
    """`close` ends the child process, and may be called twice."""
    render(process, "one")
    child = process._child
    process.close()
    process.close()
    assert child is not None
    assert child.poll() is not None
