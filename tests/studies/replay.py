"""Measures whether the recommended variant is truly the best, by repeating the whole choice under other seeds.

    python -m tests.studies.replay run --seed N --output DIR      (one rerun; about five minutes on one core)
    python -m tests.studies.replay judge DIR

A rerun draws a suite from its seed (persona, product, cases) and trains the workshop's grid `quick` on it. The harness
then recommends a variant by the suite's own cases, and again by these and more cases of the same kinds. The truth is
each variant's result on 1,000 further cases of these kinds: its quality is the pass rate on `generalise`, and whether
it is eligible depends on `retain` and `avoid`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from harness.analysis import aggregate, differences, losses, net_loss
from harness.analysis.score_table import ScoreTable, pair, score_tables
from harness.core import device_profiles
from harness.core.names import BASE
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Choice
from harness.core.suite import Case, Role, Split, Suite
from harness.engine.worker import work
from harness.runner.executors.inline import Inline
from harness.runner.preparation import prepare
from harness.runner.request import Request
from harness.runner.rescoring import assemble
from harness.runner.sweep import Sweep
from harness.scoring import score
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from tests.studies.pocket import corpus
from tests.support import generated_suites as generator

FRESH = 1_000
GRID = Path(__file__).resolve().parents[2] / "suites" / "workshop" / "grids" / "quick.yaml"
CLOSE = 3.0
"""A recommendation is right if it is at most this many points below the truly best eligible variant."""
SHARES = (0.0, 0.12, 0.3, 1.0)
"""Shares of the added cases `MORE` to choose by, which give 24, 73, 144 or 424 `generalise` cases in all."""
MORE = {"generalise-told": 240, "generalise-any": 160, "retain": 105}
"""Number of cases of each kind that are added to a generated suite's own 24 `generalise` and 45 other cases."""
TRUTH = {"generalise-told": 245, "generalise-any": 330, "avoid": 50}
"""Number of cases of each kind among the 1,000 that give the truth; the remaining ones are `retain`."""
DOUBT = 3.29
"""The two-sided 99.9% quantile of the normal distribution."""
KINDS = {"generalise-any": 10 / 24, "generalise-told": 14 / 24}
"""Share of each kind among a generated suite's `generalise` cases. The truth weights the kinds by these shares."""
FRAMES = ("{}", "Hello! {}", "{} Thanks!", "One question: {}", "Excuse me. {}", "Good morning! {}")
"""Frames around questions about taught facts. Without them, there are only ninety wordings, which are too few."""


