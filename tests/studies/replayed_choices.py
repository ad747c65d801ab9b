"""Counts how often a chosen variant is confirmed, not confirmed or refuted, by its true loss.

    python -m tests.studies.replayed_choices --choices 200 --output reports/studies/replayed-choices.json
    python -m tests.studies.replayed_choices --run RUN --choices 200 --output FILE

A replay is a whole run: 8 variants under 3 seeds answer 130 guarded and 60 `generalise` cases, the harness chooses, and
the chosen variant under 3 fresh seeds answers 100 and 40 held-out cases. Choice and confirmation are the product's own.
The true loss is `within` the margin (at least 5 points less), `near` it, or `beyond` it (at least 5 points more). Few
variants beyond the margin are chosen. Therefore variants of given losses are also confirmed without a choice.

Without `--run`, the answers are simulated, so that the true loss is known exactly, and variants that learn more lose
more. With `--run`, they are drawn from a finished run: groups of cases with replacement, and for every variant seeds
with replacement; the truth is the net loss over all cases and seeds of that run. As it has few seeds, the seeds of the
confirmation are then not really fresh.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from harness.analysis import aggregate
from harness.analysis.score_table import score_tables
from harness.core.answers import Answer
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.run_results import Finding, Results
from harness.core.scores import Check, Score
from harness.core.settings import Settings, Variant
from harness.core.suite import Assertion, Case, Message, Role, Split
from harness.runner.rescoring import assemble
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from tests.studies.placebos import LEVELS, lines, odds_of, probabilities
from tests.support import synthetic_runs

Marks = NDArray[np.bool_]
"""Whether answers passed, (seeds, cases)."""
SIZES = {
    Split.MAIN: {Role.RETAIN: 130, Role.GENERALISE: 60},
    Split.CONFIRM: {Role.RETAIN: 100, Role.GENERALISE: 40},
}
MARGIN, SEEDS, VARIANTS, SPREAD, NEAR = 15.0, 3, 8, 0.25, 5.0
RATES = (0.5, 0.7, 0.95)
"""Pass rates of the simulated base models on guarded cases."""
LOSSES = (0.0, 5.0, 15.0, 20.0, 30.0, 50.0)
"""True losses of the variants that are confirmed without a choice, in points."""
CONCENTRATION = 4.0
MOST_TRIED = 5
"""Replays without a choice are not counted, but at most this many replays are made for each wanted choice."""


@dataclass(frozen=True)
class Sheet:
    """Results of the base model and of variants on the same new cases."""

    base: Marks
    """(1, cases)"""
    variants: Mapping[str, Marks]
    groups: Sequence[str]


# --- simulated answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulated:
    """Variants whose true losses are drawn anew for each replay, from 0 to twice the margin."""

    rate: float
    loss: Mapping[str, float]

    @classmethod
    def drawn(cls, rng: np.random.Generator, rate: float) -> Simulated:
        losses = sorted(float(loss) for loss in rng.uniform(0, 2 * MARGIN, VARIANTS))
        return cls(rate, {f"v{n}": loss for n, loss in enumerate(losses)})

    def sheet(self, rng: np.random.Generator, role: Role, cases: int, names: Sequence[str]) -> Sheet:
        """Draw new cases, and seeds that no other sheet has."""
        groups = [""] * cases
        if role is Role.GENERALISE:
            learned = {name: min(0.9, 0.5 + 0.4 * self.loss[name] / (2 * MARGIN)) for name in names}
            base = rng.random((1, cases)) < rng.beta(0.4, 3.6, cases)
            return Sheet(base, {name: _answers(rng, logit(_beta(rng, learned[name], cases))) for name in names}, groups)
        beta = CONCENTRATION * self.rate, CONCENTRATION * (1 - self.rate)
        ability = rng.integers(0, LEVELS, cases)
        base = rng.random((1, cases)) < probabilities(beta)[ability]
        odds = {name: odds_of(beta, round(self.loss[name]) / 100, SPREAD)[ability] for name in names}
        return Sheet(base, {name: _answers(rng, odds[name]) for name in names}, groups)

    def truth(self, name: str) -> float:
        return float(round(self.loss[name]))


def _beta(rng: np.random.Generator, mean: float, cases: int) -> NDArray[np.float64]:
    return rng.beta(CONCENTRATION * mean, CONCENTRATION * (1 - mean), cases).clip(1e-6, 1 - 1e-6)


def _answers(rng: np.random.Generator, odds: NDArray[np.float64]) -> Marks:
    shift = rng.normal(0, SPREAD, (SEEDS, 1))
    return np.asarray(rng.random((SEEDS, len(odds))) < expit(odds + shift))


# --- answers of a finished run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """The results of a finished run, from which replays draw cases and seeds."""

    sheets: Mapping[Role, Sheet]

    @classmethod
    def of(cls, results: Results) -> Recorded:
        suite, sheets = results.run.suite, {}
        tables = score_tables(results.samples, suite.reducer)
        names = [variant.name for variant in results.variants if variant.name in tables]
        for role, roles in ((Role.RETAIN, (Role.RETAIN, Role.AVOID)), (Role.GENERALISE, (Role.GENERALISE,))):
            asked = [case for case in suite.of(Split.MAIN) if case.role in roles]
            shared = [case for case in asked if all(case.id in tables[name].cells for name in (BASE, *names))]
            ids = [case.id for case in shared]
            marks = {name: tables[name].scores(ids, tables[name].scored_seeds) >= 0.5 for name in (BASE, *names)}
            groups = [case.group or case.id for case in shared]
            sheets[role] = Sheet(marks.pop(BASE)[:1], marks, groups)
        return cls(sheets)

    @property
    def names(self) -> list[str]:
        return list(self.sheets[Role.RETAIN].variants)

    def sheet(self, rng: np.random.Generator, role: Role, cases: int, names: Sequence[str]) -> Sheet:
        own = self.sheets[role]
        places, groups = _resampled(rng, own.groups, cases)
        variants = {
            name: own.variants[name][rng.integers(0, len(own.variants[name]), SEEDS)][:, places] for name in names
        }
        return Sheet(own.base[:, places], variants, groups)

    def truth(self, name: str) -> float:
        own = self.sheets[Role.RETAIN]
        return 100 * float(1 - own.variants[name].mean() / own.base.mean())


def _resampled(rng: np.random.Generator, groups: Sequence[str], cases: int) -> tuple[list[int], list[str]]:
    """Draw whole groups with replacement until there are enough cases; a group drawn twice counts as two groups."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    names, places, new = list(members), list[int](), list[str]()
    while len(places) < cases:
        own = members[names[rng.integers(len(names))]]
        new += [f"draw-{len(new)}"] * len(own)
        places += own
    return places[:cases], new[:cases]


