"""Compares the verdicts of assertions with promptfoo's own runAssertion.

    python -m tests.studies.promptfoo_verdicts FOLDER --promptfoo DIST --node NODE [--output FILE]

FOLDER is as for tests.studies.promptfoo_suites. The assertions of all suites that load are judged with answers made
from their values: the value itself, within a sentence, in other letters, cut, doubled, as JSON, and texts that have
nothing to do with it. Exits with 1 if a verdict differs and docs/assertions.md has no sentence about it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError
from harness.core.suite import Assertion, Case, Message
from harness.scoring.findings import Evidence
from harness.scoring.judging import judge
from harness.suites import load_suite
from tests.studies.promptfoo_oracle import Oracle
from tests.studies.promptfoo_suites import configurations

DOCUMENTED = {
    "levenshtein": "levenshtein has a not- type, and a score between 0 and 1",
    "bleu": "bleu uses sacrebleu's smoothing and respects case",
    "rouge-n": "rouge-n is computed by rouge_score",
    "is-refusal": "is-refusal has its own list of phrases",
    "is-json": "JSON must be strict",
    "contains-json": "JSON must be strict",
    "regex": "patterns have Python's syntax",
}
OWN = frozenset({
    "python", "perplexity", "reference-perplexity", "choice", "evaluate", "f1", "exact-match", "assert-set",
    "javascript", "llm-rubric", "model-graded-closedqa", "factuality", "model-graded-factuality", "answer-relevance",
    "similar", "similar:cosine",
})  # fmt: skip
"""Types that promptfoo does not have, that need a model or code, or that hold others, which are judged themselves."""
UNRELATED = (
    "",
    "The quick brown fox jumps over the lazy dog.",
    '{"name": "Zarn", "n": 1.5}',
    "I cannot help with that.",
)
MORE = tuple(
    Assertion(kind, value, negated=negated, threshold=threshold)
    for negated in (False, True)
    for kind, value, threshold in (
        ("word-count", 4, None), ("word-count", {"min": 2, "max": 9}, None), ("starts-with", "The quick", None),
        ("ends-with", "dog.", None), ("contains-any", ["fox", "teal"], None), ("contains-all", ["fox", "dog"], None),
        ("icontains-any", ["FOX", "teal"], None), ("icontains-all", ["FOX", "DOG"], None),
        ("equals", {"n": 1.5}, None), ("is-json", {"type": "object", "required": ["n"]}, None),
        ("contains-json", None, None), ("is-refusal", None, None), ("regex", r"\bfo[xy]\b", None),
        ("levenshtein", "The quick brown fox", 30), ("rouge-n", "The quick brown fox", 0.6),
        ("bleu", "The quick brown fox jumps over the lazy cat.", 0.5), ("icontains", "ZARN", None),
    )
    if not (negated and kind == "levenshtein")
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--promptfoo", type=Path, required=True)
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    pairs = list(pairs_of([*MORE, *assertions_in(given.folder)]))
    answers = Oracle(given.promptfoo, given.node).ask("verdicts", [as_asked(*pair) for pair in pairs])
    record = compared(pairs, answers)
    record["command"] = "python -m tests.studies.promptfoo_verdicts FOLDER --promptfoo DIST --node NODE"
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return int(bool(record["different without a documented kind"]))


def assertions_in(folder: Path) -> Iterator[Assertion]:
    """Yield the assertions of all suites that load, each once."""
    seen: set[str] = set()
    for repository in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in configurations(repository):
            try:
                suite = load_suite(path, skip_unsupported=True, root=repository)
            except HarnessError:
                continue
            for assertion in (one for case in suite.cases for one in flat(case.assertions)):
                key = json.dumps([assertion.name, assertion.value, assertion.threshold], default=str)
                if key not in seen and assertion.type not in OWN:
                    seen.add(key)
                    yield replace(assertion, transforms=())


def flat(assertions: tuple[Assertion, ...]) -> Iterator[Assertion]:
    for one in assertions:
        yield from flat(one.children) if one.children else [one]


def pairs_of(assertions: list[Assertion]) -> Iterator[tuple[Assertion, str]]:
    numbers = random.Random(0)
    for assertion in assertions:
        values = assertion.value if isinstance(assertion.value, list) else [assertion.value]
        text = " and ".join(one if isinstance(one, str) else json.dumps(one) for one in values)
        made = [text, f"Well, {text} it is.", text.upper(), text[: len(text) // 2], f"{text} {text}"]
        chosen = dict.fromkeys([*numbers.sample(made, 3), *numbers.sample(UNRELATED, 2)])
        yield from ((assertion, answer.strip()) for answer in chosen)


def as_asked(assertion: Assertion, answer: str) -> dict[str, Any]:
    written = {"type": assertion.name, "value": assertion.value, "threshold": assertion.threshold}
    return {"assertion": {name: value for name, value in written.items() if value is not None}, "answer": answer}


def compared(pairs: list[tuple[Assertion, str]], answers: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    unknown: list[Any] = []
    for (assertion, answer), theirs in zip(pairs, answers, strict=True):
        ours = judge(assertion, Evidence(answer, Case("", (Message("user", ""),), (assertion,))))
        if "error" in theirs or ours.score is None:
            counts["not judged by promptfoo" if "error" in theirs else "not judged by the harness"] += 1
            continue
        counts[f"judged: {assertion.type}"] += 1
        if ours.passed == theirs["value"]["pass"]:
            counts["equal"] += 1
        elif assertion.type in DOCUMENTED:
            kinds[DOCUMENTED[assertion.type]] += 1
        else:
            unknown.append([assertion.name, assertion.value, assertion.threshold, answer, ours.passed])
    judged = counts["equal"] + sum(kinds.values()) + len(unknown)
    return {
        "pairs": judged,
        "equal": counts.pop("equal"),
        "different, of a documented kind": kinds,
        "different without a documented kind": unknown,
        "counts": counts,
    }


if __name__ == "__main__":
    sys.exit(main())
