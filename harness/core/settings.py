"""Training settings, and the variants, trials and plans made from them.

The fields of `Settings` are the table of grid axes: each field's annotation contains an `Axis`, which states the
setting's names, its allowed values, the argument of TRL or PEFT that it becomes, and what depends on it. To add a
setting, add one field with `added=True`; grids, names, reports, the JSON schema, the trainer and the generated training
script follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Annotated, Any, get_args, get_type_hints

from harness.core.names import BASE, base_name


class Quantization(StrEnum):
    """Number format of the base model's frozen weights."""

    NF4 = "nf4"
    NONE = "none"


class Scheduler(StrEnum):
    """Learning rate schedule, with transformers' name for it.

    These are all schedules of transformers 5 that need no metric on evaluation rows. `harness/core/schedules.py` says
    which options each takes.
    """

    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    """One cosine, unless the option `num_cycles` asks for more."""
    POLYNOMIAL = "polynomial"
    """From the learning rate to `lr_end`, by default 1e-7 with power 1."""
    INVERSE_SQRT = "inverse_sqrt"
    """Proportional to the inverse square root of the step after the warmup; without warmup, almost constant."""
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    COSINE_WARMUP_WITH_MIN_LR = "cosine_warmup_with_min_lr"
    """As `cosine_with_min_lr`, but the first step of the warmup already has a learning rate above 0."""
    WARMUP_STABLE_DECAY = "warmup_stable_decay"


# The optimizers of transformers that need no packages besides torch and bitsandbytes.
OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "adamw_8bit", "adamw_bnb_8bit",
    "ademamix", "ademamix_8bit", "lion_8bit", "lion_32bit", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
    "paged_adamw_8bit", "paged_adamw_32bit", "paged_ademamix_8bit", "paged_ademamix_32bit", "paged_lion_8bit",
    "paged_lion_32bit",
)  # fmt: skip
ALL_LINEAR = "all-linear"
"""The target modules that are all linear layers. Any other text is a regular expression, as in PEFT."""
MOST = 1_000_000
"""The largest rank, length, batch size, or number of epochs or tokens that a grid or a suite may contain."""


@dataclass(frozen=True)
class Axis:
    """One training setting. `name`, `kind` (its type) and `default` are filled in from the field of `Settings`."""

    label: str
    """Short name, which names of variants contain: `lr`."""
    title: str
    """Name in reports: `Learning rate`."""
    sft: str = ""
    """The argument of TRL's SFTConfig (or of TrainingArguments, which it extends) that the setting becomes."""
    lora: str = ""
    """The argument of PEFT's LoraConfig that the setting becomes."""
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    options: tuple[str, ...] = ()
    """The allowed values of a setting whose type is text; empty if all are allowed."""
    check: Callable[[Any], Any] | None = None
    """Function that returns the value, or raises `ValueError` with the reason why it is not allowed."""
    description: str = ""
    """Explanation in the JSON schema, which editors show."""
    fused: bool = True
    """Whether the fused engine can train every value; if not, it can train only the default."""
    cost: bool = True
    """Whether the time or memory of a training step depends on the setting."""
    predicted: bool | Callable[[Any], bool] = True
    """Whether memory and time are predicted for every value, or for a value; for the default they always are."""
    added: bool = False
    """Whether the setting was added after format 1.

    Ids and digests leave out an added setting that has its default, so that older results and caches are still found.
    The default must have the same effect as omitting the argument, and may never change.
    """
    name: str = ""
    kind: Any = None
    default: Any = None


def _share_or_steps(warmup: float) -> float:
    if warmup > 1 and warmup != int(warmup):
        raise ValueError("warmup: below 1 it is a share of all steps; from 1 on, it must be a whole number of steps")
    return warmup


