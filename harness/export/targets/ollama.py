"""`harness export --to ollama`: a GGUF file with a Modelfile, so that Ollama asks the model as the run did.

Ollama does not run the chat template in a GGUF file: a model has a template of its own. It is translated from the chat
template, rendered for every prompt of the suite, and refused if a prompt comes out differently.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core.conversations import messages_of
from harness.core.errors import ExportError
from harness.core.export import ExportKind, ExportRecord
from harness.core.suite import Case, Message
from harness.export.go_template import REMEDY, GoTemplate, first_difference, translate
from harness.export.llama_cpp import check_binding, vocabulary
from harness.export.output_folders import RECORD, add, begin, commit, existing
from harness.export.protocol import Exporter, ExportRequest, option
from harness.export.source import Source, check_merged
from harness.export.targets.gguf import QuantOptions, export_base, export_gguf
from harness.export.targets.gguf_lora import export_gguf_lora
from harness.models.conversation_tokens import Conversations
from harness.models.tokenizer_files import read_tokenizer
from harness.storage.files import write_text, writing
from harness.storage.records import read_record

MODELFILE = "Modelfile"
Tokenise = Callable[[str], list[int]]
"""A function that tokenizes a text as llama.cpp does for Ollama: with the tokens that it puts before each text."""


@dataclass(frozen=True)
class OllamaOptions(QuantOptions):
    """Command-line options of `--to ollama`."""

    lora: bool = field(
        default=False,
        metadata=option("Use the base model's GGUF file and the adapter's, which share a folder, not a merged model."),
    )


@dataclass(frozen=True)
class Translation:
    """A template that renders every prompt of the suite as the run was asked, and the special tokens to stop at."""

    template: GoTemplate
    prompts: int
    stops: tuple[str, ...]
    conversations: Conversations


def translation(source: Source) -> Translation:
    """Translate the chat template, and compare what both render for every prompt of the suite.

    Raises:
        ExportError: the template cannot be translated, or a prompt comes out differently; the first one is named.
    """
    found = read_tokenizer(Path(source.model.tokenizer or source.model.path))
    if isinstance(found, str):
        raise ExportError(f"the chat template cannot be written for Ollama: {found}", remedy=REMEDY)
    known, suite = found.conversations, source.run.suite
    template = translate(known.asked_text)
    for case in suite.cases:
        expected, rendered = known.asked_text(messages_of(suite, case)), template.render(asked_by_ollama(source, case))
        if rendered != expected:
            what = f"the chat template does not come out the same in Ollama for the case {case.id}"
            raise ExportError(f"{what}: {first_difference(expected, rendered)}", remedy=REMEDY)
    ends = [known.vocabulary.text(token) for token in sorted(known.ends)]
    return Translation(template, len(suite.cases), (*ends, *suite.decoding.stop), known)


def asked_by_ollama(source: Source, case: Case) -> Sequence[Message]:
    """The messages that Ollama renders for a case: SYSTEM comes first, unless the conversation begins with another."""
    system = source.run.suite.system_prompt
    if not system or case.messages[0].role == "system":
        return case.messages
    return (Message("system", system), *case.messages)


def modelfile(source: Source, file: str, template: GoTemplate, stops: Sequence[str], lora: str = "") -> str:
    """Write the Modelfile for a GGUF file, and the file of an adapter if one is given, in the same folder.

    Raises:
        ExportError: a text of the suite cannot be written in a Modelfile.
    """
    suite = source.run.suite
    lines = [
        f"FROM ./{file}",
        *([f"ADAPTER ./{lora}"] if lora else []),
        f"TEMPLATE {quoted(template.source(), 'the template')}",
        *([f"SYSTEM {quoted(suite.system_prompt, 'the system prompt')}"] if suite.system_prompt else []),
        *(f"PARAMETER stop {quoted(stop, 'a stop text')}" for stop in dict.fromkeys(stops)),
        f"PARAMETER temperature {suite.decoding.temperature:g}",
        "PARAMETER repeat_penalty 1",
    ]
    if suite.decoding.temperature:
        lines += ["PARAMETER top_k 0", "PARAMETER top_p 1"]
    return "\n".join(lines) + "\n"


def quoted(text: str, what: str) -> str:
    '''Write a text between `"""`, as Ollama's Modelfiles have it: without escapes, up to `"""` before a space or line.

    Raises:
        ExportError: Ollama would end the text early, or leave characters out.
    '''
    dropped = next((character for character in text if not (character.isprintable() or character in "\n\r\t")), None)
    if dropped is not None:
        raise ExportError(f"{what} has the character {dropped!r}, which Ollama drops from a Modelfile", remedy=_REWORD)
    if '"""' in text:
        raise ExportError(f'{what} has """, with which texts end in a Modelfile', remedy=_REWORD)
    return f'"""{text}"""'


