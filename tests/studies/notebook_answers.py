"""Executes the notebook that is written before any run, and compares it with a run of the same training.

    python -m tests.studies.notebook_answers --output reports/studies/notebook.json
    python -m tests.studies.notebook_answers --only smollm2 --small --output FILE
    python -m tests.studies.notebook_answers --profile t4 --output FILE

The notebook is of `suites/workshop`, with rehearsal, and is executed with nbclient, on a CPU unless `--profile t4` asks
for a GPU. At its end, every module of the package must come from the notebook's own files, since Colab has no others;
only the toy model is taken from the package. The run uses SFTTrainer. Compared are every answer before and after the
training, every verdict, and the training rows with the answers of rehearsal. With `--small`, there are five cases of
each role, 24 prompts for rehearsal, and 10 rows. The file is written again after each model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from harness.cli import main as harness_command
from harness.core.conversations import as_chat
from harness.core.names import BASE
from harness.core.suite import Role, Split
from harness.hardware.environment import versions
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from harness.suites import load_suite
from harness.suites.rehearsal import POOL
from tests.studies.placebos import lines
from tests.support.trained_run import inside

SUITE = Path(__file__).resolve().parents[2] / "suites" / "workshop"
PACKAGE = str(SUITE.parents[1])
GRID = "one"
MODULES = """\
imported = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "harness"}
assert imported and all(file.startswith(OWN) for file in imported.values()), imported
"""
SMALL = {"cases": 5, "prompts": 24, "rows": 10}


@dataclass(frozen=True)
class Training:
    """The settings of the only variant, and whether the kernel needs the package, in which the toy model is."""

    settings: Mapping[str, Any]
    package: bool


COMMON = {
    "learning_rate": 1e-3, "batch_size": 4, "warmup": 0.1, "scheduler": "cosine", "rank": 16, "alpha": 32,
    "target_modules": "all-linear",
}  # fmt: skip
MODELS = {
    "pocket": Training({**COMMON, "epochs": 6, "rehearsal": 16}, package=True),
    "smollm2": Training({**COMMON, "epochs": 4, "rehearsal": 60}, package=False),
}


def study(model: str, training: Training, work: Path, *, small: bool, profile: str) -> dict[str, Any]:
    """Execute the notebook, make the run, and return the figures."""
    shutil.copytree(SUITE, work / "suite")
    settings = {**training.settings, **({"rehearsal": SMALL["rows"]} if small else {})}
    if small:
        make_small(work / "suite")
    grid = {"seeds": [0], "rows": [{"name": GRID, **settings}]}
    (work / "suite" / "grids" / f"{GRID}.yaml").write_text(json.dumps(grid), encoding="utf-8")
    words = ("suite", "--grid", GRID, "--model", model)
    with inside(work):
        call("notebook", *words, "--output", "before/notebook.ipynb")
        execute(work / "before", package=training.package, gpu=profile != "cpu")
        call("run", *words, "--engine", "reference", "--profile", profile, "--confirm-seeds", "0", "--output", "run")
        call("notebook", "run", "--output", "after/notebook.ipynb")
    return compared(work, RunStore(work / "run"))


def make_small(suite: Path) -> None:
    """Leave a few main cases of each role, and a few prompts for rehearsal."""
    wanted = load_suite(suite).of(Split.MAIN)
    kept = {case.id for role in Role for case in [each for each in wanted if each.role is role][: SMALL["cases"]]}
    whole = yaml.safe_load((suite / "suite.yaml").read_text(encoding="utf-8"))
    whole["tests"] = [case for case in whole["tests"] if isinstance(case, dict) and case.get("id") in kept]
    (suite / "suite.yaml").write_text(json.dumps(whole), encoding="utf-8")
    prompts = POOL.read_text(encoding="utf-8").splitlines(keepends=True)[: SMALL["prompts"]]
    (suite / "rehearsal.jsonl").write_text("".join(prompts), encoding="utf-8")


def call(*words: str) -> None:
    if code := harness_command(words):
        raise SystemExit(f"harness {' '.join(words)} ended with exit code {code}")


def execute(folder: Path, *, package: bool, gpu: bool) -> None:
    """Execute the notebook in a folder, and store it with its outputs."""
    from nbclient import NotebookClient

    path = folder / "notebook.ipynb"
    book = nbformat.read(path, as_version=4)
    environment = os.environ | {"PYTHONPATH": PACKAGE if package else "", "PYTHONSAFEPATH": "1"}
    environment |= {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    client = NotebookClient(book, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel(env=environment):
        try:
            for number, cell in enumerate(book.cells):
                client.execute_cell(cell, number)
            # It is no cell of the notebook, but executed behind the last one.
            book.cells.append(nbformat.v4.new_code_cell(MODULES))
            client.execute_cell(book.cells[-1], len(book.cells) - 1)
        finally:
            nbformat.write(book, folder / "executed.ipynb")


def compared(work: Path, store: RunStore) -> dict[str, Any]:
    """Compare the notebook's answers, verdicts and rows with those of the run."""
    found = {each["id"]: each for each in json.loads((work / "before" / "answers.json").read_text(encoding="utf-8"))}
    results, run = store.results(), store.manifest()
    figures: dict[str, Any] = {"cases": len(run.suite.of(Split.MAIN)), "in_notebook": len(found)}
    for name, variant in (("before", BASE), ("after", GRID)):
        own = {sample.case: sample for sample in results.samples if sample.variant == variant}
        differing = [
            {"id": case, "notebook": found[case][name], "run": sample.answer.text}
            for case, sample in own.items()
            if found[case][name] != sample.answer.text
        ]
        verdicts = [case for case, sample in own.items() if found[case][f"passed_{name}"] is not sample.score.passed]
        figures[name] = {
            "answers": len(own), "equal_answers": len(own) - len(differing), "equal_verdicts": len(own) - len(verdicts),
            "passed": sum(sample.score.passed for sample in own.values()), "differing": differing,
            "other_verdicts": verdicts,
        }  # fmt: skip
    rows = [json.loads(line)["messages"] for line in (work / "before" / "train.jsonl").open(encoding="utf-8")]
    added = run.added_rows(run.plan.variants[0].settings, run.plan.seeds[0])
    wanted = [as_chat(example.messages) for example in (*run.suite.examples, *added)]
    figures["rows"] = {"notebook": len(rows), "run": len(wanted), "equal": sum(map(_same, rows, wanted))}
    figures["notebook_of_the_run_has_the_same_rows"] = _rows_of(work / "after" / "notebook.ipynb") == wanted
    return figures


