"""Measures how often the gate raises a false alarm and how often it finds a change, from real trainings.

    python -m tests.studies.gate_trainings --output DIR --jobs N
    python -m tests.studies.gate_study DIR [--output FILE]

A pair is two runs of five seeds, drawn from the trainings in DIR so that the two runs share no training. For
`simulated` pairs, each answer passes with its case's pass rate, and some seeds are better than others. To inject a
drop, passes of a real run are turned into failures: either whole cases, or single answers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from harness.analysis.aggregate import assemble
from harness.analysis.regression import verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.core import device_profiles
from harness.core.engines import Engine
from harness.core.formats import FORMAT
from harness.core.model import ModelRef
from harness.core.regression import Baseline, BaselineVariant, Decision, Policy, StoredAnswer
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Verdict
from harness.core.suite import Role
from harness.hardware.environment import machine, provenance
from harness.scoring import score
from harness.suites import load_suite
from harness.suites.grids import load_plan
from tests.studies.gate_trainings import ARMS, SUITE, load
from tests.support.printed_figures import print_figures

SIDE = 5
PAIRS, SIMULATED, DRAWS, INJECTED = 300, 1_000, 20, 100
HARMED = ("hot", "short", "corrupted")
DRIFTED = {"bf16": "saved dtype", "all-tokens": "supervised tokens", "template": "chat template"}
"""For each of these arms, the difference in the training that the gate must report."""
DROPS = (0.05, 0.10, 0.20)
SPREAD = 0.5
"""Standard deviation, in log-odds, of the effect of a simulated seed on every case."""


# --- sides -------------------------------------------------------------------------------------------------------


def arm(folder: Path, name: str) -> Baseline:
    """Return all trainings of an arm (the gate's variant with one change) as one run."""
    suite, plan = load_suite(SUITE), load_plan(SUITE / "grids" / "gate.yaml")
    records = load(folder, name)
    asked = replace(plan, seeds=tuple(record.seed for record in records))
    facts = provenance(machine(device_profiles.CPU), [])
    manifest = RunManifest(FORMAT, suite, asked, ModelRef("pocket", "", "", toy=True), Engine.REFERENCE, (), facts, "")
    every: list[TrialRecord] = [*load(folder, "base"), *records]
    return baseline_of(assemble(manifest, every, score, ""), name)


def side(run: Baseline, seeds: Sequence[int]) -> Baseline:
    """Return the run with only these seeds. Costs have no seed, so the first ones are kept."""
    (row,) = run.variants
    places = [row.seeds.index(seed) for seed in seeds]
    chosen = replace(
        row,
        seeds=tuple(seeds),
        statuses=tuple(row.statuses[place] for place in places),
        messages=tuple(row.messages[place] for place in places),
        costs=tuple(row.costs[place] for place in places) if len(row.costs) == len(row.seeds) else row.costs[:SIDE],
        answers={case: _of(given, set(seeds)) for case, given in row.answers.items()},
    )
    return replace(run, variants=(chosen,))


def _of(given: Iterable[StoredAnswer], seeds: set[int]) -> tuple[StoredAnswer, ...]:
    kept = (replace(each, seeds=tuple(seed for seed in each.seeds if seed in seeds)) for each in given)
    return tuple(each for each in kept if each.seeds)


def two_sides(rng: random.Random, before: Baseline, after: Baseline) -> tuple[Baseline, Baseline]:
    """Draw five seeds for each side, and no seed for both.

    Arms may share a training under the same seed, so a common seed could be a common training.
    """
    drawn = rng.sample(after.variants[0].seeds, SIDE)
    rest = [seed for seed in before.variants[0].seeds if seed not in drawn]
    return side(before, rng.sample(rest, SIDE)), side(after, drawn)


def decide(before: Baseline, after: Baseline) -> Decision:
    return verdict.decide(compare(before, after), Policy(after.suite.margin))


def tally(decisions: Iterable[Decision]) -> dict[str, int]:
    counts = Counter(decision.verdict for decision in decisions)
    return {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]}


# --- simulated and injected --------------------------------------------------------------------------------------


def repassed(row: BaselineVariant, seeds: Sequence[int], passes: Callable[[str, int], bool]) -> BaselineVariant:
    """Return the variant's row with answers that pass as `passes` says."""
    answers = {}
    for case in row.answers:
        sides: dict[bool, list[int]] = {True: [], False: []}
        for seed in seeds:
            sides[passes(case, seed)].append(seed)
        answers[case] = tuple(StoredAnswer("", tuple(own), 1, ok, float(ok)) for ok, own in sides.items() if own)
    return replace(row, seeds=tuple(seeds), statuses=row.statuses[:1] * len(seeds), messages=("",) * len(seeds),
                   costs=(), answers=answers)  # fmt: skip


def simulated(rng: random.Random, run: Baseline) -> Baseline:
    """Draw another run of the same cases from their pass rates, in which some seeds are better than others."""
    (row,) = run.variants
    shares = {case: _share(row, case) for case in row.answers}
    shifts = {seed: rng.gauss(0, SPREAD) for seed in range(SIDE)}

    def passes(case: str, seed: int) -> bool:
        odds = math.log(shares[case] / (1 - shares[case])) + shifts[seed]
        return rng.random() < 1 / (1 + math.exp(-odds))

    return replace(run, variants=(repassed(row, range(SIDE), passes),))


