"""Tests of `harness export --to notebook`: the notebook runs, and texts of suites never become code."""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.core import training_script
from harness.core.conversations import as_chat
from harness.core.engines import Engine
from harness.core.errors import UsageError
from harness.core.rehearsal import Rehearsal, RehearsalAnswers, RehearsalRow, draw
from harness.core.settings import Quantization, Settings
from harness.core.suite import Case, Example, Message, Split
from harness.core.trainer_arguments import lora_arguments, sft_arguments
from harness.core.units import DeviceKind
from harness.export.source import Source
from harness.export.targets.notebook import WORKSHOP, cells, notebook, to_notebook, written
from harness.models.resolving import POCKET
from harness.models.tokenizer_files import read_tokenizer
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore
from tests.support.trained_run import inside, small_run, source_of

HOSTILE = [
    "'''\"\"\"\nimport os; os.mkdir('pwned')\n'''",
    '"]\n%%bash\nmkdir pwned\n# ',
    "!mkdir pwned\r\n%run pwned.py\n?print??",
    "\\\n\\'\\\"{SEED}{{0}}$HOME\x00\x1b[2J",
    "# %% [markdown]\n<script>alert(1)</script>",
    "\u202eright to left\u2028next line\x85and\x0cmore",
]


def code(book: Any, tag: str = "") -> list[str]:
    """Return the sources of all code cells, or of those with this tag."""
    return [
        cell.source
        for cell in book.cells
        if cell.cell_type == "code" and (not tag or tag in cell.metadata.get("tags", []))
    ]


def names(source: str) -> dict[str, Any]:
    """Return the values that a cell assigns, by name, after checking that it only assigns literals."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign)
        [target] = node.targets
        assert isinstance(target, ast.Name)
        if isinstance(node.value, ast.Call):
            assert ast.unparse(node.value.func) == "dict"
            assert not node.value.args
            found[target.id] = {str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords}
        else:
            found[target.id] = ast.literal_eval(node.value)
    return found


def with_texts(source: Source, texts: list[str]) -> Source:
    """Return the source of an export with these texts wherever its suite, model and variant have texts."""
    first = texts[0]
    cases = tuple(Case(text, (Message("user", text),), ()) for text in texts)
    examples = tuple(Example((Message("user", text), Message("assistant", text))) for text in texts)
    decoding = replace(source.run.suite.decoding, stop=tuple(texts))
    suite = replace(source.run.suite, name=first, cases=cases, examples=examples)
    suite = replace(suite, system_prompt=first, decoding=decoding)
    variant = replace(source.variant, name=first, settings=replace(source.settings, target_modules=tuple(texts)))
    versions = dict.fromkeys(("transformers", "peft"), f"1.0\n{first}")
    run = replace(
        source.run,
        suite=suite,
        model=replace(source.model, name=first, revision=first, note=first),
        provenance=replace(source.run.provenance, versions=versions),
    )
    return replace(source, run=run, variant=variant)


# --- contents ------------------------------------------------------------------------------------------------


def test_the_notebook_is_valid_and_the_same_each_time(trained_run: RunStore) -> None:
    """The notebook is valid for nbformat, its code cells compile, and a second export has the same bytes."""
    text = written(source_of(trained_run), "float16")
    book = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert (book.nbformat, book.metadata.accelerator) == (4, "GPU")
    for number, source in enumerate(code(book)):
        compile(source, f"cell {number}", "exec")
    assert text == written(source_of(trained_run), "float16")


def test_the_parameters_are_the_variants(trained_run: RunStore) -> None:
    """The cell `parameters` has the variant's arguments for PEFT and TRL; upload and GGUF are switched off."""
    source = source_of(trained_run)
    [text] = code(notebook(source, "bfloat16"), "parameters")
    found = names(text)
    assert found["LORA"] == lora_arguments(source.settings)
    assert found["TRAINING"] == sft_arguments(source.settings, source.seed)
    assert (found["MODEL"], found["REVISION"], found["QUANTIZE"]) == ("pocket", None, True)
    assert (found["COMPUTE_DTYPE"], found["MERGED_DTYPE"], found["MAX_NEW_TOKENS"]) == ("float16", "bfloat16", 12)
    assert (found["HUB_REPOSITORY"], found["MAKE_GGUF"]) == ("", False)
    assert found["FROM"]["variant"] == source.variant.name
    assert f"peft=={source.run.provenance.versions['peft']}" in found["PACKAGES"]


