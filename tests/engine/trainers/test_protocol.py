"""The contract of `Trainer`, checked for every trainer."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.settings import Quantization
from harness.core.training_outcome import Status
from harness.engine.loading import Base
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.registry import trainers
from tests.support.short_trainings import SHORT, rows_of


@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.FUSED])
class TestTrainer:
    """Tests that every trainer passes."""

    def test_another_quantisation_is_refused(self, base: Base, engine: Engine) -> None:
        """A trainer refuses a trial whose settings ask for another quantisation than the base has."""
        with pytest.raises(EngineError, match="the base is nf4 and the trial asks for none"):
            trainers()[engine].check(base, replace(SHORT, quantization=Quantization.NONE))

    def test_arguments_have_settings_and_seed(self, base: Base, engine: Engine, tmp_path: Path) -> None:
        """The training arguments for the library contain the trial's settings and seed."""
        made = trainers()[engine].arguments(base, SHORT, 7, str(tmp_path))
        assert (made.learning_rate, made.num_train_epochs, made.seed) == (SHORT.learning_rate, SHORT.epochs, 7)

    def test_a_result_can_be_saved_and_the_adapter_is_removed_afterwards(
        self, base: Base, engine: Engine, tmp_path: Path
    ) -> None:
        """An adapter can be saved while the results' iterator is open; when it is closed, no adapter is left."""
        names = [name for name, _ in base.model.named_modules()]
        trial = TrialInput("one", rows_of(base), replace(SHORT, epochs=0.5), 0)
        with closing(trainers()[engine].train(base, [trial], progress=lambda *_: None)) as results:
            result = next(results)
            result.save(tmp_path)
        assert (result.name, result.status, len(result.steps)) == ("one", Status.SUCCEEDED, 1)
        assert (tmp_path / "adapter_model.safetensors").is_file()
        assert [name for name, _ in base.model.named_modules()] == names
