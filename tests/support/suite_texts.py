"""Parses suites from texts in memory, for tests of the files of suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import SuiteError
from harness.core.suite import Suite
from harness.suites import load_suite, parse_suite

ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}'
CASE = "- {prompt: Hi, assert: [{type: equals, value: Ho}]}"

PROMPTFOO = """
# yaml-language-server: $schema=https://promptfoo.dev/config-schema.json
description: Support bot
tags: {team: support}
prompts:
  - 'Translate to {{language}}: {{input}}'
  - id: polite
    label: Polite
    raw: 'Please translate "{{input}}" to {{language}}.'
  - file://prompts.txt
providers:
  - openai:gpt-4o-mini
  - id: anthropic:messages:claude-3-5-sonnet
    config: {temperature: 0}
env: {API_KEY: '{{ env.KEY }}'}
evaluateOptions: {maxConcurrency: 2}
outputPath: out.json
sharing: false
defaultTest:
  assert:
    - type: not-is-refusal
  options: {provider: openai:gpt-4o}
tests:
  - description: French
    vars: {language: French, input: Hello world}
    metadata: {kind: easy}
    assert:
      - {type: icontains, value: bonjour, metric: 'Accuracy {{language}}', provider: openai:gpt-4o}
      - {type: levenshtein, threshold: 8, value: 'Bonjour {{language}}'}
      - type: assert-set
        threshold: 0.5
        weight: 2
        assert:
          - {type: contains-any, value: 'monde, "Monde, le"'}
          - {type: word-count, value: {max: 10}}
  - vars: {language: JSON, input: a}
    threshold: 0.5
    assert:
      - type: is-json
        value: {type: object, required: [a]}
      - {type: contains-json, value: 'file://shape.json', weight: 0}
      - {type: equals, value: {a: '{{input}}'}}
  - file://more.csv
"""
"""A configuration as in promptfoo's documentation, including features that the harness does not support."""


def files(**texts: str) -> Callable[[str], str]:
    """Return a function that reads these files from memory. In the argument names, `_dot_` stands for a dot."""
    known = {name.replace("_dot_", "."): text for name, text in texts.items()}

    def read(name: str) -> str:
        if name not in known:
            raise FileNotFoundError(name)
        return known[name]

    return read


def suite(text: str, *, skip_unsupported: bool = False, **texts: str) -> Suite:
    return parse_suite(text, "suite.yaml", files(**texts), skip_unsupported=skip_unsupported)


def case(text: str) -> Suite:
    """Return a suite with a single case. The text of the case begins in line 2, column 3 of the suite."""
    lines = text.strip().splitlines()
    return suite("tests:\n- " + "\n  ".join(lines))


def refusal(text: str, **texts: str) -> str:
    """Parse a suite that must be refused, and return the error's message."""
    with pytest.raises(SuiteError) as caught:
        suite(text, **texts)
    return str(caught.value)


def suite_in(folder: Path, texts: Mapping[str, str], *, name: str = "suite.yaml", **options: Any) -> Suite:
    """Write files into a folder, by their names, and load the suite in the file `name`."""
    for file, text in texts.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return load_suite(folder / name, **options)


def asked(found: Suite) -> list[list[tuple[str, str]]]:
    """Return the roles and texts of the messages of every case."""
    return [[(message.role, message.content) for message in case.messages] for case in found.cases]


def texts(found: Suite) -> list[str]:
    """Return what the user says last in every case."""
    return [case.prompt for case in found.cases]
