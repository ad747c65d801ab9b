"""The options of learning rate schedules (`lr_scheduler_kwargs`), and combinations of settings that cannot be trained.

The names, and what each schedule does with them, are transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.settings import MOST, Scheduler, Settings


@dataclass(frozen=True)
class Option:
    """An option of a schedule: its type, and the values that it may have."""

    kind: type[float | int | str]
    at_least: float | None = None
    above: float | None = None
    at_most: float = MOST
    texts: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Describe the values, such as `a number above 0`."""
        if self.texts:
            return f"one of {', '.join(self.texts)}"
        number = "a whole number" if self.kind is int else "a number"
        if self.above is not None:
            return f"{number} above {self.above:g} and at most {self.at_most:,.0f}"
        return f"{number} from {self.at_least:g} to {self.at_most:,.0f}"

    def read(self, value: Any) -> float | int | str | None:
        """Return a value as a plain value of this option's type, or None if it is not allowed."""
        if self.texts:
            return str(value) if isinstance(value, str) and value in self.texts else None
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return None
        allowed = (self.at_least is None or value >= self.at_least) and (self.above is None or value > self.above)
        return self.kind(value) if allowed and value <= self.at_most else None


_PHASES = ("linear", "cosine", "1-sqrt")
OPTIONS: Mapping[str, Option] = {
    "num_cycles": Option(float, above=0),
    "lr_end": Option(float, at_least=0),
    "power": Option(float, above=0),
    "timescale": Option(int, at_least=1),
    "min_lr": Option(float, at_least=0),
    "min_lr_rate": Option(float, at_least=0, at_most=1),
    "warmup_lr_rate": Option(float, at_least=0, at_most=1),
    "num_decay_steps": Option(int, at_least=0),
    "min_lr_ratio": Option(float, at_least=0, at_most=1),
    "warmup_type": Option(str, texts=_PHASES),
    "decay_type": Option(str, texts=_PHASES),
}
"""All options by name."""
TAKES: Mapping[Scheduler, tuple[str, ...]] = {
    Scheduler.COSINE: ("num_cycles",),
    Scheduler.COSINE_WITH_RESTARTS: ("num_cycles",),
    Scheduler.POLYNOMIAL: ("lr_end", "power"),
    Scheduler.INVERSE_SQRT: ("timescale",),
    Scheduler.COSINE_WITH_MIN_LR: ("num_cycles", "min_lr", "min_lr_rate"),
    Scheduler.COSINE_WARMUP_WITH_MIN_LR: ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    # Without `num_stable_steps`: the steps between warmup and decay are the stable ones.
    Scheduler.WARMUP_STABLE_DECAY: ("num_decay_steps", "min_lr_ratio", "warmup_type", "decay_type", "num_cycles"),
}
"""The options of each schedule that has any."""
NEEDS: Mapping[Scheduler, tuple[str, ...]] = {
    Scheduler.COSINE_WITH_MIN_LR: ("min_lr", "min_lr_rate"),
    Scheduler.COSINE_WARMUP_WITH_MIN_LR: ("min_lr", "min_lr_rate"),
    Scheduler.WARMUP_STABLE_DECAY: ("num_decay_steps",),
}
"""The options of which a schedule must have exactly one."""
REFUSED: Mapping[str, str] = {
    "reduce_lr_on_plateau": "it follows a metric on evaluation rows, which suites do not have",
    "greedy": "it follows a metric on evaluation rows, which suites do not have",
}
"""The schedules of transformers that are not in `Scheduler`, each with the reason."""
_LR_END = 1e-7
"""The end of a polynomial schedule without `lr_end`."""


def conflict(settings: Settings) -> tuple[str, str] | None:
    """Return why TRL or PEFT cannot train a combination of settings, and the remedy; None if they can."""
    if settings.layers_to_transform and isinstance(settings.target_modules, str):
        what = f"layers_to_transform needs names of target modules, and target_modules is {settings.target_modules}"
        return what, "List the names: target_modules: [q_proj, v_proj]."
    if settings.packing and settings.scheduler is Scheduler.WARMUP_STABLE_DECAY:
        what = "warmup_stable_decay cannot be combined with packing, because num_decay_steps must fit into the steps, "
        return f"{what}and only the training finds out how many packing leaves", "Set packing: false."
    return _conflict_of_options(settings.scheduler, dict(settings.lr_scheduler_kwargs), settings.learning_rate)


def _conflict_of_options(scheduler: Scheduler, given: Mapping[str, Any], rate: float) -> tuple[str, str] | None:
    taken, needed = TAKES.get(scheduler, ()), NEEDS.get(scheduler, ())
    apart = "Give each scheduler its own options, in one row under paired or rows."
    if unknown := [name for name in given if name not in taken]:
        known = f"It takes {', '.join(taken)}." if taken else "It takes none."
        return f"the scheduler {scheduler} has no option {unknown[0]}", f"{known} {apart}"
    if len(needed) > 1 and all(name in given for name in needed):
        return f"the scheduler {scheduler} takes {' or '.join(needed)}, not both", f"Remove {needed[0]}."
    if needed and not any(name in given for name in needed):
        example = f"lr_scheduler_kwargs: {{{needed[-1]}: {0.1 if OPTIONS[needed[-1]].kind is float else 10}}}"
        what = f"the scheduler {scheduler} needs {'the option' if len(needed) == 1 else 'one of the options'}"
        return f"{what} {' or '.join(needed)}", f"Write {example}. {apart}"
    if given.get("min_lr", 0) > rate:
        what = f"min_lr {given['min_lr']:g} is above the learning rate {rate:g}, so that the rate would rise"
        return what, "Lower min_lr, or raise the learning rate."
    if scheduler is Scheduler.POLYNOMIAL and rate <= given.get("lr_end", _LR_END):
        end = f"{given.get('lr_end', _LR_END):g}"
        return f"the learning rate {rate:g} is not above the end of the schedule, {end}", "Raise it, or lower lr_end."
    if scheduler is Scheduler.COSINE_WITH_RESTARTS and given.get("num_cycles", 1) != int(given.get("num_cycles", 1)):
        return "num_cycles counts restarts, so it must be a whole number", "Write lr_scheduler_kwargs: {num_cycles: 2}."
    return None
