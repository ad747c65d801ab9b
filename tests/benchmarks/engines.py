"""Compares the engines: the time to train many trials, the time to answer with many adapters, and the growth of cost.

    python -m tests.benchmarks.engines [--output FILE.json] [--only cpu|gpu] [--quick]

On a CPU it uses the pocket model; on a GPU it uses random weights in Llama-2-7B's shape, limited to a T4's memory and
precision. A training with SFTTrainer is timed for a few steps, and its total is estimated; fused ones are timed whole.
Beside them, the output has a roofline: the time that arithmetic and memory traffic alone would take, on this device and
on a T4.
Prints a table and asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import io
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.core import device_profiles
from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.settings import Quantization, Settings
from harness.core.suite import Decoding, Message
from harness.engine.adapters import attached
from harness.engine.generation.answers import answer
from harness.engine.generation.continuous_batching import Request, answer_requests, read_adapter, rows_at_once
from harness.engine.loading import Base, load_base
from harness.engine.tokenization import IGNORED, Row, render
from harness.engine.trainers.fused.training import train_together
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.sft import trained
from harness.hardware.environment import machine, stack_versions
from harness.models.resolving import resolve
from harness.suites import load_suite

SUITE = Path(__file__).parents[2] / "suites" / "workshop"
TRIALS = 8
EXAMPLES = 64
PROMPTS = 40
NEW_TOKENS = 64
GROWTH = (1, 2, 4, 8, 16, 32)
T4 = ("Tesla T4", 65e12, 320e9)
PEAKS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.0e12), "T4": T4[1:]}
"""Peak FLOP/s (fp16 tensor cores, without sparsity) and bytes/s of GPUs, from NVIDIA's data sheets of SXM modules."""


# --- what is measured ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds of a training: `fixed` is the time outside of steps, and `step` is the median of one step."""

    total: float
    fixed: float
    step: float
    steps: int
    timed_steps: int
    peak_reserved: float | None


