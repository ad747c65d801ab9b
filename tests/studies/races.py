"""Measures races: how often the best variant is stopped and what is saved, simulated and from a recorded run.

    python -m tests.studies.races simulate --races 200
    python -m tests.studies.races replay RUN [RUN ...] --replays 200 --seeds 3 --output FILE

`simulate` prints a table for small and large suites, for equal and different variants, and for curves of different
speed. `replay` needs a finished run of many seeds, or several runs of the same variants under other seeds; with
`--seeds 1` they must have a `--timeline`. Each replay draws some of the seeds, repeats the choice as a full run and as
a race with these seeds, and compares both on the cases of all seeds: they agree if the choice is the same, or if the
race chose a variant within 3 points of the other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from harness.analysis import aggregate, race_forecast, racing
from harness.analysis.race_forecast import Differences
from harness.analysis.racing import Entrant, PlannedLook, Race
from harness.analysis.score_table import ScoreTable
from harness.core.answers import Answer
from harness.core.names import BASE
from harness.core.run import RunManifest, TrialRecord
from harness.core.scores import Score
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Role, Split
from harness.core.training_outcome import Status
from harness.scoring import Scoring, scorer
from harness.storage.runs import RunStore
from tests.support.synthetic_runs import case, suite

CLOSE = 3.0
"""A race is right if it chooses a variant that is at most this many points below that of the full run."""
EQUAL = Differences(ability=0.0, failing=0.0, forgetting=0.0, seeds=0.0)
FIELDS = {
    1: {"different": Differences(), "equal": EQUAL, "speeds differ": Differences(speeds=0.5)},
    3: {
        "different": Differences(),
        "equal": EQUAL,
        "equal, seeds differ": replace(EQUAL, seeds=0.3),
        "seeds differ more": Differences(seeds=0.5),
    },
}
"""Number of seeds to how the variants differ."""


def simulated(races: int) -> Iterator[str]:
    """Yield the rows of the table of simulated races."""
    yield "| variants, cases | seeds | variants are | training saved | answers, times | best stopped |"
    yield "|---|---|---|---|---|---|"
    for count in (8, 24):
        variants = [Variant(f"v{n}", f"v{n}", Settings(epochs=10.0)) for n in range(count)]
        weights = {each.id: 1.0 for each in variants}
        for cases, size in ((25, 1), (25, 4), (80, 1), (80, 4)):
            asked = [replace(case(f"g{n}", Role.GENERALISE), group=f"{n // size}") for n in range(cases)]
            made = suite([*asked, *(case(f"r{n}", Role.RETAIN) for n in range(60))], margin=15.0)
            for seeds, fields in FIELDS.items():
                for name, differences in fields.items():
                    found = race_forecast.forecast(made, variants, seeds, weights, races=races, differences=differences)
                    yield (
                        f"| {count}, {cases} {'in groups of 4' if size > 1 else 'single'} | {seeds} | {name} | "
                        f"{100 * found.training:.0f}% | {found.asked:.1f} | {100 * found.best_stopped:.1f}% |"
                    )


# --- replayed ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """One replay: the seeds, what each way chose, and the share of the training that the race saved."""

    seeds: tuple[int, ...]
    full: str | None
    race: str | None
    behind: float
    """How many points the race's choice is behind that of the full run, on the objective's cases of all seeds."""
    saved: float

    @property
    def agrees(self) -> bool:
        return self.full == self.race or (None not in (self.full, self.race) and self.behind <= CLOSE)


@dataclass(frozen=True)
class Recorded:
    """A finished run with timelines, whose answers are scored once."""

    manifest: RunManifest
    records: tuple[TrialRecord, ...]

    def replay(self, seeds: Sequence[int]) -> Replay:
        """Repeat the choice with these seeds, as a full run and as a race."""
        plan = replace(self.manifest.plan, seeds=tuple(seeds))
        manifest = replace(self.manifest, plan=plan)
        own = [record for record in self.records if record.variant == BASE or record.seed in seeds]
        race = racing.race_of(plan.variants, len(seeds))
        stopped = self._race(manifest, race, own)
        kept = [
            replace(record, status=Status.STOPPED, answers={}) if record.variant in stopped else record
            for record in own
        ]
        full, chosen = (aggregate.choose(manifest, each, self.score, "").choice.variant for each in (own, kept))
        rows = len(manifest.suite.examples)
        tokens = {each.id: each.settings.epochs * (rows + each.settings.rehearsal) for each in plan.variants}
        saved = sum(
            tokens[each.id] * (1 - race.trained(stopped[each.id], each)) for each in plan.variants if each.id in stopped
        )
        behind = self._rate(full) - self._rate(chosen)
        return Replay(tuple(seeds), full, chosen, behind, saved / sum(tokens.values()))

    def _race(self, manifest: RunManifest, race: Race, records: Sequence[TrialRecord]) -> dict[str, PlannedLook]:
        """Return the variants that leave, each with its last look."""
        stopped = dict[str, PlannedLook]()
        bases = {r.quantization: self._table([r]) for r in records if r.variant == BASE}
        for look in race.looks:
            entrants, seeds = [], manifest.plan.seeds[:1]
            for variant in manifest.plan.variants:
                own = [record for record in records if record.variant == variant.id and record.seed in seeds]
                if variant.id in stopped:
                    continue
                failed = next((r.status.value for r in own if r.status is not Status.SUCCEEDED), "")
                at = look.epochs.get(variant.id, 0)
                table = self._table([_after(record, at) for record in own])
                base = bases[variant.settings.quantization]
                done = at / variant.settings.epochs if at else 1.0
                entrants.append(Entrant(variant.id, table, base, seeds, done, failed, more_seeds=race.seeds > 1))
            leaving = racing.leaving(manifest.suite, race, entrants)
            stopped |= {
                each.name: look for each in entrants if each.name in leaving and (each.more_seeds or each.done < 1)
            }
        return stopped

    def _table(self, records: Sequence[TrialRecord]) -> ScoreTable:
        return aggregate.table_of(self.manifest.suite, records, self.score)

    def _rate(self, name: str | None) -> float:
        """Return the pass rate of a variant on the objective's cases under all seeds, in points."""
        own = [r for r in self.records for v in self.manifest.plan.variants if v.name == name and r.variant == v.id]
        role = racing.objective_of(self.manifest.suite)
        cases = [each.id for each in self.manifest.suite.of(Split.MAIN) if each.role is role]
        return 100 * (self._table(own).rate(cases).value or 0.0) if own else 0.0

    @property
    def score(self) -> aggregate.Scorer:
        return _scorer(self.manifest.suite.folder)


