"""Compute the times and memory of a run again, for `tests.studies.recompute`."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from tests.studies.recomputed.figures import Data, Run

if TYPE_CHECKING:
    from tests.studies.recompute import Page

ABSENT = "–"
SETTINGS = (
    "Learning rate", "Epochs", "Warmup", "Scheduler", "Rank", "Alpha", "Dropout", "rsLoRA", "Target modules",
    "Batch size", "Accumulation", "Optimizer", "Max length", "Weight decay", "Max grad norm", "Packing", "Quantisation",
    "NEFTune alpha", "Rehearsal",
)  # fmt: skip
"""Headings of the columns that show settings, which are no figures of the run."""
PHASES = {
    "load": "Load the base model", "rehearse": "Base model answers rehearsal prompts",
    "answer before": "Base model answers", "train": "Train", "answer after": "Tuned model answers",
}  # fmt: skip
PEAKS = {
    "Peak resident": "peak_resident", "Peak allocated": "peak_allocated", "Peak reserved": "peak_reserved",
    "Peak on device": "peak_device",
}  # fmt: skip


def digits(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def duration(seconds: float) -> str:
    unit, length = next(
        (each for each in (("h", 3600.0), ("min", 60.0)) if seconds >= 1.5 * each[1]), ("s", 1.0)
    )  # fmt: skip
    return f"{digits(seconds / length)} {unit}"


def memory(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def marked(figure: Data) -> str:
    """Return a peak, with ≈ if it was computed and not measured."""
    return f"{'≈ ' if figure['basis'] == 'predicted' else ''}{memory(figure['value'])}"


def largest(figures: list[Data]) -> str:
    return marked(max(figures, key=lambda figure: float(figure["value"]))) if figures else ABSENT


def amount(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count) if count else ABSENT


def probes(trainings: list[Data]) -> str:
    """Return the number and length of the probes from which trainings were estimated; empty if none were."""
    own = [training["cost"] for training in trainings if training["cost"].get("probes")]
    number = len({cost["seconds"]["value"] for cost in own})
    steps = max((cost["probe_steps"] for cost in own), default=0)
    return f"{'one probe' if number == 1 else f'{number} probes'} of {steps} steps" if own else ""


def batch(cost: Data) -> str:
    return f"batch of {cost['models']} models" if cost["models"] > 1 else ""


def counted(outcome: Data) -> list[Data]:
    """Return the trainings whose costs a variant's row shows: those that succeeded, or all if none did."""
    known = [training for training in outcome["training"] if training["cost"]]
    return [training for training in known if training["status"] == "succeeded"] or known


def peak(cost: Data) -> float:
    found: float = (cost["peak_reserved"] or cost["peak_resident"])["value"]
    return found


def on_gpu(cost: Data) -> float:
    """Return the peak of GPU memory, with the CUDA context if it was measured; 0 on a CPU."""
    figure = cost["peak_device"] or cost["peak_reserved"] or cost["peak_allocated"]
    return float(figure["value"]) if figure else 0.0


def cost_of(outcome: Data, phase: str) -> Data | None:
    return next((cost for cost in outcome["costs"] if cost["phase"] == phase), None)


def cell(run: Run, name: str, head: str) -> tuple[str, str] | None:
    """Return the main and the small text of a cell of the table of variants; None for the column of a setting."""
    outcome = run.outcome(name)
    trained = counted(outcome)
    untrained = name in [base["name"] for base in run.bases]
    answer = cost_of(outcome, "answer before" if untrained else "answer after")
    if head == "Train":
        seconds = [training["cost"]["seconds"]["value"] for training in trained]
        return (duration(fmean(seconds)), probes(trained)) if trained else (ABSENT, "")
    if head == "Peak, train":
        return (memory(max(peak(t["cost"]) for t in trained)), probes(trained)) if trained else (ABSENT, "")
    if head == "Answer":
        share = f"share of {batch(answer)}" if answer and batch(answer) else ""
        return (duration(answer["seconds"]["value"]), share) if answer else (ABSENT, "")
    if head == "Peak, answer":
        return (memory(peak(answer)), batch(answer)) if answer else (ABSENT, "")
    if head == "Parameters":
        return amount(max((t["trainable_parameters"] for t in outcome["training"]), default=0)), ""
    if head != "Status":
        return None
    return ("Not trained", "") if untrained else _status(outcome)


def _status(outcome: Data) -> tuple[str, str]:
    kinds = list(dict.fromkeys(outcome["statuses"]))
    shown = ", ".join(f"{outcome['statuses'].count(kind)} {kind}" for kind in kinds)
    flag = "reused" if outcome["reused"] else "trained elsewhere" if outcome["elsewhere"] else ""
    flag = "predicted, not run" if "predicted" in outcome["bases"] else flag
    return (kinds[0].capitalize() if len(kinds) == 1 else shown or ABSENT), flag


def outcomes(run: Run) -> list[Data]:
    """Return the outcomes whose costs the page lists."""
    again = run.results["confirmed"]
    return [*run.bases, *run.variants, *([again] if again else [])]


def rehearsal(run: Run) -> list[Data]:
    """Return the costs of the base model's answers to rehearsal prompts, which belong to no variant."""
    return [cost for own in (run.results["run"].get("rehearsal") or {}).get("answers", ()) for cost in own["costs"]]