class Clock:
    """Records the time of each step that is reported."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.ticks: list[float] = []

    def tick(self, *_: Any) -> None:
        self.ticks.append(time.perf_counter())

    def timing(self, steps: int, *, trials: int = 1) -> Timing:
        """Estimate the time of `steps` steps from the recorded steps.

        A step that trained several trials was reported once for each of them.
        """
        total = time.perf_counter() - self.begun
        ends = self.ticks[trials - 1 :: trials]
        gaps = [b - a for a, b in itertools.pairwise(ends)]
        step = statistics.median(gaps) if gaps else total
        fixed = total - step * len(ends)
        return Timing(fixed + step * steps, fixed, step, steps, len(ends), _reserved())


def _reserved() -> float | None:
    import torch

    return torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None


def _fresh() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def sequential(base: Base, rows: Sequence[Row], settings: Settings, seed: int, *, timed: int) -> Timing:
    """Time the first steps of one trial with SFTTrainer, and estimate the time of an epoch."""
    whole = -(-len(rows) // settings.batch_size)
    share = replace(settings, epochs=min(timed, whole) / whole)
    _fresh()
    clock = Clock()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        trained(base, rows, share, seed, progress=clock.tick),
    ):
        pass
    return clock.timing(whole)


def fused(base: Base, rows: Sequence[Row], sweep: Sequence[Settings]) -> Timing:
    """Time an epoch of all trials together in the fused engine."""
    whole = -(-len(rows) // sweep[0].batch_size)
    trials = [TrialInput(str(n), rows, replace(settings, epochs=1), n) for n, settings in enumerate(sweep)]
    _fresh()
    clock = Clock()
    for _ in train_together(base, trials, progress=clock.tick):
        pass
    return clock.timing(whole, trials=len(sweep))


# --- workloads ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """The base, rows, settings and prompts that are used on one device."""

    base: Base
    rows: list[Row]
    prompts: tuple[Prompt, ...]
    settings: Settings
    light: Settings
    """Settings with small adapters, so that many trials fit in memory."""
    batches: tuple[int, ...]
    timed: int
    answer_rows: int


def sweep_of(settings: Settings, count: int) -> list[Settings]:
    """Return settings of `count` trials that differ only in learning rate, so that all adapters have equal shapes."""
    return [replace(settings, learning_rate=1e-4 * (1 + n % 8)) for n in range(count)]


def random_rows(base: Base, count: int, mean: int) -> list[Row]:
    """Return rows of random tokens, of lengths within a quarter of `mean`; the second half of each row has labels."""
    rng = random.Random(0)
    size = min(base.model.config.vocab_size, len(base.tokenizer)) - 1
    rows = []
    for _ in range(count):
        length = rng.randint(mean - mean // 4, mean + mean // 4)
        ids = [rng.randint(10, size) for _ in range(length)]
        rows.append(Row(ids, [IGNORED] * (length // 2) + ids[length // 2 :]))
    return rows


def asked(count: int) -> tuple[Prompt, ...]:
    cases = load_suite(SUITE).cases[:count]
    return tuple(Prompt(f"{n}", (Message("user", case.prompt),)) for n, case in enumerate(cases))


@contextlib.contextmanager
def gpu(quick: bool) -> Iterator[Workload]:
    from harness.engine.random_weights import make_base

    on = machine(device_profiles.T4)
    ref = resolve("shape:llama-2-7b")
    with tempfile.TemporaryDirectory() as folder:
        make_base(ref, Quantization.NF4, on, Path(folder))
        base = load_base(ref, Quantization.NF4, on, saved=Path(folder))
    settings = Settings(learning_rate=1e-4, rank=16, alpha=32, warmup=0, batch_size=1)
    light = replace(settings, target_modules=("q_proj", "v_proj"))
    yield Workload(
        base, random_rows(base, EXAMPLES, 100), asked(PROMPTS), settings, light,
        (1, 4) if quick else (1, 4, 16), 4 if quick else 8, 64,
    )  # fmt: skip


@contextlib.contextmanager
def cpu(quick: bool) -> Iterator[Workload]:
    on = replace(machine(device_profiles.CPU), threads=1)
    base = load_base(resolve("pocket"), Quantization.NF4, on)
    settings = Settings(learning_rate=1e-4, rank=16, alpha=32, warmup=0, batch_size=1)
    yield Workload(
        base, random_rows(base, EXAMPLES, 32), asked(PROMPTS), settings, replace(settings, rank=4),
        (1, 4), 4 if quick else 8, 64,
    )  # fmt: skip


# --- roofline -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roofline:
    """Lower bound of the seconds of one epoch of all trials, from arithmetic and reading the base's weights alone."""

    device: str
    sequential: float
    fused: float

    @property
    def speedup(self) -> float:
        return self.sequential / self.fused