def test_a_run_on_a_gpu_keeps_its_precision(trained_run: RunStore) -> None:
    """If the run was on a GPU, the notebook has its compute data type, quantisation and Hub revision."""
    source = source_of(trained_run)
    machine = replace(source.run.provenance.machine, kind=DeviceKind.CUDA, compute_dtype="bfloat16")
    model = replace(source.model, name="owner/name", revision="0123abc", toy=False)
    run = replace(source.run, model=model, provenance=replace(source.run.provenance, machine=machine))
    variant = replace(source.variant, settings=Settings(quantization=Quantization.NONE))
    [text] = code(notebook(replace(source, run=run, variant=variant), "float16"), "parameters")
    found = names(text)
    assert (found["COMPUTE_DTYPE"], found["QUANTIZE"]) == ("bfloat16", False)
    assert (found["MODEL"], found["REVISION"]) == ("owner/name", "0123abc")


def test_the_data_has_the_rehearsal_rows(trained_run: RunStore) -> None:
    """The rehearsal rows that the trial was trained on follow the suite's rows; without rehearsal there are none."""
    plain = source_of(trained_run)
    rows = tuple(
        RehearsalRow((Message("user", f"Question {n}?"), Message("assistant", f"Answer {n}.")), 9) for n in range(6)
    )
    known = Rehearsal((), 0, (RehearsalAnswers(plain.settings.quantization, rows, {}),))
    chosen = replace(plain.settings, rehearsal=4)
    source = replace(plain, run=replace(plain.run, rehearsal=known), variant=replace(plain.variant, settings=chosen))
    before, after = (names(code(notebook(each, "float16"), "data")[0]) for each in (plain, source))
    added = [as_chat(row.messages) for row in draw(rows, chosen, source.seed)]
    assert len(added) == 4
    assert after == before | {"TRAINING_ROWS": before["TRAINING_ROWS"] + added}


