"""The estimate of how many trials fit in memory counts the adapter weights as PEFT makes them."""

from __future__ import annotations

from dataclasses import replace

import peft
import pytest
import transformers

from harness.core.settings import Quantization
from harness.engine.loading import Base
from harness.engine.trainers.fused.concurrency import adapter_weights, concurrency
from harness.engine.trainers.sft import lora_config
from tests.support.short_trainings import SHORT, one_core


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_concurrency_counts_weights_of_other_layers_than_linear() -> None:
    """For the Conv1D layers of GPT-2 and for an embedding, the predicted number of adapter weights equals PEFT's."""
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    on = Base(transformers.GPT2LMHeadModel(config), None, one_core(), Quantization.NONE)
    for targets in (("c_attn", "c_fc"), ("wte",), "all-linear"):
        settings = replace(SHORT, rank=3, target_modules=targets, quantization=Quantization.NONE)
        wrapped = peft.get_peft_model(transformers.GPT2LMHeadModel(config), lora_config(settings))
        assert adapter_weights(on, settings) == wrapped.get_nb_trainable_parameters()[0]
        assert concurrency(on, [settings] * 3, 8) == 3