def roofline(device: str, peak: float, bandwidth: float, work: Workload, batch: int, trials: int) -> Roofline:
    """Return the lower bound of an epoch's seconds.

    A step computes each token's products three times (forward, again for checkpointing, backward to the inputs) with 2
    operations per weight, and dequantises every weight three times: half a byte read, two written, two read again.
    """
    weights = sum(m.in_features * m.out_features for m in linear4bit(work.base))
    steps = -(-len(work.rows) // batch)
    tokens = sum(len(row.input_ids) for row in work.rows)
    arithmetic = 3 * 2 * weights * tokens / peak
    traffic = 3 * 4.5 * weights * steps / bandwidth
    return Roofline(device, trials * (arithmetic + traffic), trials * arithmetic + traffic)


def linear4bit(base: Base) -> list[Any]:
    from bitsandbytes.nn import Linear4bit

    return [module for module in base.model.modules() if isinstance(module, Linear4bit)]


def _reached(line: Roofline, sequential: float, fused: float) -> dict[str, float]:
    shares = {"sequential": line.sequential / sequential, "fused": line.fused / fused}
    return {f"share of it reached, {name}": share for name, share in shares.items()}


def rooflines(work: Workload, batch: int, trials: int) -> list[tuple[Roofline, bool]]:
    """Return the rooflines of this device, if its peaks are known, and of a T4.

    The second value of each pair says whether the roofline is this device's.
    """
    if work.base.machine.kind == "cpu":
        return []
    own = next((peaks for name, peaks in PEAKS.items() if name in work.base.machine.device), None)
    here = [((work.base.machine.device, *own), True)] if own else []
    return [(roofline(*peaks, work, batch, trials), this) for peaks, this in (*here, (T4, False))]


# --- training -----------------------------------------------------------------------------------------------------


def training(work: Workload, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    sequential(work.base, work.rows[:4], work.settings, 0, timed=2)  # compiles and loads kernels
    for batch in work.batches:
        settings = replace(work.settings, batch_size=batch)
        alone = sequential(work.base, work.rows, settings, 0, timed=work.timed)
        beside = fused(work.base, work.rows, sweep_of(settings, TRIALS))
        lines = rooflines(work, batch, TRIALS)
        found[str(batch)] = {
            "sequential seconds": TRIALS * alone.total,
            "fused seconds": beside.total,
            "speed-up": TRIALS * alone.total / beside.total,
            "speed-up of steps alone": TRIALS * alone.step / beside.step,
            "one sequential trial": asdict(alone),
            "fused pass": asdict(beside),
            "roofline": [
                asdict(line)
                | {"speed-up": line.speedup}
                | (_reached(line, TRIALS * alone.step * alone.steps, beside.step * beside.steps) if own else {})
                for line, own in lines
            ],
        }
        say(
            f"batch {batch}: {found[str(batch)]['speed-up']:.2f} times"
            f" ({TRIALS} x {alone.step:.3f} s a step; {beside.step:.3f} s)"
        )
    best = min(one["sequential seconds"] for one in found.values())
    found["at its best batch size"] = {
        "sequential seconds": best,
        "speed-up by batch size": {
            batch: best / one["fused seconds"] for batch, one in found.items() if "fused seconds" in one
        },
    }
    return found


def growth(work: Workload, counts: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Return the seconds of an epoch at batch size 1, for each of several numbers of trials.

    Sequential trials are not all run: their time is that of one trial times their number.
    """
    settings = replace(work.light, batch_size=1)
    one = sequential(work.base, work.rows, settings, 0, timed=max(3, work.timed // 2))
    found = {}
    for count in counts:
        beside = fused(work.base, work.rows, sweep_of(settings, count))
        found[str(count)] = {
            "sequential seconds": count * one.total,
            "fused seconds": beside.total,
            "fused step": beside.step,
            "peak reserved": beside.peak_reserved,
        }
        say(f"{count} trials: {count * one.total:.1f} s one by one, {beside.total:.1f} s together")
    return {"settings": _plain(settings), "trials": found}


# --- answers ------------------------------------------------------------------------------------------------------


def answering(work: Workload, folder: Path, say: Callable[[str], None], *, alone: int = 8) -> dict[str, Any]:
    """Let the base and eight adapters answer every prompt: in one mixed batch, in a batch per model, and one by one.

    One by one, only the base and one adapter answer the first prompts, and the time of all answers is estimated.
    """
    base, decoding = spelled_out(work.base), Decoding(max_new_tokens=NEW_TOKENS)
    trials = [
        TrialInput(str(n), work.rows, replace(s, epochs=4 / EXAMPLES), n)
        for n, s in enumerate(sweep_of(work.settings, TRIALS))
    ]
    folders: dict[str, Path | None] = {"base": None}
    for learned in train_together(base, trials, progress=lambda *_: None):
        (folder / learned.name).mkdir()
        learned.save(folder / learned.name)
        folders[learned.name] = folder / learned.name
    _fresh()
    begun = time.perf_counter()
    requests = [Request(name, read_adapter(base, at) if at else None, work.prompts) for name, at in folders.items()]
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    rows = rows_at_once(base, requests, decoding, least=work.answer_rows)
    mixed = dict(answer_requests(base, requests, decoding, rows=rows, progress=lambda *_: None))
    together = time.perf_counter() - begun
    peak = _reserved()
    del requests
    _fresh()
    per_variant, different, singles = 0.0, [], [Single(), Single()]
    for name, at in folders.items():
        with attached(base, at) if at else contextlib.nullcontext(base.model) as model:
            begun = time.perf_counter()
            batched = answer(base, model, work.prompts, decoding, progress=lambda _: None)
            per_variant += time.perf_counter() - begun
            if name in ("base", "0"):
                begun = time.perf_counter()
                said = answer(base, model, work.prompts[:alone], decoding, batch_size=1, progress=lambda _: None)
                seconds = (time.perf_counter() - begun) / alone
                singles[name != "base"] = Single(seconds, _alike(said, mixed[name]), _alike(said, batched))
            pairs = zip(work.prompts, batched, mixed[name], strict=True)
            apart = [(prompt, a, b) for prompt, a, b in pairs if a.text != b.text]
            different += [{"model": name} | _difference(base, model, *one) for one in apart]
    singly = PROMPTS * (singles[0].seconds + TRIALS * singles[1].seconds)
    count = len(folders) * len(work.prompts)
    say(
        f"answers: {together:.1f} s mixed, {per_variant:.1f} s per variant, {singly:.0f} s one by one;"
        f" {len(different)} of {count} differ"
    )
    return {
        "answers": count,
        "new tokens at most": NEW_TOKENS,
        "rows in flight": rows,
        "tokens generated": sum(a.tokens for own in mixed.values() for a in own),
        "mixed seconds": together,
        "reading the adapters, seconds": loaded,
        "peak reserved": peak,
        "batched per variant, seconds": per_variant,
        "batch per variant": len(work.prompts),
        "one by one, seconds": singly,
        "one by one, timed on": f"{alone} prompts of the base and of one adapter",
        "faster than one by one": singly / together,
        "faster than batched per variant": per_variant / together,
        "identical to batched per variant": count - len(different),
        "one by one, answers": 2 * alone,
        "of these identical when mixed": sum(single.as_mixed for single in singles),
        "of these identical when batched per variant": sum(single.as_batched for single in singles),
        "differences": different,
    }


@dataclass(frozen=True)
class Single:
    """One model's answers, made one by one: seconds per answer, and how many answers equalled those from batches."""

    seconds: float = 0.0
    as_mixed: int = 0
    as_batched: int = 0


def _alike(some: Sequence[Answer], others: Sequence[Answer]) -> int:
    return sum(a.text == b.text for a, b in zip(some, others, strict=False))


def spelled_out(base: Base) -> Base:
    """Return the base with a tokenizer that decodes to token numbers, so that answers can be compared by token."""
    tokenizer = copy.copy(base.tokenizer)
    tokenizer.decode = lambda ids, **_: " ".join(map(str, ids))
    return replace(base, tokenizer=tokenizer)


def _difference(base: Base, model: Any, prompt: Prompt, a: Answer, b: Answer) -> dict[str, Any]:
    """Return where two answers first differ, and the gap between the two largest logits there."""
    import torch

    one, other = (list(map(int, text.split())) for text in (a.text, b.text))
    at = next((n for n, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
    ids = render(prompt.messages, base.tokenizer, ask=True) + one[:at]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=base.device)).logits[0, -1].float()
    first, second = logits.topk(2).values.tolist()
    return {"prompt": prompt.key, "token": at, "gap of the two best logits": first - second, "largest": first}


# --- all together -------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value), default=str))


def measure(kind: str, quick: bool, say: Callable[[str], None], found: dict[str, Any]) -> Iterator[None]:
    """Measure one part after another, and add the results to `found`."""
    with {"gpu": gpu, "cpu": cpu}[kind](quick) as work, tempfile.TemporaryDirectory() as folder:
        found |= {"machine": _plain(work.base.machine), "settings": _plain(work.settings)}
        found["training"] = training(work, say)
        yield
        found["answering"] = answering(work, Path(folder), say)
        yield
        found["growth"] = growth(work, GROWTH[:4] if quick else GROWTH, say)
        yield


def table(found: dict[str, Any]) -> str:
    """Return the figures as a short markdown table."""
    lines = ["| | one by one | together | times |", "|---|---|---|---|"]
    for kind in ("cpu", "gpu"):
        if kind not in found:
            continue
        own = found[kind]
        device = own["machine"]["device"]
        for batch, one in own["training"].items():
            if "fused seconds" in one:
                lines.append(
                    f"| {device}: {TRIALS} trials x {EXAMPLES} examples, batch {batch} |"
                    f" {one['sequential seconds']:.1f} s | {one['fused seconds']:.1f} s | {one['speed-up']:.2f} |"
                )
        said = own["answering"]
        for name, key in (
            ("one by one", "one by one, seconds"),
            ("batched per variant", "batched per variant, seconds"),
        ):
            lines.append(
                f"| {device}: {said['answers']} answers, {name} | {said[key]:.1f} s | {said['mixed seconds']:.1f} s |"
                f" {said[key] / said['mixed seconds']:.2f} |"
            )
        for count, one in own["growth"]["trials"].items():
            lines.append(
                f"| {device}: {count} small trials, batch 1 | {one['sequential seconds']:.1f} s |"
                f" {one['fused seconds']:.1f} s | {one['sequential seconds'] / one['fused seconds']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def chart(found: dict[str, Any]) -> str:
    """Return an SVG chart of cost by number of trials, with a panel for each device and a line for each engine."""
    import vl_convert

    names = {"one by one": "sequential seconds", "together": "fused seconds"}
    points = [
        {"device": own["machine"]["device"], "trials": int(count), "seconds": one[key], "engine": engine}
        for own in (found[kind] for kind in ("cpu", "gpu") if kind in found)
        for count, one in own["growth"]["trials"].items()
        for engine, key in names.items()
    ]
    logarithmic = {"type": "log", "base": 2}
    drawn = {
        "data": {"values": points},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "trials", "type": "quantitative", "scale": logarithmic, "title": "trials"},
            "y": {"field": "seconds", "type": "quantitative", "scale": logarithmic, "title": "seconds for an epoch"},
            "color": {"field": "engine", "type": "nominal", "title": None},
            "column": {"field": "device", "type": "nominal", "title": None},
        },
    }
    svg: str = vl_convert.vegalite_to_svg(json.dumps(drawn))
    return svg + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Also write the figures here, and a table and a chart beside them.")
    parser.add_argument("--only", choices=["cpu", "gpu"])
    parser.add_argument("--quick", action="store_true", help="Fewer steps, batch sizes and trials.")
    given = parser.parse_args()
    import torch

    kinds = [given.only] if given.only else ["cpu", *(["gpu"] if torch.cuda.is_available() else [])]
    begun = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begun:.0f} s] {text}", file=sys.stderr, flush=True)

    known = {}
    if given.output and given.output.is_file():
        known = json.loads(given.output.read_text(encoding="utf-8"))
    for kind in kinds:
        command = f"python -m tests.benchmarks.engines --only {kind}" + " --quick" * given.quick
        known[kind] = {"command": command, "versions": stack_versions()}
        for _ in measure(kind, given.quick, say, known[kind]):
            if given.output:  # after each part, so that an interrupted run keeps its figures
                given.output.parent.mkdir(parents=True, exist_ok=True)
                given.output.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(table(known))
    if given.output:
        given.output.with_suffix(".md").write_text(table(known), encoding="utf-8")
        given.output.with_suffix(".svg").write_text(chart(known), encoding="utf-8")


if __name__ == "__main__":
    main()
