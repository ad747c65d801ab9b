"""Is what gets recommended truly best? Repeats the whole choice under other seeds and asks a thousand fresh questions.

    python tests/replay.py run --seed N --output DIR      (one rerun; a core for about five minutes)
    python tests/replay.py judge DIR

A rerun draws a suite from its seed (persona, product, cases), trains the workshop's grid `quick` on it, and lets the
harness choose by the suite's own cases. The truth is each variant's pass rate on 1,000 cases of the same kinds drawn
afterwards: quality over `generalise`, eligibility over `retain` and `avoid`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import suite_generator as generator

from harness import benchmark
from harness.executors.inline import Inline
from harness.pocket import corpus
from harness.records import Case, Role, Split, TrialRecord
from harness.scorers import score
from harness.store import Cache, RunStore
from harness.sweep import Setup, Sweep
from harness.worker import work

FRESH = 1_000
GRID = Path(__file__).resolve().parent.parent / "suites" / "workshop" / "grids" / "quick.yaml"
CLOSE = 3.0
"""Points of quality that a recommendation may lie below the truly best eligible variant."""
KINDS = {"generalise-any": 10 / 24, "generalise-told": 14 / 24}
"""The share of each kind among a generated suite's `generalise` cases, which the truth keeps."""


def fresh_cases(seed: int) -> list[dict[str, Any]]:
    """A thousand cases that the suite of this seed does not ask, as its confirm split.

    Every wording about what is taught that is neither trained nor asked, then everyday questions in the suite's way.
    """
    cases, rows = generator.suite(seed)
    taken = {row["messages"][0]["content"] for row in rows} | {case["prompt"] for case in cases}
    taught = generator.draw(random.Random(f"suite/{seed}"))
    rng = random.Random(f"fresh/{seed}")
    me = f"I am {taught.name}, {taught.persona}."
    told = [(question, fact.statement, fact.core) for fact in taught.facts for question in fact.questions]
    told += [(question, me, taught.name) for question in corpus.PERSONA_QUESTIONS]
    told += [(question, f"My name is {taught.name}.", taught.name) for question in corpus.NAME_QUESTIONS]
    found = [
        generator._case(f"generalise-told-{n}", "generalise", corpus.Exchange("told", *each), taught)
        for n, each in enumerate(each for each in told if each[0] not in taken)
    ]
    abilities = (e for e in generator._fresh_abilities(rng) if e.prompt not in taken)
    found += [
        generator._case(f"generalise-any-{n}", "generalise", e, taught) for n, e in enumerate(islice(abilities, 350))
    ]
    avoided = {generator._of_another(rng, taught, rng.choice(taught.facts)) for _ in range(100)} - taken
    forbidden = [taught.product, *(fact.core for fact in taught.facts)]
    found += [
        {"id": f"avoid-{n}", "role": "avoid", "prompt": prompt,
         "assert": [{"type": "not-icontains", "value": value} for value in forbidden]}
        for n, prompt in enumerate(sorted(avoided))
    ]  # fmt: skip
    rest = islice(abilities, FRESH - len(found))
    found += [generator._case(f"retain-{e.family}-{n}", "retain", e) for n, e in enumerate(rest)]
    return [case | {"id": f"fresh-{case['id']}", "split": "confirm"} for case in found]


def write_suite(seed: int, folder: Path) -> None:
    """The generated suite, with the workshop's grid and the fresh cases."""
    generator.write(seed, folder)
    with (folder / "suite.yaml").open("a", encoding="utf-8") as suite:
        suite.writelines(f"  - {json.dumps(case, ensure_ascii=False)}\n" for case in fresh_cases(seed))
    (folder / "grids" / "quick.yaml").write_text(GRID.read_text(encoding="utf-8"), encoding="utf-8")


