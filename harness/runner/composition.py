"""Composes passes: which trials are trained together and then answer together.

The trials of a pass determine how each of them is rounded. So passes are composed from the plan and the memory of the
device, before any worker starts, and never from the number of workers: a run on one GPU, on eight GPUs or on a cluster,
interrupted or not, has the same passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.engines import Engine
from harness.core.job import WIDTH
from harness.core.passes import even_parts
from harness.core.settings import Trial, fusible


@dataclass(frozen=True)
class Composition:
    """The rules by which trials are put into passes, and the predicted time of each trial."""

    width: int = WIDTH
    """Largest number of trials of a pass."""
    fitting: Mapping[str, int] = field(default_factory=dict)
    """Trial id to the number of such trials that are predicted to fit into memory together, as far as it is known."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Trial id to the predicted time of the trial, in any unit, as far as it is known."""

    def passes(self, engine: Engine, trials: Sequence[Trial]) -> list[tuple[Trial, ...]]:
        """Divide trials into passes. The trials of a pass share a base model; their order is that of `trials`.

        With the reference engine, and if the fused engine cannot train a trial, the trial has a pass of its own.
        """
        shared = [trial for trial in trials if engine is Engine.FUSED and fusible(trial.settings)]
        found = []
        for quantization in dict.fromkeys(trial.settings.quantization for trial in shared):
            own = [trial for trial in shared if trial.settings.quantization is quantization]
            found += [tuple(some) for some in even_parts(own, self._most(own))]
        together = {trial.id for trial in shared}
        return [*found, *((trial,) for trial in trials if trial.id not in together)]

    def deal(self, passes: Sequence[Sequence[Trial]], places: int) -> list[list[int]]:
        """Return which passes each place runs, as positions in `passes`, if their times are as predicted.

        The longest pass starts first, and each place that is free takes the next one.
        """
        weights = [self.weight([trial.id for trial in some]) or float(len(some)) for some in passes]
        busy, found = [0.0] * places, [list[int]() for _ in range(places)]
        for position in sorted(range(len(passes)), key=lambda each: -weights[each]):
            free = busy.index(min(busy))
            found[free].append(position)
            busy[free] += weights[position]
        return found

    def weight(self, trials: Sequence[str]) -> float:
        """Return the predicted time of a pass: the sum over its trials, which is right up to a common factor."""
        return sum(self.weights.get(trial, 0.0) for trial in trials)

    def _most(self, trials: Sequence[Trial]) -> int:
        return max(1, min([self.width, *(self.fitting.get(trial.id, self.width) for trial in trials)]))
