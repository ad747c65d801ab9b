"""The steps of `harness parity`: export the model, answer the suite in each stage, and store the scored answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.core.errors import ExportError
from harness.core.export import GgufType
from harness.core.parity import Parity, Stage
from harness.export.llama_cpp import LORA_CONVERTER, check_binding, converter
from harness.export.parity_record import questions, store_parity
from harness.export.source import Source, check_mergeable, evaluation_machine, saved_base
from harness.export.targets.gguf import GgufRequest, base_to_gguf, to_gguf
from harness.export.targets.gguf_lora import to_gguf_lora
from harness.export.targets.merged import MergeRequest, merge_of, to_merged
from harness.storage.runs import RunStore

Printer = Callable[[str], None]
_GGUF_TYPES = {Stage.F16: GgufType.F16, Stage.Q8_0: GgufType.Q8_0, Stage.Q4_K_M: GgufType.Q4_K_M}
_LORA_TYPES = {Stage.F16_LORA: GgufType.F16, Stage.Q4_K_M_LORA: GgufType.Q4_K_M}


def check_parity(
    store: RunStore, source: Source, llama_cpp: Path | None, show_progress: Printer, *, allow_code: bool
) -> Parity:
    """Make the exports that are missing, answer the suite's prompts in every stage, and store the scored answers."""
    from harness.analysis.opinions import known_opinions, scoring_of
    from harness.engine.log_filters import hide_library_messages
    from harness.engine.merging import merge
    from harness.engine.parity_stages import StageInputs, answer_stages
    from harness.models.resolving import resolve
    from harness.scoring import scorer

    check_mergeable(source.variant)
    hide_library_messages()
    folder, machine, asked = store.root / "exports", evaluation_machine(source), questions(source)
    request = MergeRequest()
    merged = to_merged(source, folder, request, merge=merge, show_progress=show_progress)
    inputs = StageInputs(
        model=source.model,
        quantization=source.settings.quantization,
        machine=machine,
        saved=saved_base(source),
        adapter=source.adapter,
        merge=merge_of(source, request, merge=merge),
        reloaded=resolve(str(merged)),
        files=_gguf_files(source, merged, folder, llama_cpp, show_progress),
    )
    answers = answer_stages(inputs, [question.prompt for question in asked], source.run.suite.decoding, show_progress)
    suite = source.run.suite
    score = scorer(scoring_of(suite, known_opinions(suite, store.root), allow_code=allow_code))
    return store_parity(store, source, asked, answers, score, machine.device)


def _gguf_files(
    source: Source, merged: Path, folder: Path, llama_cpp: Path | None, show_progress: Printer
) -> dict[Stage, tuple[Path, Path | None]]:
    """The GGUF files of each stage, in the order of the stages; empty, with a notice, if llama.cpp is not installed."""
    from harness.engine.merging import check_adapter, merge

    try:
        converter(llama_cpp)
        converter(llama_cpp, LORA_CONVERTER)
        check_binding()
    except ExportError as error:
        show_progress(f"Without GGUF stages: {error}")
        return {}
    requests = {stage: GgufRequest(kind, llama_cpp=llama_cpp) for stage, kind in (_GGUF_TYPES | _LORA_TYPES).items()}
    bare = to_merged(source.bare, folder, MergeRequest(), merge=merge, show_progress=show_progress)
    lora = to_gguf_lora(source, folder, llama_cpp=llama_cpp, check=check_adapter)
    files: dict[Stage, tuple[Path, Path | None]] = {}
    for stage in (each for each in Stage if each in requests):
        if stage in _LORA_TYPES:
            files[stage] = (base_to_gguf(source.bare, bare, folder, requests[stage]), lora)
        else:
            files[stage] = (to_gguf(source, merged, folder, requests[stage]), None)
    return files