@dataclass(frozen=True)
class Settings:
    """The settings of one training. Each field's annotation is its row in the table of axes.

    `warmup` below 1 is a share of all steps, otherwise a number of steps. `alpha` 0 means twice the rank.
    """

    learning_rate: Annotated[float, Axis("lr", "Learning rate", sft="learning_rate", above=0, cost=False)] = 2e-4
    epochs: Annotated[float, Axis("ep", "Epochs", sft="num_train_epochs", above=0, at_most=MOST, cost=False)] = 3.0
    warmup: Annotated[
        float, Axis("warmup", "Warmup", sft="warmup_steps", at_least=0, at_most=MOST, check=_share_or_steps, cost=False)
    ] = 0.03
    scheduler: Annotated[Scheduler, Axis("sched", "Scheduler", sft="lr_scheduler_type", cost=False)] = Scheduler.LINEAR
    rank: Annotated[int, Axis("r", "Rank", lora="r", at_least=1, at_most=MOST)] = 16
    alpha: Annotated[
        int,
        Axis("a", "Alpha", lora="lora_alpha", at_least=0, at_most=2 * MOST, description="0: twice the rank.",
             cost=False),
    ] = 0  # fmt: skip
    dropout: Annotated[float, Axis("drop", "Dropout", lora="lora_dropout", at_least=0, below=1)] = 0.0
    rslora: Annotated[bool, Axis("rslora", "rsLoRA", lora="use_rslora", cost=False)] = False
    # Predictions count the same matrices in every layer, and a pattern may match others in each.
    target_modules: Annotated[
        str | tuple[str, ...],
        Axis("targets", "Target modules", lora="target_modules", predicted=lambda value: isinstance(value, tuple)),
    ] = ALL_LINEAR
    batch_size: Annotated[
        int, Axis("bs", "Batch size", sft="per_device_train_batch_size", at_least=1, at_most=MOST)
    ] = 4
    gradient_accumulation: Annotated[
        int, Axis("acc", "Accumulation", sft="gradient_accumulation_steps", at_least=1, at_most=MOST)
    ] = 1
    optimizer: Annotated[str, Axis("opt", "Optimizer", sft="optim", options=OPTIMIZERS)] = "adamw_torch"
    max_length: Annotated[int, Axis("len", "Max length", sft="max_length", at_least=8, at_most=MOST)] = 512
    weight_decay: Annotated[float, Axis("wd", "Weight decay", sft="weight_decay", at_least=0, cost=False)] = 0.0
    max_grad_norm: Annotated[
        float, Axis("clip", "Max grad norm", sft="max_grad_norm", at_least=0, description="0: no clipping.")
    ] = 1.0
    # With packing, rows share a sequence, which the fused engine does not support.
    packing: Annotated[bool, Axis("packing", "Packing", sft="packing", fused=False)] = False
    quantization: Annotated[Quantization, Axis("quant", "Quantisation")] = Quantization.NF4
    # The noise is added to the embeddings of a whole batch, and trials of a fused pass share batches.
    neftune_noise_alpha: Annotated[
        float,
        Axis("neftune", "NEFTune alpha", sft="neftune_noise_alpha", at_least=0, description="0: no noise.",
             fused=False, cost=False, added=True),
    ] = 0.0  # fmt: skip
    rehearsal: Annotated[
        int,
        Axis("rehearsal", "Rehearsal", at_least=0, at_most=MOST, added=True,
             description="Number of rows with the base model's own answers, added to the training rows. 0: none."),
    ] = 0  # fmt: skip

    # DoRA normalises each matrix with its update, for which the fused engine has no product. Its time and memory
    # depend on how PEFT computes the norms.
    use_dora: Annotated[
        bool, Axis("dora", "DoRA", lora="use_dora", fused=False, predicted=False, added=True)
    ] = False  # fmt: skip

    layers_to_transform: Annotated[
        tuple[int, ...],
        Axis("layers", "Layers", lora="layers_to_transform", predicted=False, added=True,
             description="Numbers of the layers that get adapters, from 0. None: all layers."),
    ] = ()  # fmt: skip

    lr_scheduler_kwargs: Annotated[
        tuple[tuple[str, float | int | str], ...],
        Axis("options", "Scheduler options", sft="lr_scheduler_kwargs", cost=False, added=True,
             description="Options of the scheduler, by transformers' names."),
    ] = ()  # fmt: skip

    # Not an argument of TRL: PEFT makes the optimizer.
    loraplus_lr_ratio: Annotated[
        float,
        Axis("loraplus", "LoRA+ ratio", at_least=1, at_most=MOST, added=True,
             description="Learning rate of the matrices B divided by that of the matrices A (LoRA+). 1: plain LoRA."),
    ] = 1.0  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return all settings by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def given(self) -> Iterator[tuple[Axis, Any]]:
        """Yield every axis with its value in these settings, except added axes that have their default."""
        for axis in axes(type(self)).values():
            value = getattr(self, axis.name)
            if not (axis.added and value == axis.default):
                yield axis, value

    def identity(self) -> dict[str, Any]:
        """Return the settings that ids and digests are computed from, by name."""
        return {axis.name: value for axis, value in self.given()}

    def resolved(self) -> Settings:
        """Return the same settings with an alpha of 0 replaced by twice the rank."""
        return self if self.alpha else replace(self, alpha=2 * self.rank)


