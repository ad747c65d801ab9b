"""Tables that commands print: suite, plan, findings of `doctor`, calibration, cache, parity stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from harness.cli.output import Output
from harness.core.errors import ModelError
from harness.core.machine import Calibration
from harness.core.measurement import GIB
from harness.core.parity import Parity, VerdictChange, Verdicts
from harness.core.quantities import gib
from harness.core.rehearsal import DECODING, Rehearsal
from harness.core.setting_text import in_plan
from harness.core.settings import AXES, Plan, unpredictable
from harness.core.suite import Role, Split, Suite
from harness.core.turn_tokens import CutRows, TurnTokens
from harness.core.wording import duration, listed, one, plural, two_digits
from harness.hardware import estimate
from harness.hardware.doctor import Finding
from harness.hardware.estimate import Prediction, Range, predictions, updates
from harness.hardware.estimate.predictions import TargetGpu, Workload
from harness.models.resolving import remarks
from harness.storage.cache import Held
from harness.suites.grids import differing_settings


def suite_table(suite: Suite, plans: Sequence[Plan], warnings: Sequence[str] = ()) -> None:
    """Print the numbers of cases by role and split, training rows and variants, then notices and warnings."""
    console = Output()
    table = _table("role", *(split.value for split in Split))
    for role in Role:
        counts = [sum(case.role is role for case in suite.of(split)) for split in Split]
        if any(counts):
            table.add_row(role.value, *map(str, counts))
    console.print(f"{suite.name}: {plural(len(suite.cases), 'case')}, {plural(len(suite.examples), 'training row')}")
    console.print(table)
    for plan in plans:
        seeds = plural(len(plan.seeds), "seed")
        console.print(f"grid {plan.grid}: {plural(len(plan.variants), 'variant')}, {seeds}")
    for notice in (*suite.notices, *warnings):
        console.print(notice, soft_wrap=True)
    console.print("The suite is valid.")


def plan_table(
    suite: Suite,
    plan: Plan,
    model: str,
    place: TargetGpu | None,
    tokens: TurnTokens | str = "no tokenizer was read",
    rehearsal: Rehearsal | None = None,
) -> None:
    """Print one line per variant: its name, the settings that differ, steps, rows cut, predicted memory and time.

    `tokens` is the result of the check with the model's tokenizer, or the reason why there was none.
    """
    predicted_costs = _predictions(suite, plan, model, rehearsal, place) if place else None
    names = differing_settings(plan)
    predicted = ("memory", "on the GPU", "time of a trial") if predicted_costs else ()
    cuts = {} if isinstance(tokens, str) else {cut.max_length: cut for cut in tokens.cuts if cut.cut}
    table = _table("variant", *(name.replace("_", " ") for name in names), "steps", *_cut_head(cuts), *predicted)
    for variant in plan.variants:
        values = (in_plan(name, getattr(variant.settings, name)) for name in names)
        steps = str(updates(variant.settings, len(suite.examples) + variant.settings.rehearsal))
        cut = _cut_cells(cuts, variant.settings.max_length)
        costs = predicted_costs.cells(variant.id) if predicted_costs else ()
        table.add_row(variant.name, *values, steps, *cut, *costs)
    console = Output()
    seeds = ", ".join(map(str, plan.seeds))
    variants, trials = plural(len(plan.variants), "variant"), plural(len(plan.trials), "trial")
    word = "seed" if len(plan.seeds) == 1 else "seeds"
    console.print(f"{suite.name}, grid {plan.grid}: {variants}, {word} {seeds}: {trials}")
    if plan.search:
        rest = plan.search.trials - len(plan.variants)
        console.print(f"They begin a search of {plan.search.trials} variants; the other {rest} follow from results.")
    console.print(table)
    for line in predicted_costs.notes() if predicted_costs else remarks(model):
        console.print(line, soft_wrap=True)
    for line in _rehearsal_notes(rehearsal, predicted=predicted_costs is not None):
        console.print(line, soft_wrap=True)
    unchecked = f"Rows and prompts were not checked with the model's tokenizer: {tokens}."
    for line in (unchecked,) if isinstance(tokens, str) else tokens.notices:
        console.print(line, soft_wrap=True)


def _rehearsal_notes(rehearsal: Rehearsal | None, *, predicted: bool) -> Iterator[str]:
    """Sentences about the rehearsal of a run that has not begun."""
    if rehearsal is None:
        return
    most = DECODING.max_new_tokens
    near = f"; {rehearsal.near} others are in or near a case or a training row" if rehearsal.near else ""
    asked = plural(len(rehearsal.prompts), "prompt")
    yield (
        f"Rehearsal: before training, the base model answers {asked} with at most {most} tokens each{near}. "
        "Answers that are empty, cut or repeat themselves become no rows. If too few are left, the run stops there."
    )
    if predicted:
        yield (
            f"The predictions take each rehearsal row to have an answer of {most} tokens, because the answers do not "
            "exist yet. The time of answering is not included."
        )


def _cut_head(cuts: Mapping[int, CutRows]) -> tuple[str, ...]:
    return ("rows cut", "without end") if cuts else ()


def _cut_cells(cuts: Mapping[int, CutRows], max_length: int) -> tuple[str, ...]:
    found = cuts.get(max_length)
    return () if not cuts else (str(found.cut), str(found.endless)) if found else ("0", "0")


@dataclass(frozen=True)
class _Predictions:
    """Predictions for the variants of a plan. `missing` says why there are none, if there are none."""

    model: str
    place: TargetGpu
    subject: Workload | None
    made: dict[str, Prediction]
    trials: tuple[str, ...]
    """The variant id of each trial, one entry per trial."""
    missing: str = ""
    unknown: tuple[str, ...] = ()
    """The settings for which nothing is predicted, by name; the trials that use them are not in `made`."""

    def cells(self, variant: str) -> tuple[str, str, str]:
        """Allocated memory, memory reserved on the GPU, and time, as text."""
        made = self.made.get(variant)
        if made is None:
            return "-", "-", "-"
        reserved = f"{size(made.reserved)}, {made.fit}"
        return (
            size(made.memory.allocated),
            reserved,
            duration(made.seconds.low, made.seconds.high) if self.place.speeds else "-",
        )

    def notes(self) -> Iterator[str]:
        """The lines below the table: for which model and GPU the predictions are, and how accurate they are."""
        if self.subject is None:
            yield from remarks(self.model)
            yield f"No prediction: {self.missing}"
            return
        yield from self.subject.remarks
        place, known = self.place, estimate.coefficients()
        yield (
            f"Predicted for {self.subject.model} on {one(place.device)}, of which {gib(place.capacity)} "
            f"are available for training; nothing was measured. Memory is the allocated peak, {known.claim}."
        )
        if self.unknown:
            some = {"target_modules": "a pattern for target modules"}
            titles = listed(some.get(name, AXES[name].title) for name in self.unknown)
            yield f"Memory and time are unknown for trials with {titles}, and not contained in sums."
        if place.speeds:
            whole = predictions.total_seconds(self.made[variant] for variant in self.trials if variant in self.made)
            spent = duration(whole.low, whole.high)
            yield (
                f"{plural(len(self.trials), 'trial')}: {spent} one after another, with answers, without confirmation; "
                f"less if several trials share a pass; {place.claim}."
            )
        else:
            yield f"{place.claim[:1].upper()}{place.claim[1:]}."
        words = self.subject.lengths.words
        yield f"{words[:1].upper()}{words[1:]}."
        if self.subject.notice:
            yield f"{self.subject.notice}."


def _predictions(suite: Suite, plan: Plan, model: str, rehearsal: Rehearsal | None, place: TargetGpu) -> _Predictions:
    trials = tuple(trial.variant for trial in plan.trials)
    try:
        what = predictions.named_workload(model, suite, rehearsal)
        known = [variant for variant in plan.variants if not unpredictable(variant.settings)]
        made = {variant.id: predictions.predict_trial(what, variant.settings, place) for variant in known}
    except ModelError as error:
        return _Predictions(model, place, None, {}, trials, error.message)
    unknown = dict.fromkeys(name for variant in plan.variants for name in unpredictable(variant.settings))
    return _Predictions(model, place, what, made, trials, unknown=tuple(unknown))


def size(given: float | Range) -> str:
    """Bytes, or a range of bytes, as text: 98 MiB, 4.2 GiB, 4.2-4.8 GiB."""
    bounds = (given.low, given.high) if isinstance(given, Range) else (given,)
    unit, length = ("GiB", GIB) if bounds[-1] >= GIB else ("MiB", GIB / 1024)
    return f"{'-'.join(two_digits(bound / length) for bound in bounds)} {unit}"


def findings_table(found: Sequence[Finding]) -> None:
    """Print one line per finding, with its remedy in the line below."""
    console = Output()
    for each in found:
        console.print(f"{each.level.value:<8}{each.text}", soft_wrap=True)
        if each.remedy:
            console.print(f"        {each.remedy}", soft_wrap=True)


_UNMEASURABLE = 1e18
"""A speed in FLOP/s that no GPU reaches. A figure above it means that the time was too short to measure."""


def calibration_line(found: Calibration, path: Path) -> None:
    """Print the result of a calibration and the path of its file."""
    console = Output()
    speeds = (
        (f"{found.flops / 1e12:.1f} TFLOP/s in products", found.flops < _UNMEASURABLE),
        (f"{1e12 * found.dequantise:.1f} ps a dequantised parameter", found.dequantise > 0),
        (f"{1e3 * found.launch:.2f} ms a layer", found.launch > 0),
        (f"{1e3 * found.update:.0f} ms an optimizer step", found.update > 0),
    )
    seen = listed(words for words, measured in speeds if measured)
    rest = "" if all(measured for _, measured in speeds) else " Times that were too short to measure are not shown."
    close = f"within {100 * found.error:.0f}% of every step that was timed"
    console.print(f"Calibrated on {one(found.device)}, {close}: {seen}.{rest}", soft_wrap=True)
    console.print(f"Predictions for this GPU now use it: {path}", soft_wrap=True)


def cache_table(root: Path, held: Sequence[Held]) -> None:
    """Print the number of trainings and the size of each part of the cache."""
    console = Output()
    if not any(part.bytes for part in held):
        console.print(f"{root} holds nothing.")
        return
    console.print(f"{root} holds:")
    table = _table("", "of trainings", "size")
    for part in (part for part in held if part.entries or part.bytes):
        table.add_row(part.kind, str(part.entries), f"{part.bytes / 1e6:.1f} MB")
    console.print(table)


_PARITY_LEGEND = """\
passed: assertions that pass; changed: assertions whose verdict differs from the first stage; largest, mean: difference
of the logits from the stage above, relative to the largest logit; next token: how often both stages have the same most
likely token; prompts alike: prompts that the tokenizer in the GGUF file splits into the same tokens"""


def parity_table(parity: Parity) -> None:
    """Print a table with one line per stage, then one line per assertion whose verdict changes."""
    console = Output()
    table = _table("stage", "passed", "changed", "largest", "mean", "next token", "prompts alike")
    for verdicts in parity.stages:
        table.add_row(*_parity_row(parity, verdicts))
    console.print(table)
    console.print(_PARITY_LEGEND, soft_wrap=True)
    console.print()
    for line in [_verdict_line(change) for change in parity.turns] or ["No assertion changes."]:
        console.print(line, soft_wrap=True)


def _parity_row(parity: Parity, verdicts: Verdicts) -> list[str]:
    changed = sum(a != b for a, b in zip(verdicts.passed, parity.stages[0].passed, strict=True))
    far, alike = verdicts.distance, verdicts.tokenised_alike
    return [
        verdicts.stage,
        f"{sum(bool(passed) for passed in verdicts.passed)}/{len(verdicts.passed)}",
        str(changed),
        *([f"{far.largest:.1e}", f"{far.mean:.1e}", f"{far.agreement:.2%}"] if far else ["", "", ""]),
        "" if alike is None else f"{alike}/{len(parity.cases)}",
    ]


def _verdict_line(change: VerdictChange) -> str:
    word = {True: "passes", False: "fails", None: "cannot be decided"}
    back = " (the last stage has the same verdict as the first)" if change.back else ""
    return f"{change.stage}: {change.case}: {change.assertion} {word[change.after]}{back}"


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right")
    return table