# --- a replay ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The true loss of the chosen variant, in points, and the finding of the confirmation."""

    truth: float
    finding: Finding

    @property
    def where(self) -> str:
        if abs(self.truth - MARGIN) < NEAR:
            return "near"
        return "within" if self.truth < MARGIN else "beyond"


Source = Simulated | Recorded
Sheets = Mapping[Role, Sheet]


def replay(rng: np.random.Generator, source: Source, names: Sequence[str]) -> Outcome | None:
    """Choose and confirm once; return None if no variant was chosen."""
    main, late = (_sheets(rng, source, SIZES[split], names) for split in Split)
    return _confirmed(source, main, late, names)


def confirmed_without_choice(rng: np.random.Generator, rate: float, loss: float) -> Outcome:
    """Confirm a variant of this true loss, in points, whether it would have been chosen or not."""
    source = Simulated(rate, {"v": loss})
    main = _sheets(rng, source, dict.fromkeys(SIZES[Split.MAIN], 4), ["v"])
    found = _confirmed(source, main, _sheets(rng, source, SIZES[Split.CONFIRM], ["v"]), ["v"], chosen="v")
    assert found is not None
    return found


def _sheets(rng: np.random.Generator, source: Source, sizes: Mapping[Role, int], names: Sequence[str]) -> Sheets:
    return {role: source.sheet(rng, role, cases, names) for role, cases in sizes.items()}


def _confirmed(
    source: Source, main: Sheets, late: Sheets, names: Sequence[str], *, chosen: str | None = None
) -> Outcome | None:
    """Let the product choose, unless a choice is given, and confirm. `main` has the cases to choose by."""
    seeds, fresh = tuple(range(SEEDS)), tuple(range(100, 100 + SEEDS))
    variants = {name: Variant(name, name, Settings(learning_rate=(n + 1) * 1e-4)) for n, name in enumerate(names)}
    cases = [*_cases(Split.MAIN, main), *_cases(Split.CONFIRM, late)]
    suite = synthetic_runs.suite(cases, margin=MARGIN)
    manifest = replace(synthetic_runs.manifest(suite, list(variants.values()), seeds), confirm_seeds=fresh)
    records = list(_records(main, Split.MAIN, variants, seeds))
    results = aggregate.choose(manifest, records, score, "")
    name = chosen or results.choice.variant
    if name is None:
        return None
    results = replace(results, choice=replace(results.choice, variant=name))
    records += _records(late, Split.CONFIRM, {name: variants[name]}, fresh)
    found = aggregate.confirm(results, records, score, "").choice.confirmation
    assert found is not None
    return Outcome(source.truth(name), found.finding)


