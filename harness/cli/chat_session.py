"""Stages of `chat` and `parity`: load models, ask them, show the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.core.conversations import with_system_prompt
from harness.core.device_profiles import AUTO
from harness.core.errors import ExportError
from harness.core.export import GgufType
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.parity import Parity, Stage
from harness.core.suite import Decoding, Message
from harness.export.gguf import GgufRequest, to_gguf
from harness.export.llama_cpp import check_binding, converter
from harness.export.merged import MergeRequest, merge_of, to_merged
from harness.export.source import Source, saved_base
from harness.hardware.environment import machine
from harness.storage.runs import RunStore

Tell = Callable[[str], None]
Ask = Callable[[str], tuple[tuple[str, str], ...]]
_FILES = {Stage.F16: GgufType.F16, Stage.Q8_0: GgufType.Q8_0, Stage.Q4_K_M: GgufType.Q4_K_M}


def answered(question: str, answers: tuple[tuple[str, str], ...]) -> None:
    """Print answers side by side at a terminal, one below the other in a pipe; markup in them is printed as it is."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        lines = "\n".join(f"{who}: {text}" for who, text in answers)
        print(f"> {question}\n{lines}")
        return
    table = Table(*(who for who, _ in answers), expand=True)
    table.add_row(*(text for _, text in answers))
    console.print(table)


@contextmanager
def in_torch(source: Source) -> Iterator[Ask]:
    """Base and variant, as the run asked them."""
    from harness.engine.generation.backends import base_and_adapter
    from harness.engine.loading import load_base
    from harness.engine.log_filters import hide_library_messages

    hide_library_messages()
    on = here(source)
    base = load_base(source.model, source.settings.quantization, on, saved=saved_base(source))
    with base_and_adapter(base, source.adapter) as (bare, tuned):

        def ask(question: str) -> tuple[tuple[str, str], ...]:
            prompts, decoding = [Prompt("chat", _messages(source, question))], source.run.suite.decoding
            return tuple(
                (who, backend.answers(prompts, decoding)[0].text)
                for who, backend in (("base", bare), (source.variant.name, tuned))
            )

        yield ask


@contextmanager
def at_home(source: Source, file: Path) -> Iterator[Ask]:
    """The file alone, by llama.cpp."""
    from harness.engine.generation.backends import llama_cpp_chat

    check_binding()
    decoding: Decoding = source.run.suite.decoding
    asked = llama_cpp_chat(file, decoding)
    yield lambda question: ((file.name, asked(_messages(source, question))),)


def _messages(source: Source, question: str) -> tuple[Message, ...]:
    return with_system_prompt(source.run.suite.system_prompt, (Message("user", question),))


def here(source: Source) -> Machine:
    """This machine, with the compute precision of the run."""
    return replace(machine(AUTO), compute_dtype=source.run.provenance.machine.compute_dtype)


def check_parity(store: RunStore, source: Source, llama_cpp: Path | None, tell: Tell, *, allow_code: bool) -> Parity:
    """Export what is missing, ask the suite at every stage, and record the judged answers."""
    from harness.engine.log_filters import hide_library_messages
    from harness.engine.merging import merge
    from harness.engine.parity_stages import StageInputs, answer_stages
    from harness.export.parity import questions, recorded
    from harness.models.resolving import resolve
    from harness.scoring import Scoring, scorer

    hide_library_messages()
    folder, on, asked = store.root / "exports", here(source), questions(source)
    request = MergeRequest()
    merged = to_merged(source, folder, request, merge=merge, tell=tell)
    inputs = StageInputs(
        model=source.model,
        quantization=source.settings.quantization,
        machine=on,
        saved=saved_base(source),
        adapter=source.adapter,
        merge=merge_of(source, request, merge=merge),
        reloaded=resolve(str(merged)),
        files=_files(source, merged, folder, llama_cpp, tell),
    )
    answered_stages = answer_stages(inputs, [question.prompt for question in asked], source.run.suite.decoding, tell)
    score = scorer(Scoring(Path(source.run.suite.folder), allow_code))
    return recorded(store, source, asked, answered_stages, score, on.device)


def _files(source: Source, merged: Path, folder: Path, llama_cpp: Path | None, tell: Tell) -> dict[Stage, Path]:
    """The GGUF files, if llama.cpp is installed to make and to run them."""
    try:
        converter(llama_cpp)
        check_binding()
    except ExportError as error:
        tell(f"Without GGUF stages: {error}")
        return {}
    requests = {stage: GgufRequest(kind, llama_cpp=llama_cpp) for stage, kind in _FILES.items()}
    return {stage: to_gguf(source, merged, folder, request) for stage, request in requests.items()}
