"""Settings, shape and lengths to the bytes that a GPU's allocator holds at the worst moment of a training.

What is counted is TRL's SFTTrainer on an NF4 base in 16-bit compute, as the harness runs it: fp32 adapters, gradient
checkpointing by layer, SDPA without FlashAttention, and TRL's fused head, which never holds all logits. What
is kept between kernels is counted exactly; what they hold within one layer is fitted on recorded runs (`Coefficients`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.predict.lengths import Batches
from harness.predict.shapes import ModelShape
from harness.records import Quantization, Settings

HALF, FULL = 2, 4
"""Bytes of fp16 and of fp32."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a parameter: four bits, and its share of a block's 8-bit constant and of that constant's own in fp32
(double quantisation; Dettmers et al., QLoRA, 2023, section 3)."""
STATE = {
    "adamw_torch": 8.0, "adamw_torch_fused": 8.0, "adagrad": 4.0, "rmsprop": 4.0, "sgd": 0.0,
    "adamw_8bit": 2.0, "adamw_bnb_8bit": 2.0, "ademamix": 12.0, "ademamix_8bit": 3.0, "lion_8bit": 1.0,
    "lion_32bit": 4.0, "rmsprop_bnb": 4.0, "rmsprop_bnb_8bit": 1.0, "rmsprop_bnb_32bit": 4.0,
}  # fmt: skip
"""Bytes of optimizer state for each trainable parameter."""
PAGED = {"paged_adamw_8bit": 2.0, "paged_adamw_32bit": 8.0, "paged_ademamix_8bit": 3.0, "paged_ademamix_32bit": 12.0,
         "paged_lion_8bit": 1.0, "paged_lion_32bit": 4.0}  # fmt: skip
"""Likewise of those that keep it in managed memory, which PyTorch's allocator does not count."""
_EIGHT_BIT_CONSTANTS = 4 / 256
"""bitsandbytes keeps one fp32 scale for each block of 256 of an 8-bit state."""
_FOREACH = frozenset({"adamw_torch", "adagrad", "rmsprop"})
"""PyTorch's own update all parameters at once, and hold one more of each meanwhile."""
_MASK = 1 + 2
"""Bytes for each pair of tokens of a padded row: what is seen, and what SDPA makes of it to be added to scores."""
_TILE = (4096, 32768)
"""Tokens and words for whose logits TRL's fused head has room at once, however few words there are
(trl/kernels/chunked_logprob.py)."""


class Moment(StrEnum):
    """When the most is allocated."""

    LOSS = "loss"
    BACKWARD = "backward"
    UPDATE = "optimizer step"


@dataclass(frozen=True)
class Coefficients:
    """What cannot be counted from outside: fitted by tests/fit_predict.py."""

    hidden: float
    """Bytes that a decoder layer keeps for each token and unit of the hidden size while it is computed again, besides
    the inputs of the matrices that have adapters."""
    intermediate: float
    """Likewise for each unit of the intermediate size."""
    scores: float
    """Bytes for each pair of tokens and head where attention's T x T scores are there at once. That is so for a model
    whose heads share keys (grouped queries), on rows that need no mask, wherever FlashAttention is missing, as on a T4:
    memory-efficient attention then does not take it."""
    constant: float
    """Bytes that every training has: workspaces of cuBLAS, buffers of the trainer."""
    reserved: tuple[float, float]
    """Reserved over allocated lies between these; once fitted, in nine of ten recorded runs."""
    error: float
    """Largest relative error of the allocated peak on recorded runs, with an architecture held out of the fit."""
    source: str
    """Where the figures are from, in words."""
    measured: bool = False
    """Whether `error` is that of recorded runs; otherwise it is only taken to be so much."""

    @property
    def claim(self) -> str:
        """How far a predicted peak may be off, and who says so."""
        share = f"{100 * self.error:.0f}%"
        if self.measured:
            return f"within {share} on models that were held out of the fit ({self.source})"
        return f"not yet fitted on recorded runs, and taken to be within {share} ({self.source})"


