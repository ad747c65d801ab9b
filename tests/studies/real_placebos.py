"""Judges real placebos: adapters that change answers and harm nothing on average, by the old rule and by the new one.

    python -m tests.studies.real_placebos --model FOLDER --output reports/studies/real-placebos.json
    python -m tests.studies.real_placebos --model FOLDER --count 3 --probes 2 --cases 40 --output FILE   (on a CPU)

A placebo is a random LoRA adapter on the base model in NF4. The strength of an adapter is the norm of each update as a
share of the weight's norm. All placebos have the strength at which about a fifth of the answers to the `retain` and
`avoid` cases differ. The strength is found with other random adapters (`--probes`). Three comparisons are judged:

- `against_base`: each placebo, and each three placebos as three seeds, against the base model. All share the luck of
  the base model's one answer to each case, so their losses are not independent.
- `against_each_other`: each placebo against the next one. Their true loss is exactly 0, because the two were drawn in
  the same way.
- `other_quantisation`: the base model without quantisation against the one in NF4.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from harness.analysis.losses import GUARDED
from harness.analysis.statistics import Scores
from harness.core import device_profiles
from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.settings import Quantization
from harness.core.suite import Case, Decoding
from harness.core.units import DeviceKind
from harness.engine.generation.continuous_batching import Request, answer_requests
from harness.engine.loading import Base, load_base
from harness.engine.trainers.fused.stack import Adapter
from harness.hardware.environment import machine, versions
from harness.models.resolving import resolve
from harness.scoring import score
from harness.storage.files import write_text
from harness.suites import load_suite
from tests.studies.old_rule import new_rule, old_rule
from tests.studies.placebos import lines

SUITES = Path(__file__).resolve().parents[2] / "suites"
MARGIN = 15.0
WANTED = 0.2
"""Share of the answers that differ from the base model's."""
RANK = 8
ROUNDS = 8
"""Number of strengths that are tried."""
LEAST, MOST = 0.0003, 0.3
"""The strength is between these."""
AT_ONCE = 52
"""Number of adapters that answer in one batch."""
ROWS = {DeviceKind.CPU: 64, DeviceKind.CUDA: 4096}
"""Number of rows in a batch. The base model is small, so that a GPU has room for many."""
JOINING = {DeviceKind.CPU: 4096, DeviceKind.CUDA: 65_536}
"""Number of prompt tokens in one forward pass."""
SEEDS = 3
PROBE = 1_000_000
"""Seed of the first random adapter that only serves to find the strength."""


