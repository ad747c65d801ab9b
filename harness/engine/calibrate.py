"""Times a few optimizer steps of the real trainer on a few layers of known shapes: how fast this GPU trains with QLoRA.

Random weights, nothing downloaded; a minute on an H200, about two on a T4. What the steps say of the GPU is for
`harness.predict` to find out.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.engine.base import Base, load_base
from harness.engine.quiet import quieten
from harness.engine.reference import trained
from harness.engine.rows import Row
from harness.engine.shapes import make_base
from harness.errors import EngineError
from harness.records import DeviceKind, Machine, ModelRef, Quantization, Settings, Step, Timing

BENCHMARKS = (
    Timing("tinyllama-1.1b", 2, 1, 16),
    Timing("tinyllama-1.1b", 8, 1, 16),
    Timing("tinyllama-1.1b", 8, 4, 512),
    Timing("llama-2-7b", 4, 1, 16),
    Timing("llama-2-7b", 4, 1, 256),
    Timing("llama-2-7b", 4, 2, 512),
    Timing("llama-2-7b", 4, 8, 512),
)
"""Few tokens show what every pass costs, many what a product costs; two sizes of layers tell launching from weights."""
MOST_ROWS = 64
"""Where the largest benchmark takes hardly longer than the smallest, its rows are doubled, up to these."""
STEPS, WARM_UP = 9, 3
"""Steps of each benchmark, and how many of them are not counted: kernels are compiled and chosen in them."""
_TOKEN = 5


def timings(
    machine: Machine,
    shapes: Path,
    tokenizer: Path,
    progress: Callable[[Timing], None],
    benchmarks: Sequence[Timing] = BENCHMARKS,
) -> list[Timing]:
    """The benchmarks with their seconds, the median of the steps that count. `shapes` holds a folder for each shape.

    What the libraries print meanwhile is for no reader: it is kept from the terminal.

    Raises:
        EngineError: a benchmark did not train.
    """
    quieten()
    found = []
    for (shape, layers), group in itertools.groupby(benchmarks, key=lambda each: (each.shape, each.layers)):
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            base = _base(machine, shapes / shape, layers, tokenizer, Path(folder))
            for each in group:
                found.append(_timed(base, each))
                progress(found[-1])
            if (shape, layers) == (benchmarks[-1].shape, benchmarks[-1].layers):
                found += _larger(base, found, progress)
            del base
    return found


def _larger(base: Base, found: Sequence[Timing], progress: Callable[[Timing], None]) -> list[Timing]:
    """More and more rows, until they take twice as long as the smallest benchmark of this base: a fast GPU waits for
    Python until then, and how fast its products are cannot be seen."""
    import torch

    last = found[-1]
    least = min(each.seconds for each in found if (each.shape, each.layers) == (last.shape, last.layers))
    more: list[Timing] = []
    while last.seconds < 2 * least and 2 * last.rows <= MOST_ROWS:
        try:
            last = _timed(base, replace(last, rows=2 * last.rows))
        except torch.OutOfMemoryError:
            break
        more.append(last)
        progress(last)
    return more


def _base(machine: Machine, shape: Path, layers: int, tokenizer: Path, folder: Path) -> Base:
    """A few layers of a shape with random weights, made and loaded as `shape:NAME` is."""
    config = json.loads((shape / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
    ref = ModelRef(shape.name, str(folder), "", shape_only=True, tokenizer=str(tokenizer))
    (folder / "base").mkdir()
    make_base(ref, Quantization.NF4, machine, folder / "base")
    return load_base(ref, Quantization.NF4, machine, saved=folder / "base")


def _timed(base: Base, given: Timing) -> Timing:
    settings = Settings(
        learning_rate=1e-5, epochs=STEPS, warmup=0, rank=16, alpha=32, batch_size=given.rows, max_length=given.length,
        optimizer="paged_adamw_8bit" if base.machine.kind is DeviceKind.CUDA else "adamw_torch",
    )  # fmt: skip
    rows = [Row([_TOKEN] * given.length, [_TOKEN] * given.length)] * given.rows
    ends: list[float] = []

    def ended(step: Step, total: int) -> None:  # noqa: ARG001 - as the trainer calls it
        ends.append(time.perf_counter())

    with (
        contextlib.redirect_stdout(io.StringIO()),
        trained(base, rows, settings, 0, progress=ended) as found,
    ):
        # Random weights may overflow fp16 at every loss scale that is tried: that takes as long as if they had not.
        if len(ends) != STEPS:
            raise EngineError(f"the benchmark of {given.shape} did not train: {found.message}")
    return Timing(given.shape, given.layers, given.rows, given.length, statistics.median(_between(ends)))


def _between(ends: Sequence[float]) -> Iterator[float]:
    """Seconds of each step that counts."""
    return (after - before for before, after in itertools.pairwise(ends[WARM_UP - 1 :]))
