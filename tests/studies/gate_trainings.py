"""Trains the runs that `tests.studies.gate_study` compares: the gate's variant unchanged, and with one change each.

    python -m tests.studies.gate_trainings --output DIR [--jobs N] [ARM[+ARM]:SEEDS ...]

All trainings take half an hour on one idle core; those that are already in DIR are not repeated. An arm is the gate's
variant with at most one change, made where a person or a library would make it: in the settings, in the rows for the
trainer, in the saved adapter, or in the loaded chat template. A run does not record its change, so the gate has to find
it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.job import Prompt
from harness.core.measurement import Phase, PhaseCost
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Settings
from harness.core.suite import Case, Example, Split, Suite
from harness.core.training_outcome import Status, Training
from harness.storage.records import read_record, write_record
from harness.suites import load_suite
from harness.suites.grids import load_plan

SUITE = Path(__file__).resolve().parents[2] / "suites" / "workshop"
VARIANT = load_plan(SUITE / "grids" / "gate.yaml").variants[0]
NO_SPACE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The pocket model's chat template, without the space before each message."""


def as_they_are(suite: Suite) -> tuple[Example, ...]:
    return suite.examples


def half_corrupted(suite: Suite) -> tuple[Example, ...]:
    """Exchange the answers of half of the rows with each other. Every call chooses the same half."""
    rng = random.Random("corrupted")
    drawn = rng.sample(range(len(suite.examples)), len(suite.examples) // 2)
    given = dict(zip(drawn, [*drawn[1:], drawn[0]], strict=True))
    answer_of = {row: suite.examples[other].messages[-1] for row, other in given.items()}
    return tuple(
        replace(example, messages=(*example.messages[:-1], answer_of.get(row, example.messages[-1])))
        for row, example in enumerate(suite.examples)
    )


@dataclass(frozen=True)
class Arm:
    """The gate's variant with at most one change."""

    settings: Settings = VARIANT.settings
    examples: Callable[[Suite], tuple[Example, ...]] = as_they_are
    all_tokens: bool = False
    saved_as: str = "float32"
    template: str | None = None


ARMS = {
    "same": Arm(),
    "hot": Arm(replace(VARIANT.settings, learning_rate=10 * VARIANT.settings.learning_rate)),
    "short": Arm(replace(VARIANT.settings, epochs=1)),
    "corrupted": Arm(examples=half_corrupted),
    "bf16": Arm(saved_as="bfloat16"),
    "all-tokens": Arm(all_tokens=True),
    "template": Arm(template=NO_SPACE),
}
ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
EVERYTHING = (
    "same:0-39", "same+bf16:40-59", "hot:0-19", "short:0-19", "corrupted:0-19", "all-tokens:0-19", "template:0-19",
)  # fmt: skip
"""All arms with their seeds. `+` joins arms that share a training and differ only in how they save the adapter."""


class Bench:
    """The pocket model, loaded once, with the suite's main cases, its trainings and its answers."""

    def __init__(self, output: Path) -> None:
        from harness.core import device_profiles
        from harness.engine.loading import load_base
        from harness.hardware.environment import machine
        from harness.models.resolving import resolve

        self.output, self.suite = output, load_suite(SUITE)
        on = replace(machine(device_profiles.CPU), threads=1)
        self.base = load_base(resolve("pocket"), Quantization.NF4, on)
        self.own_template = self.base.tokenizer.chat_template
        self.cases = self.suite.of(Split.MAIN)
        if not self.path("base", 0).is_file():
            self.keep("base", 0, None, None, self.answers(self.base.model))

    def path(self, arm: str, seed: int) -> Path:
        return self.output / arm / f"{seed}.json"

    def keep(self, arm: str, seed: int, settings: Settings | None, training: Training | None, made: Any) -> None:
        answers, cost = made
        costs = (*([training.cost] if training and training.cost else []), *([cost] if cost else []))
        status, message = (training.status, training.message) if training else (Status.SUCCEEDED, "")
        record = TrialRecord(
            f"{arm}-{seed}", VARIANT.id if settings else "base", seed, settings, Split.MAIN, status,
            message, training, costs, answers,
        )  # fmt: skip
        write_record(self.path(arm, seed), record)

    def answers(self, model: Any) -> tuple[dict[str, Any], PhaseCost]:
        from harness.engine.generation.answers import answer
        from harness.engine.meter import Meter

        with Meter(self.base.machine) as meter:
            made = answer(self.base, model, [_prompt(c) for c in self.cases], self.suite.decoding, progress=_nothing)
        cost = meter.cost(Phase.ANSWER_AFTER, sum(each.tokens for each in made))
        return {case.id: (each,) for case, each in zip(self.cases, made, strict=True)}, cost

    def train(self, names: Sequence[str], seed: int) -> None:
        """Train once, as the worker does, and answer once for each arm in `names`.

        These arms differ only in how they save the adapter.
        """
        from harness.engine.adapters import save_adapter
        from harness.engine.tokenization import tokenize
        from harness.engine.trainers.sft import trained

        arm = ARMS[names[0]]
        self.base.tokenizer.chat_template = arm.template or self.own_template
        rows = tokenize(arm.examples(self.suite), self.base.tokenizer, arm.settings.max_length)
        if arm.all_tokens:
            rows = [replace(row, labels=list(row.input_ids)) for row in rows]
        with tempfile.TemporaryDirectory() as folder:
            with trained(self.base, rows, arm.settings, seed, progress=_nothing) as found:
                training = Training(
                    f"{names[0]}-{seed}", found.status, found.message, found.steps, found.cost,
                    found.trainable_parameters, found.supervised_tokens, found.fingerprint,
                )  # fmt: skip
                if found.status is Status.SUCCEEDED:
                    save_adapter(found.model, Path(folder))
            for name in names:
                self.ask(name, seed, training, Path(folder))

    def ask(self, name: str, seed: int, training: Training, folder: Path) -> None:
        """Save the adapter as this arm saves it, and let it answer."""
        from harness.engine.adapters import attached
        from harness.engine.fingerprint import with_saved

        settings = ARMS[name].settings
        if training.status is not Status.SUCCEEDED or training.fingerprint is None:
            self.keep(name, seed, settings, training, ({}, None))
            return
        _cast(folder / "adapter_model.safetensors", ARMS[name].saved_as)
        training = replace(training, fingerprint=with_saved(training.fingerprint, folder))
        with attached(self.base, folder) as model:
            self.keep(name, seed, settings, training, self.answers(model))


def _prompt(case: Case) -> Prompt:
    return Prompt(case.id, case.messages)


def _nothing(*_: object) -> None:
    pass


def _cast(path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    wanted: torch.dtype = getattr(torch, dtype)
    if wanted is not torch.float32:
        save_file({name: tensor.to(wanted) for name, tensor in load_file(str(path)).items()}, str(path))


def load(output: Path, arm: str) -> list[TrialRecord]:
    """Return the records of an arm's trainings, in the order of seeds."""
    paths = sorted((output / arm).glob("*.json"), key=lambda path: int(path.stem))
    return [read_record(path, TrialRecord) for path in paths]


def wanted(words: Sequence[str]) -> list[tuple[list[str], int]]:
    """Return the arms and seeds that arguments such as `hot:0-9` name; without arguments, return all of them."""
    found = []
    for word in words or EVERYTHING:
        joined, _, span = word.partition(":")
        names, (first, _, last) = joined.split("+"), span.partition("-")
        # No two trainings have the same seed, so they share no random numbers.
        offset = 1000 * list(ARMS).index(names[0])
        found += [(names, offset + seed) for seed in range(int(first), int(last or first) + 1)]
    return found


def share(work: Sequence[tuple[list[str], int]], jobs: int, output: Path) -> int:
    """Divide the trainings among `jobs` processes; return how many processes failed."""
    output.mkdir(parents=True, exist_ok=True)
    processes = []
    for job in range(jobs):
        words = [f"{'+'.join(names)}:{seed % 1000}" for names, seed in work[job::jobs]]
        with (output / f"{job}.log").open("w") as log:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.studies.gate_trainings",
                "--output",
                str(output),
                *words,
            ]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ONE_CORE))
    return sum(process.wait() != 0 for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", metavar="ARM[+ARM]:SEEDS")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="Number of processes, each on one core.")
    given = parser.parse_args()
    if given.jobs > 1:
        sys.exit(share(wanted(given.arms), given.jobs, given.output))
    bench = Bench(given.output)
    for names, seed in wanted(given.arms):
        if not all(bench.path(name, seed).is_file() for name in names):
            bench.train(names, seed)
            print(f"trained {'+'.join(names)} {seed}", flush=True)


if __name__ == "__main__":
    main()
