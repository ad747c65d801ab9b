"""Tests of what a notebook is made of."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.export.notebook.cells import notebook, notices
from harness.export.notebook.contents import NotebookModel, of_run, of_suite
from harness.models.resolving import POCKET
from harness.storage.runs import RunStore
from tests.support.trained_run import inside


def test_the_variant_that_a_run_chose_is_the_default(own_run: RunStore) -> None:
    """Without a name, the notebook trains the variant that the run chose. If it chose none, the error names all."""
    run, found = own_run.manifest(), own_run.results()
    first = run.plan.variants[0]
    other = replace(first, id="other", name="other")
    own_run.write_manifest(replace(run, plan=replace(run.plan, variants=(first, other))))
    for chosen in (first.name, None):
        own_run.write_results(replace(found, choice=replace(found.choice, variant=chosen)), [], lambda: "<p>page</p>")
        if chosen:
            assert of_run(own_run, None, None).variant.name == first.name
        else:
            with pytest.raises(UsageError, match="the run chose no variant") as refused:
                of_run(own_run, None, None)
            assert "'other'" in refused.value.remedy


def test_a_variant_with_dora_has_no_notebook(own_run: RunStore) -> None:
    """The notebook's merge has no magnitudes, so DoRA is refused; for a run, the remedy exports the adapter."""
    run = own_run.manifest()
    first = run.plan.variants[0]
    plan = replace(run.plan, variants=(replace(first, settings=replace(first.settings, use_dora=True)),))
    own_run.write_manifest(replace(run, plan=plan))
    with pytest.raises(UsageError, match="DoRA") as refused:
        of_run(own_run, None, None)
    assert f"{first.name} --to adapter" in refused.value.remedy
    with pytest.raises(UsageError, match="DoRA"):
        of_suite(run.suite, plan, None, None, "pocket", None, print)


def test_a_run_on_a_gguf_file_converts_it_again(own_run: RunStore) -> None:
    """If the run's base model was made of a GGUF file, the notebook makes it of the file, too."""
    run = own_run.manifest()
    model = replace(run.model, name="smollm2", toy=False, weights="Q4_1, dequantised")
    own_run.write_manifest(replace(run, model=model))
    assert of_run(own_run, None, None).model == NotebookModel("smollm2", gguf=True)


def test_a_folder_must_be_uploaded(own_run: RunStore, tmp_path: Path) -> None:
    """A folder has its name without the path, its template is read, and command and notebook say to upload it."""
    shutil.copytree(POCKET, tmp_path / "mine")
    run = own_run.manifest()
    found = of_suite(run.suite, run.plan, None, run.plan.variants[0].name, str(tmp_path / "mine"), 3, print)
    assert found.model == NotebookModel("mine", folder=True)
    assert notices(found)[0].startswith(
        "Colab and Kaggle cannot reach this machine: upload the folder, with all its files"
    )
    (cell,) = (cell.source for cell in notebook(found).cells if cell.source.startswith("# The model is a folder"))
    with inside(tmp_path):
        exec(cell, {"Path": Path, "MODEL": "mine"})
        with pytest.raises(FileNotFoundError, match=r"Upload the folder missing, .* Or set MODEL in the settings to"):
            exec(cell, {"Path": Path, "MODEL": "missing"})
    assert (found.seed, found.turns is not None, found.origin["grid"]) == (3, True, run.plan.grid)
    assert found.parameters is not None
    assert found.parameters < 1e7
