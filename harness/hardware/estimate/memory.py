"""Settings, shape and lengths to the bytes that a GPU's allocator holds at the worst moment of a training.

What is counted is TRL's SFTTrainer on an NF4 base in 16-bit compute, as the harness runs it: fp32 adapters under
autocast, gradient checkpointing by layer, SDPA without FlashAttention, and TRL's fused head, which never holds all
logits. Tensors are counted by hand from the sources of torch 2.11, transformers 5.17, peft 0.21, trl 1.16 and
bitsandbytes 0.50; what these do not show is fitted on recorded runs (`Coefficients`). A peak is the largest of several
moments and never their sum: when attention is differentiated, the activations of the MLP behind it are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.core.settings import Quantization, Settings
from harness.hardware.estimate.batches import Batches
from harness.models.architecture import ModelShape

HALF, FULL = 2, 4
"""Bytes of fp16 and of fp32."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a parameter: four bits, and its share of a block's 8-bit constant and of that constant's own in fp32
(double quantisation; Dettmers et al., QLoRA, 2023, section 3)."""
TABLES = 2048
"""Bytes of a quantised matrix besides: 16 and 256 levels and an offset, each in blocks of the allocator, of 512 B."""
STATE = {
    "adamw_torch": 8.0, "adamw_torch_fused": 8.0, "adagrad": 4.0, "rmsprop": 4.0, "sgd": 0.0,
    "adamw_8bit": 2.0, "adamw_bnb_8bit": 2.0, "ademamix": 12.0, "ademamix_8bit": 3.0, "lion_8bit": 1.0,
    "lion_32bit": 4.0, "rmsprop_bnb": 4.0, "rmsprop_bnb_8bit": 1.0, "rmsprop_bnb_32bit": 4.0,
}  # fmt: skip
"""Bytes of optimizer state for each trainable parameter."""
PAGED = {"paged_adamw_8bit": 2.0, "paged_adamw_32bit": 8.0, "paged_ademamix_8bit": 3.0, "paged_ademamix_32bit": 12.0,
         "paged_lion_8bit": 1.0, "paged_lion_32bit": 4.0}  # fmt: skip
"""Likewise of those that keep it in managed memory, which PyTorch's allocator does not count."""
_PAGED_FROM = 100_000
"""bitsandbytes pages the state of a tensor of so many parameters or more, and of no smaller one."""
_EIGHT_BIT_FROM = 4096
"""bitsandbytes keeps the state of a smaller tensor in fp32."""
_EIGHT_BIT_CONSTANTS = 4 / 256
"""bitsandbytes keeps one fp32 scale for each block of 256 of an 8-bit state, paged or not."""
_FOREACH = frozenset({"adamw_torch", "adagrad", "rmsprop"})
"""PyTorch's own update all parameters at once, and hold one more of each meanwhile."""
_SEEN, _BIAS = 1, 2
"""Bytes for each pair of tokens of a padded row: who may look at whom, and, within a layer, what SDPA makes of it to
be added to scores."""
_TILE = (4096, 32768)
"""Tokens and words for whose logits TRL's fused head has room at once, however few words there are
(trl/kernels/chunked_logprob.py)."""


class Moment(StrEnum):
    """When the most is allocated."""

    FORWARD = "forward"
    LOSS = "loss"
    MLP = "backward, in an MLP"
    ATTENTION = "backward, in attention"
    UPDATE = "optimizer step"


@dataclass(frozen=True)
class Coefficients:
    """What cannot be counted from outside: fitted by tests/fit_predict.py."""

    scores: float
    """Bytes for each pair of tokens and head while the softmax is differentiated, where all T x T scores are there at
    once (`_whole`). Three fp32 tensors are counted, 12; what the kernel itself holds meanwhile is in no Python source.
    """
    constant: float
    """Bytes that every training has: workspaces of cuBLAS (32 MiB each on an H100, 8 on a T4), batches, and what is
    lost to blocks that the allocator does not split."""
    fragments: tuple[float, float]
    """What is reserved beyond the allocated peak, as a share of what training adds to the base, lies between these in
    nine of ten recorded runs."""
    error: float
    """Largest relative error of the allocated peak that is reckoned with."""
    source: str
    """Where the figures are from, in words."""
    measured: bool = False
    """Whether `error` was held against recorded runs; otherwise it is only taken to be so much."""

    @property
    def claim(self) -> str:
        """How far a predicted peak may be off, and who says so."""
        share = f"{100 * self.error:.0f}%"
        if self.measured:
            return f"within {share} on models that were held out of the fit ({self.source})"
        return f"not held against recorded runs, and taken to be within {share} ({self.source})"


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
    def base(self) -> float:
        """What the model takes before anything is trained."""
        return self.weights + self.embeddings

    @property
    def allocated(self) -> float:
        return (
            self.base + self.adapter + self.gradients + self.optimizer
            + self.checkpoints + self.workspace + self.constant
        )  # fmt: skip


