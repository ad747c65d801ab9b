"""Tests of the cells of notebooks: the notebook runs, and texts of suites never become code."""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
from harness.core.suite import Assertion, Case, Example, Message, Split
from harness.core.trainer_arguments import lora_arguments, sft_arguments
from harness.core.units import DeviceKind
from harness.export.notebook.cells import WORKSHOP, cells, notebook, notices, write, written
from harness.export.notebook.contents import SMALL, Contents, NotebookModel, of_run, of_suite
from harness.models.resolving import POCKET
from harness.models.tokenizer_files import read_tokenizer
from harness.scoring import judging, score
from harness.storage.runs import RunStore
from tests.support.trained_run import inside, small_run

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


def contents_of(store: RunStore) -> Contents:
    """Return the contents of the notebook of the run's only variant."""
    return of_run(store, None, None)


def with_texts(contents: Contents, texts: list[str]) -> Contents:
    """Return contents with these texts wherever a suite, a model, a variant and a run have texts."""
    first = texts[0]
    wanted = tuple(Assertion("contains-any", texts, metric=text) for text in texts)
    both = (*wanted, Assertion("assert-set", children=(Assertion("equals", {first: [first, 1.5, None]}),)))
    cases = tuple(Case(text, (Message("user", text),), both) for text in texts)
    examples = tuple(Example((Message("user", text), Message("assistant", text))) for text in texts)
    decoding = replace(contents.suite.decoding, stop=tuple(texts))
    suite = replace(contents.suite, name=first, cases=cases, examples=examples)
    settings = replace(contents.variant.settings, target_modules=tuple(texts))
    return replace(
        contents,
        origin={"suite": first, "variant": first},
        suite=replace(suite, system_prompt=first, decoding=decoding),
        variant=replace(contents.variant, name=first, settings=settings),
        model=replace(contents.model, name=first, revision=first),
        versions=dict.fromkeys(("transformers", "peft"), f"1.0\n{first}"),
        questions=tuple(texts),
    )


# --- contents ------------------------------------------------------------------------------------------------


def test_the_notebook_is_valid_and_the_same_each_time(trained_run: RunStore) -> None:
    """The notebook is valid for nbformat, its code cells compile, and a second export has the same bytes."""
    text = written(contents_of(trained_run))
    book = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert (book.nbformat, book.metadata.accelerator) == (4, "GPU")
    for number, source in enumerate(code(book)):
        compile(source, f"cell {number}", "exec")
    assert text == written(contents_of(trained_run))


def test_the_parameters_are_the_variants(trained_run: RunStore) -> None:
    """The cell `parameters` has the variant's arguments for PEFT and TRL; upload and GGUF are switched off."""
    contents = contents_of(trained_run)
    [text] = code(notebook(contents), "parameters")
    found = names(text)
    assert found["LORA"] == lora_arguments(contents.variant.settings)
    assert found["TRAINING"] == sft_arguments(contents.variant.settings, contents.seed)
    assert (found["MODEL"], found["REVISION"], found["QUANTIZE"]) == ("pocket", None, True)
    assert (found["COMPUTE_DTYPE"], found["MERGED_DTYPE"], found["MAX_NEW_TOKENS"]) == ("float16", "float16", 12)
    assert (found["HUB_REPOSITORY"], found["MAKE_GGUF"], found["NEEDS_GPU"]) == ("", False, False)
    assert found["FROM"]["variant"] == contents.variant.name
    assert f"peft=={contents.versions['peft']}" in found["PACKAGES"]


def test_a_run_on_a_gpu_keeps_its_precision(own_run: RunStore) -> None:
    """If the run was on a GPU, the notebook has its compute data type, quantisation and Hub revision."""
    run = own_run.manifest()
    on = replace(run.provenance.machine, kind=DeviceKind.CUDA, compute_dtype="bfloat16")
    model = replace(run.model, name="owner/name", revision="0123abc", toy=False)
    plain = replace(run.plan.variants[0], settings=Settings(quantization=Quantization.NONE))
    plan = replace(run.plan, variants=(plain,))
    changed = replace(run, model=model, plan=plan, provenance=replace(run.provenance, machine=on))
    own_run.write_manifest(changed)
    [text] = code(notebook(contents_of(own_run)), "parameters")
    found = names(text)
    assert (found["COMPUTE_DTYPE"], found["QUANTIZE"], found["NEEDS_GPU"]) == ("bfloat16", False, False)
    assert (found["MODEL"], found["REVISION"]) == ("owner/name", "0123abc")


