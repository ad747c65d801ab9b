"""Tests of answering at each stage of an export, without llama.cpp: what is compared, and how much memory it takes."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from harness.core.errors import EngineError
from harness.core.parity import Stage, StageAnswers
from harness.engine.merging import merge
from harness.engine.parity_stages import StageInputs, answer_stages
from harness.export.parity_record import questions
from harness.export.source import evaluation_machine, saved_base
from harness.export.targets.merged import MergeRequest, merge_of, to_merged
from harness.models.resolving import resolve
from harness.storage.runs import RunStore
from tests.support.fake_tensors import FakeTensors
from tests.support.trained_run import source_of


@pytest.fixture(scope="module")
def inputs(trained_run: RunStore, tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    """The stages of the run's only adapter, without GGUF files."""
    source, request = source_of(trained_run), MergeRequest(tmp_path_factory.mktemp("merged") / "made")
    folder = to_merged(source, trained_run.root, request, merge=merge, show_progress=lambda text: None)
    return StageInputs(
        model=source.model,
        quantization=source.settings.quantization,
        machine=evaluation_machine(source),
        saved=saved_base(source),
        adapter=source.adapter,
        merge=merge_of(source, MergeRequest(), merge=merge),
        reloaded=resolve(str(folder)),
        files={},
    )


def answered(
    run: RunStore, inputs: StageInputs, report: Callable[[str], None] = lambda text: None
) -> Sequence[StageAnswers]:
    """Let every stage answer the prompts of the run."""
    asked = [question.prompt for question in questions(source_of(run))]
    return list(answer_stages(inputs, asked, run.manifest().suite.decoding, report))


def test_the_merged_model_is_the_same_in_memory_and_on_disk(trained_run: RunStore, inputs: StageInputs) -> None:
    """Every stage answers as the run did, and the merged model has the same logits in memory as reloaded from disk."""
    adapter, merged, reloaded = answered(trained_run, inputs)
    assert [each.stage for each in (adapter, merged, reloaded)] == [Stage.ADAPTER, Stage.MERGED, Stage.RELOADED]
    assert [each.text for each in merged.answers] == [each.text for each in adapter.answers]
    assert merged.distance
    assert 0 < merged.distance.largest <= 1e-3
    assert reloaded.distance
    assert reloaded.distance.largest == 0


def test_one_model_is_in_memory_at_a_time(trained_run: RunStore, inputs: StageInputs) -> None:
    """When a stage answers, the weights of all stages before are freed: a 7B model takes 13.5 GB in 16 bits."""
    before = _weights()
    held: list[int] = []
    answered(trained_run, inputs, lambda text: held.append(_weights() - before))
    size = sum(math.prod(spec.shape) for spec in inputs.merge.specs) * torch.float32.itemsize
    assert held[1:] == [size, size]
    assert 0 < held[0] < size, "the quantised base is smaller"
    assert _weights() == before


def _weights() -> int:
    """Bytes of all parameters that exist in this process; parameters that share their memory count once."""
    gc.collect()
    # Not `isinstance`, which reads the attribute `__class__` of every object: some libraries warn then.
    found = [each for each in gc.get_objects() if issubclass(type(each), torch.nn.Parameter) and not each.is_meta]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}.values())


def test_too_little_memory_is_one_error(trained_run: RunStore, inputs: StageInputs) -> None:
    """If a stage runs out of memory, one error names the stage, the size of its weights, and what to do."""
    short = replace(inputs, merge=FakeTensors(stop="second", error=MemoryError))
    with pytest.raises(EngineError) as raised:
        answered(trained_run, short)
    assert "too little memory for the stage merged: its weights take 0 MiB in float32" in str(raised.value)
    assert raised.value.remedy.startswith("Close other programs that use its memory, or use a machine with more.")


def test_another_error_stays_as_it_is(trained_run: RunStore, inputs: StageInputs) -> None:
    """An error that is no lack of memory is not called one."""
    with pytest.raises(KeyError):
        answered(trained_run, replace(inputs, merge=FakeTensors(stop="second", error=KeyError)))
