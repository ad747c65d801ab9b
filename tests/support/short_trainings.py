"""Short real trainings on the pocket model, for the tests of the engine and the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core import device_profiles
from harness.core.answers import Answer
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.settings import Scheduler, Settings
from harness.core.suite import Decoding, Example, Message
from harness.engine.generation.answers import answer
from harness.engine.loading import Base
from harness.engine.tokenization import Row, tokenize
from harness.engine.trainers.sft import Keep, Trained, TrainingLog, build_trainer, trained
from harness.hardware.environment import machine
from harness.suites import load_suite

SHORT = Settings(learning_rate=5e-3, epochs=2, warmup=0, rank=4, alpha=8, target_modules=("q_proj", "v_proj"))
"""Settings that train on eight rows for four steps, which is enough to change answers."""
OPTIONS: dict[Scheduler, dict[str, float | int | str]] = {
    Scheduler.COSINE_WITH_RESTARTS: {"num_cycles": 2},
    Scheduler.POLYNOMIAL: {"lr_end": 1e-4, "power": 2.0},
    Scheduler.INVERSE_SQRT: {"timescale": 3},
    Scheduler.COSINE_WITH_MIN_LR: {"min_lr_rate": 0.1, "num_cycles": 0.5},
    Scheduler.COSINE_WARMUP_WITH_MIN_LR: {"min_lr": 1e-4, "warmup_lr_rate": 0.2},
    Scheduler.WARMUP_STABLE_DECAY: {"num_decay_steps": 2, "min_lr_ratio": 0.1, "decay_type": "1-sqrt"},
}
"""Options of the schedules that have any."""
QUESTIONS = (
    "What is the capital of France?", "Count from 1 to 9.", "Say hello.", "What is 3 plus 4?", "Name a fruit.",
    "What is the opposite of hot?", "What powers the Glimmo?", "Who are you?", "Good morning!", "What colour is grass?",
)  # fmt: skip
DEFAULT = Decoding()
SUITE = load_suite(Path(__file__).parents[2] / "suites" / "workshop")


def one_core() -> Machine:
    """Return this machine as a CPU that is limited to one thread."""
    return replace(machine(device_profiles.CPU), threads=1)


def rows_of(base: Base, count: int = 8) -> list[Row]:
    """Return the first training rows of the suite `workshop`, tokenized."""
    return tokenize(SUITE.examples[:count], base.tokenizer, SHORT.max_length)


def talk(*texts: str, line: int = 1) -> Example:
    """Return a training row from the turns of a conversation, which begins with the user's."""
    return Example(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)), line)


def prompts(*texts: str) -> tuple[Prompt, ...]:
    """Return a prompt for each question, without a system prompt."""
    return tuple(Prompt(f"key of {text}", (Message("user", text),)) for text in texts)


def ask(
    base: Base, model: Any = None, texts: Sequence[str] = QUESTIONS, decoding: Decoding = DEFAULT, size: int = 64
) -> list[Answer]:
    return answer(base, model or base.model, prompts(*texts), decoding, batch_size=size, progress=lambda done: None)


def training(
    base: Base, settings: Settings = SHORT, *, rows: Sequence[Row] = (), seed: int = 0, keep: Keep | None = None
) -> Any:
    return trained(base, rows or rows_of(base), settings, seed, progress=lambda step, total: None, keep=keep)


def trained_once(base: Base, settings: Settings = SHORT, *, rows: Sequence[Row] = (), seed: int = 0) -> Trained:
    """Train, remove the adapter from the base model again, and return the result of the training."""
    with training(base, settings, rows=rows, seed=seed) as found:
        return found  # type: ignore[no-any-return]


def trainer_of(base: Base, folder: Path, settings: Settings = SHORT, rows: Sequence[Row] = ()) -> Any:
    """Return the SFTTrainer that the engine builds, without the checks that `trained` adds."""
    log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
    return build_trainer(base, rows or rows_of(base), settings, 0, str(folder), log)


def weights(model: Any) -> dict[str, Any]:
    """Return copies of the adapter's tensors, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def losses(found: Trained) -> list[float | None]:
    return [step.loss for step in found.steps]