def test_the_data_has_the_rehearsal_rows_of_a_run(own_run: RunStore) -> None:
    """The rehearsal rows that the trial was trained on follow the suite's rows; without rehearsal there are none."""
    run = own_run.manifest()
    rows = tuple(
        RehearsalRow((Message("user", f"Question {n}?"), Message("assistant", f"Answer {n}.")), 9) for n in range(6)
    )
    chosen = replace(run.plan.variants[0].settings, rehearsal=4)
    known = Rehearsal((), 0, (RehearsalAnswers(chosen.quantization, rows, {}),))
    plan = replace(run.plan, variants=(replace(run.plan.variants[0], settings=chosen),))
    plain = names(code(notebook(contents_of(own_run)), "data")[0])
    own_run.write_manifest(replace(run, rehearsal=known, plan=plan))
    rehearsed = names(code(notebook(contents_of(own_run)), "data")[0])
    added = [as_chat(row.messages) for row in draw(rows, chosen, run.plan.seeds[0])]
    assert len(added) == 4
    assert rehearsed == plain | {"TRAINING_ROWS": plain["TRAINING_ROWS"] + added}


def test_rehearsal_without_a_run_asks_in_the_order_of_the_draw(trained_run: RunStore) -> None:
    """Before any run, the first rows that the notebook keeps of good answers are those that a run would draw."""
    plain = contents_of(trained_run)
    chosen = replace(plain.variant.settings, rehearsal=3)
    known = Rehearsal(tuple(f"Question {n}?" for n in range(9)), 0)
    variant = replace(plain.variant, settings=chosen)
    plan = replace(trained_run.manifest().plan, variants=(variant,))
    contents = of_suite(replace(plain.suite, system_prompt="Be brief."), plan, known, None, "pocket", 5, print)
    data = names(code(notebook(contents), "data")[0])
    talks = [(Message("system", "Be brief."), Message("user", text)) for text in known.prompts]
    rows = [RehearsalRow((*talk, Message("assistant", "Yes.")), 9) for talk in talks]
    assert data["REHEARSAL_PROMPTS"][:3] == [row.messages[1].content for row in draw(rows, chosen, 5)]
    assert sorted(data["REHEARSAL_PROMPTS"]) == sorted(known.prompts)


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
    book = notebook(replace(contents_of(trained_run), turns=turns))
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
    contents = contents_of(trained_run)
    [text] = code(notebook(contents), "data")
    found, suite = names(text), contents.suite
    assert [row[-1]["content"] for row in found["TRAINING_ROWS"]] == [e.messages[-1].content for e in suite.examples]
    assert [prompt["id"] for prompt in found["PROMPTS"]] == [case.id for case in suite.of(Split.MAIN)]
    assert {prompt["role"] for prompt in found["PROMPTS"]} == {"learn", "retain"}


def test_the_toy_model_is_named_as_such(trained_run: RunStore) -> None:
    """Only the notebook of the pocket model says so, in its first cell, and installs the package with that model."""
    contents = contents_of(trained_run)
    book = notebook(contents)
    assert book.cells[0].source.startswith("**This notebook uses a toy model.**")
    assert "HARNESS" in names(code(book, "parameters")[0])
    other = notebook(replace(contents, model=NotebookModel("owner/name")))
    said = "\n".join(cell.source for cell in other.cells if "own-code" not in cell.metadata.get("tags", []))
    assert "toy" not in said
    assert "HARNESS" not in said


def test_random_weights_have_no_notebook(own_run: RunStore) -> None:
    """If a run's model has random weights, or the name of a shape is given, there is no notebook."""
    run = own_run.manifest()
    own_run.write_manifest(replace(run, model=replace(run.model, shape_only=True)))
    with pytest.raises(UsageError, match="has random weights, so there is nothing to export"):
        contents_of(own_run)
    with pytest.raises(UsageError, match="has random weights, so there is nothing to export"):
        of_suite(run.suite, run.plan, None, None, "shape:llama-2-7b", None, print)


def test_cases_that_need_more_than_a_text_are_not_scored(trained_run: RunStore) -> None:
    """A case with an assertion that needs more than the answer's text has no assertions, but a reason, also printed."""
    contents = contents_of(trained_run)
    first, second, *rest = contents.suite.cases
    similar = replace(first, assertions=(*first.assertions, Assertion("similar", "Dottie")))
    graded = replace(second, assertions=(*second.assertions, Assertion("llm-rubric", "is polite")))
    changed = replace(contents, suite=replace(contents.suite, cases=(similar, graded, *rest)))
    found = {each["id"]: each for each in names(code(notebook(changed), "data")[0])["PROMPTS"]}
    assert found[first.id]["assertions"] == []
    assert found[first.id]["not_scored"] == "similar compares texts with another model"
    assert found[second.id]["assertions"] == [{"type": "contains", "value": "Dottie"}], "as in a run without a judge"
    assert (
        notices(changed)[-1] == "1 case of 4 cannot be scored in a notebook: similar compares texts with another model."
    )


