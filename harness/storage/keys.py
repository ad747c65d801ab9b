"""Keys of the cache: names for trainings, bases, foreign adapters and prompts, made of all that determines them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.conversations import messages_of
from harness.core.engines import Engine
from harness.core.hashing import digest
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.measurement import Shortage
from harness.core.model import AdapterRef, ModelRef
from harness.core.settings import Quantization, Settings, fusible
from harness.core.suite import Case, Suite

RECIPES = {Engine.REFERENCE: 2, Engine.FUSED: 2}
"""Engine to version. Raise it when a change of the engine changes what is trained or answered."""
_QUANTISERS = ("torch", "transformers", "bitsandbytes")


@dataclass(frozen=True)
class Setup:
    """What all trials of a run share. Together with a trial's settings and seed it determines the answers."""

    suite: Suite
    model: ModelRef
    machine: Machine
    engine: Engine
    versions: dict[str, str]
    """Versions of the libraries that train and answer."""

    def base_id(self, quantization: Quantization) -> str:
        """Key of the untrained model's answers."""
        return digest({"base": self._loaded(quantization)})

    def training_id(self, settings: Settings, seed: int) -> str:
        """Key of an adapter. The rows and the chat template (in the model's digest) stand for the tokens."""
        rows = [example.messages for example in self.suite.examples]
        inputs = {"loaded": self._loaded(settings.quantization), "rows": rows, "settings": settings, "seed": seed}
        engine = self.engine_of(settings)
        return digest(inputs | {"engine": [engine, RECIPES[engine]]})

    def engine_of(self, settings: Settings) -> Engine:
        """The engine that trains these settings: the reference engine where the fused engine cannot."""
        return self.engine if fusible(settings) else Engine.REFERENCE

    def saved_base(self, quantization: Quantization) -> str:
        """Key of the quantised base on disk. It depends on fewer libraries than the base's answers do."""
        makers = {name: self.versions.get(name) for name in _QUANTISERS}
        return digest({"saved": self._loaded(quantization) | {"versions": makers}})

    def adapter_id(self, adapter: AdapterRef, quantization: Quantization) -> str:
        """Key of an adapter that was trained elsewhere, and of its answers."""
        return digest({"adapter": adapter.digest, "loaded": self._loaded(quantization)})

    def _loaded(self, quantization: Quantization) -> dict[str, object]:
        return {
            "model": self.model.digest,
            "quantization": quantization,
            "dtype": self.machine.compute_dtype,
            "device": self.machine.kind,
            "versions": self.versions,
        }

    def same_memory(self, short: Shortage) -> bool:
        """Whether this machine has the memory of the machine that ran out."""
        there = (short.resident.device, short.resident.basis, short.memory_cap)
        return there == (self.machine.device, self.machine.basis, self.machine.memory_cap)

    def prompt(self, training: str, case: Case, repeat: int = 0) -> Prompt:
        """The case's prompt. Its key changes with everything that could change the answer.

        Fields that were added later enter the key only where they are set, so that cached answers keep their keys.
        """
        messages, decoding = messages_of(self.suite, case), self.suite.decoding
        cut: dict[str, object] = {"max_new_tokens": decoding.max_new_tokens, "stop": decoding.stop}
        drawn = {"temperature": decoding.temperature} if decoding.temperature else {}
        more = {"reference": case.reference, "choices": case.choices, "repeat": repeat}
        inputs = {"of": training, "messages": messages, "decoding": cut | drawn}
        key = digest(inputs | {name: value for name, value in more.items() if value not in (None, (), 0)})
        return Prompt(key, messages, case.reference, case.choices)

    def prompts(self, training: str, case: Case) -> tuple[Prompt, ...]:
        """The case's prompts, one per repeat."""
        return tuple(self.prompt(training, case, repeat) for repeat in range(self.suite.repeats))


def adapter_trial(adapter: AdapterRef) -> str:
    """Id of the trial that scores an adapter trained elsewhere."""
    return f"adapter-{adapter.digest}"
