"""Cache keys of trainings, base models, adapters and prompts: digests of all inputs that determine the result."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.conversations import messages_of
from harness.core.engines import RECIPES, Engine
from harness.core.hashing import digest
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.measurement import Shortage
from harness.core.model import AdapterRef, ModelRef
from harness.core.names import BASE, REHEARSAL
from harness.core.rehearsal import RehearsalAnswers, RehearsalRow, draw
from harness.core.settings import Quantization, Settings
from harness.core.suite import Case, Suite

_QUANTISERS = ("torch", "transformers", "bitsandbytes")
"""The libraries whose versions determine a quantised base model."""


@dataclass(frozen=True)
class Setup:
    """The inputs that all trials of a run share. With a trial's settings and seed, they determine its answers."""

    suite: Suite
    model: ModelRef
    machine: Machine
    engine: Engine
    versions: dict[str, str]
    """Versions of the libraries that train and answer."""
    tokens: str = ""
    """The key of the run's `TurnTokens`. It is empty if tokens are those of the first version, whose keys lack it."""
    rehearsal: tuple[RehearsalAnswers, ...] = ()
    """The base model's rehearsal rows, one entry per quantisation; empty until the base model has answered."""

    def base_id(self, quantization: Quantization) -> str:
        """Return the key of the base model's answers."""
        return digest({"base": self._asked(quantization)})

    def training_id(self, settings: Settings, seed: int) -> str:
        """Return the key of a training, which is also the key of its adapter.

        It depends on the training rows and on the model's digest. Together these determine the tokens of the training,
        because the digest (made in `harness.models.resolving`) covers the chat template. `tokens` describes which of
        them have labels, where the first version had others. The rehearsal rows of the trial are part of the key.
        """
        loaded = self._asked(settings.quantization)
        inputs = {"loaded": loaded, "rows": self.suite.rows, "settings": settings, "seed": seed}
        if drawn := self.rehearsal_rows(settings, seed):
            inputs["rehearsal"] = [row.messages for row in drawn]
        engine = self.engine_of(settings)
        return digest(inputs | {"engine": [engine, RECIPES[engine]]})

    def can_rehearse(self, settings: Settings) -> bool:
        """Whether the rehearsal rows that these settings need exist."""
        return not settings.rehearsal or self._rehearsal(settings.quantization) is not None

    def rehearsal_rows(self, settings: Settings, seed: int) -> tuple[RehearsalRow, ...]:
        """Return the rehearsal rows that a trial adds to the suite's training rows.

        Raises:
            ValueError: the base model has not answered the rehearsal prompts yet.
        """
        if not settings.rehearsal:
            return ()
        found = self._rehearsal(settings.quantization)
        if found is None:
            raise ValueError(f"the rehearsal rows in {settings.quantization} do not exist yet")
        return draw(found.rows, settings, seed)

    def _rehearsal(self, quantization: Quantization) -> RehearsalAnswers | None:
        return next((each for each in self.rehearsal if each.quantization is quantization), None)

    def rehearsal_id(self, quantization: Quantization) -> str:
        """Return the key of the base model's answers to rehearsal prompts. They are the same for every suite."""
        return f"{self.base_id(quantization)}-rehearsal"

    def engine_of(self, settings: Settings) -> Engine:
        """Return the run's engine or, if the run's engine is FUSED and cannot train these settings, REFERENCE."""
        return self.engine.that_trains(settings)

    def saved_base(self, quantization: Quantization) -> str:
        """Return the key of the quantised base model in the cache.

        Unlike the key of the base model's answers, it depends only on the versions of the libraries that quantise.
        """
        makers = {name: self.versions.get(name) for name in _QUANTISERS}
        return digest({"saved": self._loaded(quantization) | {"versions": makers}})

    def adapter_id(self, adapter: AdapterRef, quantization: Quantization) -> str:
        """Return the key of an adapter that another program trained. Its answers have the same key."""
        return digest({"adapter": adapter.digest, "loaded": self._asked(quantization)})

    def _asked(self, quantization: Quantization) -> dict[str, object]:
        """Return the inputs that determine a loaded base model, the tokens of its rows, and where its answers end."""
        return self._loaded(quantization) | ({"tokens": self.tokens} if self.tokens else {})

    def _loaded(self, quantization: Quantization) -> dict[str, object]:
        """Return the inputs that determine a loaded base model."""
        return {
            "model": self.model.digest,
            "quantization": quantization,
            "dtype": self.machine.compute_dtype,
            "device": self.machine.kind,
            "versions": self.versions,
        }

    def same_memory(self, short: Shortage) -> bool:
        """Whether this machine has the same device and memory cap as the machine that ran out of memory (`short`)."""
        there = (short.resident.device, short.resident.basis, short.memory_cap)
        return there == (self.machine.device, self.machine.basis, self.machine.memory_cap)

    def prompt(self, training: str, case: Case, repeat: int = 0) -> Prompt:
        """Return the prompt of a case, with a key that depends on all inputs that can change the answer.

        Inputs that later versions of the harness added, such as the choices, are part of the key only if they are not
        empty, so that answers that are already in the cache keep their keys.
        """
        numbered = {"repeat": repeat} if repeat else {}
        key = digest({"of": training} | question(self.suite, case) | numbered)
        return Prompt(key, messages_of(self.suite, case), case.reference, case.choices)

    def prompts(self, training: str, case: Case) -> tuple[Prompt, ...]:
        """Return the prompts of a case, one per repeat."""
        return tuple(self.prompt(training, case, repeat) for repeat in range(self.suite.repeats))


def question(suite: Suite, case: Case) -> dict[str, object]:
    """Return everything in a suite on which a model's answer to a case and its log-probabilities depend, by name.

    If it is the same for two forms of a case, an answer to one of them is an answer to the other.
    """
    decoding = suite.decoding
    cut: dict[str, object] = {"max_new_tokens": decoding.max_new_tokens, "stop": decoding.stop}
    drawn = {"temperature": decoding.temperature} if decoding.temperature else {}
    more = {"reference": case.reference, "choices": case.choices}
    asked: dict[str, object] = {"messages": messages_of(suite, case), "decoding": cut | drawn}
    return asked | {name: value for name, value in more.items() if value not in (None, ())}


def adapter_trial(adapter: AdapterRef) -> str:
    """Return the id of the trial that scores an adapter that another program trained."""
    return f"adapter-{adapter.digest}"


def rehearsal_trial(quantization: Quantization) -> str:
    """Return the id under which workers report the base model's answers to rehearsal prompts."""
    return f"{REHEARSAL}-{quantization}"


def base_trial(quantization: Quantization) -> str:
    """Return the id of the trial in which the base model answers in this quantisation.

    The id of the NF4 base has no suffix, since run directories of earlier versions have one base, usually in NF4.
    """
    return BASE if quantization is Quantization.NF4 else f"{BASE}-{quantization}"
