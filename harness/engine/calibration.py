"""Measures how fast this GPU trains with QLoRA, from a few optimizer steps of models with a few layers.

Weights are random, and nothing is downloaded. The measurement takes one minute on an H200 and about two on a T4.
`harness.hardware.estimate` derives the GPU's speed from these timings.
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

from harness.core.errors import EngineError
from harness.core.machine import Machine, Timing
from harness.core.model import ModelRef
from harness.core.settings import Quantization, Settings
from harness.core.training_outcome import Step
from harness.core.units import DeviceKind
from harness.engine.loading import Base, load_base
from harness.engine.log_filters import hide_library_messages
from harness.engine.random_weights import make_base
from harness.engine.tokenization import Row
from harness.engine.trainers.sft import trained

BENCHMARKS = (
    Timing("tinyllama-1.1b", 2, 1, 16),
    Timing("tinyllama-1.1b", 8, 1, 16),
    Timing("tinyllama-1.1b", 8, 4, 512),
    Timing("llama-2-7b", 4, 1, 16),
    Timing("llama-2-7b", 4, 1, 256),
    Timing("llama-2-7b", 4, 2, 512),
    Timing("llama-2-7b", 4, 8, 512),
)
"""The benchmarks: shape of the model, number of layers, rows, and tokens of a row.

Those with few tokens show the fixed cost of a pass, and those with many show the speed of matrix products. Models of
two sizes separate the cost of kernel launches from that of dequantising weights."""
MOST_ROWS = 64
"""Largest number of rows with which `_larger` runs a benchmark."""
STEPS, WARM_UP = 9, 3
"""Steps of each benchmark, and how many first steps do not count, because kernels are compiled in them."""
_TOKEN = 5


def timings(
    machine: Machine,
    shapes: Path,
    tokenizer: Path,
    progress: Callable[[Timing], None],
    benchmarks: Sequence[Timing] = BENCHMARKS,
    *,
    make: Callable[[Machine, Path, int, Path, Path], Base] | None = None,
    measure: Callable[[Base, Timing], Timing] | None = None,
) -> list[Timing]:
    """Run the benchmarks and return each with its median seconds per step. `shapes` has one folder for each shape.

    Output of the libraries is hidden. Tests pass their own `make`, which makes a base, and `measure`, which times it.

    Raises:
        EngineError: the training of a benchmark ended early.
    """
    hide_library_messages()
    make, measure = make or _base, measure or _timed
    found = []
    for (shape, layers), group in itertools.groupby(benchmarks, key=lambda each: (each.shape, each.layers)):
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            base = make(machine, shapes / shape, layers, tokenizer, Path(folder))
            for each in group:
                found.append(measure(base, each))
                progress(found[-1])
            if (shape, layers) == (benchmarks[-1].shape, benchmarks[-1].layers):
                found += _larger(base, found, progress, measure)
            del base
    return found


def _larger(
    base: Base,
    found: Sequence[Timing],
    progress: Callable[[Timing], None],
    measure: Callable[[Base, Timing], Timing],
) -> list[Timing]:
    """Run the last benchmark repeatedly, each time with twice as many rows as before.

    This ends when a step takes twice as long as in the fastest benchmark of this base, or with `MOST_ROWS` rows.

    With fewer rows, a fast GPU mostly waits for Python, so its timings do not show the speed of its matrix products.
    """
    import torch

    last = found[-1]
    least = min(each.seconds for each in found if (each.shape, each.layers) == (last.shape, last.layers))
    more: list[Timing] = []
    while last.seconds < 2 * least and 2 * last.rows <= MOST_ROWS:
        try:
            last = measure(base, replace(last, rows=2 * last.rows))
        except torch.OutOfMemoryError:
            break
        more.append(last)
        progress(last)
    return more


def _base(machine: Machine, shape: Path, layers: int, tokenizer: Path, folder: Path) -> Base:
    """Make and load a base of this shape that has random weights and only `layers` layers."""
    config = json.loads((shape / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
    ref = ModelRef(shape.name, str(folder), "", shape_only=True, tokenizer=str(tokenizer))
    (folder / "base").mkdir()
    make_base(ref, Quantization.NF4, machine, folder / "base")
    return load_base(ref, Quantization.NF4, machine, saved=folder / "base")


def _timed(base: Base, given: Timing) -> Timing:
    """Train for `STEPS` steps and return the benchmark with its median seconds per step."""
    settings = Settings(
        learning_rate=1e-5, epochs=STEPS, warmup=0, rank=16, alpha=32, batch_size=given.rows, max_length=given.length,
        optimizer="paged_adamw_8bit" if base.machine.kind is DeviceKind.CUDA else "adamw_torch",
    )  # fmt: skip
    rows = [Row([_TOKEN] * given.length, [_TOKEN] * given.length)] * given.rows
    ends: list[float] = []

    def ended(step: Step, total: int) -> None:  # noqa: ARG001 - the trainer calls it so
        ends.append(time.perf_counter())

    with (
        contextlib.redirect_stdout(io.StringIO()),
        trained(base, rows, settings, 0, progress=ended) as found,
    ):
        # Random weights may overflow fp16 at every loss scale. That is no error: such steps take as long as others.
        if len(ends) != STEPS:
            raise EngineError(f"the benchmark of {given.shape} did not train: {found.message}")
    return Timing(given.shape, given.layers, given.rows, given.length, statistics.median(_between(ends)))


def _between(ends: Sequence[float]) -> Iterator[float]:
    """Yield the duration of each step after the first `WARM_UP`, from the times at which the steps ended."""
    return (after - before for before, after in itertools.pairwise(ends[WARM_UP - 1 :]))
