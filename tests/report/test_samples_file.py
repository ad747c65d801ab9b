"""Tests of the lines of samples.jsonl."""

from __future__ import annotations

import json
from dataclasses import replace

from harness.core.suite import Message
from harness.report import samples_file
from tests.support.synthetic_runs import HOSTILE, results

SMALL = results(8, 12, seeds=(0, 1))


def test_samples_have_the_names_of_lm_evaluation_harness() -> None:
    """Every line of samples.jsonl is JSON and uses the names of fields of lm-evaluation-harness."""
    lines = [json.loads(json.dumps(line)) for line in samples_file.samples(SMALL)]
    assert len(lines) == len(SMALL.samples) + len(SMALL.confirmed_samples)
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps"} < set(lines[0])
    assert {line["resps"][0][0] for line in lines} >= {HOSTILE[0]}


def test_arguments_are_the_conversation_that_was_asked() -> None:
    """`arguments` begin with the suite's system prompt, unless the case has its own system message."""
    suite = SMALL.run.suite
    own = (Message("system", "Be loud."), *suite.cases[1].messages)
    cases = (suite.cases[0], replace(suite.cases[1], messages=own), *suite.cases[2:])
    run = replace(SMALL.run, suite=replace(suite, system_prompt="Be brief.", cases=cases))
    asked = {line["case"]: line["arguments"][0] for line in samples_file.samples(replace(SMALL, run=run))}
    prompts = [each.prompt for each in cases]
    assert asked[cases[0].id] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": prompts[0]},
    ]
    assert [message["content"] for message in asked[cases[1].id]] == ["Be loud.", prompts[1]]
