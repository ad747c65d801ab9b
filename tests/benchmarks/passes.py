"""Measures the phases of a fused pass on a GPU: before the first step, the steps, and saving the adapters.

    python -m tests.benchmarks.passes [--output FILE.json] [--model NAME] [--batches 1 4 16] [--tokens N] [--kernels]
        [--sft]

Trains eight trials of 64 rows of about 100 tokens, rank 16 on all linear layers, for one epoch at each batch size, with
a T4's memory and precision and random weights. `--model` is another shape or model, and `--tokens` the largest number
of tokens that go through the base at once, which the memory decides otherwise. `--kernels` also profiles a few steps:
the time in which the GPU computes, and the number of kernels, by kind. `--sft` also times the first steps of one trial
with SFTTrainer at each batch size, and estimates its epoch. Without a GPU, it trains the toy model on eight rows and
one thread. Prints its figures as JSON and asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness.core import device_profiles
from harness.core.settings import Quantization, Settings
from harness.core.units import DeviceKind
from harness.engine.loading import Base, load_base
from harness.engine.random_weights import make_base
from harness.engine.threads import in_threads
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.initialisation import initial_adapters
from harness.engine.trainers.fused.recomputation import Recomputation
from harness.engine.trainers.fused.training import FusedResult, _Run, train_together
from harness.engine.trainers.protocol import TrialInput
from harness.hardware.environment import machine, stack_versions
from harness.models.resolving import resolve
from tests.benchmarks.engines import EXAMPLES, TRIALS, random_rows, sequential, sweep_of
from tests.support.printed_figures import print_figures

PROFILED_STEPS = 3
SFT_STEPS = 8
KINDS = {
    "attention": ("fmha", "flash", "attention", "softmax"),
    "matrix products": ("gemm", "cutlass", "wgmma", "nvjet", "cublas", "splitk"),
    "dequantising": ("dequantize", "kdequant", "_unpack"),
    "optimizer": ("multi_tensor", "adam"),
    "fused pointwise": ("_norm_rows", "_gate", "_rotate"),
    "head": ("_forward_kernel", "_backward_kernel"),
    "copies": ("memcpy", "memset"),
}
"""Kinds of kernels, by parts of their names; all others are elementwise."""


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def loaded(name: str, folder: Path) -> tuple[Base, float]:
    """Return the base and the seconds that loading it took."""
    cuda = on_gpu()
    on = machine(device_profiles.T4) if cuda else replace(machine(device_profiles.CPU), threads=1)
    ref = resolve(name if cuda else "pocket")
    if name.startswith("shape:") and cuda:
        make_base(ref, Quantization.NF4, on, folder)
    for imported in ("trl", "transformers.trainer"):
        import_module(imported)  # takes a second, and belongs to no pass
    begun = time.perf_counter()
    base = load_base(ref, Quantization.NF4, on, saved=folder if any(folder.iterdir()) else None)
    return base, time.perf_counter() - begun


def fresh(base: Base) -> None:
    """Free what the last measurement left, and reset the peaks."""
    import gc

    import torch

    gc.collect()
    if base.machine.kind is DeviceKind.CUDA:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def timed_passes() -> Iterator[list[float]]:
    """Until the context ends, list the seconds that each forward and backward pass keeps Python busy."""
    own, spent = _Run._pass, list[float]()

    def timed(run: _Run, *given: Any) -> Any:
        begun = time.perf_counter()
        found = own(run, *given)
        spent.append(time.perf_counter() - begun)
        return found

    with patch.object(_Run, "_pass", timed):
        yield spent


def epoch(
    base: Base, rows: Sequence[Row], sweep: Sequence[Settings], folder: Path, tokens: int | None
) -> dict[str, Any]:
    """Train and save all trials, and return the seconds of each phase."""
    import torch

    fresh(base)
    keep = patch.object(Recomputation, "keep", autospec=True, side_effect=Recomputation.keep)
    trials = [TrialInput(str(number), rows, settings, number) for number, settings in enumerate(sweep)]
    ticks: list[float] = []

    def tick(*_: Any) -> None:
        ticks.append(time.perf_counter())

    begun = time.perf_counter()
    with keep as kept, timed_passes() as launching:
        found = list(train_together(base, trials, progress=tick, pass_tokens=tokens))
    trained = time.perf_counter()
    save(found, folder)
    ended = time.perf_counter()
    ends = ticks[len(trials) - 1 :: len(trials)]
    gaps = [b - a for a, b in itertools.pairwise(ends)]
    step = statistics.median(gaps) if gaps else ends[0] - begun
    cuda = base.machine.kind is DeviceKind.CUDA
    return {
        "all, s": ended - begun,
        "before the first step, s": ends[0] - begun - step,
        "a step, median, s": step,
        "slowest and fastest step after the first, s": [max(gaps, default=step), min(gaps, default=step)],
        "steps": len(ends),
        "passes": len(launching),
        "of which Python started kernels, median of a pass, s": statistics.median(launching),
        "after the last step, s": trained - ends[-1],
        "saving, s": ended - trained,
        "layers that keep their activations": kept.call_args.args[1] if kept.call_args else 0,
        "peak reserved, GiB": torch.cuda.max_memory_reserved() / 2**30 if cuda else None,
        "peak allocated, GiB": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "loss of each trial's last step": [one.steps[-1].loss for one in found],
    }


def save(found: Sequence[FusedResult], folder: Path) -> None:
    def write(one: FusedResult) -> None:
        (folder / one.name).mkdir(exist_ok=True)
        one.save(folder / one.name)

    in_threads(write, found)


def kernels(base: Base, rows: Sequence[Row], sweep: Sequence[Settings], tokens: int | None) -> dict[str, Any]:
    """Return milliseconds and number of kernels of a step by kind, from a few steps after the first."""
    batch = sweep[0].batch_size
    few = rows[: batch * (PROFILED_STEPS + 1)]
    whole = TRIALS * -(-len(few) // batch)
    trials = [TrialInput(str(number), few, settings, number) for number, settings in enumerate(sweep)]
    watched, ticks = profiler(base), list[float]()

    def tick(*_: Any) -> None:
        ticks.append(time.perf_counter())
        if len(ticks) == len(trials):
            watched.start()
        if len(ticks) == whole:
            watched.stop()

    for _ in train_together(base, trials, progress=tick, pass_tokens=tokens):
        pass
    steps = len(ticks) // len(trials) - 1
    if steps < 1:
        return {}
    by_kind = kernels_by_kind(watched, steps)
    return {
        "wall, ms": 1000 * (ticks[-1] - ticks[len(trials) - 1]) / steps,
        "GPU busy, ms": sum(spent for spent, _ in by_kind.values()),
        "by kind, ms and kernels": by_kind,
    }


def profiler(base: Base) -> Any:
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[getattr(ProfilerActivity, "CUDA" if base.machine.kind is DeviceKind.CUDA else "CPU")])


def kernels_by_kind(profiled: Any, steps: int) -> dict[str, list[float]]:
    """Return milliseconds and number of kernels of a step, by kind."""
    spent, count = Counter[str](), Counter[str]()
    for event in profiled.events() or ():
        if event.device_type.name == "CUDA":
            kind = kind_of(event.name)
            spent[kind] += event.device_time
            count[kind] += 1
    return {kind: [round(spent[kind] / 1000 / steps, 1), count[kind] // steps] for kind in sorted(spent)}


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "elementwise")


def figures(
    model: str, batches: Sequence[int], *, tokens: int | None = None, profiled: bool = False, sft: bool = False
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as saved:
        base, seconds = loaded(model, Path(made))
        rows = random_rows(base, EXAMPLES if on_gpu() else EXAMPLES // 8, 100)
        settings = Settings(learning_rate=1e-4, rank=16, alpha=32, warmup=0, epochs=1)
        found: dict[str, Any] = {
            "machine": base.machine.device,
            "versions": stack_versions(),
            "model": model,
            "tokens of an epoch of all trials": TRIALS * sum(len(row.input_ids) for row in rows),
            "loading the base, s": seconds,
            "drawing the adapters by themselves, s": [drawing(base, settings) for _ in range(2)],
        }
        for batch in batches:
            sweep = sweep_of(replace(settings, batch_size=batch), TRIALS)
            own = Path(saved) / str(batch)  # as in a run, no file is replaced: that would take longer
            own.mkdir()
            found[f"batch {batch}"] = epoch(base, rows, sweep, own, tokens)
            print(json.dumps({f"batch {batch}": found[f"batch {batch}"]}, indent=1), flush=True)
            if profiled:
                found[f"batch {batch}"]["kernels of a step"] = kernels(base, rows, sweep, tokens)
        if sft:
            sequential(base, rows[:4], settings, 0, timed=2)  # compiles and loads kernels
            for batch in batches:
                alone = sequential(base, rows, replace(settings, batch_size=batch), 0, timed=SFT_STEPS)
                found[f"batch {batch}"]["one trial with SFTTrainer"] = asdict(alone)
        return found


def drawing(base: Base, settings: Settings) -> float:
    begun = time.perf_counter()
    initial_adapters(base, [(settings, seed) for seed in range(TRIALS)])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default="shape:llama-2-7b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16] if on_gpu() else [4])
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--sft", action="store_true")
    given = parser.parse_args()
    found = figures(given.model, given.batches, tokens=given.tokens, profiled=given.kernels, sft=given.sft)
    print_figures(found, given.output)


if __name__ == "__main__":
    main()