@dataclass(frozen=True)
class Cases:
    """The guarded cases of the suites, and how they are answered."""

    cases: tuple[Case, ...]
    decoding: Decoding

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(case.group for case in self.cases)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(Prompt(case.id, case.messages) for case in self.cases)

    def scores(self, answers: Sequence[Answer]) -> Scores:
        """Return the scores of one model's answers, (1, cases)."""
        marks = [score(case, answer).passed for case, answer in zip(self.cases, answers, strict=True)]
        return np.array([marks], dtype=np.float64)

    def first(self, count: int | None) -> Cases:
        """Return this number of cases, spread evenly over all of them."""
        if count is None or count >= len(self.cases):
            return self
        return replace(self, cases=tuple(self.cases[len(self.cases) * n // count] for n in range(count)))


def guarded_cases(names: Iterable[str]) -> Cases:
    """Return the `retain` and `avoid` cases of these shipped suites, each prompt once.

    Cases of the same group in different suites stay one group. Answers have the length of the most generous suite.
    """
    suites = [load_suite(SUITES / name) for name in names]
    distinct: dict[Any, Case] = {}
    for case in (case for suite in suites for case in suite.cases if case.role in GUARDED):
        distinct.setdefault(case.messages, case)
    numbered = tuple(replace(case, id=f"{n}") for n, case in enumerate(distinct.values()))
    return Cases(numbered, Decoding(max(suite.decoding.max_new_tokens for suite in suites)))


# --- placebos ----------------------------------------------------------------------------------------------------


def placebo(modules: Mapping[str, Module], seed: int, strength: float) -> Adapter:
    """Return a random adapter whose update of each module's weight has the norm of the weight times `strength`."""
    import torch

    weights, scaling = {}, {}
    draw = torch.Generator().manual_seed(seed)
    for name, module in modules.items():
        a = torch.randn(RANK, module.inputs, generator=draw)
        b = torch.randn(module.outputs, RANK, generator=draw)
        size = math.sqrt(float(torch.trace((b.T @ b) @ (a @ a.T))))  # the Frobenius norm of b @ a
        weights[name], scaling[name] = (a, b), strength * module.norm / size
    return Adapter(weights, scaling)


@dataclass(frozen=True)
class Module:
    """A linear module: its features, and the Frobenius norm of its weight."""

    outputs: int
    inputs: int
    norm: float


def modules_of(base: Base) -> dict[str, Module]:
    """Return every linear module of the base model except the head, by name."""
    import torch

    head = base.model.get_output_embeddings()
    return {
        name: Module(module.out_features, module.in_features, _norm(module.weight))
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _norm(weight: Any) -> float:
    from bitsandbytes.functional import dequantize_4bit

    state = getattr(weight, "quant_state", None)
    return float((dequantize_4bit(weight.data, state) if state is not None else weight).float().norm())


def answers(base: Base, asked: Cases, adapters: Iterable[Adapter | None]) -> Iterator[list[Answer]]:
    """Yield the answers of the base model with each adapter (None: with none), in the order of the cases."""
    for some in _chunks(adapters, AT_ONCE):
        requests = [Request(str(n), adapter, asked.prompts) for n, adapter in enumerate(some)]
        rows, tokens = ROWS[base.machine.kind], JOINING[base.machine.kind]
        found = dict(
            answer_requests(base, requests, asked.decoding, rows=rows, join_tokens=tokens, progress=lambda *_: None)
        )
        yield from (found[str(n)] for n in range(len(some)))


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def changed(before: Sequence[Answer], after: Sequence[Answer]) -> float:
    """Return the share of answers whose texts differ."""
    return fmean(one.text != other.text for one, other in zip(before, after, strict=True))


def strength_of(
    base: Base, modules: Mapping[str, Module], asked: Cases, probes: int
) -> tuple[float, list[dict[str, float]]]:
    """Find the strength at which a fifth of the answers differ, by bisection; return it and the strengths tried."""
    (before,) = answers(base, asked, [None])
    low, high, tried = LEAST, MOST, []
    for _ in range(ROUNDS):
        strength = math.sqrt(low * high)
        made = answers(base, asked, (placebo(modules, PROBE + n, strength) for n in range(probes)))
        share = fmean(changed(before, after) for after in made)
        tried.append({"strength": round(strength, 5), "changed": round(share, 3)})
        low, high = (low, strength) if share > WANTED else (strength, high)
    return math.sqrt(low * high), tried


# --- judging -----------------------------------------------------------------------------------------------------


def compared(base: Scores, variant: Scores, groups: Sequence[str]) -> dict[str, Any]:
    """Judge a variant by both rules."""
    return {
        "points_of_all_cases": round(100 * float(base.mean() - variant.mean()), 1),
        "old": old_rule(base, variant, groups, MARGIN),
        "new": new_rule(base, variant, groups, MARGIN),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count how often the interval contains 0, and how often each rule says that a placebo loses too much."""
    told = [row["new"]["interval"] for row in rows if row["new"]["interval"]]
    inside = [(low is None or low <= 0) and high >= 0 for low, high in told]
    losses = [row["old"]["lost"] for row in rows if row["old"]["lost"] is not None]
    return {
        "compared": len(rows),
        "interval_contains_0": _share(inside),
        "mean_points_of_all_cases": _mean([row["points_of_all_cases"] for row in rows]),
        "mean_net_loss": _mean([row["new"]["net"] for row in rows if row["new"]["net"] is not None]),
        "mean_old_loss": _mean(losses),
        "old_loss_at_least_the_margin": _share([loss >= MARGIN for loss in losses]),
        "old_verdicts": dict(Counter(row["old"]["verdict"] for row in rows)),
        "new_verdicts": dict(Counter(row["new"]["verdict"] for row in rows)),
    }


def _share(hits: Sequence[bool]) -> float | None:
    return round(fmean(hits), 4) if hits else None


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 2) if values else None


def against_base(base: Scores, placebos: Sequence[Scores], groups: Sequence[str]) -> dict[str, Any]:
    one = [compared(base, own, groups) for own in placebos]
    three = [compared(base, np.concatenate(own), groups) for own in _chunks(placebos, SEEDS) if len(own) == SEEDS]
    return {"one_seed": {**summary(one), "each": one}, "three_seeds": {**summary(three), "each": three}}


def against_each_other(placebos: Sequence[Scores], groups: Sequence[str]) -> dict[str, Any]:
    rows = [compared(before, after, groups) for before, after in pairwise([*placebos, placebos[0]])]
    return {**summary(rows), "each": rows}


def study(model: str, on: Machine, asked: Cases, count: int, probes: int, probe_cases: int) -> dict[str, Any]:
    start = time.perf_counter()
    base = load_base(resolve(model), Quantization.NF4, on)
    modules = modules_of(base)
    strength, tried = strength_of(base, modules, asked.first(probe_cases), probes)
    print(f"strength {strength:.4f} after {time.perf_counter() - start:.0f} s: {tried}", flush=True)
    before, again, *made = answers(base, asked, [None, None, *(placebo(modules, n, strength) for n in range(count))])
    print(f"{count} placebos answered after {time.perf_counter() - start:.0f} s", flush=True)
    (plain,) = answers(load_base(resolve(model), Quantization.NONE, on), asked, [None])
    scores, groups = asked.scores(before), asked.groups
    placebos = [asked.scores(own) for own in made]
    shares = [changed(before, own) for own in made]
    return {
        "model": Path(model).name, "device": on.device, "compute_dtype": on.compute_dtype, "versions": versions(),
        "seconds": round(time.perf_counter() - start),
        "cases": len(asked.cases), "groups": len(set(groups) - {""}) + groups.count(""),
        "max_new_tokens": asked.decoding.max_new_tokens, "margin": MARGIN,
        "base_passes": int(scores.sum()),
        "strength": {"rank": RANK, "share_of_each_norm": round(strength, 5), "probes": probes, "tried": tried},
        "changed": {
            "base_asked_again": round(changed(before, again), 3), "mean": round(fmean(shares), 3),
            "least": round(min(shares), 3), "most": round(max(shares), 3),
            "each": [round(share, 3) for share in shares],
        },
        "against_each_other": against_each_other(placebos, groups),
        "against_base": against_base(scores, placebos, groups),
        "other_quantisation": {
            "changed": round(changed(before, plain), 3), "passes": int(asked.scores(plain).sum()),
            **compared(asked.scores(plain), scores, groups),
        },
    }  # fmt: skip


def _hide_progress() -> None:
    """Hide the progress bar of transformers, which would fill a log."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--profile", choices=device_profiles.PROFILES, default="auto")
    parser.add_argument("--suites", nargs="+", default=["workshop", "json-format"], metavar="NAME")
    parser.add_argument("--count", type=int, default=102, help="Number of placebos.")
    parser.add_argument("--probes", type=int, default=12, help="Number of adapters that find the strength.")
    parser.add_argument("--probe-cases", type=int, default=60, help="Number of cases that find the strength.")
    parser.add_argument("--cases", type=int, help="Use only this number of cases.")
    given = parser.parse_args()
    _hide_progress()
    asked = guarded_cases(given.suites).first(given.cases)
    on = machine(device_profiles.PROFILES[given.profile])
    if on.kind is DeviceKind.CPU:
        on = replace(on, threads=1)  # threads that share busy cores wait for each other
    found = study(given.model, on, asked, given.count, given.probes, given.probe_cases)
    words = ["FOLDER" if word == given.model else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", "tests.studies.real_placebos", *words])
    write_text(given.output, lines({"command": command, **found}))


if __name__ == "__main__":
    main()
