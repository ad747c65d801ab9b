"""The steps of `harness chat`: load the models, ask them, print their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from harness.cli.output import Output, echo
from harness.core.conversations import with_system_prompt
from harness.core.job import Prompt
from harness.core.suite import Message
from harness.export.llama_cpp import check_binding
from harness.export.source import Source, evaluation_machine, saved_base

Ask = Callable[[str], tuple[tuple[str, str], ...]]
"""Takes a question and returns one (model name, answer) pair per model."""


def print_answers(question: str, answers: tuple[tuple[str, str], ...]) -> None:
    """Print a question's answers: side by side in a terminal, one below the other in a pipe. Markup stays as it is."""
    console = Output()
    if not console.is_terminal:
        lines = "\n".join(f"{model}: {text}" for model, text in answers)
        echo(f"> {question}\n{lines}")
        return
    table = Table(*(model for model, _ in answers), expand=True)
    table.add_row(*(text for _, text in answers))
    console.print(table)


@contextmanager
def torch_session(source: Source) -> Iterator[Ask]:
    """Load the base model and the variant's adapter as the run did, and yield a function that asks both models."""
    from harness.engine.generation.backends import base_and_adapter
    from harness.engine.loading import load_base
    from harness.engine.log_filters import hide_library_messages

    hide_library_messages()
    base = load_base(source.model, source.settings.quantization, evaluation_machine(source), saved=saved_base(source))
    with base_and_adapter(base, source.adapter) as (bare, tuned):
        backends = (("base", bare), (source.variant.name, tuned))

        def ask(question: str) -> tuple[tuple[str, str], ...]:
            prompts, decoding = [Prompt("chat", _messages(source, question))], source.run.suite.decoding
            return tuple((model, backend.answers(prompts, decoding)[0].text) for model, backend in backends)

        yield ask


@contextmanager
def gguf_session(source: Source, file: Path, loras: Sequence[Path] = ()) -> Iterator[Ask]:
    """Load a GGUF file and adapters in llama.cpp, and yield a function that asks the file alone and with each."""
    from harness.engine.generation.backends import llama_cpp_chat

    check_binding()
    chats = llama_cpp_chat(file, source.run.suite.decoding, loras)
    models = [(path.name, chat) for path, chat in zip((file, *loras), chats, strict=True)]
    yield lambda question: tuple((name, chat(_messages(source, question))) for name, chat in models)


def _messages(source: Source, question: str) -> tuple[Message, ...]:
    return with_system_prompt(source.run.suite.system_prompt, (Message("user", question),))
