"""Tests of the predicted memory of a training: its parts, its peak, and how it grows with the settings and model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.measurement import GIB
from harness.core.settings import Quantization, Settings
from harness.hardware.estimate import Moment, batches, predict
from harness.hardware.estimate.memory import NF4, PAGED, STATE, _counted
from tests.support.model_shapes import KNOWN, LLAMA, NAMES, QLORA, allocated, shape


def test_base_and_adapter_take_the_measured_memory() -> None:
    """Llama-2-7b needs the measured 3.60 GiB in NF4, and 0.60 GiB for a rank-16 adapter with Adam's state."""
    base = LLAMA.quantised * NF4 + 2 * (LLAMA.embedded + LLAMA.others)
    assert base / GIB == pytest.approx(3.60, abs=0.005)
    trainable = LLAMA.trainable(16, "all-linear")
    assert trainable == pytest.approx(40e6, rel=0.002)
    assert trainable * (4 + 4 + STATE["adamw_torch"]) / GIB == pytest.approx(0.60, abs=0.005)


@given(
    st.sampled_from(NAMES), st.integers(1, 64), st.integers(1, 16), st.integers(16, 2048),
    st.sampled_from(sorted(STATE)), st.integers(1, 4),
)  # fmt: skip
def test_memory_grows_with_the_settings(
    name: str, rank: int, batch: int, length: int, optimizer: str, accumulate: int
) -> None:
    """Predicted memory never falls if the rank, batch or row length grows, or if the base is in 16 bits.

    An exception is the rank of a small model with an 8-bit optimizer, which keeps the state of tensors of fewer than
    4,096 elements in 32 bits.
    """
    small = Settings(
        rank=rank, batch_size=batch, max_length=4096, optimizer=optimizer, gradient_accumulation=accumulate
    )
    least = allocated(small, length, of=shape(name))
    shrinks = "8bit" in optimizer and rank * shape(name).hidden < 4096
    larger = {} if shrinks else {"rank": rank + 1}
    for more in (larger, {"batch_size": batch + 1}, {"quantization": Quantization.NONE}):
        assert allocated(replace(small, **more), length, of=shape(name)) >= least
    assert allocated(small, length + 1, of=shape(name)) >= least


def test_padding_costs_a_mask() -> None:
    """If the rows of a batch differ in length, predicted memory includes an attention mask; otherwise it does not."""
    long = replace(QLORA, batch_size=2, max_length=2048)
    equal, ragged = (predict(LLAMA, long, [2048] * 9 + [last], known=KNOWN).memory for last in (2048, 2000))
    assert ragged.workspace - equal.workspace == 3 * 2 * 2048**2
    alone = replace(long, batch_size=1)
    assert predict(LLAMA, alone, [2048, 2000], known=KNOWN).memory == predict(LLAMA, alone, [2048], known=KNOWN).memory


def test_grouped_query_attention_holds_all_scores() -> None:
    """With grouped-query attention, predicted memory includes the attention scores of rows that need no mask."""
    mistral, long = replace(LLAMA, kv_heads=8), replace(QLORA, max_length=2048)
    shared = predict(mistral, long, [2048] * 9, known=KNOWN).memory
    assert shared.moment is Moment.ATTENTION
    more = predict(mistral, long, [2048] * 9, known=replace(KNOWN, scores=17)).memory
    assert more.workspace - shared.workspace == 32 * 2048**2
    own = predict(LLAMA, long, [2048] * 9, known=KNOWN).memory
    assert own == predict(LLAMA, long, [2048] * 9, known=replace(KNOWN, scores=17)).memory
    padded = predict(mistral, replace(long, batch_size=2), [2048, 2000, 1900, 1800], known=KNOWN).memory
    assert padded.workspace < shared.workspace


@pytest.mark.parametrize(
    ("lengths", "unmasked_rows"),
    [([2048, 2000, 1900, 1800], 0), ([2048, 2048, 1900, 1800], 2), ([2048, 2000, 1900], 1), ([2048], 1)],
)
def test_batches_without_a_mask_are_counted(lengths: list[int], unmasked_rows: int) -> None:
    """If some batches need no attention mask, the peak is at least that of a training with only such batches.

    A batch needs no mask if its rows are truncated to the same length, or if it has only one row.
    """
    mistral, two = replace(LLAMA, kv_heads=8), replace(QLORA, max_length=2048, batch_size=2)
    assert batches(two, lengths).unmasked_rows == unmasked_rows
    held = predict(mistral, two, lengths, known=KNOWN).memory
    if unmasked_rows:
        unmasked = predict(mistral, replace(two, batch_size=unmasked_rows), [2048] * unmasked_rows, known=KNOWN).memory
        assert held.allocated >= unmasked.allocated