def score(case: Case, answer: Answer) -> Score:
    passed = answer.text == "pass"
    return Score(case.id, passed, float(passed), (Check("passes", passed, ""),))


def _cases(split: Split, sheets: Sheets) -> Iterator[Case]:
    for role, sheet in sheets.items():
        for n, group in enumerate(sheet.groups):
            id, expected = f"{split.value}-{role.value}-{n}", (Assertion("contains", "pass"),)
            yield Case(id, (Message("user", f"Question {id}?"),), expected, role, split, group=group)


def _records(
    sheets: Sheets, split: Split, variants: Mapping[str, Variant], seeds: Sequence[int]
) -> Iterator[TrialRecord]:
    def answers(marks: Mapping[Role, NDArray[np.bool_]]) -> dict[str, str]:
        return {f"{split.value}-{role.value}-{n}": "pass" if passed else "fail"
                for role, own in marks.items() for n, passed in enumerate(own)}  # fmt: skip

    yield synthetic_runs.record(None, answers({role: sheet.base[0] for role, sheet in sheets.items()}), split=split)
    for name, variant in variants.items():
        for row, seed in enumerate(seeds):
            marks = {role: sheet.variants[name][row] for role, sheet in sheets.items()}
            trained = synthetic_runs.training()
            yield synthetic_runs.record(variant, answers(marks), seed=seed, split=split, trained=trained)


# --- the study ---------------------------------------------------------------------------------------------------


def counts(outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    """Count the findings by where the truth is."""
    made = [each for each in outcomes if each]
    table = {
        where: {"choices": sum(each.where == where for each in made)}
        | {str(finding): sum(each.where == where and each.finding is finding for each in made) for finding in Finding}
        for where in ("within", "near", "beyond")
    }
    said = Counter(str(each.finding) for each in made)
    truths = sorted(each.truth for each in made)
    return {
        "replays": len(outcomes), "choices": len(made), "findings": dict(said), "by_truth": table,
        "true_loss_of_the_chosen": {"median": round(truths[len(truths) // 2], 1) if truths else None,
                                    "most": round(truths[-1], 1) if truths else None},
    }  # fmt: skip


def simulated(rate: float, choices: int) -> dict[str, Any]:
    rng, outcomes = np.random.default_rng([7, int(100 * rate)]), list[Outcome | None]()
    while sum(each is not None for each in outcomes) < choices and len(outcomes) < MOST_TRIED * choices:
        source = Simulated.drawn(rng, rate)
        outcomes.append(replay(rng, source, list(source.loss)))
    given = {}
    for loss in LOSSES:
        made = Counter(str(confirmed_without_choice(rng, rate, loss).finding) for _ in range(choices))
        given[f"net loss {loss:.0f}"] = {str(finding): made[str(finding)] for finding in Finding}
    return {**counts(outcomes), "without_choice": given}


def recorded(folder: Path, choices: int) -> dict[str, Any]:
    store = RunStore(folder)
    results = assemble(store.manifest(), store.records())
    source, rng = Recorded.of(results), np.random.default_rng(8)
    outcomes = [replay(rng, source, source.names) for _ in range(choices)]
    own = source.sheets[Role.RETAIN]
    return {
        "run": results.run.provenance.command, "model": results.run.model.name,
        "guarded_cases": len(own.groups), "base_passes": int(own.base.sum()),
        "true_losses": {name: round(source.truth(name), 1) for name in source.names}, **counts(outcomes),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choices", type=int, default=200)
    parser.add_argument("--run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    part = "--run RUN " if given.run else ""
    sizes = {str(split): {str(role): count for role, count in own.items()} for split, own in SIZES.items()}
    facts = {"cases": sizes, "margin": MARGIN, "seeds": SEEDS, "near_points": NEAR}
    if given.run:
        facts |= recorded(given.run, given.choices)
    else:
        with ProcessPoolExecutor(len(RATES)) as pool:
            found = pool.map(simulated, RATES, [given.choices] * len(RATES))
        each = {f"base passes {100 * rate:.0f}%": own for rate, own in zip(RATES, found, strict=True)}
        facts |= {"variants": VARIANTS, "seeds_differ_by_log_odds": SPREAD, **each}
    command = f"python -m tests.studies.replayed_choices {part}--choices {given.choices} --output {given.output}"
    write_text(given.output, lines({"command": command, **facts}))


if __name__ == "__main__":
    main()