def _same(one: object, other: object) -> bool:
    return one == other


def _rows_of(notebook: Path) -> object:
    [cell] = [cell for cell in nbformat.read(notebook, as_version=4).cells if "data" in cell.metadata.get("tags", [])]
    space: dict[str, object] = {}
    exec(cell.source, space)
    return space["TRAINING_ROWS"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(MODELS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--profile", choices=("cpu", "t4"), default="cpu")
    parser.add_argument("--keep", type=Path, help="Folder for suites, notebooks and runs; default: a temporary one.")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found = json.loads(given.output.read_text(encoding="utf-8")) if given.output.exists() else {}
    found["command"] = "python -m tests.studies.notebook_answers --output FILE"
    found["versions"] = versions() | {"python": ".".join(map(str, sys.version_info[:3]))}
    for model, training in MODELS.items():
        if given.only in (None, model):
            with tempfile.TemporaryDirectory(prefix="harness-notebook-") as name:
                before = _processor_seconds()
                found[model] = study(
                    model, training, (given.keep or Path(name)) / model, small=given.small, profile=given.profile
                )
                found[model] |= {"small": given.small, "profile": given.profile}
                found[model]["processor_seconds"] = round(_processor_seconds() - before)
            write_text(given.output, lines(found))
            print(model, json.dumps(found[model], indent=1))


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