def memory(shape: ModelShape, settings: Settings, made: Batches, known: Coefficients) -> Memory:
    """The peak of a training: the largest of what any of its moments holds."""
    trainable = shape.trainable(settings.rank, settings.target_modules)
    moments = [moment for each in _kinds(made) for moment in _moments(shape, settings, each, known)]
    worst, gradients, checkpoints, workspace = max(moments, key=lambda moment: sum(moment[1:]))
    nf4 = settings.quantization is Quantization.NF4
    tables = TABLES * shape.layers * len(shape.linears())
    return Memory(
        moment=worst,
        weights=shape.quantised * NF4 + tables if nf4 else shape.quantised * HALF,
        embeddings=HALF * (shape.embedded + shape.others),
        adapter=FULL * trainable,
        gradients=gradients,
        optimizer=_state(shape, settings),
        checkpoints=checkpoints,
        workspace=workspace,
        constant=known.constant,
    )


def _kinds(made: Batches) -> Iterator[Batches]:
    """The batches that may be the worst: of padded rows, and of such as happen to need no mask."""
    yield made
    if made.padded and made.alike:
        yield replace(made, rows=made.alike, padded=False)


def _moments(
    shape: ModelShape, settings: Settings, made: Batches, known: Coefficients
) -> Iterator[tuple[Moment, float, float, float]]:
    """When, and the bytes of gradients, checkpoints and workspace then.

    While layers are differentiated, gradients fill up and checkpoints are used up, so that either the last layer, which
    is the first, or the first is the worst. With accumulation all gradients are there from the second batch on.
    """
    trainable = shape.trainable(settings.rank, settings.target_modules)
    gradients, copies = FULL * trainable, HALF * trainable
    checkpoints = HALF * shape.layers * made.rows * made.longest * shape.hidden
    one = checkpoints / shape.layers
    before = gradients if settings.gradient_accumulation > 1 else 0.0
    seen = _SEEN * _pairs(made) if made.padded else 0.0
    # Autocast keeps its 16-bit copies of all adapters until a forward pass ends, of one layer's while it is recomputed.
    yield Moment.FORWARD, before, checkpoints, copies + seen + _forward(shape, made)
    yield Moment.LOSS, before, checkpoints, seen + _loss(shape, made, copies)
    own = copies / shape.layers + seen
    behind = ("o_proj", "gate_proj", "up_proj", "down_proj")
    for moment, held, done in (
        (Moment.MLP, _mlp(shape, settings, made), behind[-1:]),
        (Moment.ATTENTION, _attention(shape, settings, made, known), behind),
    ):
        there = FULL * _adapted(shape, settings, done)
        yield moment, max(before, there), checkpoints, own + held
        yield moment, max(before, gradients - gradients / shape.layers + there), one, own + held
    yield Moment.UPDATE, gradients, 0.0, FULL * trainable if settings.optimizer in _FOREACH else 0.0


# --- optimizer -------------------------------------------------------------------------------------------------------


def _state(shape: ModelShape, settings: Settings) -> float:
    sizes = shape.adapted(settings.rank, settings.target_modules)
    if settings.optimizer == "adafactor":  # a row and a column of each matrix (Shazeer and Stern, 2018)
        return FULL * shape.layers * sum(shape.adapted(1, settings.target_modules))
    return shape.layers * sum(_state_of(size, settings.optimizer) for size in sizes)


def _state_of(size: int, optimizer: str) -> float:
    """Bytes of state that the allocator holds for a tensor of `size` parameters."""
    each = STATE[optimizer] if optimizer in STATE else PAGED.get(optimizer, 0.0)
    paged = optimizer in PAGED and size >= _PAGED_FROM
    if "8bit" not in optimizer:
        return 0.0 if paged else each * size
    if size < _EIGHT_BIT_FROM:
        return FULL * each * size
    return each * size * (_EIGHT_BIT_CONSTANTS + (0 if paged else 1))


# --- one layer -------------------------------------------------------------------------------------------------------


def _pairs(made: Batches) -> int:
    return made.rows * made.longest**2


def _whole(shape: ModelShape, made: Batches) -> bool:
    """Whether attention holds all scores at once (SDPA's `math`, in fp32).

    That is so for a model whose heads share keys (grouped queries), on rows that need no mask, wherever FlashAttention
    is missing, as on a T4: transformers asks for grouped heads then, which memory-efficient attention does not take. On
    padded rows transformers copies the shared keys for every head, and on others it has nothing to copy.
    """
    return shape.kv_heads < shape.heads and not made.padded


def _units(shape: ModelShape) -> tuple[int, int]:
    """What a token has of queries and of keys, in numbers."""
    return shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim


def _forward(shape: ModelShape, made: Batches) -> float:
    """One layer without a gradient.

    In the MLP: its input, the activated gate, and of `up_proj` the output, the adapter's share and their sum.
    """
    tokens = made.rows * made.longest
    mlp = tokens * HALF * (2 * shape.hidden + 4 * shape.intermediate)
    return max(mlp, tokens * HALF * shape.hidden + _scored(shape, made)) if _whole(shape, made) else mlp


