"""The lines of samples.jsonl: one record per answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from harness.analysis.contamination import leaks_in_results
from harness.core.answers import Likelihood
from harness.core.conversations import as_chat, messages_of
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Split


def samples(results: Results) -> Iterator[dict[str, Any]]:
    """Return one record per answer. Fields have the names of lm-evaluation-harness if their meaning is the same.

    `arguments` are the conversation that the model was given, including the suite's system prompt, and the decoding.
    """
    numbers = {case.id: number for number, case in enumerate(results.run.suite.cases)}
    found = leaks_in_results(results)
    for split, sample in by_split(results):
        case = results.run.suite.cases[numbers[sample.case]]
        yield {
            "doc_id": numbers[case.id],
            "doc": {"id": case.id, "messages": [asdict(m) for m in case.messages], "description": case.description},
            "target": case.reference,
            "arguments": [as_chat(messages_of(results.run.suite, case)), asdict(results.run.suite.decoding)],
            "resps": [[sample.answer.text]],
            "filtered_resps": [sample.answer.text],
            "variant": sample.variant,
            "seed": sample.seed,
            "case": case.id,
            "repeat": sample.repeat,
            "split": split.value,
            "role": case.role.value,
            "leak": found[case.id].label.value,
            "leak_line": found[case.id].line,
            "passed": sample.score.passed,
            "score": sample.score.value,
            "error": sample.score.error,
            "checks": [asdict(check) for check in sample.score.checks],
            "tokens": sample.answer.tokens,
            "truncated": sample.answer.truncated,
            "perplexity": perplexity(sample.answer.likelihood),
            "reference_perplexity": perplexity(sample.answer.reference),
        }


def by_split(results: Results) -> Iterator[tuple[Split, Sample]]:
    """Return every sample of a run with the split of its case."""
    for sample in results.samples:
        yield Split.MAIN, sample
    for sample in results.confirmed_samples:
        yield Split.CONFIRM, sample


def perplexity(found: Likelihood | None) -> float | None:
    """Return the perplexity; None if there is none, or if it is infinite."""
    return found.perplexity if found and math.isfinite(found.perplexity) else None