@given(st.sampled_from(NAMES), st.integers(1, 64), st.integers(1, 8), st.integers(64, 2048))
def test_a_peak_is_one_moment(name: str, rank: int, batch: int, length: int) -> None:
    """The peak is the memory at the moment that needs most, so tensors of other moments do not change it."""
    settings, rows = (
        replace(QLORA, rank=rank, batch_size=batch, max_length=4096, target_modules=("q_proj",)),
        [length] * 32,
    )

    def workspace(wider: int, scores: float) -> tuple[Moment, float]:
        of = shape(name)
        of = replace(of, intermediate=of.intermediate + wider)
        held = predict(of, settings, rows, known=replace(KNOWN, scores=scores)).memory
        return held.moment, held.workspace

    moment, least = workspace(0, 16)
    wider, longer = workspace(1, 16), workspace(0, 16.001)
    if moment is Moment.ATTENTION:
        assert wider == (moment, least) or wider[0] is Moment.MLP
    else:
        assert longer == (moment, least) or longer[0] is Moment.ATTENTION


@given(st.sampled_from(NAMES), st.integers(1, 64), st.integers(1, 8), st.integers(16, 2048))
def test_memory_grows_with_the_model(name: str, rank: int, batch: int, length: int) -> None:
    """Predicted memory never falls if the model has more layers, a larger vocabulary or a wider MLP."""
    settings, of = replace(QLORA, rank=rank, batch_size=batch, max_length=4096), shape(name)
    least = allocated(settings, length, of=of)
    for size in ("layers", "vocabulary", "intermediate"):
        assert allocated(settings, length, of=replace(of, **{size: getattr(of, size) + 1})) >= least


def test_each_moment_can_be_the_peak() -> None:
    """Each moment of a training step can be the peak, which counts the gradients and checkpoints of that moment."""
    long = predict(LLAMA, replace(QLORA, batch_size=8), [512] * 30, known=KNOWN).memory
    shared = predict(shape("llama-3.1-8b"), replace(QLORA, max_length=1024), [1024] * 30, known=KNOWN).memory
    wide = predict(LLAMA, replace(QLORA, rank=64), [64] * 30, known=KNOWN).memory
    huge = replace(QLORA, rank=512, optimizer="paged_adamw_8bit", gradient_accumulation=2)
    forward = predict(LLAMA, huge, [512] * 30, known=KNOWN).memory
    loss = predict(shape("tinyllama-1.1b"), replace(huge, batch_size=8), range(496, 512), known=KNOWN).memory
    moments = (long.moment, shared.moment, wide.moment, forward.moment, loss.moment)
    assert moments == (Moment.MLP, Moment.ATTENTION, Moment.UPDATE, Moment.FORWARD, Moment.LOSS)
    assert wide.gradients == 4 * LLAMA.trainable(64, "all-linear")
    assert wide.checkpoints == 0
    assert 0 < long.gradients < long.checkpoints / 50


def test_only_labels_need_logits() -> None:
    """At the moment of the loss, each token with a label needs a row of a tile of logits and a hidden vector."""
    of, settings, lengths = shape("smollm2-135m"), replace(QLORA, batch_size=4), range(483, 513)
    every, few = (predict(of, settings, lengths, labels, known=KNOWN).memory for labels in (None, [200] * 30))
    assert every.moment is few.moment is Moment.LOSS
    all_tokens = 512 + 3 * 497
    assert every.workspace - few.workspace == pytest.approx((all_tokens - 4 * 200) * 2 * (32768 + of.hidden))


def test_short_rows_wait_for_a_dequantised_matrix() -> None:
    """In the forward pass over short rows, predicted memory includes a dequantised matrix, on an NF4 base only."""
    settings = replace(QLORA, rank=64, optimizer="paged_adamw_8bit", gradient_accumulation=2)
    made = predict(LLAMA, settings, [8] * 30, known=KNOWN).memory
    assert made.moment is Moment.FORWARD
    matrix, copies = 2 * LLAMA.hidden * LLAMA.intermediate, 2 * LLAMA.trainable(64, "all-linear")
    assert made.workspace == matrix + copies + 8 * 2 * 2 * (LLAMA.hidden + LLAMA.intermediate)
    plain = predict(LLAMA, replace(settings, quantization=Quantization.NONE), [8] * 30, known=KNOWN).memory
    assert plain.workspace == copies + 8 * 2 * 2 * (LLAMA.hidden + 2 * LLAMA.intermediate)