def _table(kind: type[Settings]) -> Mapping[str, Axis]:
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        value, axis = get_args(hints[field.name])
        found[field.name] = replace(axis, name=field.name, kind=value, default=field.default)
    return found


AXES = _table(Settings)
"""The table of training settings by name, in the order of the fields of `Settings`."""


def axes(kind: type[Settings]) -> Mapping[str, Axis]:
    """Return the table of axes of `Settings`, or of a class that extends it."""
    return AXES if kind is Settings else _table(kind)


def fusible(settings: Settings) -> bool:
    """Whether the fused engine can train these settings. If it cannot, the reference engine trains them."""
    return not unfusible(settings)


def unfusible(settings: Settings) -> tuple[str, ...]:
    """Return the names of the settings whose values the fused engine cannot train."""
    rows = axes(type(settings)).values()
    return tuple(axis.name for axis in rows if not axis.fused and getattr(settings, axis.name) != axis.default)


def unpredictable(settings: Settings) -> tuple[str, ...]:
    """Return the names of the settings for whose values neither memory nor time is predicted."""
    rows = axes(type(settings)).values()
    return tuple(axis.name for axis in rows if not _is_predicted(axis, getattr(settings, axis.name)))


def _is_predicted(axis: Axis, value: Any) -> bool:
    return value == axis.default or (axis.predicted(value) if callable(axis.predicted) else axis.predicted)


@dataclass(frozen=True)
class Variant:
    """One combination of settings, without seed.

    `name` is the name in the grid if it has one, else the settings that differ between variants (`lr=1e-3 r=16`).
    """

    id: str
    name: str
    settings: Settings
    named: bool = False
    """Whether the grid names the variant. If so, it is compared with another run's variant of that name, even if their
    settings differ."""


@dataclass(frozen=True)
class Trial:
    """A variant with one seed. The same settings and seed have the same `id` in every grid."""

    id: str
    variant: str
    settings: Settings
    seed: int


@dataclass(frozen=True)
class Range:
    """The values of one setting that a search tries: from `low` to `high`, on a logarithmic scale if `log` is set."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Search:
    """A search for good settings: how many variants it trains, and what it varies."""

    trials: int
    """Number of variants, with those of the grid's rows."""
    ranges: dict[str, Range]
    choices: dict[str, tuple[Settings, ...]]
    """For each of these settings, settings that have one of its values."""
    base: Settings
    """The settings of all variants, except what the search varies."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the settings that vary, in the order of the fields of `Settings`."""
        return tuple(name for name in AXES if name in self.ranges or name in self.choices)


@dataclass(frozen=True)
class Plan:
    """The variants, seeds and trials of a grid."""

    grid: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    about: str = ""
    """The model that the grid was made for. Reports of runs on other models say that this model was not tested."""
    search: Search | None = None
    """The search that adds variants, batch after batch. `variants` are then those that it has chosen so far."""

    @property
    def bases(self) -> dict[Quantization, str]:
        """Return the name of the base model in each quantisation of the variants, in the plan's order.

        The first one is called `base`.
        """
        used = list(dict.fromkeys(variant.settings.quantization for variant in self.variants)) or [Quantization.NF4]
        return {each: base_name(each) if place else BASE for place, each in enumerate(used)}
