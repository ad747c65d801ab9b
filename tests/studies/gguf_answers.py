"""Compares the answers of `smollm2` as a base model with those of llama.cpp, before and after training.

    python -m tests.studies.gguf_answers --output reports/studies/gguf.json

Needs llama.cpp (`harness doctor --install-llama-cpp`). Runs on a CPU, in full precision.

`base`: the model of the GGUF file answers prompts of the rehearsal pool, greedily, as the harness loads it (dequantised
to 16 bits, computed in fp32), and as llama.cpp loads two files: the GGUF file itself, and the dequantised model as
f16. llama.cpp rounds activations to 8 bits where weights are quantised, and to 16 bits where they are f16.
For answers that differ, the file has the first token that differs, and by how much PyTorch prefers its own one there
(the difference of the two logits). The same tokens are given to both; the study counts the prompts for which chat
template and tokenizer in the file make these tokens, too.

`rounded`: PyTorch with activations that are rounded to 8 bits, as llama.cpp rounds them, beside PyTorch without. This
shows how much such rounding changes by itself. It does not reproduce llama.cpp's answers: which way a value is rounded
depends on its last digits, which differ between two programs, so that after a few layers the errors are independent.

`tuned`: a training of the tiny suite `tests/support/real_suite`, and `harness parity` of it, stage by stage. With
`--only`, the other parts of the file stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import harness
from harness.core import device_profiles, programs
from harness.core.conversations import as_chat
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.parity import Parity
from harness.core.settings import Quantization
from harness.core.suite import Decoding, Message
from harness.engine.generation.backends import GgufBackend, TorchBackend, open_gguf
from harness.engine.loading import Base, load_base
from harness.engine.log_filters import hide_library_messages
from harness.engine.parity_stages import PROBES, _distance
from harness.engine.tokenization import render
from harness.export.llama_cpp import VERSION, command, converter
from harness.hardware.environment import machine, versions
from harness.models.resolving import resolve
from harness.models.smollm2 import fetch
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from harness.suites.rehearsal import FILE, POOL, parse_pool
from tests.studies.placebos import lines

MODEL = "smollm2"
SUITE = Path(__file__).resolve().parents[1] / "support" / "real_suite"
DECODING = Decoding(max_new_tokens=32)
ITSELF = "the file itself"


def prompts_of_pool(count: int) -> list[Prompt]:
    """Return this number of prompts, spread evenly over the rehearsal pool."""
    pool = parse_pool(POOL.read_text(encoding="utf-8"), FILE)
    some = [pool[len(pool) * n // count] for n in range(count)]
    return [Prompt(str(n), (Message("user", text),)) for n, text in enumerate(some)]


# --- base ------------------------------------------------------------------------------------------------------------


def base_study(prompts: Sequence[Prompt], on: Machine, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield how llama.cpp answers with each file, beside the answers of the harness's base model."""
    model = resolve(MODEL)
    base = load_base(model, Quantization.NONE, on)
    torch_backend = TorchBackend(base, base.model)
    expected = [answer.text for answer in torch_backend.answers(prompts, DECODING)]
    probes = [
        [*render(prompt.messages, base.tokenizer, ask=True), *base.tokenizer.encode(text, add_special_tokens=False)]
        for prompt, text in zip(prompts[:PROBES], expected, strict=False)
    ]
    logits = [torch_backend.logits(ids) for ids in probes]
    ends = frozenset(base.model.generation_config.eos_token_id)
    for name, file in _files(Path(model.path), work).items():
        with open_gguf(file, base.tokenizer, ends, on.threads) as llama:
            found = [answer.text for answer in llama.answers(prompts, DECODING)]
            differing = [n for n, text in enumerate(found) if text != expected[n]]
            yield name, {
                "same": len(prompts) - len(differing),
                "tokenised_alike": sum(map(llama.same_tokens, prompts)),
                "same_chat_template": sum(_same_text(llama, prompt) for prompt in prompts),
                "logits": asdict(_distance(logits, [llama.logits(ids) for ids in probes])),
                "differing": [
                    {"prompt": prompts[n].messages[0].content, **_difference(base, torch_backend, llama, prompts[n])}
                    for n in differing
                ],
            }  # fmt: skip


def rounded_study(prompts: Sequence[Prompt], on: Machine) -> dict[str, Any]:
    """Compare PyTorch's answers without and with activations that are rounded to 8 bits."""
    base = load_base(resolve(MODEL), Quantization.NONE, on)
    backend = TorchBackend(base, base.model)
    expected = [answer.text for answer in backend.answers(prompts, DECODING)]
    probes = [
        [*render(prompt.messages, base.tokenizer, ask=True), *base.tokenizer.encode(text, add_special_tokens=False)]
        for prompt, text in zip(prompts[:PROBES], expected, strict=False)
    ]
    before = [backend.logits(ids) for ids in probes]
    with rounded_activations(base.model):
        found = [answer.text for answer in backend.answers(prompts, DECODING)]
        after = [backend.logits(ids) for ids in probes]
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    return {"same": same, "logits": asdict(_distance(before, after))}


@contextmanager
def rounded_activations(model: Any) -> Iterator[None]:
    """Round the inputs of all linear modules to 8 bits with one fp16 scale per 32 values, as ggml's type Q8_1 does."""
    import torch

    def rounded(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        blocks = inputs[0].unflatten(-1, (-1, 32))
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)
        return ((blocks / scale).round().mul(scale.half().float()).flatten(-2),)

    modules = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [module.register_forward_pre_hook(rounded) for module in modules]
    yield
    for hook in hooks:
        hook.remove()