def _share(row: BaselineVariant, case: str) -> float:
    """Return the case's pass rate with half a pass and half a failure added, so that it is never 0 or 1."""
    passed = sum(len(kept.seeds) for kept in row.answers[case] if kept.passed)
    return (passed + 0.5) / (len(row.seeds) + 1)


def injected(rng: random.Random, run: Baseline, role: Role, drop: float, *, whole: bool) -> Baseline:
    """Turn the share `drop` of a role's passes into failures: whole cases under every seed, or single answers."""
    (row,) = run.variants
    cases = [case.id for case in run.suite.cases if case.role is role]
    passed = {(c, s): kept.passed for c in row.answers for kept in row.answers[c] for s in kept.seeds}
    wanted = drop * len(cases)
    lost = set(rng.sample(cases, int(wanted) + (rng.random() < wanted % 1)))

    def passes(case: str, seed: int) -> bool:
        if not passed[case, seed] or case not in cases:
            return passed[case, seed]
        return case not in lost if whole else rng.random() >= drop

    return replace(run, variants=(repassed(row, row.seeds, passes),))


# --- the study ---------------------------------------------------------------------------------------------------


def false_alarms(rng: random.Random, same: Baseline) -> dict[str, object]:
    real = [decide(*two_sides(rng, same, same)) for _ in range(PAIRS)]
    made = [decide(simulated(rng, same), simulated(rng, same)) for _ in range(SIMULATED)]
    drifting = sum(bool(variant.drift) for decision in real for variant in decision.comparison.variants)
    return {
        "real": {"trainings": len(same.variants[0].seeds), "pairs": PAIRS, "verdicts": tally(real), "drift": drifting},
        "simulated": {"pairs": SIMULATED, "seeds_differ_by_log_odds": SPREAD, "verdicts": tally(made)},
    }


def harms(rng: random.Random, same: Baseline, changed: Baseline) -> dict[str, object]:
    decisions = [decide(*two_sides(rng, same, changed)) for _ in range(DRAWS)]
    drift = Counter(d.what for made in decisions for v in made.comparison.variants for d in v.drift)
    return {
        "trainings": len(changed.variants[0].seeds), "against": len(same.variants[0].seeds),
        "pairs": DRAWS, "verdicts": tally(decisions),
        "settings_drift": dict(drift), "reference": reference(same, changed),
    }  # fmt: skip


def reference(same: Baseline, changed: Baseline) -> dict[str, object]:
    """Estimate the true change from all trainings, in points, with the 95% interval for other seeds."""
    decision = decide(same, changed)
    roles = decision.comparison.variants[0].roles
    moved = {
        r.role.value: [_points(r.difference.value), _points(r.difference.low), _points(r.difference.high)]
        for r in roles
    }
    return {"verdict": str(decision.verdict), "points": moved}


def _points(share: float) -> float:
    return round(100 * share, 1)


def curve(rng: random.Random, same: Baseline) -> dict[str, object]:
    found: dict[str, object] = {}
    for role in Role:
        for drop in DROPS:
            for whole in (True, False):
                caught = []
                for _ in range(INJECTED):
                    before, after = two_sides(rng, same, same)
                    decision = decide(before, injected(rng, after, role, drop, whole=whole))
                    caught.append(decision.verdict is Verdict.REGRESSED)
                kind = "whole cases" if whole else "single answers"
                found[f"{role}, {100 * drop:.0f} points in {kind}"] = round(fmean(caught), 3)
    return found


SECTIONS: dict[str, Callable[[random.Random, dict[str, Baseline]], dict[str, object]]] = {
    "same": lambda rng, runs: false_alarms(rng, runs["same"]),
    "worse": lambda rng, runs: {name: harms(rng, runs["same"], runs[name]) for name in HARMED if name in runs},
    "drift": lambda rng, runs: {
        name: {"to_be_named": named, **harms(rng, runs["same"], runs[name])}
        for name, named in DRIFTED.items()
        if name in runs
    },
    "share_regressed_by_injected_drop": lambda rng, runs: {"pairs_each": INJECTED, **curve(rng, runs["same"])},
}


def study(folder: Path, sections: Sequence[str]) -> dict[str, object]:
    """Run the requested sections, each with random numbers of its own, so that one can be repeated alone."""
    runs = {name: arm(folder, name) for name in ARMS if (folder / name).is_dir()}
    same = runs["same"]
    cases = Counter(case.role.value for case in same.suite.cases)
    return {
        "command": (
            "python -m tests.studies.gate_trainings --output DIR --jobs N; python -m tests.studies.gate_study DIR"
        ),
        "versions": same.provenance.versions,
        "suite": same.suite.name, "cases": dict(cases), "seeds_a_side": SIDE,
        "policy": {"alpha": Policy(0).alpha, "least": Policy(0).least, "margin": same.suite.margin},
        **{name: SECTIONS[name](random.Random(name), runs) for name in sections},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="Repeat only this part; keep the others in FILE."
    )
    given = parser.parse_args()
    known = json.loads(given.output.read_text(encoding="utf-8")) if given.only else {}
    print_figures(known | study(given.folder, given.only or list(SECTIONS)), given.output)


if __name__ == "__main__":
    main()
