"""Measures the phases in which the base model and eight adapters answer in one batch on a GPU.

    python -m tests.benchmarks.answers [--output FILE.json] [--model NAME] [--rows N] [--join-tokens N] [--kernels]

Lets nine models answer forty prompts each, with 64 new tokens, under a T4's memory and precision and with random
weights. `--rows` is the number of rows of the batch, and `--join-tokens` the largest number of prompt tokens that are
read at once. `--kernels` also profiles the kernels of all steps by kind. Without a GPU, the toy model answers four
prompts. Prints its figures as JSON and asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness.core.settings import Settings
from harness.core.suite import Decoding
from harness.engine.cuda_graphs import CudaGraphs
from harness.engine.generation import masked_adapters
from harness.engine.generation.continuous_batching import JOIN_TOKENS, Request, _Batch, answer_requests, rows_at_once
from harness.engine.loading import Base
from harness.engine.trainers.fused.initialisation import initial_adapters
from harness.engine.trainers.fused.stack import Adapter
from harness.engine.trainers.fused.vectors import in_main_memory, pairs_of, shapes_of
from tests.benchmarks.engines import NEW_TOKENS, PROMPTS, TRIALS, asked
from tests.benchmarks.passes import fresh, kernels_by_kind, loaded, on_gpu, profiler
from tests.support.printed_figures import print_figures

PHASES = {
    "putting the adapters on the base": (masked_adapters, "masked"),
    "reading prompts (joins)": (_Batch, "_join"),
    "steps": (_Batch, "_step"),
    "of these, capturing graphs": (CudaGraphs, "_add"),
}
"""The function that is timed for each phase; each ends by waiting for the GPU, except captures."""


@contextmanager
def timed() -> Iterator[dict[str, list[float]]]:
    """Until the context ends, list the seconds of each call, by phase."""
    spent: dict[str, list[float]] = {name: [] for name in PHASES}

    def timing(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            begun = time.perf_counter()
            found = own(*given)
            spent[name].append(time.perf_counter() - begun)
            return found

        return call

    patches = [patch.object(holder, of, timing(name, getattr(holder, of))) for name, (holder, of) in PHASES.items()]
    for each in patches:
        each.start()
    try:
        yield spent
    finally:
        for each in patches:
            each.stop()


def random_adapters(base: Base, count: int) -> list[Adapter]:
    """Return adapters in main memory, with small random numbers in both matrices."""
    settings = Settings(learning_rate=1e-4, rank=16, alpha=32)
    found = []
    for one in initial_adapters(base, [(settings, seed) for seed in range(count)]):
        vector = in_main_memory(one.vector)
        vector.add_(vector.new_empty(vector.shape).normal_(std=1e-3))
        found.append(replace(one.adapter, weights=pairs_of(vector, shapes_of(one.adapter.weights))))
    return found


def answering(base: Base, requests: list[Request], rows: int, join_tokens: int, *, profiled: bool) -> dict[str, Any]:
    """Return the seconds of each phase, and the tokens generated per second."""
    fresh(base)
    watched = profiler(base) if profiled else None
    with timed() as spent, watched or nullcontext():
        begun = time.perf_counter()
        decoding = Decoding(max_new_tokens=NEW_TOKENS)
        found = dict(
            answer_requests(base, requests, decoding, rows=rows, join_tokens=join_tokens, progress=lambda *_: None)
        )
        seconds = time.perf_counter() - begun
    tokens = sum(answer.tokens for own in found.values() for answer in own)
    steps = sorted(spent["steps"])
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens per second": tokens / seconds,
        "phases, seconds and calls": {name: [sum(each), len(each)] for name, each in spent.items()},
        "a step, median, s": steps[len(steps) // 2],
        **({"kernels, ms and number": kernels_by_kind(watched, len(steps))} if watched else {}),
    }


def figures(model: str, rows: int | None, join_tokens: int, *, profiled: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        base, _ = loaded(model, Path(made))
    prompts = asked(PROMPTS if on_gpu() else 4)
    adapters = [None, *random_adapters(base, TRIALS)]
    requests = [Request(str(number), adapter, prompts) for number, adapter in enumerate(adapters)]
    rows = rows or rows_at_once(base, requests, Decoding(max_new_tokens=NEW_TOKENS), least=64)
    found: dict[str, Any] = {"machine": base.machine.device, "model": model, "rows": rows, "join tokens": join_tokens}
    for name in ("first", "again"):
        found[name] = answering(base, requests, rows, join_tokens, profiled=False)
    if profiled:
        found["profiled"] = answering(base, requests, rows, join_tokens, profiled=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default="shape:llama-2-7b")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--join-tokens", type=int, default=JOIN_TOKENS)
    parser.add_argument("--kernels", action="store_true")
    given = parser.parse_args()
    print_figures(figures(given.model, given.rows, given.join_tokens, profiled=given.kernels), given.output)


if __name__ == "__main__":
    main()
