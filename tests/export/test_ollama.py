"""Tests of `harness export --to ollama`: the Modelfile, and the comparison of its template. Ollama is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ExportError
from harness.core.export import ExportKind, GgufType
from harness.core.suite import Message
from harness.export.export_record import record_of
from harness.export.output_folders import RECORD
from harness.export.source import Source
from harness.export.targets.ollama import lora_to_ollama, modelfile, quoted, to_ollama, translation
from harness.storage.manifest import verify_manifest
from harness.storage.records import write_record
from harness.storage.runs import RunStore
from tests.support.trained_run import source_of


def with_suite(source: Source, system: str | None, *messages: Message) -> Source:
    """Return the source with this system prompt, and with these messages in its first case."""
    suite = source.run.suite
    first = replace(suite.cases[0], messages=messages or suite.cases[0].messages)
    suite = replace(suite, system_prompt=system, cases=(first, *suite.cases[1:]))
    return replace(source, run=replace(source.run, suite=suite))


def parsed(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Modelfile, without the quotes around their values."""
    while text:
        head, _, text = text.partition(" ")
        if head.startswith("#"):
            text = f"{head} {text}".partition("\n")[2]
            continue
        if head == "PARAMETER":
            name, _, text = text.partition(" ")
            head = name
        if text.startswith('"""'):
            value, _, text = text[3:].partition('"""\n')
        else:
            value, _, text = text.partition("\n")
        yield head, value


def test_the_modelfile_has_what_the_run_asked_with(trained_run: RunStore) -> None:
    """The Modelfile has the translated template, the system prompt, the ends of answers, and the temperature."""
    source = with_suite(source_of(trained_run), 'Be "kind":\n  always ')
    found = translation(source)
    assert found.prompts == len(source.run.suite.cases)
    assert list(parsed(modelfile(source, "x.gguf", found.template, (*found.stops, "\n\n")))) == [
        ("FROM", "./x.gguf"),
        ("TEMPLATE", found.template.source()),
        ("SYSTEM", 'Be "kind":\n  always '),
        ("stop", "</s>"),
        ("stop", "\n\n"),
        ("temperature", "0"),
        ("repeat_penalty", "1"),
    ]


def test_a_text_cannot_end_its_quotes() -> None:
    """A text that would end its quotes in a Modelfile, or that Ollama would change, is refused."""
    for text in ('"""\nADAPTER /etc/x', 'a """ b', "no\u00a0break", "\x1b[1m"):
        with pytest.raises(ExportError, match="the system prompt has") as refused:
            quoted(text, "the system prompt")
        assert "suite.yaml" in refused.value.remedy
    assert quoted('漢字 "" 😀\n', "it") == '"""漢字 "" 😀\n"""'


def test_a_prompt_that_comes_out_differently_is_refused(trained_run: RunStore) -> None:
    """A prompt that Ollama would render differently is refused: the message has its case and the first difference."""
    asked = [Message("user", "One."), Message("user", "Two.")]
    with pytest.raises(ExportError, match=r"the case \S+: from character 17 on, the run was asked .*Two") as refused:
        translation(with_suite(source_of(trained_run), None, *asked))
    assert "--to gguf" in refused.value.remedy


def test_the_folder_is_complete(trained_run: RunStore, tmp_path: Path) -> None:
    """The folder has the GGUF file, the Modelfile, and a record that says how the template was compared."""
    source, file = source_of(trained_run), tmp_path / "gguf" / "x.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    record = record_of(source, ExportKind.GGUF, None, str(GgufType.F16), True, "The merged model.")
    write_record(file.parent / RECORD, record)
    found = translation(source)
    vocabulary = found.conversations.vocabulary
    made = [
        to_ollama(source, file, found, tmp_path, output=None, tokenise=lambda text: vocabulary.encode([text])[0])
        for _ in range(2)
    ]
    assert made[0] == made[1] == tmp_path / f"{source.label}-ollama-f16" / "Modelfile"
    verify_manifest(made[0].parent)
    told = (made[0].parent / RECORD).read_text()
    count = found.prompts
    assert f"renders all {count} prompts" in told
    assert f"llama.cpp's tokens are the run's for {count} of them" in told
    with pytest.raises(ExportError, match="puts '</s>' before each conversation"):
        to_ollama(source, file, found, tmp_path / "other", output=None, tokenise=lambda text: [2])


def test_a_modelfile_of_an_adapter_lies_beside_both_files(trained_run: RunStore, tmp_path: Path) -> None:
    """With an adapter, the Modelfile names both files, and is in the manifest of their folder."""
    source, found = source_of(trained_run), translation(source_of(trained_run))
    files = [tmp_path / "base.gguf", tmp_path / "a-lora.gguf"]
    for file, kind, dtype in zip(files, (ExportKind.GGUF, ExportKind.GGUF_LORA), ("q8_0", "f16"), strict=True):
        record = record_of(source, kind, None, dtype, kind is ExportKind.GGUF_LORA, f"About {file.name}.")
        write_record(tmp_path / f"{file.name}.json", record)
    vocabulary = found.conversations.vocabulary
    made = lora_to_ollama(source, *files, found, tokenise=lambda text: vocabulary.encode([text])[0])
    assert made == tmp_path / "a-lora-q8_0.Modelfile"
    assert list(parsed(made.read_text()))[:2] == [("FROM", "./base.gguf"), ("ADAPTER", "./a-lora.gguf")]
    verify = (tmp_path / "MANIFEST.sha256").read_text()
    assert f"  {made.name}\n" in verify
    described = (tmp_path / f"{made.name}.json").read_text()
    assert '"evaluated": false' in described
    assert "With this base, in q8_0, it is not the model that was evaluated." in described