BLOCK = "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
DEVIATING = (
    "{% for m in messages %}<|{{ m.role }}|>" + BLOCK + "{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_the_notebook_trains_asks_and_stops_as_the_run(trained_run: RunStore, tmp_path: Path) -> None:
    """With a template that deviates in every way, the notebook's rows and prompts are those of the run."""
    from transformers import AutoTokenizer

    folder = tmp_path / "deviating"
    shutil.copytree(POCKET, folder)
    (folder / "chat_template.jinja").write_text(DEVIATING, encoding="utf-8")
    read = read_tokenizer(folder)
    assert not isinstance(read, str)
    turns = replace(read.conversations.turns(), named=False)
    source = source_of(trained_run)
    book = notebook(replace(source, run=replace(source.run, tokens=turns)), "float16")
    space: dict[str, Any] = {"tokenizer": AutoTokenizer.from_pretrained(str(folder), local_files_only=True)}
    space |= names(code(book, "parameters")[0])
    cells_with_functions = [ast.parse(source) for source in code(book) if "def " in source]
    wanted = [node for cell in cells_with_functions for node in cell.body if isinstance(node, ast.FunctionDef)]
    exec(compile(ast.Module(wanted, []), "notebook", "exec"), space)
    talk = (Message("user", "Hi"), Message("assistant", "Hello."))
    (row,) = read.conversations.rows([Example(talk)])
    (prompt,) = read.conversations.asked([("the case", talk[:1])])
    chat = as_chat(talk)
    assert space["row"](chat) == {"input_ids": row.input_ids, "labels": row.labels}
    assert space["render"](chat[:1], ask=True) == prompt
    assert space["CLOSING_TOKEN"] == turns.end


def test_the_data_cell_has_rows_and_prompts(trained_run: RunStore) -> None:
    """The cell `data` has all training rows and the prompts of the main cases, but not those of the confirm cases."""
    source = source_of(trained_run)
    [text] = code(notebook(source, "float16"), "data")
    found, suite = names(text), source.run.suite
    assert [row[-1]["content"] for row in found["TRAINING_ROWS"]] == [e.messages[-1].content for e in suite.examples]
    assert [prompt["id"] for prompt in found["PROMPTS"]] == [case.id for case in suite.of(Split.MAIN)]
    assert {prompt["role"] for prompt in found["PROMPTS"]} == {"learn", "retain"}


def test_the_toy_model_is_named_as_such(trained_run: RunStore) -> None:
    """Only the notebook of the pocket model says that it uses a toy model, and needs the package `harness`."""
    source = source_of(trained_run)
    said = "\n".join(cell.source for cell in notebook(source, "float16").cells)
    assert "**This notebook uses a toy model.**" in said
    assert "\nfrom harness" in said
    real = replace(source, run=replace(source.run, model=replace(source.model, toy=False)))
    other = "\n".join(cell.source for cell in notebook(real, "float16").cells)
    assert "toy" not in other
    assert "harness" not in other


def test_random_weights_have_no_notebook(trained_run: RunStore, tmp_path: Path) -> None:
    """If a run's model has random weights, no notebook is exported."""
    source = source_of(trained_run)
    shape = replace(source, run=replace(source.run, model=replace(source.model, shape_only=True)))
    with pytest.raises(UsageError, match="has random weights, so there is nothing to export"):
        to_notebook(shape, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_parts_and_no_secret(trained_run: RunStore) -> None:
    """The notebook has parts 0 to 5 in order. It never restarts the runtime, and passes no token to a function."""
    text = written(source_of(trained_run), "float16")
    places = [text.index(f"## Part {number}: ") for number in range(6)]
    assert places == sorted(places)
    assert not re.search(r"\btoken\s*=|os\.kill|exit\(", text)


def test_cells_are_parsed() -> None:
    """Cells are read from a script: Markdown without comment signs, code with comments, and named cells to fill in."""
    text = "# %% [markdown] toy\n# # Head\n#\n# words\n\n# %%\n# why\nx = 1\n\n# %% data\n"
    head, plain, filled = cells(text)
    assert (head.kind, head.text, head.toy) == ("markdown", "# Head\n\nwords", True)
    assert (plain.kind, plain.text, plain.toy) == ("code", "# why\nx = 1", False)
    assert (filled.kind, filled.text) == ("data", "")
    kinds = [cell.kind for cell in cells(WORKSHOP.read_text(encoding="utf-8"))]
    assert (kinds.count("parameters"), kinds.count("data")) == (1, 1)
    assert set(kinds) == {"markdown", "code", "parameters", "data"}


# --- hostile texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_texts_stay_in_their_literals(first: int, trained_run: RunStore) -> None:
    """If a suite has hostile texts, the two cells with its texts still only assign literals, which equal the texts.

    The other cells do not change.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    texts = HOSTILE[first:] + HOSTILE[:first]
    source = with_texts(source_of(trained_run), texts)
    book, plain = notebook(source, "float16"), notebook(source_of(trained_run), "float16")
    again = nbformat.reads(written(source, "float16"), as_version=4)
    read = TransformerManager().transform_cell
    [parameters], [data] = code(again, "parameters"), code(again, "data")
    found, held = names(read(parameters)), names(read(data))
    assert (found["MODEL"], found["SYSTEM_PROMPT"], found["STOP"]) == (texts[0], texts[0], texts)
    assert found["LORA"]["target_modules"] == texts
    assert found["PACKAGES"][:2] == ["transformers", "peft"]
    assert [row[0]["content"] for row in held["TRAINING_ROWS"]] == texts
    assert [prompt["messages"][0]["content"] for prompt in held["PROMPTS"]] == texts
    assert "\u202e" not in parameters + data

    def rest(some: Any) -> list[str]:
        return [cell.source for cell in some.cells if not cell.metadata.get("tags")]

    assert rest(book) == rest(plain)


@given(st.text())
@settings(deadline=None)
def test_any_text_survives_its_literal(text: str) -> None:
    """Any text is written as a literal on one line, and the literal evaluates to the text."""
    written_ = training_script.literal({text: [text, 1.5, None]})
    assert len(written_.splitlines()) == 1
    assert ast.literal_eval(written_) == {text: [text, 1.5, None]}


# --- execution -------------------------------------------------------------------------------------------------


GRID = r"""
settings: {epochs: 6, batch_size: 2, warmup: 0.1, rank: 4, alpha: 8, learning_rate: 2e-3, weight_decay: 0.1}
rows:
  - loraplus_lr_ratio: 16
    target_modules: '.*\.(q|v)_proj'
    scheduler: cosine_with_min_lr
    lr_scheduler_kwargs: {min_lr_rate: 0.2}
"""


@pytest.mark.slow
def test_the_notebook_gives_the_answers_of_the_run(tmp_path: Path, capsys: Any) -> None:
    """The notebook runs from top to bottom without a GPU, and gives the answers of a run with SFTTrainer.

    The variant has LoRA+, a pattern of target modules and a scheduler with options.
    """
    from nbclient import NotebookClient

    store = small_run(tmp_path, Engine.REFERENCE, GRID)
    run = store.manifest()
    capsys.readouterr()  # drop what the training printed
    with inside(tmp_path):
        assert main(["export", str(store.root), run.plan.variants[0].name, "--to", "notebook"]) == 0
    path = tmp_path / Path(capsys.readouterr().out.strip())
    verify_manifest(path.parent)
    book = nbformat.read(path, as_version=4)
    (tmp_path / "colab").mkdir()
    resources = {"metadata": {"path": str(tmp_path / "colab")}}
    NotebookClient(book, timeout=1800, kernel_name="python3", resources=resources).execute()
    answers = json.loads((tmp_path / "colab" / "answers.json").read_text(encoding="utf-8"))
    before, after = sorted(store.records(), key=lambda record: record.settings is not None)
    wanted = {case.id for case in run.suite.of(Split.MAIN)}
    assert {a["id"]: a["before"] for a in answers} == {i: before.answers[i][0].text for i in wanted}
    assert {a["id"]: a["after"] for a in answers} == {i: after.answers[i][0].text for i in wanted}
    assert any(a["before"] != a["after"] for a in answers)
    assert {p.name for p in (tmp_path / "colab").iterdir()} >= {"adapter", "merged", "train.jsonl"}