@cache
def _scorer(folder: str) -> aggregate.Scorer:
    score, known = scorer(Scoring(Path(folder))), dict[tuple[str, str], Score]()

    def remembered(asked: Case, answer: Answer) -> Score:
        key = asked.id, answer.key
        if key not in known:
            known[key] = score(asked, answer)
        return known[key]

    return remembered


def _after(record: TrialRecord, epoch: int) -> TrialRecord:
    """Return a record with the answers after an epoch; after 0 epochs, with those at the end."""
    answers = next((each.answers for each in record.timeline if each.epoch == epoch), record.answers)
    return replace(record, answers=answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("simulate")
    simulate.add_argument("--races", type=int, default=200)
    replaying = commands.add_parser("replay")
    replaying.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    replaying.add_argument("--replays", type=int, default=200)
    replaying.add_argument("--seeds", type=int, default=3)
    replaying.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.command == "simulate":
        for line in simulated(given.races):
            print(line, flush=True)
        return
    stores = [RunStore(run) for run in given.runs]
    manifest = stores[0].manifest()
    seeds = tuple(dict.fromkeys(seed for store in stores for seed in store.manifest().plan.seeds))
    every_record = (record for store in stores for record in store.records() if record.split is Split.MAIN)
    records = {(record.variant, record.seed): record for record in every_record}
    recorded = Recorded(replace(manifest, plan=replace(manifest.plan, seeds=seeds)), tuple(records.values()))
    rng = np.random.default_rng(0)
    every = recorded.manifest.plan.seeds
    made = [
        recorded.replay(sorted(rng.choice(every, given.seeds, replace=False).tolist())) for _ in range(given.replays)
    ]
    agree, saved = sum(each.agrees for each in made), np.mean([each.saved for each in made])
    print(f"{agree} of {len(made)} replays agree; {100 * saved:.0f}% of the training rows are saved")
    if given.output:
        given.output.write_text(json.dumps([asdict(each) for each in made], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
