"""Training rows from the base model's answers, with the tokens that the model's tokenizer counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness.core.answers import Answer
from harness.core.rehearsal_answers import LeftOut
from harness.core.suite import Example, Message
from harness.models.rehearsal_rows import rehearsal_rows
from harness.models.resolving import POCKET
from harness.models.token_lengths import lengths

ASK = (Message("user", "Why?"),)
GOOD = Answer("a", "Because.", 3, False)
ANSWERS = [
    (ASK, GOOD),
    (ASK, Answer("b", "Because it", 64, True)),
    (ASK, Answer("c", "", 1, False)),
    (ASK, Answer("d", "so so so so", 9, False)),
]


def test_bad_answers_are_left_out_and_counted() -> None:
    """Cut, empty and repeating answers are no rows; the rest are, with their tokens as the model's tokenizer counts."""
    rows, left_out = rehearsal_rows(ANSWERS, POCKET)
    [row] = rows
    assert row.messages == (*ASK, Message("assistant", "Because."))
    assert row.tokens == lengths([Example(row.messages)], POCKET).tokens[0]
    assert left_out == {LeftOut.EMPTY: 1, LeftOut.CUT: 1, LeftOut.REPEATS: 1}


def test_answers_of_random_weights_are_not_judged() -> None:
    """For a model with random weights, all answers but empty ones are rows: only time and memory matter."""
    rows, left_out = rehearsal_rows(ANSWERS, POCKET, judged=False)
    assert (len(rows), left_out) == (3, {LeftOut.EMPTY: 1})


def test_answers_that_the_template_cannot_write_are_left_out(tmp_path: Path) -> None:
    """If the chat template drops or changes an answer, the answer is no row."""
    shutil.copytree(POCKET, tmp_path / "mine", ignore=shutil.ignore_patterns("*.safetensors", "*.jinja"))
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | replace('bad', '') }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    path = tmp_path / "mine" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")
    rows, left_out = rehearsal_rows([(ASK, GOOD), (ASK, Answer("e", "Because bad.", 3, False))], tmp_path / "mine")
    assert [row.messages[-1].content for row in rows] == ["Because."]
    assert left_out == {LeftOut.UNWRITABLE: 1}
