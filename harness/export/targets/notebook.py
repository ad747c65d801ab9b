"""`harness export --to notebook`: a Colab notebook that repeats the training of a variant step by step.

The cells come from `workshop.txt` and are the same for every run, except two that are filled in with the run's data.
The data is written as Python literals that are assigned to names, so no text of a suite is executed as code or shown
as Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import training_script
from harness.core.conversations import as_chat
from harness.core.export import ExportKind
from harness.core.settings import Quantization
from harness.core.suite import Case, Split
from harness.core.trainer_arguments import FP16, lora_arguments, sft_arguments
from harness.core.training_script import listing
from harness.core.units import DeviceKind
from harness.export.export_record import record_of
from harness.export.output_folders import begin, commit, existing
from harness.export.protocol import Exporter, ExportRequest
from harness.export.source import Source, check_real
from harness.export.targets.merged import DTYPE
from harness.storage.files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

WORKSHOP = Path(__file__).with_name("workshop.txt")
PER_ROLE = 3
BATCH_SIZE = 8
"""Prompts in one batch. Beside a merged 7B model in 16 bits, a T4 has memory for only a few more."""
NOTE = "A notebook that trains this variant again, merges it and asks the suite's prompts before and after."
UPLOAD = (
    "Open it in Colab (https://colab.research.google.com): File > Upload notebook, Runtime > Change runtime type > T4 "
    "GPU, Runtime > Run all."
)
REHEARSAL = (
    "# Rehearsal: the base model's own answers to other prompts, so that the tuned model keeps what it could do."
)
_PACKAGES = ("transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
_VERSION = re.compile(r"\d+(\.\w+)*")
_COLAB = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class NotebookOptions:
    """Command-line options of `--to notebook`."""

    dtype: str = field(default="float16", metadata=DTYPE)


@dataclass(frozen=True)
class Cell:
    """A notebook cell. `kind` is code, markdown, or the name of a cell to fill in (parameters, data)."""

    kind: str
    text: str
    toy: bool = False
    """Whether the cell is only for the pocket model."""


def to_notebook(source: Source, folder: Path, *, output: Path | None = None, dtype: str = "float16") -> Path:
    """Write the notebook to a folder with a record, and return its path. `dtype`: data type of the merged weights.

    Raises:
        UsageError: the model has random weights.
        StoreError: the disk is full, or the folder contains something else.
    """
    check_real(source)
    final = output or folder / f"{source.label}-notebook"
    name = f"{source.label}.ipynb"
    record = record_of(source, ExportKind.NOTEBOOK, None, dtype, False, NOTE)
    if existing(final, record):
        return final / name
    text = written(source, dtype)
    made = begin(final, len(text))
    write_text(made / name, text)
    commit(made, final, record, {})
    return final / name


def written(source: Source, dtype: str) -> str:
    """The notebook as the text of an .ipynb file."""
    import nbformat

    book = notebook(source, dtype)
    nbformat.validate(book)
    return str(nbformat.writes(book)) + "\n"


def notebook(source: Source, dtype: str) -> NotebookNode:
    """Build the notebook. The same source always gives the same notebook."""
    from nbformat import v4

    filled = {"parameters": parameters(source, dtype), "data": data(source)}
    wanted = [cell for cell in cells(WORKSHOP.read_text(encoding="utf-8")) if source.model.toy or not cell.toy]
    made = []
    for number, cell in enumerate(wanted):
        if cell.kind == "markdown":
            made.append(v4.new_markdown_cell(cell.text, id=f"cell-{number}"))
            continue
        tags = {"tags": [cell.kind]} if cell.kind in filled else {}
        made.append(v4.new_code_cell(filled.get(cell.kind, cell.text), id=f"cell-{number}", metadata=tags))
    return v4.new_notebook(cells=made, metadata=_COLAB)


def cells(text: str) -> Iterator[Cell]:
    """Parse cells from a text in which each cell begins with a line `# %%`, a convention of many editors.

    The words after `# %%` are `[markdown]` (the cell's lines are comments), the name of a cell to fill in, or `toy`.
    """
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        words, body = head.split(), body.strip("\n")
        if "[markdown]" in words:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
            yield Cell("markdown", body, "toy" in words)
        else:
            kind = next((word for word in words if word != "toy"), "code")
            yield Cell(kind, body, "toy" in words)


def parameters(source: Source, dtype: str) -> str:
    """Text of the parameters cell: one assignment per line, with a comment."""
    machine, suite, settings = source.run.provenance.machine, source.run.suite, source.settings
    compute = machine.compute_dtype if machine.kind is DeviceKind.CUDA else FP16
    where = "of the model on the Hub" if source.model.revision else "None: the newest revision, or a folder"
    lines = [
        _line(
            "FROM",
            {"suite": suite.name, "variant": source.variant.name, "seed": source.seed},
            "the run",
        ),
        _line("MODEL", source.model.name, "on the Hugging Face Hub, or a folder"),
        _line("REVISION", source.model.revision or None, where),
        _line("QUANTIZE", settings.quantization is Quantization.NF4, "the base in 4 bits (NF4)"),
        _line("COMPUTE_DTYPE", compute, "on a GPU; float32 on a CPU"),
        "",
        "# How answers are generated, and for how many prompts of each role (None: for all).",
        _line("SYSTEM_PROMPT", suite.system_prompt),
        _line("MAX_NEW_TOKENS", suite.decoding.max_new_tokens),
        _line("STOP", list(suite.decoding.stop), "an answer ends before the first of these texts"),
        _line("TEMPERATURE", suite.decoding.temperature, "0: always the most likely token"),
        *_turn_lines(source),
        _line("PROMPTS_PER_ROLE", PER_ROLE),
        _line("ANSWERS_AT_ONCE", BATCH_SIZE, "fewer need less memory"),
        "",
        "# The adapter: arguments of peft.LoraConfig.",
        f"LORA = {training_script.call('dict', lora_arguments(settings))}",
        "",
        "# The training: arguments of trl.SFTConfig.",
        f"TRAINING = {training_script.call('dict', sft_arguments(settings, source.seed))}",
        _line("LORAPLUS_LR_RATIO", settings.loraplus_lr_ratio, "LoRA+: learning rate of B over that of A; 1: LoRA"),
        "",
        _line("MERGED_DTYPE", dtype, "of the merged weights on a GPU; float32 on a CPU"),
        _line("HUB_REPOSITORY", "", '"your-name/your-model" uploads the merged model'),
        _line("MAKE_GGUF", False, "True makes a file for llama.cpp"),
        "",
        _line("PACKAGES", _packages(source.run.provenance.versions), "installed on Colab"),
    ]
    return "\n".join(["# Every setting of this notebook. Change them here and run it again.", *lines])


def _turn_lines(source: Source) -> list[str]:
    """Lines about how the chat template opens and closes answers; runs of earlier versions stopped as configured."""
    turns = source.run.tokens
    closing = None if turns is None or turns.named else turns.end
    return [
        _line("CLOSING_TOKEN", closing, "closes each answer, if the model's configuration does not name it"),
        _line("TOKENS_BEHIND_END", turns.behind if turns else 0, "written by the template behind that token"),
        _line("ASK_AS_IN_ROWS", bool(turns and turns.from_row), "ask with the text before the answers of rows"),
        _line("CUT_PROMPT_SPACE", bool(turns and turns.short), "leave out whitespace at the end of a prompt"),
    ]


def data(source: Source) -> str:
    """Text of the data cell: the training rows and the prompts of the main cases. Confirm cases are held out."""
    suite, added = source.run.suite, source.run.added_rows(source.settings, source.seed)
    rows = listing(as_chat(example.messages) for example in suite.examples)
    if added:
        more = listing(as_chat(example.messages) for example in added)
        rows = f"{rows.removesuffix(']')}    {REHEARSAL}\n{more[2:]}"
    return f"TRAINING_ROWS = {rows}\n\nPROMPTS = {listing(map(_prompt, suite.of(Split.MAIN)))}"


def _prompt(case: Case) -> dict[str, Any]:
    return {"id": case.id, "role": case.role.value, "messages": as_chat(case.messages)}


def _line(name: str, value: Any, remark: str = "") -> str:
    return f"{name} = {training_script.literal(value)}" + (f"  # {remark}" if remark else "")


def _packages(versions: Mapping[str, str]) -> list[str]:
    """Requirements for pip: the run's package versions without local build labels (`+cu126`)."""
    found = {name: versions.get(name, "").partition("+")[0] for name in _PACKAGES}
    return [f"{name}=={version}" if _VERSION.fullmatch(version) else name for name, version in found.items()]


def _make(request: ExportRequest, options: NotebookOptions) -> str:
    made = to_notebook(request.source, request.folder, output=request.output, dtype=options.dtype)
    request.show_progress(UPLOAD)
    return str(made)


EXPORTER = Exporter(
    ExportKind.NOTEBOOK,
    "a Colab notebook that asks the base model, trains with this variant's settings, merges, and asks again",
    NotebookOptions,
    _make,
)
