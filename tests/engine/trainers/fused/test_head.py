"""The head of a pass computes the log-probabilities of targets and their gradients as a log-softmax of all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.fused.batch import batch_of
from harness.engine.trainers.fused.head import log_probabilities

ROWS = [Row([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8]), Row([9, 5], [9, 5]), Row([4, 4, 4], [IGNORED, 4, IGNORED])]


class Model(torch.nn.Module):
    """A model whose hidden states are a parameter, with a head with a bias."""

    def __init__(self, rows: int, tokens: int, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = torch.nn.Parameter(torch.randn(rows, tokens, 32, dtype=dtype))
        self.head = torch.nn.Linear(32, 11, dtype=dtype).requires_grad_(False)

    def base_model(self, **_: Any) -> Any:
        class Output:
            last_hidden_state = self.hidden

        return Output

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 4e-3)])
@pytest.mark.parametrize("more", [0, 3])
def test_log_probabilities_equal_those_of_all_logits(dtype: torch.dtype, tolerance: float, more: int) -> None:
    """Log-probabilities and gradients equal those of all logits, also in a batch that is filled up to a size."""
    weights = torch.tensor([0.5, 0.5, 2.0, 1.0])
    batch = batch_of(ROWS, [0.5, 2.0, 1.0], weights.to(dtype), pad=0, tokens=4 + more, targets=4 + more)
    model = Model(3, 4 + more, dtype)
    found = log_probabilities(model, batch)
    found.backward(batch.weights.to(found.dtype))
    mine, model.hidden.grad = model.hidden.grad, None
    logits = model.head(model.hidden).to(found.dtype).log_softmax(-1)
    expected = torch.stack([logits[0, 1, 7], logits[0, 2, 8], logits[1, 0, 5], logits[2, 0, 4]])
    expected.backward(weights.to(found.dtype))
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found[:4], expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(mine, model.hidden.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("more", [0, 3])
def test_labels_are_those_of_the_rows(more: int) -> None:
    """The labels of a batch are those of its rows behind the first token, also if it is filled up to a size."""
    batch = batch_of(ROWS[:1], [1.0], torch.empty(0), pad=0, targets=2 + more)
    assert batch.labels[:, 1:].tolist() == [[IGNORED, 7, 8]]
    wider = batch_of(ROWS, [1.0] * 3, torch.empty(0), pad=0, tokens=5, targets=4 + more)
    assert wider.labels[:, 1:].tolist() == [[IGNORED, 7, 8, IGNORED], [5] + [IGNORED] * 3, [4] + [IGNORED] * 3]


@pytest.mark.parametrize(("weight", "finite"), [(32768.0, True), (65536.0, False)])
def test_a_gradient_of_logits_that_overflows_is_not_finite(weight: float, finite: bool) -> None:
    """If fp16 cannot hold the gradient of a target's logit, the gradient of its hidden state is NaN."""
    model = Model(1, 2, torch.float16)
    model.head.weight.data[7] = -30 * model.hidden.detach()[0, 0].sign()
    batch = batch_of([Row([5, 7], [IGNORED, 7])], [weight], torch.empty(0), pad=0)
    found = log_probabilities(model, batch)
    found.backward(batch.weights)
    assert model.hidden.grad is not None
    assert bool(model.hidden.grad[0, 0].isnan().all()) is not finite