def shared(run: Run) -> list[Data]:
    """Return the passes that trained several trials, each as the last of its trials to end recorded it."""
    found: dict[str, Data] = {}
    for training in (t for outcome in outcomes(run) for t in outcome["training"]):
        own = training["together"]
        if own and own["cost"]["seconds"]["value"] > found.get(own["id"], own)["cost"]["seconds"]["value"] - 1e-9:
            found[own["id"]] = own
    return list(found.values())


def check(page: Page) -> None:
    """Check the section on time and memory."""
    _phases(page)
    _by_variant(page)
    _passes(page)


def _phases(page: Page) -> None:
    """Check the time that the run took by phase: passes once, trainings that ran alone, and answers by seed."""
    from tests.studies.recompute import rows, text

    run, again = page.run, page.run.results["confirmed_base"]
    every = [*outcomes(run), *([again] if again else [])]
    spent: dict[str, list[tuple[float, Data]]] = {phase: [] for phase in PHASES}
    spent["train"] += [(own["cost"]["seconds"]["value"], own["cost"]) for own in shared(run)]
    for cost in rehearsal(run):
        spent[cost["phase"]].append((cost["seconds"]["value"], cost))
    for outcome in every:
        succeeded = outcome["statuses"].count("succeeded")
        alone = [t["cost"] for t in outcome["training"] if t["cost"] and not t["together"]]
        spent["train"] += [(cost["seconds"]["value"], cost) for cost in alone]
        for cost in outcome["costs"]:
            if cost["phase"] != "train":
                spent[cost["phase"]].append((cost["seconds"]["value"] * succeeded, cost))
    totals = {phase: sum(seconds for seconds, _ in own) for phase, own in spent.items()}
    whole = sum(totals.values()) or 1.0
    table = page.html.id("cost").all("table")[0]
    heads = [text(head) for head in table.all("thead")[0].all("th")][3:]
    shown = {text(row[0]): row[1:] for row in rows(table)}
    page.checks.equal("cost", "phases", str(list(shown)), str([PHASES[phase] for phase, own in spent.items() if own]))
    for phase, total in totals.items():
        row = shown.get(PHASES[phase], [])
        expected = [duration(total), f"{100 * total / whole:.0f}%"]
        costs = [cost for _, cost in spent[phase]]
        expected += [largest([cost[PEAKS[head]] for cost in costs if cost[PEAKS[head]]]) for head in heads]
        for found, right in zip(row, expected, strict=False):
            page.checks.equal("cost", PHASES[phase], text(found), right)


def _by_variant(page: Page) -> None:
    from tests.studies.recompute import big, rows, small, text

    table = page.html.id("cost").all("table")[1]
    heads = [text(head) for head in table.all("thead")[0].all("th")][1:]
    chosen = page.run.results["confirmed"]
    labels = [
        f"{outcome['name']}, confirmation" if outcome is chosen else outcome["name"] for outcome in outcomes(page.run)
    ]
    wanted: list[tuple[str, Data, Data]] = [("rehearsal", {"training": []}, cost) for cost in rehearsal(page.run)]
    wanted += [
        (label, own, cost) for label, own in zip(labels, outcomes(page.run), strict=True) for cost in own["costs"]
    ]
    body = rows(table)
    page.checks.equal("cost", "rows by variant and phase", str(len(body)), str(len(wanted)))
    for row, (label, outcome, cost) in zip(body, wanted, strict=False):
        page.checks.equal("cost", "variant", text(row[0]), " ".join(label.split()))
        for head, found in zip(heads, row[1:], strict=True):
            expected = _by_variant_cell(outcome, cost, head)
            if expected is not None:
                page.checks.equal("cost", f"{head} of {label}", big(found), expected[0])
                page.checks.equal("cost", f"{head} of {label}, small", small(found), expected[1])


def _by_variant_cell(outcome: Data, cost: Data, head: str) -> tuple[str, str] | None:
    trained = counted(outcome) if cost["phase"] == "train" else []
    if head == "Phase":
        return PHASES[cost["phase"]], ""
    if head == "Time":
        seconds = [training["cost"]["seconds"]["value"] for training in trained] or [cost["seconds"]["value"]]
        return duration(fmean(seconds)), ""
    if head == "Tokens/s":
        speed = cost["tokens"] / cost["seconds"]["value"] if cost["tokens"] and cost["seconds"]["value"] > 0 else 0
        return (f"{speed:,.0f}" if speed else ABSENT), ""
    if head in PEAKS:
        every = [own[PEAKS[head]] for own in ([t["cost"] for t in trained] or [cost]) if own[PEAKS[head]]]
        return largest(every), batch(cost) if every else ""
    return None  # the source, in words


def _passes(page: Page) -> None:
    from tests.studies.recompute import text

    lines = [text(line) for items in page.html.id("cost").all("ul") for line in items.all("li")]
    passes = shared(page.run)
    page.checks.equal("cost", "passes", str(len(lines)), str(len(passes)))
    for line, own in zip(lines, passes, strict=False):
        words = (
            f"{own['trials']} trial{'s' if own['trials'] != 1 else ''} together in "
            f"{duration(own['cost']['seconds']['value'])}, at most {memory(peak(own['cost']))} ("
        )
        page.checks.equal("cost", "pass", line[: len(words)], words)
    whole = sum(own["cost"]["seconds"]["value"] for own in passes)
    words = f"trained {sum(own['trials'] for own in passes)} trials together in "
    words += f"{'one pass' if len(passes) == 1 else f'{len(passes)} passes'} that took {duration(whole)}."
    if passes:
        note = " ".join(text(each) for each in page.html.id("cost").all("p", class_="note"))
        page.checks.equal("cost", "passes together", words if words in note else note, words)