def rerun(seed: int, output: Path) -> None:
    """Train the grid once and answer both the suite's cases and the fresh ones; keeps every answer."""
    folder = output / f"seed-{seed}"
    write_suite(seed, folder / "suite")
    asked = benchmark.prepare(benchmark.Request(folder / "suite", profile=benchmark.Profile.CPU, seeds=(seed,)))
    facts = asked.provenance
    manifest = replace(asked, provenance=replace(facts, machine=replace(facts.machine, threads=1)))
    store = RunStore(folder / "run")
    with store.locked():
        store.write_manifest(manifest)
        setup = Setup(manifest.suite, manifest.model, manifest.provenance.machine, manifest.engine, facts.versions)
        sweep = Sweep(setup, store, Cache(folder / "cache"), Inline(work))
        for split in Split:
            sweep.go(manifest.plan.trials, split, "")
    print(f"seed {seed}: done", flush=True)


@dataclass(frozen=True)
class Verdict:
    """One rerun: what was recommended, and what was truly best."""

    seed: int
    recommended: str | None
    best: str | None
    quality: dict[str, float]
    """Points, on the fresh cases."""
    lost: dict[str, float]
    """Points of `retain` and `avoid` together, on the fresh cases."""

    @property
    def short(self) -> float | None:
        """Points by which the recommended variant falls short of the truly best eligible one."""
        if self.recommended is None or self.best is None:
            return None
        return self.quality[self.best] - self.quality[self.recommended]

    @property
    def close(self) -> bool:
        return self.recommended == self.best if self.short is None else self.short <= CLOSE


def judge(folder: Path) -> Verdict:
    """The harness's choice from the suite's own cases, against the truth from the fresh ones."""
    store = RunStore(folder / "run")
    manifest, records = store.manifest(), store.records()
    own = [record for record in records if record.split is Split.MAIN]
    choice = benchmark.assemble(manifest, own).choice
    late = {record.variant: record for record in records if record.split is Split.CONFIRM}
    names = {variant.id: variant.name for variant in manifest.plan.variants}
    cases = manifest.suite.of(Split.CONFIRM)
    base = _passed(cases, late["base"])
    guarded = [c for c in cases if c.role in (Role.RETAIN, Role.AVOID) and base[c.id]]
    quality, lost = {}, {}
    for id, name in names.items():
        passed = _passed(cases, late[id])
        quality[name] = 100 * sum(share * _rate(cases, passed, kind) for kind, share in KINDS.items())
        lost[name] = 100 * sum(not passed[c.id] for c in guarded) / len(guarded)
    safe = [name for name in quality if lost[name] < manifest.suite.margin]
    best = max(safe, key=lambda name: quality[name], default=None)
    return Verdict(manifest.plan.seeds[0], choice.variant, best, quality, lost)


def _passed(cases: Sequence[Case], record: TrialRecord) -> dict[str, bool]:
    return {case.id: case.id in record.answers and score(case, record.answers[case.id].text).passed for case in cases}


def _rate(cases: Sequence[Case], passed: dict[str, bool], kind: str) -> float:
    marks = [passed[case.id] for case in cases if case.id.startswith(f"fresh-{kind}")]
    return sum(marks) / len(marks)


def report(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    rows = [
        {
            "seed": v.seed, "recommended": v.recommended, "truly_best": v.best, "short_by": _rounded(v.short),
            "quality": {name: _rounded(value) for name, value in v.quality.items()},
            "lost": {name: _rounded(value) for name, value in v.lost.items()},
        }
        for v in verdicts
    ]  # fmt: skip
    return {"reruns": len(verdicts), "within_3_points": sum(v.close for v in verdicts), "each": rows}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--seed", type=int, required=True)
    run.add_argument("--output", type=Path, required=True, metavar="DIR")
    judging = commands.add_parser("judge")
    judging.add_argument("folder", type=Path, metavar="DIR")
    given = parser.parse_args()
    if given.command == "run":
        rerun(given.seed, given.output)
    else:
        folders = sorted(given.folder.glob("seed-*"))
        print(json.dumps(report([judge(folder) for folder in folders]), indent=1))


if __name__ == "__main__":
    main()
