"""The runs whose results, answers and page are committed: the folders of `reports` that hold compressed results."""

from __future__ import annotations

import lzma
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from harness.core.answers import Answer
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.run_results import Outcome, Results
from harness.core.scores import Sample
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.storage.records import read_record

REPORTS = Path(__file__).resolve().parents[2] / "reports"
Answers = dict[tuple[str, int], dict[str, tuple[Answer, ...]]]
FOLDERS = sorted(file.parent for file in REPORTS.glob("*/results.json.xz"))


def results_in(folder: Path, work: Path) -> Results:
    """Return the results in a committed folder, which are unpacked into the folder `work`."""
    file = work / "results.json"
    file.write_bytes(lzma.decompress((folder / "results.json.xz").read_bytes()))
    return read_record(file, Results)


def records_of(results: Results) -> list[TrialRecord]:
    """Return a record of each trial with the answers in its results, but without scores."""
    main, held_out = _answers(results.samples), _answers(results.confirmed_samples)
    confirmed = [each for each in (results.confirmed_base, results.confirmed) if each]
    return [
        *(_record(results, each, n, Split.MAIN, main) for each, n in _trials([*results.every_base, *results.variants])),
        *(_record(results, each, n, Split.CONFIRM, held_out) for each, n in _trials(confirmed)),
    ]


def _trials(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, int]]:
    return [(outcome, n) for outcome in outcomes for n in range(len(outcome.seeds))]


def _answers(samples: Iterable[Sample]) -> Answers:
    """Return the answers of each variant under each seed, by case."""
    found: Answers = defaultdict(dict)
    for sample in samples:
        own = found[sample.variant, sample.seed]
        own[sample.case] = (*own.get(sample.case, ()), sample.answer)
    return found


def _record(results: Results, outcome: Outcome, n: int, split: Split, answers: Answers) -> TrialRecord:
    """Return the record of the trial with the outcome's seed number `n`."""
    trained = (Status.SUCCEEDED, Status.DIVERGED)
    before = sum(status in trained for status in outcome.statuses[:n])
    known = outcome.training[before : before + 1] if outcome.statuses[n] in trained else ()
    return TrialRecord(
        trial=f"{outcome.name} {outcome.seeds[n]}",
        variant=BASE if outcome.untrained else outcome.name,
        seed=outcome.seeds[n],
        settings=outcome.settings,
        split=split,
        status=outcome.statuses[n],
        message=outcome.messages[n],
        training=next(iter(known), None),
        costs=outcome.costs,
        answers=answers[outcome.name, outcome.seeds[n]],
        quantization={name: each for each, name in results.run.plan.bases.items()}.get(outcome.name),
    )
