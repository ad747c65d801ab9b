"""Estimates from counted operations and bytes how long a T4 would take for a pass, and for unsloth one by one.

    python -m tests.benchmarks.t4_estimate [--passes FILE.json] [--output FILE.json]

FILE.json is a record of `tests.benchmarks.passes --kernels` on an H200. Nothing here ran on a T4. Counted are:

- the matrix products of the base with each padded token, two operations a weight: forward, backward, and once more
  where activations are computed again; those of the adapters are 2% and left out, as is attention;
- the bytes of dequantising the base: twice a pass, and three times a step with unsloth;
- what is computed element by element. The record has an H200's time; a T4 needs it multiplied by the ratio of the
  bandwidths. unsloth, which fuses the same kernels, is taken to need as much for each token.

Each is a range: a T4 reaches 35 to 55% of its 65 TFLOP/s and 65 to 85% of its 320 GB/s, and an H200 50 to 80% of its
4.8 TB/s (peaks from NVIDIA's data sheets). Starting kernels costs nothing here. Prints a table and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.settings import Settings
from harness.core.units import DeviceKind
from harness.engine.trainers.fused.graphs import padded_tokens
from harness.engine.trainers.fused.passes import divided
from harness.engine.trainers.fused.training import OVERHEAD, WORTHWHILE
from harness.engine.trainers.fused.trial_state import windows
from harness.hardware.estimate.passes import PASS_TOKENS
from harness.models.architecture import ModelShape, shape_of
from harness.models.foreign_files import read_object
from harness.models.resolving import resolve
from tests.benchmarks.engines import EXAMPLES, TRIALS

PERF = Path("reports/perf")
ARITHMETIC = (65e12 * 0.55, 65e12 * 0.35)
"""Operations a second that a T4 reaches: at best, at worst."""
TRAFFIC = (320e9 * 0.85, 320e9 * 0.65)
"""Bytes a second that a T4 reaches."""
SLOWER = (4.8e12 * 0.5 / (320e9 * 0.85), 4.8e12 * 0.8 / (320e9 * 0.65))
"""How many times an H200's time a T4 needs for the same bytes."""
DEQUANTISED = 0.5 + 2
"""Bytes read and written for each weight that is dequantised."""
ELEMENTWISE = ("elementwise", "fused pointwise", "copies", "optimizer")


@dataclass(frozen=True)
class Work:
    """What an epoch of all trials needs: padded tokens, products of the base with each, sweeps of dequantising."""

    tokens: int
    products: float
    sweeps: int
    elementwise: float
    """Seconds of an H200."""

    def on_a_t4(self, weights: int) -> tuple[float, float]:
        """Return the seconds on a T4, at best and at worst, for a base with this number of quantised weights."""
        at = [
            2 * weights * self.tokens * self.products / arithmetic
            + DEQUANTISED * weights * self.sweeps / traffic
            + self.elementwise * slower
            for arithmetic, traffic, slower in zip(ARITHMETIC, TRAFFIC, SLOWER, strict=True)
        ]
        return at[0], at[1]


def lengths(vocabulary: int) -> list[int]:
    """Return the lengths of the benchmark's rows, whose tokens are drawn from so many."""
    rng = random.Random(0)
    found = []
    for _ in range(EXAMPLES):
        found.append(rng.randint(75, 125))
        for _ in range(found[-1]):
            rng.randint(
                10, vocabulary - 1
            )  # the row's tokens, which `engines.random_rows` draws from the same generator
    return found


def passes_of(rows: Sequence[int], batch: int) -> Iterator[tuple[int, int]]:
    """Yield rows and tokens of a row of each pass of an epoch. Passes that become CUDA graphs are padded further."""
    settings = Settings(batch_size=batch, epochs=1)
    each = [list(windows(len(rows), settings, seed)) for seed in range(TRIALS)]
    for step in range(len(each[0])):
        drawn = [(trial, rows[row]) for trial, own in enumerate(each) for row in own[step].rows]
        owners, long = [trial for trial, _ in drawn], [length for _, length in drawn]
        given = {"overhead": OVERHEAD[DeviceKind.CUDA], "limit": PASS_TOKENS[DeviceKind.CUDA]}
        for group in divided(owners, long, **given):
            longest = max(long[row] for row in group)
            yield len(group), padded_tokens(longest) if len(each[0]) >= WORTHWHILE else longest


def one_pass(rows: Sequence[int], batch: int, record: dict[str, Any], layers: int) -> Work:
    """Return the work of a pass, whose times on an H200 are in `record`."""
    parts = list(passes_of(rows, batch))
    again = 1 - record["layers that keep their activations"] / layers
    kernels = record["kernels of a step"]["by kind, ms and kernels"]
    elementwise = sum(kernels[kind][0] for kind in ELEMENTWISE if kind in kernels) / 1000 * record["steps"]
    return Work(sum(count * longest for count, longest in parts), 2 + again, 2 * len(parts), elementwise)


def unsloth(rows: Sequence[int], batch: int, a_pass: Work) -> Work:
    """Return the work of all trials one by one, each batch padded to its longest row."""
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    tokens = TRIALS * sum(len(own) * max(own) for own in batches)
    return Work(tokens, 3, 3 * TRIALS * len(batches), a_pass.elementwise * tokens / a_pass.tokens)


def figures(record: dict[str, Any], shape: ModelShape) -> Iterator[tuple[int, dict[str, Any]]]:
    pocket = read_object(Path(resolve("pocket").path) / "config.json")
    rows = lengths(min(shape.vocabulary, pocket["vocab_size"]))
    if TRIALS * sum(rows) != record["tokens of an epoch of all trials"]:
        raise ValueError("these are not the rows of the record")
    for name, own in record.items():
        if not name.startswith("batch "):
            continue
        batch = int(name.split()[1])
        ours = one_pass(rows, batch, own, shape.layers)
        theirs = unsloth(rows, batch, ours)
        a, b = ours.on_a_t4(shape.quantised), theirs.on_a_t4(shape.quantised)
        yield (
            batch,
            {
                "pass": asdict(ours) | {"seconds on a T4": a},
                "unsloth": asdict(theirs) | {"seconds on a T4": b},
                "ahead": [mine and other / mine for mine, other in zip(a, b, strict=True)],
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=Path, default=PERF / "passes.json")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    record = json.loads(given.passes.read_text(encoding="utf-8"))
    if not all("kernels of a step" in own for name, own in record.items() if name.startswith("batch ")):
        print(f"{given.passes} has no kernels: run `python -m tests.benchmarks.passes --kernels` on an H200.")
        return
    shape = shape_of(read_object(Path(resolve(record["model"]).path) / "config.json"))
    found = dict(figures(record, shape))
    print("| Batch | a pass, s | unsloth one by one, s | ahead |\n|---|---|---|---|")
    for batch, own in found.items():
        (low, high), (least, most) = (own[name]["seconds on a T4"] for name in ("pass", "unsloth"))
        ahead = " to ".join(f"{times:.1f}" for times in sorted(own["ahead"]))
        print(f"| {batch} | {low:.0f} to {high:.0f} | {least:.0f} to {most:.0f} | {ahead} |")
    if given.output:
        text = json.dumps({"command": "python -m tests.benchmarks.t4_estimate", "batches": found}, indent=1)
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