def _files(folder: Path, work: Path) -> dict[str, Path]:
    """Return the original file, and the dequantised model in `folder` as an f16 file."""
    made = work / "f16.gguf"
    command(programs.script(converter(), str(folder), "--outtype", "f16", "--outfile", str(made)))
    return {ITSELF: fetch(work), "f16": made}


def _same_text(llama: GgufBackend, prompt: Prompt) -> bool:
    """Whether the chat template in the file gives the text that the harness's tokenizer gives."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    model = llama.llama
    ends = {
        name: model._model.token_get_text(token())
        for name, token in (("bos", model.token_bos), ("eos", model.token_eos))
    }
    made = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], ends["eos"], ends["bos"])
    own = llama.tokenizer.apply_chat_template(as_chat(prompt.messages), tokenize=False, add_generation_prompt=True)
    return bool(made(messages=as_chat(prompt.messages)).prompt == own)


def _difference(base: Base, torch_backend: TorchBackend, llama: GgufBackend, prompt: Prompt) -> dict[str, Any]:
    """Return the place of the first token that differs, and by how much each side prefers its own token there."""
    asked = render(prompt.messages, base.tokenizer, ask=True)
    made, _ = llama._generate(asked, DECODING)
    ids = [*asked, *made]
    ours, theirs = torch_backend.logits(ids)[len(asked) - 1 :], llama.logits(ids)[len(asked) - 1 :]
    for place, token in enumerate(made):
        own = int(ours[place].argmax())
        if own != token:
            gaps = [float((each[place, own] - each[place, token]).abs()) for each in (ours, theirs)]
            return {"token": place, "gap": round(gaps[0], 4), "gap_in_llama_cpp": round(gaps[1], 4)}
    return {"token": None, "gap": 0.0, "gap_in_llama_cpp": 0.0}


# --- tuned -----------------------------------------------------------------------------------------------------------


def tuned_study(work: Path) -> dict[str, Any]:
    """Train the tiny suite's variant, and return the stages of its parity check."""
    run = work / "run"
    options = ["--grid", "gate", "--model", MODEL, "--engine", "reference", "--profile", "cpu", "--confirm-seeds", "0"]
    _harness("run", str(SUITE), *options, "--output", str(run), "--quiet")
    _harness("parity", str(run), "rehearsed", "--quiet")
    (parity,) = RunStore(run).parities()
    return {
        "suite": SUITE.name,
        "cases": len(parity.cases),
        "stages": [_stage(parity, n) for n in range(len(parity.stages))],
    }


def _stage(parity: Parity, n: int) -> dict[str, Any]:
    stage, first = parity.stages[n], parity.stages[0]
    return {
        "stage": stage.stage.value,
        "passed": sum(mark is True for mark in stage.passed),
        "assertions": len(stage.passed),
        "other_verdicts": sum(a != b for a, b in zip(stage.passed, first.passed, strict=True)),
        "same_answers": sum(a == b for a, b in zip(stage.texts, first.texts, strict=True)),
        "tokenised_alike": stage.tokenised_alike,
        "logits": stage.distance and asdict(stage.distance),
    }


def _harness(*words: str) -> None:
    package = str(Path(harness.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-m", "harness", *words], env=os.environ | {"PYTHONPATH": path})
    if done.returncode:
        raise SystemExit(f"harness {' '.join(words)}: exit code {done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--only", choices=("base", "rounded", "tuned"))
    given = parser.parse_args()
    hide_library_messages()
    known = json.loads(given.output.read_text(encoding="utf-8")) if given.only and given.output.exists() else {}
    found: dict[str, Any] = known | {
        "command": f"python -m tests.studies.gguf_answers --output {given.output} --prompts {given.prompts}",
        "model": MODEL, "versions": versions() | {"llama-cpp-python": VERSION},
        "prompts": given.prompts, "new_tokens": DECODING.max_new_tokens,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="harness-gguf-") as name:
        prompts, on = prompts_of_pool(given.prompts), replace(machine(device_profiles.CPU), threads=1)
        if given.only in (None, "base"):
            _write_base(found, given.output, prompts, on, Path(name))
        if given.only in (None, "rounded"):
            found["rounded"] = rounded_study(prompts, on)
            write_text(given.output, lines(found))
            print(found["rounded"], flush=True)
        if given.only in (None, "tuned"):
            found["tuned"] = tuned_study(Path(name))
            write_text(given.output, lines(found))
            print(json.dumps(found["tuned"], indent=1))


def _write_base(found: dict[str, Any], output: Path, prompts: Sequence[Prompt], on: Machine, work: Path) -> None:
    """Write the figures of each file as soon as they are known."""
    began = time.process_time()
    found["base"] = {}
    for file, figures in base_study(prompts, on, work):
        found["base"].setdefault(file, {}).update(figures)
        found["processor_seconds"] = round(time.process_time() - began)
        write_text(output, lines(found))
        print(file, {key: value for key, value in figures.items() if key != "differing"}, flush=True)
    for file, figures in found["base"].items():
        gaps = [each["gap"] for each in figures["differing"]]
        print(f"{file}: {len(gaps)} differ; median gap {median(gaps) if gaps else 0}, largest {max(gaps, default=0)}")


if __name__ == "__main__":
    main()
