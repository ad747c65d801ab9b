"""The lines of samples.jsonl: one record per answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from harness.analysis import reducers
from harness.analysis.contamination import leaks_in_results
from harness.core.answers import Likelihood
from harness.core.conversations import as_chat, messages_of
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Split


def samples(results: Results) -> Iterator[dict[str, Any]]:
    """Return one record per answer.

    `messages` are the conversation that the model was given, including the suite's system prompt.
    """
    suite = results.run.suite
    cases = {case.id: case for case in suite.cases}
    found = leaks_in_results(results)
    for split, sample in by_split(results):
        case = cases[sample.case]
        yield {
            "variant": sample.variant,
            "seed": sample.seed,
            "case": case.id,
            "repeat": sample.repeat,
            "split": split.value,
            "role": case.role.value,
            "description": case.description,
            "messages": as_chat(messages_of(suite, case)),
            "reference": case.reference,
            "answer": sample.answer.text,
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


Key = tuple[str, int, str, int]
"""Variant, seed, case and repeat of an answer, which no other answer of a run has."""


def key(sample: Sample) -> Key:
    """Return what distinguishes an answer from all others of a run."""
    return sample.variant, sample.seed, sample.case, sample.repeat


def counted(results: Results) -> dict[Key, bool]:
    """Return, for each answer that counts in the report's pass rates, whether it counts as a pass.

    Answers without a score do not count. With the reducer `all` or `any`, the first repeat counts for all repeats.
    """
    samples = (*results.samples, *results.confirmed_samples)
    return {key(sample): sample.score.passed for sample in reducers.counting(samples, results.run.suite.reducer)}


def perplexity(found: Likelihood | None) -> float | None:
    """Return the perplexity; None if there is none, or if it is infinite."""
    return found.perplexity if found and math.isfinite(found.perplexity) else None