def guarded(book: Any, capability: tuple[int, int] | None, free: float, **settings: Any) -> dict[str, Any]:
    """Execute the checks of the GPU with a fake torch, and return the names; `capability` None stands for no GPU."""
    [source] = [source for source in code(book) if "CUDA = torch.cuda.is_available()" in source]
    checks = source[source.index("CUDA = ") : source.index("def free")]
    cuda = SimpleNamespace(
        is_available=lambda: capability is not None,
        get_device_capability=lambda: capability,
        get_device_name=lambda: "Some GPU",
        is_bf16_supported=lambda including_emulation: bool(capability and capability >= (8, 0)),
        mem_get_info=lambda: (free * 2**30, 16 * 2**30),
    )
    space = names(code(book, "parameters")[0]) | {"torch": SimpleNamespace(cuda=cuda)} | settings
    exec(checks, space)
    return space


@pytest.mark.parametrize(
    ("capability", "free", "error"),
    [(None, 0, "This model needs a GPU"), ((6, 0), 16, "Some GPU is too old"), ((7, 5), 9, "at least 12.6 GiB")],
)
def test_an_unsuitable_gpu_is_reported_at_once(
    trained_run: RunStore, capability: tuple[int, int] | None, free: float, error: str
) -> None:
    """Before a model is loaded, the notebook stops without a GPU, on one that is too old, or with too little memory."""
    contents = replace(contents_of(trained_run), model=NotebookModel("owner/name"), parameters=SMALL)
    book = notebook(replace(contents, memory=12.6 * 2**30))
    with pytest.raises(RuntimeError, match=error):
        guarded(book, capability, free)


def test_a_t4_computes_in_fp16(trained_run: RunStore) -> None:
    """Where bfloat16 is only emulated, as on a T4, the notebook computes and merges in float16."""
    book = notebook(contents_of(trained_run))
    wanted = {"COMPUTE_DTYPE": "bfloat16", "MERGED_DTYPE": "bfloat16"}
    for capability, dtype in (((7, 5), "float16"), ((8, 0), "bfloat16")):
        found = guarded(book, capability, 15, **wanted)
        assert [found[name] for name in wanted] == [dtype, dtype]


def test_existing_files_are_not_changed(trained_run: RunStore, tmp_path: Path) -> None:
    """A notebook with the same text is written again; a file with another text, or another suffix, is an error."""
    contents = contents_of(trained_run)
    path = write(contents, tmp_path / "n.ipynb")
    assert write(contents, path) == path
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write(contents, path)
    assert path.read_text(encoding="utf-8") == "{}"
    with pytest.raises(UsageError, match="is no notebook"):
        write(contents, tmp_path / "n.txt")


def test_all_parts_and_no_secret(trained_run: RunStore) -> None:
    """The notebook has parts 0 to 5 in order. It never restarts the runtime, and passes no token to a function."""
    text = written(contents_of(trained_run))
    places = [text.index(f"## Part {number}: ") for number in range(6)]
    assert places == sorted(places)
    assert not re.search(r"\btoken\s*=|os\.kill|exit\(", text)


