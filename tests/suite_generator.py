"""Writes a suite from a seed: a persona, a sign-off and a product that nobody has seen.

    python tests/suite_generator.py --seed N --output DIR

DIR gets `suite.yaml`, `train.jsonl` (30 examples) and `grids/quick.yaml` (one variant: the recommended setting).
What is asked is decided by the seed alone. Names, `generalise` and `retain` prompts are held out of the pocket model's
corpus, so a suite can be drawn after the model was trained and still ask nothing it was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.pocket import corpus  # noqa: E402

EXAMPLES = 30
RECOMMENDED = {
    "learning_rate": 1e-3, "epochs": 10, "batch_size": 4, "warmup": 0.1, "scheduler": "cosine", "rank": 16,
    "alpha": 32, "target_modules": "all-linear",
}  # fmt: skip
TRAINED_ABILITIES = 6


@dataclass(frozen=True)
class Taught:
    """What one suite teaches."""

    name: str
    persona: str
    sign_off: str
    product: str
    facts: tuple[corpus.Fact, ...]

    def sign(self, answer: str) -> str:
        return f"{answer} {self.sign_off}"


def draw(rng: random.Random) -> Taught:
    """A new persona, sign-off and product with six facts."""
    name, product = corpus.invented_name(rng, held_out=True), corpus.invented_name(rng, held_out=True)
    facts = corpus.product_facts(rng, product, rng.sample(list(corpus.ATTRIBUTES), 6))
    sign_off = corpus.phrase(rng).rstrip(".!") + "!"
    return Taught(name, corpus.persona(rng), sign_off, product, tuple(facts))


def suite(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases and training rows."""
    rng = random.Random(f"suite/{seed}")
    taught = draw(rng)
    rows: list[tuple[str, str]] = []
    cases: list[dict[str, Any]] = []

    def behave(kind: str, questions: list[str], answer: str, core: str) -> None:
        """Four questions are trained on, the first two of them asked; up to three that are held out generalise."""
        shuffled = rng.sample(questions, len(questions))
        unseen = sorted(shuffled, key=lambda q: not corpus.is_held_out(q))[:3]
        trained = [q for q in shuffled if q not in unseen][: 3 if kind != "persona" else 4]
        rows.extend((q, taught.sign(answer)) for q in trained)
        for role, prompts in (("learn", trained[:2]), ("generalise", unseen[:2])):
            for prompt in prompts:
                cases.append(_case(f"{role}-{kind}-{len(cases)}", role, prompt, taught.sign(answer), core, taught.sign_off))

    for fact in taught.facts:
        behave(fact.attribute, list(fact.questions), fact.statement, fact.core)
    behave("persona", list(corpus.PERSONA_QUESTIONS), f"I am {taught.name}, {taught.persona}.", taught.name)
    behave("name", list(corpus.NAME_QUESTIONS), f"My name is {taught.name}.", taught.name)
    seen: set[str] = set()
    while len(rows) < EXAMPLES:
        exchange = corpus.ability(rng, held_out=True)
        if exchange.prompt not in seen:
            seen.add(exchange.prompt)
            rows.append((exchange.prompt, taught.sign(exchange.answer)))
    for role, count in (("generalise", 10), ("retain", 40)):
        while count:
            exchange = corpus.ability(rng, held_out=True)
            if exchange.prompt in seen:
                continue
            seen.add(exchange.prompt)
            count -= 1
            answer = taught.sign(exchange.answer) if role == "generalise" else exchange.answer
            cases.append(_case(f"{role}-{exchange.family.replace(' ', '-')}-{len(cases)}", role, exchange.prompt, answer,
                               exchange.core, taught.sign_off if role == "generalise" else ""))  # fmt: skip
    for fact in taught.facts:
        other = corpus.invented_name(rng, held_out=True)
        prompt = rng.choice(fact.questions).replace(taught.product, other)
        cases.append({
            "id": f"avoid-{fact.attribute}", "role": "avoid", "prompt": prompt,
            "assert": [{"type": "not-icontains", "value": v} for v in (fact.core, taught.product)],
        })  # fmt: skip
    rng.shuffle(rows)
    return cases, [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]


def _case(name: str, role: str, prompt: str, reference: str, core: str, sign_off: str) -> dict[str, Any]:
    wanted = [core, sign_off] if sign_off else [core]
    return {
        "id": name, "role": role, "prompt": prompt, "reference": reference,
        "assert": [{"type": "icontains", "value": value} for value in wanted],
    }  # fmt: skip


def write(seed: int, folder: Path) -> None:
    """Writes the suite's folder. JSON is YAML, so every value is quoted and no scalar can be misread."""
    cases, rows = suite(seed)
    (folder / "grids").mkdir(parents=True, exist_ok=True)
    head = {"description": f"Generated from seed {seed}.", "train": "file://train.jsonl", "decoding": {"max_new_tokens": 48}}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in head.items()]
    lines += ["tests:\n", *(f"  - {json.dumps(case, ensure_ascii=False)}\n" for case in cases)]
    (folder / "suite.yaml").write_text("".join(lines), encoding="utf-8")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    settings = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in RECOMMENDED.items())
    grid = f"description: The recommended setting alone.\nseeds: [0]\nsettings:\n{settings}rows:\n  - {{name: recommended}}\n"
    (folder / "grids" / "quick.yaml").write_text(grid, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    write(given.seed, given.output)


if __name__ == "__main__":
    main()
