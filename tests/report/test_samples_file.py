"""Tests of the lines of samples.jsonl."""

from __future__ import annotations

import json
from dataclasses import replace

from harness.core.suite import Message
from harness.report import samples_file
from tests.support.synthetic_runs import HOSTILE, results

SMALL = results(8, 12, seeds=(0, 1))


def test_each_answer_is_a_line() -> None:
    """Every line of samples.jsonl is JSON with one answer, and no field has a name of lm-evaluation-harness."""
    lines = [json.loads(json.dumps(line)) for line in samples_file.samples(SMALL)]
    assert len(lines) == len(SMALL.samples) + len(SMALL.confirmed_samples)
    assert [line["answer"] for line in lines[: len(SMALL.samples)]] == [each.answer.text for each in SMALL.samples]
    assert HOSTILE[0] in {line["answer"] for line in lines}
    theirs = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
    assert not theirs & set(lines[0])


def test_messages_are_the_conversation_that_was_asked() -> None:
    """`messages` begin with the suite's system prompt, unless the case has its own system message."""
    suite = SMALL.run.suite
    own = (Message("system", "Be loud."), *suite.cases[1].messages)
    cases = (suite.cases[0], replace(suite.cases[1], messages=own), *suite.cases[2:])
    run = replace(SMALL.run, suite=replace(suite, system_prompt="Be brief.", cases=cases))
    asked = {line["case"]: line["messages"] for line in samples_file.samples(replace(SMALL, run=run))}
    prompts = [each.prompt for each in cases]
    assert asked[cases[0].id] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": prompts[0]},
    ]
    assert [message["content"] for message in asked[cases[1].id]] == ["Be loud.", prompts[1]]