_REWORD = "Change the text in suite.yaml and run the suite again, or use llama.cpp: --to gguf."


def to_ollama(
    source: Source, file: Path, found: Translation, folder: Path, *, output: Path | None, tokenise: Tokenise
) -> Path:
    """Write a folder with the GGUF file of a merged model and its Modelfile, and return the path of the Modelfile.

    Raises:
        ExportError: llama.cpp begins conversations otherwise than the run, or a text cannot be written in a Modelfile.
        StoreError: the disk is full, or the folder contains something else.
    """
    of = read_record(file.parent / RECORD, ExportRecord)
    final = output or folder / f"{source.label}-ollama-{of.dtype}"
    template, note = _checked(source, found, tokenise)
    record = replace(of, kind=ExportKind.OLLAMA, note=f"{note} {of.note}")
    if existing(final, record):
        return final / MODELFILE
    made = begin(final, file.stat().st_size)
    _link(file, made / file.name)
    write_text(made / MODELFILE, modelfile(source, file.name, template, found.stops))
    commit(made, final, record, {})
    return final / MODELFILE


def lora_to_ollama(source: Source, base: Path, lora: Path, found: Translation, *, tokenise: Tokenise) -> Path:
    """Write a Modelfile for an adapter over the base model's GGUF file, in the folder of both, and return its path.

    Raises:
        ExportError, StoreError: as `to_ollama` does.
    """
    of, own = (read_record(path.with_name(f"{path.name}.json"), ExportRecord) for path in (base, lora))
    template, note = _checked(source, found, tokenise)
    text = modelfile(source, base.name, template, found.stops, lora.name)
    other = "" if of.evaluated else f"With this base, in {of.dtype}, it is not the model that was evaluated. "
    note = f"{note} {other}The adapter's file: {own.note} The base's file: {of.note}"
    record = replace(own, kind=ExportKind.OLLAMA, dtype=of.dtype, evaluated=of.evaluated, note=note)
    file = lora.with_name(f"{lora.stem}-{of.dtype}.{MODELFILE}")
    return add(file, len(text), record, lambda path: write_text(path, text))


def _checked(source: Source, found: Translation, tokenise: Tokenise) -> tuple[GoTemplate, str]:
    """Return the template without what llama.cpp puts before each text, and how it was compared.

    Raises:
        ExportError: llama.cpp begins conversations otherwise than the run.
    """
    known, suite = found.conversations, source.run.suite
    template = found.template.without("".join(known.vocabulary.text(token) for token in tokenise("")))
    asked = known.asked([(case.id, messages_of(suite, case)) for case in suite.cases])
    texts = [template.render(asked_by_ollama(source, case)) for case in suite.cases]
    return template, _note(found, sum(tokenise(text) == ids for text, ids in zip(texts, asked, strict=True)))


def _note(found: Translation, same: int) -> str:
    note = (
        f"The Modelfile's template renders all {found.prompts} prompts of the suite as the run was asked (computed by "
        f"the harness; Ollama did not run). llama.cpp's tokens are the run's for {same} of them."
    )
    left_out = "" if found.template.has_system else " It leaves system messages out, which the chat template lacks."
    return note + left_out


def _link(file: Path, to: Path) -> None:
    """Give a large file a second name, or copy it if the file system cannot."""
    try:
        os.link(file, to)
    except OSError:
        with writing(to):
            shutil.copyfile(file, to)


def _make(request: ExportRequest, options: OllamaOptions) -> str:
    check_binding()
    found = translation(request.source)
    modelfile(request.source, "FILE.gguf", found.template, found.stops)  # refuses texts before the long conversion
    if options.lora:
        lora = export_gguf_lora(request, options.llama_cpp)
        base = export_base(request, options)
        with vocabulary(base) as tokenise:
            made = lora_to_ollama(request.source, base, lora, found, tokenise=tokenise)
    else:
        file = export_gguf(request, options, output=None)
        with vocabulary(file) as tokenise:
            made = to_ollama(request.source, file, found, request.folder, output=request.output, tokenise=tokenise)
    request.show_progress(f"In {made.parent}, run: ollama create NAME -f {made.name}")
    return str(made)


EXPORTER = Exporter(
    ExportKind.OLLAMA,
    "a GGUF file for Ollama, with a Modelfile: template, system prompt and stop texts of the run",
    OllamaOptions,
    _make,
    check_merged,
)
