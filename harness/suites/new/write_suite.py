"""Generate the files of a new suite from training rows. All texts are quoted, so that YAML reads them unchanged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.suite import Example, Message
from harness.suites.cases import STUB
from harness.suites.json_schema import schema_texts
from harness.suites.new.read_rows import Rewording

RETAIN_FILE = "retain.yaml"
"""The file of retention cases that comes with the package."""
ASKED = 40
"""Maximum number of `learn` cases, and of `generalise` cases, that are made from rows."""
KEPT_BACK = 3
"""Every third case is held out for the confirmation of the best variant."""
SHORT = 6
"""Maximum number of words of a short answer, which the model must repeat. A longer answer is scored by F1."""
BEGIN = 60
"""Number of characters at the beginning of a question that an answer must not repeat if the question holds it."""
ENOUGH = 0.7
"""Lowest F1 score with which a longer answer passes."""
REHEARSAL = 60
"""Rehearsal rows of the variants that have any: twice as many as a workshop's 30 training rows."""
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# Characters that YAML reads as line breaks or rejects, or that editors do not show.
UNSAFE = re.compile("[^\x20-\x7e\xa1-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
BRACE = re.compile(r"\{(?=[{%])")


def files(rows: Sequence[Example], description: str, rewordings: Sequence[Rewording] = ()) -> dict[str, str]:
    """Return the texts of the new files by name: suite, training rows, retention cases, two grids, JSON Schemas."""
    return {
        "suite.yaml": _suite(rows, description, rewordings),
        "train.jsonl": "".join(_row(row) for row in rows),
        RETAIN_FILE: retention_cases(),
        "grids/quick.yaml": _quick(rows),
        "grids/t4.yaml": _t4(rows),
        **schema_texts(),
    }


def retention_cases() -> str:
    """Return the text of retain.yaml: cases about everyday abilities that a fine-tuned model should keep."""
    return Path(__file__).with_name(RETAIN_FILE).read_text(encoding="utf-8")


def asked(rows: Sequence[Example]) -> list[tuple[int, Example]]:
    """Choose the rows that become cases, evenly spread, and return each with its line in train.jsonl."""
    step = max(1.0, len(rows) / ASKED)
    return [(int(i * step) + 1, rows[int(i * step)]) for i in range(min(ASKED, len(rows)))]


def reworded(rows: Sequence[Example], rewordings: Sequence[Rewording]) -> list[Reworded]:
    """Choose the `generalise` cases: the rewordings that there are, then rows for which the user writes one."""
    numbers = {id(row): number for number, row in enumerate(rows, 1)}
    written = [Reworded(numbers[id(each.like)], each.like, each.example) for each in rewordings[:ASKED]]
    done = {case.number for case in written}
    stubs = [Reworded(number, row) for number, row in asked(rows) if number not in done]
    return [*written, *stubs[: ASKED - len(written)]]


@dataclass(frozen=True)
class Reworded:
    """A `generalise` case: the training row with its line in train.jsonl, and the row with other words, if any."""

    number: int
    row: Example
    written: Example | None = None


# --- text to YAML ------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Return a text as a double-quoted YAML scalar on one line."""
    return UNSAFE.sub(_escaped, json.dumps(text, ensure_ascii=False))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def filled(text: str) -> str:
    """Return a quoted text in which nothing is read as a variable: `{{` is written as `{{brace}}{`."""
    return quoted(BRACE.sub("{{brace}}", text))


def flow(value: Any) -> str:
    """Return a JSON value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)}: {flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return filled(value) if isinstance(value, str) else json.dumps(value)


# --- the suite ---------------------------------------------------------------------------------------------------


def _suite(rows: Sequence[Example], description: str, rewordings: Sequence[Rewording]) -> str:
    every = [*rows, *(each.example for each in rewordings)]
    braces = any(BRACE.search(message.content) for row in every for message in row.messages)
    cases = reworded(rows, rewordings)
    longest = max(len(row.messages[-1].content.encode()) for row in rows)
    return "".join([
        "# yaml-language-server: $schema=suite.schema.json\n",
        f"description: {quoted(description)}\n",
        "objective: generalise\n",
        "# The largest allowed loss on retain and avoid cases, in percentage points. retain.yaml suffices for 10.\n",
        "margin: 10\n",
        f"decoding: {{max_new_tokens: {min(512, max(32, 8 + longest // 2))}}}\n",
        "train: file://train.jsonl\n",
        'defaultTest: {vars: {brace: "{"}}\n' if braces else "",
        "\ntests:\n",
        *_learn(rows, {case.number for case in cases if case.written}),
        *_generalise(cases),
        *AFTER,
    ])  # fmt: skip


AFTER = """\

  # avoid: behaviour that training must not cause, such as answers about another product with your facts:
  #
  # - id: avoid-001
  #   role: avoid
  #   prompt: What does the Brixo cost?
  #   assert:
  #     - {type: not-icontains, value: "42 dollars"}

  # retain: abilities that the model has before training and must keep. You can add your own cases.

  - file://retain.yaml
"""


def _learn(rows: Sequence[Example], grouped: Container[int]) -> Iterator[str]:
    yield "  # learn: questions from your rows, unchanged. The number in the id is the line in train.jsonl.\n"
    yield "  # f1 measures common words, so one wrong word can pass: add the important word as icontains.\n"
    for count, (number, row) in enumerate(asked(rows), 1):
        group = _group(number) if number in grouped else ""
        yield f"\n  - id: learn-{number:03}\n    role: learn\n{group}{_split(count)}{_prompt(row)}{_judged(row, row)}"


def _generalise(cases: Sequence[Reworded]) -> Iterator[str]:
    yield "\n  # generalise: the same questions in other words than in train.jsonl.\n"
    if any(not case.written for case in cases):
        yield "  # Replace each TODO by such a question, or remove the case.\n"
    for count, case in enumerate(cases, 1):
        comment = f"  # {case.number} in other words: {quoted(case.row.messages[-2].content[:100])}\n"
        head = f"  - id: generalise-{case.number:03}\n    role: generalise\n"
        if case.written:
            head += f"{_group(case.number)}{_split(count)}{_prompt(case.written)}"
        else:
            head += f"{_split(count)}{_stub(case.row)}"
        yield f"\n{comment}{head}{_judged(case.row, case.written)}"


def _group(number: int) -> str:
    return f"    group: row-{number:03}\n"


def _split(count: int) -> str:
    return "    split: confirm\n" if count % KEPT_BACK == 0 else ""


def _prompt(row: Example) -> str:
    before = row.messages[:-1]
    # A question that equals the stub's text, and a conversation of several messages, need the key `messages`.
    if len(before) == 1 and before[0].content != STUB:
        return f"    prompt: {filled(before[0].content)}\n"
    return _turns(before)


def _turns(messages: Iterable[Message]) -> str:
    turns = (f"      - {{role: {m.role}, content: {filled(m.content)}}}\n" for m in messages)
    return f"    messages:\n{''.join(turns)}"


def _stub(row: Example) -> str:
    """Return the question that the user has to write, behind the messages that come before that of the row."""
    before = row.messages[:-2]
    return _turns([*before, Message("user", STUB)]) if before else f"    prompt: {STUB}\n"


def _judged(row: Example, asked: Example | None) -> str:
    """Return reference and assertions of a case. `asked` is the row whose question the case asks, if it is written."""
    answer = row.messages[-1].content
    checks = "".join(f"      - {check}\n" for check in assertions(answer, asked.messages[-2].content if asked else ""))
    return f"    reference: {filled(answer)}\n    assert:\n{checks}"


def assertions(answer: str, question: str = "") -> list[str]:
    """Return the assertions for a case whose correct answer is `answer`, as YAML.

    If `answer` is JSON, the model's answer must equal it. If `answer` is short, the model's answer must contain it.
    Otherwise the model's answer must share most of its words, in any order, and contain all of its numbers, because a
    sentence with a wrong price has nearly all words in common with the correct sentence.

    If the question contains a short answer, such as the text to which it refers, the model's answer must not repeat the
    beginning of the question.
    """
    value = _json(answer)
    if value is not None:
        return [f"{{type: equals, value: {flow(value)}}}"]
    if len(answer.split()) <= SHORT or not re.search(r"[^\W_]", answer):
        expected = answer.rstrip(".!? ") or answer
        # `icontains` would find "4" in "24".
        is_numeric = expected[0].isdecimal() or expected[-1].isdecimal()
        check = _exactly(expected) if is_numeric else f"{{type: icontains, value: {filled(expected)}}}"
        return [check, *_not_repeated(question, expected, answer)]
    numbers = dict.fromkeys(NUMBER.findall(answer))
    return [f"{{type: f1, threshold: {ENOUGH}}}", *map(_exactly, numbers)]


def _not_repeated(question: str, expected: str, answer: str) -> Iterator[str]:
    """Yield an assertion that fails for the question itself, if the question contains the expected text."""
    begin = next(iter(question.splitlines()), "")[:BEGIN].strip()
    if expected.lower() in question.lower() and begin and begin.lower() not in answer.lower():
        yield f"{{type: not-icontains, value: {filled(begin)}}}"


def _exactly(text: str) -> str:
    """Return an assertion that the answer contains `text` in upper or lower case, with no digit before or after it."""
    pattern = rf"(?i)(?<!\d){re.escape(text)}(?!\d)"
    return f"{{type: regex, value: {filled(pattern)}}}"


def _json(answer: str) -> dict[str, Any] | list[Any] | None:
    """Return the JSON object or list of an answer, or None if it is neither, or too large for a suite."""
    if not answer.startswith(("{", "[")) or len(answer) > 1000 or answer.count("[") + answer.count("{") > 16:
        return None
    try:
        value = json.loads(answer)
        json.dumps(value, allow_nan=False).encode("ascii")
    except ValueError:
        return None
    return value if isinstance(value, dict | list) and value else None


def _row(row: Example) -> str:
    return json.dumps({"messages": [_turn(m) for m in row.messages]}, ensure_ascii=False) + "\n"


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


# --- grids -------------------------------------------------------------------------------------------------------


def _quick(rows: Sequence[Example]) -> str:
    """Return the grid for the pocket model, with about 48 optimizer steps per variant."""
    epochs = min(12, max(2, round(48 / math.ceil(len(rows) / 4))))
    return f"""\
# yaml-language-server: $schema=../grid.schema.json
description: >-
  Five variants for the pocket model on a laptop, from one that learns little to one that learns a lot. `rehearsal` adds
  {REHEARSAL} rows with the base model's own answers. They show whether the suite works. For a real model, use t4.
seeds: [0]
settings:
  epochs: {epochs}
  batch_size: 4
  warmup: 0.1
  scheduler: cosine
  max_length: {_max_length(rows)}
rows:
  - {{name: low-lr, learning_rate: 3e-4, rank: 16, alpha: 32, target_modules: all-linear}}
  - {{name: medium-lr, learning_rate: 1e-3, rank: 16, alpha: 32, target_modules: all-linear}}
  - {{name: high-lr, learning_rate: 2e-3, rank: 16, alpha: 32, target_modules: all-linear}}
  - {{name: small-rank, learning_rate: 2e-3, rank: 2, alpha: 4, target_modules: qv}}
  - {{name: rehearsal, learning_rate: 1e-3, rank: 16, alpha: 32, target_modules: all-linear, rehearsal: {REHEARSAL}}}
"""


def _t4(rows: Sequence[Example]) -> str:
    """Return the grid for a 7B model on a T4.

    The number of epochs is chosen so that a training processes about 1,000 rows: half an hour at 1.6 s a row.
    """
    epochs = min(10, max(2, round(1000 / len(rows))))
    return f"""\
# yaml-language-server: $schema=../grid.schema.json
description: >-
  For a 7B chat model on a free T4, in batches of 10 (2 x 5). The last two variants add {REHEARSAL} rows with the base
  model's own answers, so that the model keeps more. Add seeds if two variants have similar results.
seeds: [0]
settings:
  epochs: {epochs}
  batch_size: 2
  gradient_accumulation: 5
  optimizer: paged_adamw_8bit
  warmup: 0.03
  scheduler: constant_with_warmup
  rank: 16
  alpha: 32
  target_modules: qv
  max_length: {_max_length(rows)}
rows:
  - {{name: workshop, learning_rate: 1e-3}}
  - {{name: low-lr, learning_rate: 2e-4}}
  - {{name: low-lr-all-linear, learning_rate: 2e-4, scheduler: cosine, target_modules: all-linear}}
  - {{name: few-epochs, learning_rate: 1e-3, epochs: {max(1, epochs // 2)}}}
  - {{name: rehearsal, learning_rate: 1e-3, rehearsal: {REHEARSAL}}}
  - {{name: low-lr-rehearsal, learning_rate: 2e-4, rehearsal: {REHEARSAL}}}
"""


def _max_length(rows: Sequence[Example]) -> int:
    """Return a cautious estimate of the longest row's tokens (two bytes per token), rounded up to a multiple of 64."""
    longest = max(sum(len(m.content.encode()) for m in row.messages) for row in rows)
    return min(2048, max(128, 64 * math.ceil((32 + longest / 2) / 64)))
