"""Write a notebook for Colab and Kaggle that trains a variant step by step.

The cells come from `workshop.txt` and are the same for every notebook, except some that are left out, and three that
are filled in. What a suite contains is written as Python literals that are assigned to names, so no text of a suite is
executed as code or shown as Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.core import training_script
from harness.core.conversations import as_chat
from harness.core.errors import UsageError
from harness.core.measurement import GIB
from harness.core.rehearsal import DECODING
from harness.core.settings import Quantization
from harness.core.suite import Assertion, Case, Split
from harness.core.trainer_arguments import FP16, lora_arguments, sft_arguments
from harness.core.training_script import listing
from harness.core.wording import plural
from harness.export.notebook.contents import SMALL, Contents
from harness.export.notebook.own_code import CONVERSION, REHEARSAL, SCORING, SMOLLM2, own_code
from harness.models import smollm2
from harness.scoring.self_contained import SelfContained, families, packages, self_contained
from harness.storage.files import is_free, write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

WORKSHOP = Path(__file__).with_name("workshop.txt")
SHOWN_PER_ROLE = 3
BATCH_SIZE = 8
"""Prompts in one batch. Beside a merged 7B model in 16 bits, a T4 has memory for only a few more."""
UPLOAD = (
    "Open it in Colab (https://colab.research.google.com: File > Upload notebook) or Kaggle (https://www.kaggle.com: "
    "Create > New Notebook, then File > Import Notebook), and follow its first cells."
)
REHEARSED = (
    "# Rehearsal: the base model's own answers to other prompts, so that the tuned model keeps what it could do."
)
_STACK = ("transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
_VERSION = re.compile(r"\d+(\.\w+)*")
_HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}, "_kg_hide-input": True}
"""Metadata with which Colab, Jupyter and Kaggle fold a cell."""
_COLAB = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kaggle": {"accelerator": "nvidiaTeslaT4", "isGpuEnabled": True, "isInternetEnabled": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class Cell:
    """A notebook cell. `kind` is code, markdown, or the name of a cell to fill in (parameters, data, own-code)."""

    kind: str
    text: str
    only: frozenset[str] = frozenset()
    """The conditions (`CONDITIONS`) under which the notebook has the cell."""


CONDITIONS = frozenset({"toy", "gguf", "folder", "rehearsal"})
"""A notebook of the pocket model, a GGUF file or a folder; one in which the base model answers rehearsal prompts."""


def write(contents: Contents, output: Path | None) -> Path:
    """Write the notebook and return its path: `output`, or a file in the current folder that is named after the suite.

    Raises:
        UsageError: the file exists with other content, or is not named like a notebook.
        StoreError: the disk is full.
    """
    path = output or Path(f"{contents.label}.ipynb")
    if path.suffix != ".ipynb":
        raise UsageError(f"{path} is no notebook", remedy="Name a file that ends in .ipynb.")
    text = written(contents)
    if not is_free(path, text):
        remedy = "Name another file with --output, or remove this one. It may hold what somebody wrote into it."
        raise UsageError(f"{path} exists already", remedy=remedy)
    write_text(path, text)
    return path


def written(contents: Contents) -> str:
    """The notebook as the text of an .ipynb file."""
    import nbformat

    book = notebook(contents)
    nbformat.validate(book)
    return str(nbformat.writes(book)) + "\n"


def notebook(contents: Contents) -> NotebookNode:
    """Build the notebook. The same contents always give the same notebook."""
    from nbformat import v4

    filled = {"parameters": parameters(contents), "data": data(contents), "own-code": files(contents)}
    holds = _conditions(contents)
    made = []
    for number, cell in enumerate(each for each in cells(WORKSHOP.read_text(encoding="utf-8")) if each.only <= holds):
        if cell.kind == "markdown":
            made.append(v4.new_markdown_cell(cell.text, id=f"cell-{number}"))
            continue
        tags: dict[str, Any] = {"tags": [cell.kind]} if cell.kind in filled else {}
        tags |= _HIDDEN if cell.kind == "own-code" else {}
        made.append(v4.new_code_cell(filled.get(cell.kind, cell.text), id=f"cell-{number}", metadata=tags))
    return v4.new_notebook(cells=made, metadata=_COLAB)


def _conditions(contents: Contents) -> frozenset[str]:
    model = contents.model
    found = {"toy": model.toy, "gguf": model.gguf, "folder": model.folder, "rehearsal": bool(contents.questions)}
    return frozenset(name for name, holds in found.items() if holds)


def cells(text: str) -> Iterator[Cell]:
    """Parse cells from a text in which each cell begins with a line `# %%`, a convention of many editors.

    The words after `# %%` are `[markdown]` (the cell's lines are comments), the name of a cell to fill in, or
    conditions.
    """
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        words, body = head.split(), body.strip("\n")
        only = CONDITIONS & set(words)
        if "[markdown]" in words:
            yield Cell("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE), only)
        else:
            yield Cell(next((word for word in words if word not in only), "code"), body, only)


# --- parameters --------------------------------------------------------------------------------------------------


def parameters(contents: Contents) -> str:
    """Text of the parameters cell: one assignment per line, with a comment."""
    model, suite, settings = contents.model, contents.suite, contents.variant.settings
    where = "of the model on the Hub" if model.revision else "None: the newest revision, or no model of the Hub"
    memory = None if contents.memory is None else round(contents.memory / GIB, 1)
    lines = [
        _line("FROM", dict(contents.origin), "where this notebook comes from"),
        _line("MODEL", model.name, _place(contents)),
        _line("REVISION", model.revision or None, where),
        _line("QUANTIZE", settings.quantization is Quantization.NF4, "the base in 4 bits (NF4)"),
        _line("COMPUTE_DTYPE", contents.compute_dtype, "on a GPU; float32 on a CPU"),
        _line("NEEDS_GPU", not model.toy and (contents.parameters or SMALL) >= SMALL, "False: a CPU is fast enough"),
        _line("NEEDS_GIB", memory, "least GPU memory for training and merging, as predicted"),
        "",
        "# How answers are generated, and for how many prompts of each role (None: for all).",
        _line("SYSTEM_PROMPT", suite.system_prompt),
        _line("MAX_NEW_TOKENS", suite.decoding.max_new_tokens),
        _line("STOP", list(suite.decoding.stop), "an answer ends before the first of these texts"),
        _line("TEMPERATURE", suite.decoding.temperature, "0: always the most likely token"),
        *_turn_lines(contents),
        _line("PROMPTS_PER_ROLE", None),
        _line("SHOWN_PER_ROLE", SHOWN_PER_ROLE, "answers to print"),
        _line("ANSWERS_AT_ONCE", BATCH_SIZE, "fewer need less memory"),
        "",
        "# The adapter: arguments of peft.LoraConfig.",
        f"LORA = {training_script.call('dict', lora_arguments(settings))}",
        "",
        "# The training: arguments of trl.SFTConfig.",
        f"TRAINING = {training_script.call('dict', sft_arguments(settings, contents.seed))}",
        _line("LORAPLUS_LR_RATIO", settings.loraplus_lr_ratio, "LoRA+: learning rate of B over that of A; 1: LoRA"),
        *_rehearsal_lines(contents),
        "",
        _line("MERGED_DTYPE", FP16, "of the merged weights on a GPU; float32 on a CPU"),
        _line("HUB_REPOSITORY", "", '"your-name/your-model" uploads the merged model'),
        _line("MAKE_GGUF", False, "True makes a file for llama.cpp"),
        "",
        _line("PACKAGES", _packages(contents), "installed on Colab and Kaggle"),
        *([_line("HARNESS", "", "the package with the toy model: an address or a wheel for pip")] if model.toy else []),
    ]
    return "\n".join(["# Every setting of this notebook. Change them here and run it again.", *lines])


def _place(contents: Contents) -> str:
    if contents.model.toy:
        return "part of the package qlora-harness"
    if contents.model.name == smollm2.NAME:
        return f"a GGUF file in the package {smollm2.PACKAGE}"
    if contents.model.gguf:
        return "a GGUF file to upload into this session"
    if contents.model.folder:
        return "a folder to upload into this session"
    return "on the Hugging Face Hub, or a folder"


def _turn_lines(contents: Contents) -> list[str]:
    """Lines about how the chat template opens and closes answers; runs of earlier versions stopped as configured."""
    turns = contents.turns
    closing = None if turns is None or turns.named else turns.end
    return [
        _line("CLOSING_TOKEN", closing, "closes each answer, if the model's configuration does not name it"),
        _line("TOKENS_BEHIND_END", turns.behind if turns else 0, "written by the template behind that token"),
        _line("ASK_AS_IN_ROWS", bool(turns and turns.from_row), "ask with the text before the answers of rows"),
        _line("CUT_PROMPT_SPACE", bool(turns and turns.short), "leave out whitespace at the end of a prompt"),
    ]


def _rehearsal_lines(contents: Contents) -> list[str]:
    if not contents.questions:
        return []
    return [
        "",
        _line("REHEARSAL", contents.variant.settings.rehearsal, "rows that the base model answers itself"),
        _line("REHEARSAL_TOKENS", DECODING.max_new_tokens, "longer answers are left out"),
    ]


def _line(name: str, value: Any, remark: str = "") -> str:
    return f"{name} = {training_script.literal(value)}" + (f"  # {remark}" if remark else "")


def _packages(contents: Contents) -> list[str]:
    """Requirements for pip, without local build labels (`+cu126`)."""
    scored = [one for case in _cases(contents) for one in _scored(contents, case).assertions]
    more = [*packages(scored), *(["gguf"] if contents.model.gguf else [])]
    found = {name: contents.versions.get(name, "") for name in _STACK} | {name: _installed(name) for name in more}
    plain = {name: version.partition("+")[0] for name, version in found.items()}
    return [f"{name}=={version}" if _VERSION.fullmatch(version) else name for name, version in plain.items()]


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


# --- data --------------------------------------------------------------------------------------------------------


def data(contents: Contents) -> str:
    """Text of the data cell: the training rows and the prompts of the main cases. Confirm cases are held out."""
    suite = contents.suite
    rows = listing(as_chat(example.messages) for example in suite.examples)
    if contents.rehearsed:
        more = listing(as_chat(example.messages) for example in contents.rehearsed)
        rows = f"{rows.removesuffix(']')}    {REHEARSED}\n{more[2:]}"
    prompts = listing(_prompt(case, _scored(contents, case)) for case in _cases(contents))
    questions = f"\n\nREHEARSAL_PROMPTS = {listing(contents.questions)}" if contents.questions else ""
    return f"TRAINING_ROWS = {rows}{questions}\n\nPROMPTS = {prompts}"


def _cases(contents: Contents) -> tuple[Case, ...]:
    return contents.suite.of(Split.MAIN)


def _scored(contents: Contents, case: Case) -> SelfContained:
    judge = contents.suite.judge
    return self_contained(case, decides=bool(judge and judge.decides))


def notices(contents: Contents) -> tuple[str, ...]:
    """Return sentences for the user who writes the notebook, with the number of cases that are not scored in it."""
    reasons = [found.reason for case in _cases(contents) if (found := _scored(contents, case)).reason]
    counted = (
        f"{plural(reasons.count(reason), 'case')} of {len(_cases(contents))} cannot be scored in a notebook: {reason}."
        for reason in dict.fromkeys(reasons)
    )
    return (*contents.model.notices, *contents.notices, *counted)


def _prompt(case: Case, found: SelfContained) -> dict[str, Any]:
    return {
        "id": case.id,
        "role": case.role.value,
        "messages": as_chat(case.messages),
        "assertions": [_assertion(one) for one in found.assertions],
        "threshold": case.threshold,
        "not_scored": found.reason,
    }


def _assertion(assertion: Assertion) -> dict[str, Any]:
    """Return the fields of an assertion that do not have their default."""
    given = {field.name: getattr(assertion, field.name) for field in fields(assertion)}
    default = {field.name: field.default for field in fields(assertion)}
    kept = {name: value for name, value in given.items() if value != default[name]}
    nested = {"children": [_assertion(child) for child in assertion.children], "transforms": [*assertion.transforms]}
    return {name: nested.get(name, value) for name, value in kept.items()}


# --- the harness's own code --------------------------------------------------------------------------------------


def files(contents: Contents) -> str:
    """Text of the cell with files of this package, by their paths."""
    scored = [one for case in _cases(contents) for one in _scored(contents, case).assertions]
    modules = [SCORING, *([REHEARSAL] if contents.questions else [])]
    modules += [*CONVERSION, *([SMOLLM2] if contents.model.name == smollm2.NAME else [])] if contents.model.gguf else []
    texts = own_code(modules, families(scored))
    entries = "".join(f"    {training_script.literal(path)}: {_source(text)},\n" for path, text in texts.items())
    return f"# @title Files of qlora-harness {harness.__version__}, as they are\nFILES = {{\n{entries}}}"


def _source(text: str) -> str:
    """Return the text of a module as a literal that people can read."""
    readable = "'''" not in text and text.endswith("\n") and all(c.isprintable() or c == "\n" for c in text)
    return f"r'''{text}'''" if readable else training_script.literal(text)