def test_the_merge_uses_every_trained_tensor(trained_run: RunStore) -> None:
    """The merge gives the sum for LoRA, and stops if a tensor, such as DoRA's magnitude, would be left out."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    [cell] = [source for source in code(notebook(contents_of(trained_run))) if "def merged_weights" in source]
    [merge] = [node for node in ast.parse(cell).body if getattr(node, "name", "") == "merged_weights"]
    scope: dict[str, Any] = {"torch": torch, "LoraLayer": LoraLayer, "MERGED_DTYPE": "float32"}
    exec(ast.unparse(merge), scope)
    for dora in (False, True):
        config = LoraConfig(r=2, target_modules=["0"], use_dora=dora, init_lora_weights=False)
        model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 3)), config).get_base_model()
        if dora:
            with pytest.raises(RuntimeError, match=r"leave out 0\.lora_magnitude_vector"):
                list(scope["merged_weights"](model))
        else:
            merged, given = dict(scope["merged_weights"](model)), torch.ones(1, 4)
            expected = torch.nn.functional.linear(given, merged["0.weight"], merged["0.bias"])
            assert torch.allclose(model(given), expected, atol=1e-6)


def test_cells_are_parsed() -> None:
    """Cells are read from a script: Markdown without comment signs, code with comments, and named cells to fill in."""
    text = "# %% [markdown] toy\n# # Head\n#\n# words\n\n# %%\n# why\nx = 1\n\n# %% data\n"
    head, plain, filled = cells(text)
    assert (head.kind, head.text, head.only) == ("markdown", "# Head\n\nwords", {"toy"})
    assert (plain.kind, plain.text, plain.only) == ("code", "# why\nx = 1", frozenset())
    assert (filled.kind, filled.text) == ("data", "")
    kinds = [cell.kind for cell in cells(WORKSHOP.read_text(encoding="utf-8"))]
    assert [kinds.count(kind) for kind in ("parameters", "data", "own-code")] == [1, 1, 1]
    assert set(kinds) == {"markdown", "code", "parameters", "data", "own-code"}


# --- hostile texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_texts_stay_in_their_literals(first: int, trained_run: RunStore) -> None:
    """If a suite has hostile texts, the cells with its texts still only assign literals, which equal the texts.

    The other cells do not change.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    texts = HOSTILE[first:] + HOSTILE[:first]
    plain = replace(contents_of(trained_run), questions=("one",))
    contents = with_texts(plain, texts)
    again = nbformat.reads(written(contents), as_version=4)
    read = TransformerManager().transform_cell
    [parameters], [data], [own] = (code(again, tag) for tag in ("parameters", "data", "own-code"))
    found, held = names(read(parameters)), names(read(data))
    assert (found["MODEL"], found["SYSTEM_PROMPT"], found["STOP"]) == (texts[0], texts[0], texts)
    assert found["LORA"]["target_modules"] == texts
    assert found["PACKAGES"][:2] == ["transformers", "peft"]
    assert [row[0]["content"] for row in held["TRAINING_ROWS"]] == texts
    assert [prompt["messages"][0]["content"] for prompt in held["PROMPTS"]] == texts
    assert [one.get("metric") for one in held["PROMPTS"][0]["assertions"]] == [*texts, None]
    assert held["REHEARSAL_PROMPTS"] == texts
    assert "\u202e" not in parameters + data
    modules = names(read(own))["FILES"]
    assert modules["harness/scoring/judging.py"] == Path(judging.__file__).read_text(encoding="utf-8")

    def rest(some: Any) -> list[str]:
        return [cell.source for cell in some.cells if not cell.metadata.get("tags")]

    assert rest(notebook(contents)) == rest(notebook(plain))


@given(st.text())
@settings(deadline=None)
def test_any_text_survives_its_literal(text: str) -> None:
    """Any text is written as a literal on one line, and the literal evaluates to the text."""
    written_ = training_script.literal({text: [text, 1.5, None, math.inf, -math.inf]})
    assert len(written_.splitlines()) == 1
    assert ast.literal_eval(written_) == {text: [text, 1.5, None, math.inf, -math.inf]}


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
    """The notebook of a suite runs from top to bottom without a GPU, and gives answers and verdicts of SFTTrainer.

    The variant has LoRA+, a pattern of target modules and a scheduler with options.
    """
    from nbclient import NotebookClient

    store = small_run(tmp_path, Engine.REFERENCE, GRID)
    run = store.manifest()
    with inside(tmp_path):
        assert main(["notebook", "small", "--output", "colab/notebook.ipynb", "--quiet"]) == 0
    book = nbformat.read(tmp_path / "colab" / "notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "colab")}}
    NotebookClient(book, timeout=1800, kernel_name="python3", resources=resources).execute()
    answers = json.loads((tmp_path / "colab" / "answers.json").read_text(encoding="utf-8"))
    before, after = sorted(store.records(), key=lambda record: record.settings is not None)
    cases = {case.id: case for case in run.suite.of(Split.MAIN)}
    for name, record in (("before", before), ("after", after)):
        texts = {i: record.answers[i][0].text for i in cases}
        assert {a["id"]: a[name] for a in answers} == texts
        assert {a["id"]: a[f"passed_{name}"] for a in answers} == {i: score(cases[i], texts[i]).passed for i in cases}
    assert any(a["before"] != a["after"] for a in answers)
    assert {p.name for p in (tmp_path / "colab").iterdir()} >= {"adapter", "merged", "train.jsonl"}
