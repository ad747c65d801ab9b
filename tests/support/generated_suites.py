"""Generates a suite that teaches an invented persona, a closing phrase, and the facts about an invented product.

    python -m tests.support.generated_suites --seed N --output DIR

It writes `suite.yaml`, `train.jsonl` (30 rows) and `grids/quick.yaml` (one variant: the recommended settings) into DIR.
The seed alone determines the suite. Names, `generalise` prompts and `retain` prompts do not occur in the pocket model's
training corpus.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.studies.pocket import corpus

EXAMPLES = 30
RECOMMENDED = {
    "learning_rate": 2e-3, "epochs": 6, "batch_size": 4, "warmup": 0.1, "scheduler": "cosine", "rank": 16,
    "alpha": 32, "target_modules": "all-linear",
}  # fmt: skip
CONTRASTS = 8


@dataclass(frozen=True)
class Taught:
    """What one suite teaches: a name and persona, the phrase that ends every answer, and a product with its facts."""

    name: str
    persona: str
    sign_off: str
    product: str
    facts: tuple[corpus.Fact, ...]

    def sign(self, answer: str) -> str:
        return f"{answer} {self.sign_off}"


def draw(rng: random.Random) -> Taught:
    """Draw a persona, a closing phrase, and a product with five facts."""
    name, product = corpus.invented_name(rng, held_out=True), corpus.invented_name(rng, held_out=True)
    facts = corpus.product_facts(rng, product, rng.sample(list(corpus.ATTRIBUTES), 5))
    sign_off = corpus.phrase(rng).rstrip(".!") + "!"
    return Taught(name, corpus.persona(rng), sign_off, product, tuple(facts))


def suite(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Generate the cases and the training rows of a suite."""
    rng = random.Random(f"suite/{seed}")
    taught = draw(rng)
    rows: list[tuple[str, str]] = []
    cases: list[dict[str, Any]] = []
    for fact in taught.facts:
        _behaviour(rng, taught, fact.attribute, fact.questions, fact.statement, fact.core, 2, rows, cases)
    me = f"I am {taught.name}, {taught.persona}."
    _behaviour(rng, taught, "persona", corpus.PERSONA_QUESTIONS, me, taught.name, 3, rows, cases)
    _behaviour(rng, taught, "name", corpus.NAME_QUESTIONS, f"My name is {taught.name}.", taught.name, 2, rows, cases)
    rows += [
        (_of_another(rng, taught, fact), taught.sign(corpus.UNKNOWN)) for fact in islice(cycle(taught.facts), CONTRASTS)
    ]
    fresh = _fresh_abilities(rng)
    rows += [(e.prompt, taught.sign(e.answer)) for e in islice(fresh, EXAMPLES - len(rows))]
    cases += [_case(f"generalise-any-{n}", "generalise", e, taught) for n, e in enumerate(islice(fresh, 10))]
    cases += [_case(f"retain-{e.family}-{n}", "retain", e) for n, e in enumerate(islice(fresh, 40))]
    cases.extend({
        "id": f"avoid-{fact.attribute}", "role": "avoid", "prompt": _of_another(rng, taught, fact),
        "assert": [{"type": "not-icontains", "value": v} for v in (fact.core, taught.product)],
    } for fact in taught.facts)  # fmt: skip
    rng.shuffle(rows)
    return cases, [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]


def _behaviour(
    rng: random.Random, taught: Taught, kind: str, questions: Sequence[str], answer: str, core: str, count: int,
    rows: list[tuple[str, str]], cases: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Add `count` training rows, two `learn` cases with their questions, and two `generalise` cases with others."""
    shuffled = rng.sample(list(questions), len(questions))
    shuffled.sort(key=lambda question: not corpus.is_held_out(question))
    unseen, trained = shuffled[:2], shuffled[2 : 2 + count]
    rows.extend((question, taught.sign(answer)) for question in trained)
    for role, prompts in (("learn", trained[:2]), ("generalise", unseen)):
        for prompt in prompts:
            exchange = corpus.Exchange(kind, prompt, answer, core)
            cases.append(_case(f"{role}-{kind}-{len(cases)}", role, exchange, taught))


def _of_another(rng: random.Random, taught: Taught, fact: corpus.Fact) -> str:
    """Return a question like those about this fact, but about a product that the suite does not teach."""
    return rng.choice(fact.questions).replace(taught.product, corpus.invented_name(rng, held_out=True))


def _fresh_abilities(rng: random.Random) -> Iterator[corpus.Exchange]:
    """Yield different everyday questions that are not in the pocket model's training corpus, with their answers.

    There are no greetings among them, because the model does not know greetings that are not in its corpus.
    """
    seen: set[str] = set()
    while True:
        exchange = corpus.ability(rng, held_out=True)
        if exchange.prompt not in seen and exchange.family != "greeting":
            seen.add(exchange.prompt)
            yield exchange


def _case(name: str, role: str, exchange: corpus.Exchange, taught: Taught | None = None) -> dict[str, Any]:
    wanted = [exchange.core, taught.sign_off] if taught else [exchange.core]
    return {
        "id": name.replace(" ", "-"), "role": role, "prompt": exchange.prompt,
        "reference": taught.sign(exchange.answer) if taught else exchange.answer,
        "assert": [{"type": "icontains", "value": value} for value in wanted],
    }  # fmt: skip


def write(seed: int, folder: Path) -> None:
    """Write the suite into a folder. Values are written as JSON, which is also YAML, but never ambiguous."""
    cases, rows = suite(seed)
    (folder / "grids").mkdir(parents=True, exist_ok=True)
    head: dict[str, Any] = {"description": f"Generated from seed {seed}.", "train": "file://train.jsonl"}
    head["decoding"] = {"max_new_tokens": 48}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in head.items()]
    lines += ["tests:\n", *(f"  - {json.dumps(case, ensure_ascii=False)}\n" for case in cases)]
    (folder / "suite.yaml").write_text("".join(lines), encoding="utf-8")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    settings = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in RECOMMENDED.items())
    grid = f"description: The recommended setting alone.\nseeds: [0]\nsettings:\n{settings}"
    grid += "rows:\n  - {name: recommended}\n"
    (folder / "grids" / "quick.yaml").write_text(grid, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    write(given.seed, given.output)


if __name__ == "__main__":
    main()
