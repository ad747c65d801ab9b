"""Measures how long it takes to score stored answers on one core.

    python -m tests.benchmarks.scoring [--output FILE]

Scores 10,000 answers of 250 characters, with five built-in assertions each. Prints its figures as JSON and asserts
nothing, because machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from harness.core.suite import Assertion, Case, Message
from harness.scoring import score

ANSWERS = 10_000
CHARACTERS = 250
ROUNDS = 3
SEED = 0
HEAVY = ("torch", "transformers", "evaluate", "datasets", "pandas")
PLAIN = (
    Assertion("icontains", "moonlight"),
    Assertion("contains-any", ["sorry", "cannot"], negated=True),
    Assertion("regex", r"(?i)\bstay bright\b"),
    Assertion("word-count", {"min": 5, "max": 80}),
    Assertion("is-refusal", negated=True),
)
SIMILAR = (
    Assertion("rouge-n", "The Glimmo runs on moonlight. Stay bright, friend!"),
    Assertion("bleu", "The Glimmo runs on moonlight. Stay bright, friend!"),
    Assertion("f1", "The Glimmo runs on moonlight. Stay bright, friend!"),
    Assertion("levenshtein", "The Glimmo runs on moonlight. Stay bright, friend!", threshold=40),
    Assertion("contains-json", {"type": "object", "required": ["price"]}),
)
WORDS = [
    *[
        "the",
        "glimmo",
        "runs",
        "on",
        "moonlight",
        "stay",
        "bright",
        "friend",
        "Iceland",
        "cork",
        "costs",
        "42",
        "dollars",
        "sorry",
        "it",
        "is",
    ],
    '{"price": 4}',
]


def answers(rng: random.Random) -> list[str]:
    """Return made-up answers of exactly `CHARACTERS` characters."""
    return [" ".join(rng.choices(WORDS, k=CHARACTERS))[:CHARACTERS] for _ in range(ANSWERS)]


def seconds(assertions: tuple[Assertion, ...], texts: Iterable[str]) -> float:
    """Return the processor seconds that this process takes to score every text."""
    case = Case("c", (Message("user", "p"),), assertions)
    start = time.process_time()
    for text in texts:
        score(case, text)
    return time.process_time() - start


def figures() -> dict[str, object]:
    texts = answers(random.Random(SEED))
    plain = [seconds(PLAIN, texts) for _ in range(ROUNDS)]
    imported = [name for name in HEAVY if name in sys.modules]
    similar = [seconds(SIMILAR, texts) for _ in range(ROUNDS)]
    return {
        "command": "python -m tests.benchmarks.scoring",
        "answers": ANSWERS,
        "characters": CHARACTERS,
        "seed": SEED,
        "rounds": ROUNDS,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "unit": "seconds of processor time, minimum and maximum over the rounds",
        "plain": _summary(PLAIN, plain),
        "heavy libraries imported by then": imported,
        "similar": _summary(SIMILAR, similar),
    }


def _summary(assertions: tuple[Assertion, ...], taken: list[float]) -> dict[str, object]:
    return {"assertions": [a.name for a in assertions], "min": round(min(taken), 3), "max": round(max(taken), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Also write the figures here.")
    output = parser.parse_args().output
    text = json.dumps(figures(), indent=1)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