def fresh_cases(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return new cases of the suite's kinds: those of `MORE` to choose by, and 1,000 for the truth.

    They are wordings about taught facts that occur neither in the rows nor in the suite's cases, everyday questions in
    the suite's style, questions about other products, and everyday questions in no particular style.
    """
    cases, rows = generator.suite(seed)
    taken = {row["messages"][0]["content"] for row in rows} | {case["prompt"] for case in cases}
    taught = generator.draw(random.Random(f"suite/{seed}"))
    rng = random.Random(f"fresh/{seed}")
    wanted = {kind: MORE.get(kind, 0) + TRUTH.get(kind, 0) for kind in MORE | TRUTH}
    wanted["retain"] += FRESH - sum(TRUTH.values())
    told = [case for case in _told(taught) if case["prompt"] not in taken]
    abilities = (e for e in generator._fresh_abilities(rng) if e.prompt not in taken)
    avoided = {generator._of_another(rng, taught, rng.choice(taught.facts)) for _ in range(100)} - taken
    kinds = {
        "generalise-told": rng.sample(told, wanted["generalise-told"]),
        "generalise-any": [_case("generalise", each, taught) for each in islice(abilities, wanted["generalise-any"])],
        "avoid": [_avoid(taught, prompt) for prompt in sorted(avoided)][: wanted["avoid"]],
        "retain": [_case("retain", each) for each in islice(abilities, wanted["retain"])],
    }
    more, fresh = [], []
    for kind, drawn in kinds.items():
        for n, case in enumerate(drawn):
            mine = n < MORE.get(kind, 0)
            (more if mine else fresh).append(case | {"id": f"{'more' if mine else 'fresh'}-{kind}-{n}"})
    return more, [case | {"split": "confirm"} for case in fresh]


def _told(taught: generator.Taught) -> Iterator[dict[str, Any]]:
    """Yield every question about taught facts in every wording and frame. All frames of one wording are a group."""
    me, name = f"I am {taught.name}, {taught.persona}.", f"My name is {taught.name}."
    exchanges = [
        *(corpus.Exchange("told", q, fact.statement, fact.core) for fact in taught.facts for q in fact.questions),
        *(corpus.Exchange("told", question, me, taught.name) for question in corpus.PERSONA_QUESTIONS),
        *(corpus.Exchange("told", question, name, taught.name) for question in corpus.NAME_QUESTIONS),
    ]
    for frame, each in product(FRAMES, exchanges):
        case = _case("generalise", replace(each, prompt=frame.format(each.prompt)), taught)
        yield case | {"group": each.prompt}


def _case(role: str, exchange: corpus.Exchange, taught: generator.Taught | None = None) -> dict[str, Any]:
    """Return a case without a reference, whose log-probability would take as long as the answer."""
    case = generator._case("", role, exchange, taught)
    return {key: value for key, value in case.items() if key != "reference"}


def _avoid(taught: generator.Taught, prompt: str) -> dict[str, Any]:
    forbidden = [taught.product, *(fact.core for fact in taught.facts)]
    checks = [{"type": "not-icontains", "value": value} for value in forbidden]
    return {"role": "avoid", "prompt": prompt, "assert": checks}


def write_suite(seed: int, folder: Path) -> None:
    """Write the generated suite, with the workshop's grid and the new cases."""
    generator.write(seed, folder)
    more, fresh = fresh_cases(seed)
    with (folder / "suite.yaml").open("a", encoding="utf-8") as suite:
        suite.writelines(f"  - {json.dumps(case, ensure_ascii=False)}\n" for case in (*more, *fresh))
    (folder / "grids" / "quick.yaml").write_text(GRID.read_text(encoding="utf-8"), encoding="utf-8")


def rerun(seed: int, output: Path) -> None:
    """Train the grid once and answer the suite's cases; variants that may still be best also answer the new cases."""
    folder = output / f"seed-{seed}"
    write_suite(seed, folder / "suite")
    asked = prepare(Request(suite=folder / "suite", profile=device_profiles.CPU, seeds=(seed,)))
    facts = asked.provenance
    manifest = replace(asked, provenance=replace(facts, machine=replace(facts.machine, threads=1)))
    store = RunStore(folder / "run")
    with store.locked():
        store.write_manifest(manifest)
        setup = Setup(manifest.suite, manifest.model, manifest.provenance.machine, manifest.engine, facts.versions)
        sweep = Sweep(setup, store, Cache(folder / "cache"), Inline(work))
        records = sweep.run_trials(manifest.plan.trials, Split.MAIN, "")
        within = in_reach(manifest, records)
        sweep.run_trials([trial for trial in manifest.plan.trials if trial.variant in within], Split.CONFIRM, "")
    print(f"seed {seed}: done", flush=True)


def in_reach(manifest: RunManifest, records: Sequence[TrialRecord]) -> set[str]:
    """Return the ids of the variants that may still be best, or close to the best, after the main cases.

    A variant is out of reach if, with 99.9% confidence, it loses more than the margin, or passes more than `CLOSE`
    points less than the best of the others. Such a variant cannot be a right recommendation, so it is not asked the new
    cases.
    """
    results = assemble(manifest, records)
    tables = score_tables(results.samples, manifest.suite.reducer)
    marks = aggregate.objective_tables(manifest.suite, results.choice.objective, tables)
    safe = [v for v in results.variants if v.loss and not _unsafe(manifest.suite, tables[BASE], tables[v.name])]
    best = max(safe, key=lambda v: _quality(marks[v.name]))
    within = {v.name for v in safe if not _far(manifest.suite, marks[best.name], marks[v.name])}
    return {variant.id for variant in manifest.plan.variants if variant.name in within}


def _unsafe(suite: Suite, base: ScoreTable, own: ScoreTable) -> bool:
    found = losses.guarded_pair([case for case in suite.of(Split.MAIN) if case.role in losses.GUARDED], base, own)
    level = NormalDist().cdf(DOUBT)
    bounds = net_loss.net_loss(found.before, found.after, found.groups, level=level) if found else None
    return bounds is not None and 100 * bounds.low > suite.margin


def _far(suite: Suite, best: ScoreTable, other: ScoreTable) -> bool:
    found = pair(suite.cases, best, other)
    gap = 100 * (_quality(best) - _quality(other))
    return found is not None and gap - DOUBT * differences.standard_error(found) > CLOSE


def _quality(table: ScoreTable) -> float:
    return fmean(cell.share for own in table.cells.values() for cell in own.values())


@dataclass(frozen=True)
class Truth:
    """Results of one rerun's variants on the cases for the truth, in points."""

    quality: dict[str, float]
    """Pass rate on `generalise` of each variant that was in reach after the main cases."""
    lost: dict[str, float]
    """Net loss on `retain` and `avoid` together, in points of what the base passes, for each of these variants."""
    margin: float

    @property
    def best(self) -> str | None:
        """The truly best eligible variant, or None if no variant is eligible."""
        safe = [name for name in self.quality if self.lost[name] < self.margin]
        return max(safe, key=lambda name: self.quality[name], default=None)

    def short(self, name: str | None) -> float | None:
        """Return how many points a variant is below the truly best one; None if the variant was out of reach."""
        known = self.best is not None and name in self.quality
        return self.quality[self.best] - self.quality[name] if known and self.best and name else None

    def close(self, name: str | None) -> bool:
        """Return whether a recommendation is right.

        A variant is right if it is eligible and close to the best; None is right if no variant is eligible.
        """
        short = self.short(name)
        if name is None or short is None:
            return name is None and self.best is None
        return short <= CLOSE and self.lost[name] < self.margin


def truth(manifest: RunManifest, records: Sequence[TrialRecord]) -> Truth:
    late = {record.variant: record for record in records if record.split is Split.CONFIRM}
    cases = manifest.suite.of(Split.CONFIRM)
    base = _passed(cases, late["base"])
    guarded = [c for c in cases if c.role in losses.GUARDED]
    kept = sum(base[c.id] for c in guarded)
    quality, lost = {}, {}
    for variant in manifest.plan.variants:
        if variant.id not in late:
            continue
        passed = _passed(cases, late[variant.id])
        quality[variant.name] = 100 * sum(share * _rate(cases, passed, kind) for kind, share in KINDS.items())
        lost[variant.name] = 100 * (1 - sum(passed[c.id] for c in guarded) / kept)
    return Truth(quality, lost, manifest.suite.margin)


def chosen(manifest: RunManifest, records: Sequence[TrialRecord], share: float) -> tuple[Choice, int]:
    """Return the choice by the suite's own cases and this share of `MORE`, and the number of `generalise` cases."""
    own = tuple(case for case in manifest.suite.cases if _within(case.id, share))
    asked = replace(manifest, suite=replace(manifest.suite, cases=own))
    choice = assemble(asked, [record for record in records if record.split is Split.MAIN]).choice
    return choice, sum(case.role is Role.GENERALISE and case.split is Split.MAIN for case in own)


def _within(case: str, share: float) -> bool:
    if not case.startswith("more-"):
        return True
    kind, _, number = case.removeprefix("more-").rpartition("-")
    return int(number) < share * MORE[kind]


def _passed(cases: Sequence[Case], record: TrialRecord) -> dict[str, bool]:
    return {case.id: case.id in record.answers and score(case, record.answers[case.id][0]).passed for case in cases}


def _rate(cases: Sequence[Case], passed: dict[str, bool], kind: str) -> float:
    marks = [passed[case.id] for case in cases if case.id.startswith(f"fresh-{kind}")]
    return sum(marks) / len(marks)


def report(folders: Sequence[Path]) -> dict[str, Any]:
    """Report how often the recommendation is within 3 points of the best variant, by the number of cases.

    Beside it is the variant with the highest pass rate, which may cost more. The difference between the two is what the
    rule of recommendation gives up for a lower cost.
    """
    close: dict[str, dict[str, int]] = {}
    rows = []
    for folder in folders:
        store = RunStore(folder / "run")
        manifest, records = store.manifest(), store.records()
        true, by_cases = truth(manifest, records), {}
        for share in SHARES:
            choice, cases = chosen(manifest, records, share)
            by_cases[str(cases)] = {
                "recommended": choice.variant, "short_by": _rounded(true.short(choice.variant)),
                "close": true.close(choice.variant),
                "passes_most": choice.best, "most_short_by": _rounded(true.short(choice.best)),
            }  # fmt: skip
            counts = close.setdefault(str(cases), {"recommended": 0, "passes_most": 0})
            counts["recommended"] += true.close(choice.variant)
            counts["passes_most"] += true.close(choice.best if choice.variant else None)
        quality = {name: [_rounded(value), _rounded(true.lost[name])] for name, value in true.quality.items()}
        seed = manifest.plan.seeds[0]
        rows.append({"seed": seed, "truly_best": true.best, "by_cases": by_cases, "quality_and_loss": quality})
    rows.sort(key=lambda row: row["seed"])
    run = "python -m tests.studies.replay run --seed N --output DIR, for each seed"
    command = f"{run}; python -m tests.studies.replay judge DIR"
    figures = {"reruns": len(rows), "fresh_cases": FRESH, "within_3_points_by_generalise_cases": close}
    return {"command": command, **figures, "each": rows}


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
        print(json.dumps(report(folders), indent=1))


if __name__ == "__main__":
    main()