@dataclass(frozen=True)
class Memory:
    """Bytes allocated at the worst `moment` of a training, by what they are for."""

    moment: Moment
    weights: float
    """The quantised matrices with their constants (in 16 bits where the base is not quantised)."""
    embeddings: float
    """Embeddings, head and norms, in 16 bits."""
    adapter: float
    gradients: float
    optimizer: float
    checkpoints: float
    """The input of every layer."""
    workspace: float
    """What is only there while one layer, the head or the optimizer is at work, the dequantised matrix among it."""
    constant: float

    @property
    def allocated(self) -> float:
        return (
            self.weights + self.embeddings + self.adapter + self.gradients + self.optimizer
            + self.checkpoints + self.workspace + self.constant
        )  # fmt: skip


def memory(shape: ModelShape, settings: Settings, made: Batches, known: Coefficients) -> Memory:
    """The peak of a training: the largest of what the loss, a layer's backward pass and the optimizer's step hold."""
    trainable = shape.trainable(settings.rank, settings.target_modules)
    tokens = made.rows * made.longest
    gradients = FULL * trainable
    # Gradients fill up while checkpoints are used up; only with accumulation are both there at once.
    held = gradients if settings.gradient_accumulation > 1 else 0
    checkpoints = shape.layers * tokens * shape.hidden * HALF
    moments = {
        Moment.LOSS: (held, checkpoints, _head(shape, tokens)),
        Moment.BACKWARD: (held, checkpoints, _layer(shape, settings, tokens, known) + _attention(shape, made, known)),
        Moment.UPDATE: (gradients, 0, FULL * trainable if settings.optimizer in _FOREACH else 0),
    }
    worst = max(moments, key=lambda moment: sum(moments[moment]))
    gradients_then, checkpoints_then, workspace = moments[worst]
    return Memory(
        moment=worst,
        weights=shape.quantised * (NF4 if settings.quantization is Quantization.NF4 else HALF),
        embeddings=HALF * (shape.embedded + shape.others),
        adapter=FULL * trainable,
        gradients=gradients_then,
        optimizer=_state(shape, settings, trainable),
        checkpoints=checkpoints_then,
        workspace=workspace,
        constant=known.constant,
    )


def paged(shape: ModelShape, settings: Settings) -> float:
    """Bytes of optimizer state that lie in managed memory, on the GPU while there is room and else on the host."""
    return PAGED.get(settings.optimizer, 0.0) * shape.trainable(settings.rank, settings.target_modules)


def _state(shape: ModelShape, settings: Settings, trainable: int) -> float:
    if settings.optimizer == "adafactor":  # a row and a column of each matrix (Shazeer and Stern, 2018)
        return FULL * shape.trainable(1, settings.target_modules)
    constants = _EIGHT_BIT_CONSTANTS * STATE.get(settings.optimizer, 0.0) if "8bit" in settings.optimizer else 0.0
    return (STATE.get(settings.optimizer, 0.0) + constants) * trainable


def _layer(shape: ModelShape, settings: Settings, tokens: int, known: Coefficients) -> float:
    """One layer computed again and differentiated, with its largest matrix dequantised."""
    kept = tokens * (known.hidden * shape.hidden + known.intermediate * shape.intermediate + _inputs(shape, settings))
    matrix = max(inputs * outputs for inputs, outputs in shape.linears().values())
    return kept + (HALF * matrix if settings.quantization is Quantization.NF4 else 0)


def _inputs(shape: ModelShape, settings: Settings) -> int:
    """Bytes for each token of what goes into the matrices that an adapter stands beside: its gradient needs them.

    Query, key and value share their input, and so do the two that lead into the MLP.
    """
    linears, targets = shape.linears(), settings.target_modules
    names = set(linears) if isinstance(targets, str) else set(targets)
    groups = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
    return HALF * sum(linears[group[0]][0] for group in groups if names & set(group))


def _attention(shape: ModelShape, made: Batches, known: Coefficients) -> float:
    """For each pair of tokens: of padded rows, who may look at whom; of others, the scores where keys are shared."""
    pairs = made.rows * made.longest**2
    if made.padded:
        return _MASK * pairs
    return known.scores * shape.heads * pairs if shape.kv_heads < shape.heads else 0.0


def _head(shape: ModelShape, tokens: int) -> float:
    """A tile of logits, and the hidden states with their gradients in fp32, for the tokens that are learned from."""
    tile = min(tokens, _TILE[0]) * _TILE[1] * HALF
    return tile + tokens * shape.hidden * (HALF + FULL)