def _scored(shape: ModelShape, made: Batches) -> float:
    """What SDPA's `math` holds on the way: queries, keys and values in 16 bits and in 32, copied for every head, the
    first two scaled; and the scores, what softmax makes of them and which are masked, or later the softmax, a copy in
    16 bits and the output in 32 and in 16."""
    query, key = _units(shape)
    tokens, scores = made.rows * made.longest, shape.heads * _pairs(made)
    states = tokens * (HALF * (query + 2 * key) + FULL * (5 * query + 2 * key))
    return states + max((2 * FULL + 1) * scores, (FULL + HALF) * (scores + tokens * query))


def _recomputed(shape: ModelShape, settings: Settings, made: Batches) -> float:
    """What a layer's second forward keeps for its backward pass, without the MLP's own and the checkpoint.

    The two norms keep their input in fp32. Attention keeps queries, keys, values, its output and a number a head; or
    these three in fp32, keys copied for every head, and the softmax. The output is what `o_proj` gets, or a copy of it.
    """
    query, key = _units(shape)
    inputs = sum(
        _inputs(shape, settings, *names) for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
    )
    a_token = 2 * FULL * shape.hidden + inputs + HALF * settings.rank * len(_targets(shape, settings))
    if _whole(shape, made):
        a_token += 3 * FULL * query + _inputs(shape, settings, "o_proj")
        return made.rows * made.longest * a_token + FULL * shape.heads * _pairs(made)
    keys = 2 * query if made.padded else 2 * key
    a_token += HALF * (2 * query + keys) + FULL * shape.heads
    if settings.quantization is not Quantization.NF4:
        a_token += _inputs(shape, settings, "o_proj")
    return made.rows * made.longest * a_token + (_BIAS * _pairs(made) if made.padded else 0)


def _mlp(shape: ModelShape, settings: Settings, made: Batches) -> float:
    """The MLP differentiated: at `down_proj`, which is dequantised, or at the product of gate and input.

    At the first there are gate, activated gate and input, and the product's gradient, in two parts if `down_proj` has
    an adapter. At the second there are these three, and a gradient of each and of the product. The layer's own
    gradient is kept for the way around the MLP. On a base in 16 bits more is there while `down_proj` is computed again:
    the product in 16 bits, in 32 and in 16 again; what goes around, the norm's output, and its own.
    """
    tokens = made.rows * made.longest
    adapted = "down_proj" in _targets(shape, settings)
    matrix = HALF * shape.hidden * shape.intermediate if settings.quantization is Quantization.NF4 else 0
    down = tokens * HALF * shape.intermediate * (5 if adapted else 4) + matrix
    product = tokens * HALF * shape.intermediate * 6
    if adapted and settings.quantization is not Quantization.NF4:
        product += tokens * HALF * (shape.intermediate + 3 * shape.hidden)
    return _recomputed(shape, settings, made) + tokens * HALF * shape.hidden + max(down, product)


def _attention(shape: ModelShape, settings: Settings, made: Batches, known: Coefficients) -> float:
    """Attention differentiated where it holds all scores; elsewhere it takes less than the MLP, and is not counted.

    There are the first norm's input in fp32, what the projections got, and the gradient that goes around; and queries,
    keys and the values' gradient in fp32, or, while the layer is computed again, what comes before.
    """
    if not _whole(shape, made):
        return 0.0
    query, _ = _units(shape)
    tokens = made.rows * made.longest
    kept = tokens * ((FULL + HALF) * shape.hidden + _inputs(shape, settings, "q_proj", "k_proj", "v_proj"))
    back = tokens * 3 * FULL * query + known.scores * shape.heads * _pairs(made)
    return kept + max(back, _scored(shape, made))


def _targets(shape: ModelShape, settings: Settings) -> frozenset[str]:
    targets = settings.target_modules
    return frozenset(shape.linears()) if isinstance(targets, str) else frozenset(targets)


def _adapted(shape: ModelShape, settings: Settings, names: tuple[str, ...]) -> int:
    """Parameters of the adapters beside these matrices of one layer."""
    given = tuple(name for name in names if name in _targets(shape, settings))
    return sum(shape.adapted(settings.rank, given))


def _inputs(shape: ModelShape, settings: Settings, *names: str) -> int:
    """Bytes a token that adapters keep of what goes into these matrices, which share it.

    On an NF4 base PEFT leaves it as it is; on one in 16 bits each adapter gets it by way of fp32, and keeps its own.
    """
    adapted = len(_targets(shape, settings) & set(names))
    copies = min(adapted, 1) if settings.quantization is Quantization.NF4 else adapted
    return HALF * shape.linears()[names[0]][0] * copies


def _loss(shape: ModelShape, made: Batches, copies: float) -> float:
    """A tile of logits; the last norm's input in fp32, its output, and of that the rows that are learned from.

    In the forward pass autocast's `copies` are still there, in the backward pass the gradient in fp32 is.
    """
    tokens = made.rows * made.longest
    tile = min(tokens, _TILE[0]) * _TILE[1] * HALF
    return (
        tile
        + tokens * shape.hidden * FULL
        + max(tokens * shape.hidden * 2 * HALF + copies, tokens * shape.hidden * (HALF + FULL))
    )