@pytest.mark.parametrize(
    ("size", "counted"),
    [
        (2**20, 2**20),  # a small tensor
        (1.375 * 2**20, 20 / 14 * 2**20),  # 14 fill a buffer of 20 MiB, and 0.75 MiB are left
        (2.6875 * 2**20, 2.6875 * 2**20),  # 7 leave more than 1 MiB, which is split off
        (10.5 * 2**20, 10.5 * 2**20),  # in a buffer of 12 MiB
        (11.5 * 2**20, 12 * 2**20),
    ],
)
def test_ends_of_buffers_are_counted(size: float, counted: float) -> None:
    """A rest of at most 1 MiB at the end of a buffer is counted with the tensors in it; a larger rest is not."""
    assert _counted(int(size)) == pytest.approx(counted)


def test_an_adapter_is_counted_with_the_ends_of_its_buffers() -> None:
    """TinyLlama's adapter of rank 64 has three tensors of 1.375 MiB a layer, of which 14 need a buffer of 20 MiB."""
    of = shape("tinyllama-1.1b")
    held = predict(of, replace(QLORA, rank=64), [64] * 30, known=KNOWN).memory
    more = 22 * 3 * (20 / 14 - 1.375) * 2**20
    assert held.adapter == held.gradients == pytest.approx(4 * of.trainable(64, "all-linear") + more)
    assert held.optimizer == 2 * held.adapter


def test_accumulation_keeps_all_gradients() -> None:
    """With gradient accumulation, predicted memory counts all gradients and all checkpoints at the same time."""
    several = replace(QLORA, batch_size=4, gradient_accumulation=2)
    with_them, without = (
        predict(LLAMA, each, [512] * 30, known=KNOWN).memory for each in (several, replace(QLORA, batch_size=4))
    )
    assert with_them.checkpoints == without.checkpoints
    assert with_them.gradients == 4 * LLAMA.trainable(16, "all-linear") > 32 * without.gradients


def test_without_mlp_adapters_their_inputs_are_not_kept() -> None:
    """Without adapters in the MLP, predicted memory does not include the inputs of the MLP's matrices."""
    few, all_of_them = (
        predict(LLAMA, replace(QLORA, batch_size=8, target_modules=names), [512] * 30, known=KNOWN).memory.workspace
        for names in (("q_proj", "v_proj"), "all-linear")
    )
    assert all_of_them - few > 8 * 512 * 2 * LLAMA.hidden


def test_adapters_on_a_16_bit_base_keep_copies() -> None:
    """On a 16-bit base, each adapter keeps its own copy of its input; on an NF4 base, adapters share one copy."""
    for quantization, copies in ((Quantization.NF4, 0), (Quantization.NONE, 1)):
        one, two = (
            predict(LLAMA, replace(QLORA, quantization=quantization, batch_size=8, target_modules=names), [512] * 30,
                     known=KNOWN).memory.workspace
            for names in (("q_proj",), ("q_proj", "v_proj"))
        )  # fmt: skip
        ranks = 8 * 512 * 16 * 2 + 2 * LLAMA.trainable(16, ("v_proj",)) / 32
        assert two - one == pytest.approx(8 * 512 * 2 * LLAMA.hidden * copies + ranks)


def test_optimizers_differ_by_their_state() -> None:
    """8-bit Adam needs a quarter of the memory of Adam's state, Adafactor needs less than that, and SGD needs none."""
    state = {
        name: predict(LLAMA, replace(QLORA, optimizer=name), [512] * 30, known=KNOWN).memory.optimizer
        for name in ("adamw_torch", "adamw_8bit", "paged_adamw_8bit", "sgd", "adafactor")
    }
    assert state["adamw_8bit"] == pytest.approx(state["adamw_torch"] / 4, rel=0.02)
    assert state["sgd"] == 0
    assert 0 < state["adafactor"] < state["adamw_8bit"]


def test_small_tensors_are_not_paged() -> None:
    """The optimizer's state is not paged for tensors below 100,000 parameters, and not in 8 bits for those below 4,096.

    The first two expected figures were recorded after trainings of Llama-2-7b and TinyLlama.
    """
    paged = replace(QLORA, optimizer="paged_adamw_8bit")
    assert predict(LLAMA, paged, [512] * 30, known=KNOWN).memory.optimizer == pytest.approx(47.4e6, rel=0.01)
    tiny = predict(shape("tinyllama-1.1b"), paged, [512] * 30, known=KNOWN).memory.optimizer
    assert tiny == pytest.approx(25.6e6, rel=0.01)
    small = replace(paged, rank=8, target_modules=("k_proj",), optimizer="adamw_8bit")
    made = predict(shape("tinyllama-1.1b"), small, [512] * 30, known=KNOWN).memory.optimizer
    assert made == 22 * (8 * 2048 * 2 * (1 + 4 / 256) + 8 * 256 * 8)


def test_every_optimizer_of_a_grid_is_known() -> None:
    """The size of the optimizer's state is known for every optimizer that a grid may name."""
    from harness.core.settings import OPTIMIZERS

    assert set(OPTIMIZERS) == STATE.keys() | PAGED.keys() | {"adafactor"}
