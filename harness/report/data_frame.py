"""The answers of a run as a pandas DataFrame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.analysis.contamination import leaks_in_results
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.settings import Settings
from harness.core.suite import Case, LeakLabel, Split
from harness.report.samples_file import by_split, counted, key, perplexity

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = tuple(Settings().as_dict())
COLUMNS = (
    "variant", "seed", "case", "repeat", "split", "role", "leak", "passed", "score", "counted", "answer",
    "truncated", "perplexity", "reference_perplexity", *SETTINGS,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run, as returned by `harness.load_run`."""

    results: Results

    def __repr__(self) -> str:
        """Return one short line without the answers, because notebooks print it."""
        run = self.results.run
        size = f"{len(self.results.variants)} variants, {len(run.plan.seeds)} seeds, {len(run.suite.cases)} cases"
        return f"Run({run.suite.name} on {run.model.name}: {size})"

    def frame(self) -> pd.DataFrame:
        """Return one row per variant, seed, case and repeat. The base model is the variant `base`, without settings.

        If the grid has several quantisations, the base model in each other one is a variant such as `base quant=none`.
        `leak` says whether the training rows contain the case's prompt: `seen`, `near-duplicate` or `unseen`. `score`
        is between 0 and 1, or missing if the answer could not be scored. `counted` is 1 if the row counts as a pass in
        the report's pass rates, 0 if it counts as a failure, and missing if it does not count, so that its mean is the
        pass rate. It is missing in rows without a score. With the reducer `all` or `any`, the first repeat counts for
        all repeats. `perplexity` is that of the model's answer, and
        `reference_perplexity` that of the case's reference, which is missing if the case has none. Rows whose `split`
        is `confirm` belong to the base model and the best variant only, on held-out cases and with fresh seeds. Compare
        variants on rows whose `split` is `main`.
        """
        import pandas as pd

        cases = {case.id: case for case in self.results.run.suite.cases}
        found, marks = leaks_in_results(self.results), counted(self.results)
        settings = {v.name: _values(v.settings) for v in self.results.variants}
        rows = [
            _row(cases[sample.case], found[sample.case].label, split, sample, marks.get(key(sample)))
            + settings.get(sample.variant, _values(None))
            for split, sample in by_split(self.results)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_nullable())

    def timeline(self) -> pd.DataFrame:
        """Return the pass rates over all seeds, one row per variant, epoch and role; empty without `--timeline`."""
        import pandas as pd

        rows = [
            (each.variant, epoch.epoch, role.value, rate.passed, rate.total, rate.value)
            for each in self.results.timelines
            for epoch in each.epochs
            for role, rate in epoch.rates.items()
        ]
        return pd.DataFrame(rows, columns=["variant", "epoch", "role", "passed", "total", "rate"])


def _row(case: Case, leak: LeakLabel, split: Split, sample: Sample, counted: bool | None) -> tuple[Any, ...]:
    # pandas refuses lone surrogates in a column of texts, and models can produce them.
    answer = sample.answer.text.encode("utf-8", "backslashreplace").decode()
    first = (sample.variant, sample.seed, case.id, sample.repeat, split.value, case.role.value, leak.value)
    mark = None if counted is None else int(counted)
    second = (sample.score.passed, sample.score.value, mark, answer, sample.answer.truncated)
    return (*first, *second, perplexity(sample.answer.likelihood), perplexity(sample.answer.reference))


def _nullable() -> dict[str, str]:
    """Return nullable column types. Without them, the base model's missing rank would turn every 16 into 16.0."""
    kinds = {bool: "boolean", int: "Int64"}
    settings = {name: kinds[type(value)] for name, value in Settings().as_dict().items() if type(value) in kinds}
    return {"counted": "Int64", **settings}


def _values(settings: Settings | None) -> tuple[Any, ...]:
    """Return the values of the settings, with enums as plain texts. For the base model, each value is None."""
    if settings is None:
        return (None,) * len(SETTINGS)
    return tuple(str(v) if isinstance(v, StrEnum) else v for v in settings.as_dict().values())
