"""Compares adapters as GGUF files, over one GGUF file of the base model, with the model that a run evaluated.

    python -m tests.studies.lora_gguf RUN VARIANT --output reports/studies/lora-gguf.json

Needs llama.cpp (`harness doctor --install-llama-cpp`). Runs on a CPU. For every variant of the run, NF4 + adapter is
compared with llama.cpp, which loads the adapter's file over the base's, in f16 and in q4_k_m (`f16 + LoRA`,
`q4_k_m + LoRA`). VARIANT is compared in more forms: merged, in f16 and q4_k_m; and, only by its logits, with the base
or both in f32, and with attention's keys and values in 32 bits (`f32 cache`), which llama.cpp otherwise rounds to 16
bits. To tell what each rounding does alone, the merged model is compared in PyTorch, too, in f32 except for the
weights (also in bf16), the inputs of linear layers, or keys and values, which are rounded to f16 (keys before RoPE).

Differences are those of logits, as shares of the largest logit, over the first prompts, each followed by the evaluated
model's answer. VARIANT also answers all main cases, greedily; the study counts answers and verdicts that differ. All
adapters are then in one folder with the base's file, and the study states the sizes. What FILE has already, of this and
other runs, is not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from harness.analysis.opinions import known_opinions, scoring_of
from harness.analysis.parity import judged
from harness.core import programs
from harness.core.answers import Answer
from harness.core.export import GgufType
from harness.core.parity import Stage, StageAnswers
from harness.engine.adapters import attached
from harness.engine.generation.backends import GgufBackend, TorchBackend, _load_loras, open_gguf
from harness.engine.loading import Base, load_base
from harness.engine.log_filters import hide_library_messages
from harness.engine.merging import check_adapter, merge
from harness.engine.parity_stages import PROBES, _distance, _probes
from harness.export.llama_cpp import LORA_CONVERTER, VERSION, command, converter
from harness.export.parity_record import questions
from harness.export.source import Source, evaluation_machine, find, pick, saved_base
from harness.export.targets.gguf import GgufRequest, base_to_gguf, to_gguf
from harness.export.targets.gguf_lora import to_gguf_lora
from harness.export.targets.merged import MergeRequest, to_merged
from harness.hardware.environment import versions
from harness.scoring import scorer
from harness.storage.cache import Cache
from harness.storage.files import write_text
from harness.storage.runs import RunStore

_CACHE = ", f32 cache"
_ALONE = "PyTorch, "


def silent(text: str) -> None:
    """Print no progress."""


def _round_weights(model: Any, dtype: str) -> None:
    import torch

    for weight in model.parameters():
        if weight.dim() > 1:  # llama.cpp's converter keeps vectors in 32 bits
            weight.data = weight.data.to(getattr(torch, dtype)).float()


def _round_activations(model: Any) -> None:
    import torch

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given: (given[0].half().float(),))


def _round_keys_and_values(model: Any) -> None:
    for name, layer in model.named_modules():
        if name.endswith((".k_proj", ".v_proj")):
            layer.register_forward_hook(lambda _, given, out: out.half().float())


_ROUNDED: dict[str, Callable[[Any], None]] = {
    "f16 weights": partial(_round_weights, dtype="float16"),
    "bf16 weights": partial(_round_weights, dtype="bfloat16"),
    "f16 activations": _round_activations,
    "f16 keys and values": _round_keys_and_values,
}
"""What llama.cpp holds in 16 bits, or could hold, and the function that rounds it in a model of PyTorch."""


class Run:
    """A run, with its base model in memory."""

    def __init__(self, root: Path) -> None:
        self.store = RunStore(root)
        cache = Cache(root.parent / "reports" / "cache")
        plan = self.store.manifest().plan
        self.sources = [find(self.store, each.name, None, cache) for each in plan.variants]
        first, self.folder = self.sources[0], root / "exports"
        self.base: Base = load_base(
            first.model, first.settings.quantization, evaluation_machine(first), saved=saved_base(first)
        )

    def files(self, source: Source, *, whole: bool) -> Iterator[tuple[str, Path, Path | None]]:
        """Yield (name, file of the model, file of the adapter)."""
        lora = to_gguf_lora(source, self.folder, check=check_adapter)
        bare = to_merged(source.bare, self.folder, MergeRequest(), merge=merge, show_progress=silent)
        for kind in (GgufType.F16, GgufType.Q4_K_M):
            yield f"{kind} + LoRA", base_to_gguf(source.bare, bare, self.folder, GgufRequest(kind)), lora
        if whole:
            f16 = base_to_gguf(source.bare, bare, self.folder, GgufRequest(GgufType.F16))
            yield f"f16 + LoRA{_CACHE}", f16, lora
            exact, exact_lora = self.exact(source)
            yield f"f32 + LoRA in f32{_CACHE}", exact, exact_lora
            yield f"f32 + LoRA{_CACHE}", exact, lora
            yield "f32 + LoRA in f32", exact, exact_lora
            merged = to_merged(source, self.folder, MergeRequest(), merge=merge, show_progress=silent)
            for kind in (GgufType.Q4_K_M, GgufType.F16):
                yield f"merged {kind}", to_gguf(source, merged, self.folder, GgufRequest(kind)), None

    def exact(self, source: Source) -> tuple[Path, Path]:
        """Convert base and adapter to f32, and return both files."""
        request = MergeRequest(dtype="float32")
        bare = to_merged(source.bare, self.folder, request, merge=merge, show_progress=silent)
        base, lora = self.folder / "f32-base.gguf", self.folder / "f32-lora.gguf"
        for script, folder, file, more in (
            (converter(), bare, base, ()),
            (converter(None, LORA_CONVERTER), source.adapter, lora, ("--base", str(bare))),
        ):
            if not file.exists():
                command(programs.script(script, str(folder), "--outtype", "f32", "--outfile", str(file), *more))
        return base, lora

    def rounded(self, source: Source, known: Container[str]) -> Iterator[tuple[str, Any]]:
        """Yield (name, merged model in f32 in PyTorch, of which one part is rounded to f16), except known names."""
        import torch
        from transformers import AutoModelForCausalLM

        folder = to_merged(source, self.folder, MergeRequest(dtype="float32"), merge=merge, show_progress=silent)
        for part, change in _ROUNDED.items():
            if f"{_ALONE}{part}" not in known:
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
                change(model)
                yield f"{_ALONE}{part}", model

    def variant(self, source: Source, known: dict[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
        """Compare the forms of one variant with NF4 + adapter, and if `whole`, also their answers and verdicts.

        Yields what is known after each form, with what was `known` before.
        """
        suite = source.run.suite
        asked = questions(source) if whole else questions(source)[:PROBES]
        cases, prompts = [each.case for each in asked], [each.prompt for each in asked]
        score = scorer(scoring_of(suite, known_opinions(suite, self.store.root), allow_code=False))

        def judge(answers: Sequence[Answer]) -> tuple[bool | None, ...]:
            return judged(StageAnswers(Stage.ADAPTER, tuple(answers)), cases, score).passed

        with attached(self.base, source.adapter) as model:
            evaluated = TorchBackend(self.base, model)
            answers = evaluated.answers(prompts, suite.decoding)
            probes = _probes(evaluated, prompts, answers)
            logits = [evaluated.logits(ids) for ids in probes]
        passed = judge(answers)
        found = dict(known)
        if whole:
            found |= {"prompts": len(prompts), "assertions": len(passed), "passed": sum(map(bool, passed))}
        ends = frozenset(self.base.model.generation_config.eos_token_id)
        for name, file, lora in self.files(source, whole=whole):
            if name in known:
                continue
            with self._opened(file, ends, lora, exact=name.endswith(_CACHE)) as backend:
                found[name] = {"logits": asdict(_distance(logits, [backend.logits(ids) for ids in probes]))}
                if whole and not name.startswith("f32") and not name.endswith(_CACHE):
                    others = backend.answers(prompts, suite.decoding)
                    own = judge(others)
                    found[name] |= {
                        "tokenised_alike": sum(map(backend.same_tokens, prompts)),
                        "answers_that_differ": sum(a.text != b.text for a, b in zip(others, answers, strict=True)),
                        "verdicts_that_differ": sum(a != b for a, b in zip(own, passed, strict=True)),
                        "passed": sum(map(bool, own)),
                    }
            print(source.variant.name, name, json.dumps(found[name]), flush=True)
            yield found
        for name, model in self.rounded(source, known) if whole else ():
            other = TorchBackend(self.base, model)
            found[name] = {"logits": asdict(_distance(logits, [other.logits(ids) for ids in probes]))}
            print(source.variant.name, name, json.dumps(found[name]), flush=True)
            yield found

    @contextmanager
    def _opened(self, file: Path, ends: frozenset[int], lora: Path | None, *, exact: bool) -> Iterator[GgufBackend]:
        """Load a file in llama.cpp. If `exact`, keys and values are kept in 32 bits."""
        if not exact:
            with open_gguf(file, self.base.tokenizer, ends, 1, lora) as backend:
                yield backend
            return
        import llama_cpp

        kept = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        llama = llama_cpp.Llama(str(file), n_ctx=2048, logits_all=True, n_threads=1, verbose=False, **kept)
        if lora:
            _load_loras(llama, file, [lora])[0]()
        yield GgufBackend(llama, self.base.tokenizer, ends)
        llama.close()

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file in the folder that the adapters share, and of the merged files."""
        shared = {path.name: path.stat().st_size for path in sorted((self.folder / "gguf-lora").glob("*.gguf"))}
        return shared | {path.name: path.stat().st_size for path in sorted(self.folder.glob("*-gguf-*/*.gguf"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("variant")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    hide_library_messages()
    run = Run(given.run.resolve())
    whole = pick(run.store.manifest().plan.variants, given.variant)
    sources = sorted(run.sources, key=lambda source: source.variant != whole)
    manifest = run.store.manifest()
    row: dict[str, Any] = {"model": manifest.model.name, "suite": manifest.suite.name, "whole": whole.name}
    row["variants"] = next((each["variants"] for each in _rows(given.output) if each["model"] == row["model"]), {})
    for source in sources:
        known = row["variants"].get(source.variant.name, {})
        for found in run.variant(source, known, whole=source.variant == whole):
            row["variants"][source.variant.name] = found
            row["bytes"] = run.sizes()
            _store(given.output, row)


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the results of all runs that a file has."""
    return list(json.loads(file.read_text(encoding="utf-8"))["runs"]) if file.is_file() else []


def _store(file: Path, row: dict[str, Any]) -> None:
    """Write the results of a run into the file, in place of earlier ones of its model."""
    found = {
        "command": "python -m tests.studies.lora_gguf RUN VARIANT --output reports/studies/lora-gguf.json",
        "versions": versions() | {"llama-cpp-python": VERSION},
        "probes": PROBES,
        "runs": [*(each for each in _rows(file) if each["model"] != row["model"]), row],
    }
    write_text(file, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
