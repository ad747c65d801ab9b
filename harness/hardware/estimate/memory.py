"""Predict the peak memory that PyTorch's allocator holds on a GPU during a training, term by term.

The training is TRL's SFTTrainer on an NF4 base with 16-bit compute, as the harness runs it: fp32 adapters under
autocast, gradient checkpointing per layer, SDPA without FlashAttention, and TRL's fused head, which never holds all
logits. The terms were derived from the code of torch 2.11, transformers 5.17, peft 0.21, trl 1.16 and bitsandbytes
0.50. Amounts that these sources do not show are fitted to recorded runs (`Coefficients`). The peak is the largest of
several moments, not their sum: for example, the activations of a layer's MLP are freed before its attention is
differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.core.settings import Quantization, Settings
from harness.hardware.estimate.batches import Batches
from harness.models.architecture import ModelShape

HALF, FULL = 2, 4
"""Bytes of an fp16 number and of an fp32 number."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per NF4 parameter: 4 bits, an 8-bit constant per block of 64, and an fp32 constant per 256 blocks (double
quantisation; Dettmers et al., QLoRA, 2023, section 3)."""
TABLES = 2048
"""Further bytes per quantised matrix: tables of 16 and 256 levels and an offset, in blocks of 512 bytes."""
STATE = {
    "adamw_torch": 8.0, "adamw_torch_fused": 8.0, "adagrad": 4.0, "rmsprop": 4.0, "sgd": 0.0,
    "adamw_8bit": 2.0, "adamw_bnb_8bit": 2.0, "ademamix": 12.0, "ademamix_8bit": 3.0, "lion_8bit": 1.0,
    "lion_32bit": 4.0, "rmsprop_bnb": 4.0, "rmsprop_bnb_8bit": 1.0, "rmsprop_bnb_32bit": 4.0,
}  # fmt: skip
"""Bytes of optimizer state per trainable parameter."""
PAGED = {"paged_adamw_8bit": 2.0, "paged_adamw_32bit": 8.0, "paged_ademamix_8bit": 3.0, "paged_ademamix_32bit": 12.0,
         "paged_lion_8bit": 1.0, "paged_lion_32bit": 4.0}  # fmt: skip
"""Bytes of state per trainable parameter for paged optimizers. They use managed memory, which PyTorch's allocator does
not count."""
_PAGED_FROM = 100_000
"""Paged optimizers of bitsandbytes page the state of tensors with at least this many parameters."""
_EIGHT_BIT_FROM = 4096
"""8-bit optimizers keep the state of tensors with at least this many parameters in 8 bits. Smaller tensors use fp32."""
_EIGHT_BIT_CONSTANTS = 4 / 256
"""Bytes of scales per 8-bit state value: bitsandbytes keeps one fp32 scale per block of 256, paged or not."""
_SMALL, _LARGE, _BUFFER, _ROUNDED = 2**20, 10 * 2**20, 20 * 2**20, 2 * 2**20
"""Sizes in bytes by which PyTorch's allocator decides. A tensor up to `_SMALL` takes its own size. A larger one shares
a buffer of `_BUFFER` with others; from `_LARGE` on, it has its own buffer, whose size is a multiple of `_ROUNDED`. A
rest of up to `_SMALL` at the end of a buffer is not split off, and is counted with the last tensor
(c10/cuda/CUDACachingAllocator.cpp: `get_allocation_size`, `should_split`)."""
_FOREACH = frozenset({"adamw_torch", "adagrad", "rmsprop"})
"""Optimizers of PyTorch that update all parameters at once, and hold a temporary copy of each parameter."""
_MASK, _BIAS = 1, 2
"""Bytes per pair of tokens of a padded row: the boolean attention mask, and the 16-bit bias that SDPA makes from it
within a layer."""
_TILE = (4096, 32768)
"""Size of the tile of logits that TRL's fused head allocates: tokens x vocabulary entries. A vocabulary with fewer
entries does not make the tile smaller (trl/kernels/chunked_logprob.py)."""


class Moment(StrEnum):
    """A moment of a training step at which allocated memory can be at its peak."""

    FORWARD = "forward"
    LOSS = "loss"
    MLP = "backward, in an MLP"
    ATTENTION = "backward, in attention"
    UPDATE = "optimizer step"


@dataclass(frozen=True)
class Coefficients:
    """Amounts that cannot be counted from source code, fitted by `python -m tests.studies.estimate_fit`."""

    scores: float
    """Bytes per head and pair of tokens while the softmax is differentiated, if attention holds all T x T scores
    (`_holds_all_scores`). Three fp32 tensors account for 12 bytes; the rest is memory of the kernel."""
    constant: float
    """Bytes that every training needs: cuBLAS workspaces (32 MiB each on an H100, 8 MiB on a T4), batches, and the
    unused ends of the blocks of activations."""
    fragments: tuple[float, float]
    """Lower and upper bound of fragmentation in nine of ten recorded runs: reserved minus allocated memory at the peak,
    as a share of the memory that training adds to the base model."""
    error: float
    """Largest expected relative error of the allocated peak, on rows of a model that the fit has not seen."""
    source: str
    """The source of the coefficients, for messages."""
    measured: bool = False
    """Whether `error` was measured on recorded runs; otherwise it is an assumption."""

    @property
    def claim(self) -> str:
        """State the error of a predicted peak and the source of that error."""
        share = f"{100 * self.error:.0f}%"
        if self.measured:
            return f"within {share} on rows that the fit has not seen ({self.source})"
        return f"not compared with recorded runs, and assumed to be within {share} ({self.source})"


@dataclass(frozen=True)
class Memory:
    """Bytes allocated at the peak of a training, by purpose. `moment` is the moment of the peak."""

    moment: Moment
    weights: float
    """The quantised matrices with their constants (in 16 bits if the base is not quantised)."""
    embeddings: float
    """Embeddings, head and norms, in 16 bits."""
    adapter: float
    gradients: float
    optimizer: float
    checkpoints: float
    """The inputs of all layers, kept by gradient checkpointing."""
    workspace: float
    """Temporary tensors of the layer, head or optimizer that is running, including a dequantised matrix."""
    constant: float

    @property
    def base(self) -> float:
        """Bytes of the base model before training."""
        return self.weights + self.embeddings

    @property
    def allocated(self) -> float:
        return (
            self.base + self.adapter + self.gradients + self.optimizer
            + self.checkpoints + self.workspace + self.constant
        )  # fmt: skip


def memory(shape: ModelShape, settings: Settings, made: Batches, known: Coefficients) -> Memory:
    """Predict the memory at the peak of a training, which is the moment at which the most memory is allocated."""
    moments = [moment for each in _batch_kinds(made) for moment in _moments(shape, settings, each, known)]
    peak, gradients, checkpoints, workspace = max(moments, key=lambda moment: sum(moment[1:]))
    nf4 = settings.quantization is Quantization.NF4
    tables = TABLES * shape.layers * len(shape.linears())
    return Memory(
        moment=peak,
        weights=shape.quantised * NF4 + tables if nf4 else shape.quantised * HALF,
        embeddings=HALF * (shape.embedded + shape.others),
        adapter=_copy(shape, settings, FULL),
        gradients=gradients,
        optimizer=_state(shape, settings),
        checkpoints=checkpoints,
        workspace=workspace,
        constant=known.constant,
    )


def _batch_kinds(made: Batches) -> Iterator[Batches]:
    """Yield the batches that can cause the peak: a padded batch, and a batch of equally long rows without a mask."""
    yield made
    if made.padded and made.unmasked_rows:
        tokens = made.unmasked_rows * made.longest
        yield replace(made, rows=made.unmasked_rows, padded=False, supervised=min(made.supervised, tokens))


def _moments(
    shape: ModelShape, settings: Settings, made: Batches, known: Coefficients
) -> Iterator[tuple[Moment, float, float, float]]:
    """Yield moments of a training step, each with its bytes of gradients, checkpoints and workspace.

    In the backward pass, gradients are added and checkpoints are freed layer by layer, so that the most memory is in
    use either at the last layer (the first to be differentiated) or at the first. With gradient accumulation, all
    gradients exist from the second batch on.
    """
    gradients, copies = _copy(shape, settings, FULL), _copy(shape, settings, HALF)
    checkpoints = HALF * shape.layers * made.rows * made.longest * shape.hidden
    one_checkpoint = checkpoints / shape.layers
    before = gradients if settings.gradient_accumulation > 1 else 0.0
    mask = _MASK * _pairs(made) if made.padded else 0.0
    # Autocast keeps 16-bit copies of all adapters until the forward pass ends, and of one layer's during recomputation.
    yield Moment.FORWARD, before, checkpoints, copies + mask + _forward(shape, settings, made)
    yield Moment.LOSS, before, checkpoints, mask + _loss(shape, made, copies)
    own = copies / shape.layers + mask
    after_attention = ("o_proj", "gate_proj", "up_proj", "down_proj")
    for moment, held, done in (
        (Moment.MLP, _mlp(shape, settings, made), after_attention[-1:]),
        (Moment.ATTENTION, _attention(shape, settings, made, known), after_attention),
    ):
        in_layer = FULL * _adapted(shape, settings, done)
        in_first_layer = gradients - gradients / shape.layers + in_layer
        yield moment, max(before, in_layer), checkpoints, own + held
        yield moment, max(before, in_first_layer), one_checkpoint, own + held
    yield Moment.UPDATE, gradients, 0.0, gradients if settings.optimizer in _FOREACH else 0.0


# --- adapter and optimizer -------------------------------------------------------------------------------------------


def _copy(shape: ModelShape, settings: Settings, each: int) -> float:
    """Return the bytes that the allocator counts for a copy of the adapter with `each` bytes per parameter."""
    sizes = shape.adapted(settings.rank, settings.target_modules)
    return shape.layers * sum(_counted(each * size) for size in sizes)


def _counted(size: int) -> float:
    """Return the bytes that the allocator counts for a tensor of `size` bytes: an average, if equal ones fill a buffer.

    Tensors that are put where others were freed may be counted with more, up to `_SMALL` each.
    """
    if size <= _SMALL:
        return size
    buffer = _BUFFER if size < _LARGE else _ROUNDED * math.ceil(size / _ROUNDED)
    together, rest = divmod(buffer, size)
    return size + rest / together if rest <= _SMALL else size


def _state(shape: ModelShape, settings: Settings) -> float:
    sizes = shape.adapted(settings.rank, settings.target_modules)
    if settings.optimizer == "adafactor":  # one row and one column per matrix (Shazeer and Stern, 2018)
        return FULL * shape.layers * sum(shape.adapted(1, settings.target_modules))
    return shape.layers * sum(_state_of(size, settings.optimizer) for size in sizes)


def _state_of(size: int, optimizer: str) -> float:
    """Return the bytes of optimizer state that the allocator holds for a tensor of `size` parameters."""
    each = STATE[optimizer] if optimizer in STATE else PAGED.get(optimizer, 0.0)
    paged = optimizer in PAGED and size >= _PAGED_FROM
    if "8bit" not in optimizer:
        return 0.0 if paged else each / FULL * _counted(FULL * size)
    if size < _EIGHT_BIT_FROM:
        return FULL * each * size
    return each * size * (_EIGHT_BIT_CONSTANTS + (0 if paged else 1))


# --- one layer -------------------------------------------------------------------------------------------------------


def _pairs(made: Batches) -> int:
    return made.rows * made.longest**2


def _holds_all_scores(shape: ModelShape, made: Batches) -> bool:
    """Whether attention holds all T x T scores at once, in fp32 (SDPA's `math` backend).

    Without FlashAttention (as on a T4), grouped-query attention holds all scores of rows that need no mask, because
    transformers then passes grouped heads to SDPA, which the memory-efficient backend does not support. On padded
    rows transformers copies the shared keys for every head, so that the memory-efficient backend is used.
    """
    return shape.kv_heads < shape.heads and not made.padded


def _projected_sizes(shape: ModelShape) -> tuple[int, int]:
    """Return the sizes of a token's query and key vectors over all heads."""
    return shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim


def _forward(shape: ModelShape, settings: Settings, made: Batches) -> float:
    """Return the temporary bytes of one layer in the forward pass.

    The MLP holds its input before and after normalisation, the activated gate, and the output of `up_proj`. With these,
    it first holds the dequantised matrix of `up_proj`, and then the output of the adapter of `up_proj` and the sum of
    the two outputs. For short rows, some GPUs multiply without dequantising, so that this matrix is an upper bound
    (bitsandbytes/backends/cuda/ops.py: `gemm_4bit`).
    """
    tokens = made.rows * made.longest
    matrix = _dequantised(shape, settings)
    mlp = tokens * HALF * (2 * shape.hidden + 2 * shape.intermediate)
    mlp += max(tokens * HALF * 2 * shape.intermediate, matrix)
    return max(mlp, tokens * HALF * shape.hidden + _scored(shape, made)) if _holds_all_scores(shape, made) else mlp


def _dequantised(shape: ModelShape, settings: Settings) -> int:
    """Return the bytes of a matrix of the MLP in 16 bits, which an NF4 base holds while the matrix is used."""
    return HALF * shape.hidden * shape.intermediate if settings.quantization is Quantization.NF4 else 0


def _scored(shape: ModelShape, made: Batches) -> float:
    """Return the temporary bytes of SDPA's `math` backend in the forward pass.

    It holds queries, keys and values in 16 and in 32 bits, copied for every head, and scaled queries and keys. It first
    also holds the scores, the softmax and its mask; later it holds, instead of these, the softmax and the output, each
    in 32 and in 16 bits.
    """
    query, key = _projected_sizes(shape)
    tokens, scores = made.rows * made.longest, shape.heads * _pairs(made)
    states = tokens * (HALF * (query + 2 * key) + FULL * (5 * query + 2 * key))
    return states + max((2 * FULL + 1) * scores, (FULL + HALF) * (scores + tokens * query))


def _recomputed(shape: ModelShape, settings: Settings, made: Batches) -> float:
    """Return the bytes that the recomputed forward pass of a layer keeps for its backward pass.

    The MLP's own tensors and the checkpoint are not included. Each of the two norms keeps its input in fp32. Attention
    keeps queries, keys, values, its output and one number per head. If attention holds all scores, it keeps queries,
    keys (copied for every head) and values in fp32, and the softmax. The input of `o_proj` is attention's output or a
    copy of it.
    """
    query, key = _projected_sizes(shape)
    inputs = sum(
        _inputs(shape, settings, *names) for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
    )
    a_token = 2 * FULL * shape.hidden + inputs + HALF * settings.rank * len(_targets(shape, settings))
    if _holds_all_scores(shape, made):
        a_token += 3 * FULL * query + _inputs(shape, settings, "o_proj")
        return made.rows * made.longest * a_token + FULL * shape.heads * _pairs(made)
    keys = 2 * query if made.padded else 2 * key
    a_token += HALF * (2 * query + keys) + FULL * shape.heads
    if settings.quantization is not Quantization.NF4:
        a_token += _inputs(shape, settings, "o_proj")
    return made.rows * made.longest * a_token + (_BIAS * _pairs(made) if made.padded else 0)


def _mlp(shape: ModelShape, settings: Settings, made: Batches) -> float:
    """Return the bytes that a layer holds while its MLP is differentiated, at the larger of two moments.

    At `down_proj`, which is dequantised, the MLP holds the gate, the activated gate, the output of `up_proj`, and the
    gradient of their product (in two parts if `down_proj` has an adapter). At the product of the activated gate and
    `up_proj`'s output, it holds the first three tensors with their gradients. The residual connection keeps the
    gradient of the layer's output. On a 16-bit base, recomputing an adapted `down_proj` needs further copies of the
    product and of the layer's hidden states.
    """
    tokens = made.rows * made.longest
    adapted = "down_proj" in _targets(shape, settings)
    down = tokens * HALF * shape.intermediate * (5 if adapted else 4) + _dequantised(shape, settings)
    product = tokens * HALF * shape.intermediate * 6
    if adapted and settings.quantization is not Quantization.NF4:
        product += tokens * HALF * (shape.intermediate + 3 * shape.hidden)
    return _recomputed(shape, settings, made) + tokens * HALF * shape.hidden + max(down, product)


def _attention(shape: ModelShape, settings: Settings, made: Batches, known: Coefficients) -> float:
    """Return the bytes that a layer holds while its attention is differentiated.

    The result is 0 if attention does not hold all scores, because the MLP then needs more memory.

    Attention holds the first norm's input in fp32, the inputs of the projections, and the residual connection's
    gradient. It also holds either queries, keys and the values' gradient in fp32 with the scores, or, while the layer
    is recomputed, the tensors of the forward pass.
    """
    if not _holds_all_scores(shape, made):
        return 0.0
    query, _ = _projected_sizes(shape)
    tokens = made.rows * made.longest
    kept = tokens * ((FULL + HALF) * shape.hidden + _inputs(shape, settings, "q_proj", "k_proj", "v_proj"))
    back = tokens * 3 * FULL * query + known.scores * shape.heads * _pairs(made)
    return kept + max(back, _scored(shape, made))


def _targets(shape: ModelShape, settings: Settings) -> frozenset[str]:
    targets = settings.target_modules
    return frozenset(shape.linears()) if isinstance(targets, str) else frozenset(targets)


def _adapted(shape: ModelShape, settings: Settings, names: tuple[str, ...]) -> int:
    """Return the number of adapter parameters for these matrices of one layer."""
    given = tuple(name for name in names if name in _targets(shape, settings))
    return sum(shape.adapted(settings.rank, given))


def _inputs(shape: ModelShape, settings: Settings, *names: str) -> int:
    """Return the bytes per token that the adapters of the matrices `names` keep of the input that these matrices share.

    On an NF4 base, the adapters share one copy. On a 16-bit base, PEFT casts the input to fp32 and back for each
    adapter, so that each adapter keeps its own copy.
    """
    adapted = len(_targets(shape, settings) & set(names))
    copies = min(adapted, 1) if settings.quantization is Quantization.NF4 else adapted
    return HALF * shape.linears()[names[0]][0] * copies


def _loss(shape: ModelShape, made: Batches, copies: float) -> float:
    """Return the temporary bytes of the loss: a tile of logits, and the last norm's input (in fp32).

    The head gets only those tokens of the last norm's output that have labels (`hidden_states[mask]` in
    trl/trainer/utils.py), so the tile and these copies do not count prompts and padding. The forward pass also holds
    the whole output and autocast's `copies` of the adapters. The backward pass instead also holds the gradient of the
    copied tokens in fp32.
    """
    tokens, labelled = made.rows * made.longest, made.supervised
    tile = min(labelled, _TILE[0]) * _TILE[1] * HALF
    return (
        tile
        + tokens * shape.hidden * FULL
        + labelled * shape.hidden * HALF
        + max(tokens * shape.hidden * HALF + copies, labelled * shape.hidden * FULL)
    )
