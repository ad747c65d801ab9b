"""Tests of `harness next`: the grid that it writes, where, and the command that it prints."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.analysis.next_trials import next_steps
from harness.cli import cli, main
from harness.core.run_results import Choice, Results
from harness.core.settings import Settings
from harness.core.training_outcome import Status
from harness.report import samples_file
from harness.runner.next_grid import NO_GRID, NOTHING, UNFINISHED
from harness.storage.runs import RunStore
from harness.suites.grids import load_plan
from tests.support.tried_grids import Tried, results

LOW, HIGH = (Settings(rate, epochs=4.0).resolved() for rate in (1e-4, 1e-3))
SUITE = """\
description: A small suite.
train: file://train.jsonl
tests:
  - {id: one, role: learn, prompt: When?, assert: [{type: icontains, value: now}]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a suite, below the current directory."""
    monkeypatch.chdir(tmp_path)
    suite = Path("suites/small")
    (suite / "grids").mkdir(parents=True)
    (suite / "suite.yaml").write_text(SUITE, encoding="utf-8")
    (suite / "train.jsonl").write_text('{"prompt": "When?", "completion": "now"}\n', encoding="utf-8")
    return suite


def stored(folder: str = "suites/small", command: str = "", made: Results | None = None) -> Path:
    """Store a run with next trials, or the results `made`, and return its directory."""
    made = made or results(Tried(LOW, 20), Tried(HIGH, 36, lost=20), folder=folder)
    provenance = replace(made.run.provenance, command=command or f"harness run {folder} --grid quick")
    made = replace(made, run=replace(made.run, provenance=provenance))
    store = RunStore(Path("runs/one"))
    store.write_manifest(made.run)
    store.write_results(made, samples_file.samples(made), lambda: "")
    return store.root


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["next", *arguments], obj=())
    assert done.exit_code == 0, done.output
    return done.output


def test_the_grid_is_next_to_the_others(folder: Path) -> None:
    """The grid is written into the suite's folder, and holds the proposed names and settings under the run's seeds."""
    run = stored()
    said = printed(str(run))
    plan = load_plan(folder / "grids/next.yaml")
    trials = next_steps(RunStore(run).results()).trials
    assert trials
    assert [(v.name, v.settings) for v in plan.variants] == [(trial.name, trial.settings) for trial in trials]
    assert plan.seeds == (0, 1, 2)
    assert all(f"{trial.name}: {trial.reason}" in said for trial in trials)


def test_the_plan_of_the_grid_is_shown(folder: Path) -> None:
    """`harness plan SUITE --grid next` accepts the grid that `harness next` wrote."""
    printed(str(stored()))
    assert main(["plan", str(folder), "--grid", "next"]) == 0


@pytest.mark.usefixtures("folder")
def test_the_command_keeps_what_still_applies() -> None:
    """The printed command has the options of the run, such as its model, but not its grid, seeds and directory."""
    run = stored(
        command="harness run suites/small --grid=t4 --model 'my model' --seed 1 --fresh --output out --budget 2h"
    )
    said = printed(str(run)).splitlines()[-1]
    assert shlex.split(said.removeprefix("Run it: ")) == [
        "harness", "run", "suites/small", "--grid", "next", "--model", "my model", "--budget", "2h",
    ]  # fmt: skip


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["pytest", "harness run 'suites/small"])
def test_a_run_without_the_command_names_its_model(command: str) -> None:
    """If the run was not made by `harness run`, or its command is damaged, the printed command names its model."""
    said = printed(str(stored(command=command))).splitlines()[-1]
    assert said == "Run it: harness run suites/small --grid next --model meta-llama/Llama-2-7b-chat-hf"


def test_no_grid_is_overwritten(folder: Path) -> None:
    """If next.yaml has another text, the grid is written as next-2.yaml; the same grid is written once."""
    (folder / "grids/next.yaml").write_text("mine", encoding="utf-8")
    run = stored()
    assert "--grid next-2" in printed(str(run))
    assert "--grid next-2" in printed(str(run))
    assert (folder / "grids/next.yaml").read_text(encoding="utf-8") == "mine"


@pytest.mark.usefixtures("folder")
def test_a_given_file_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    """`--output` with an existing file of another text is an error, and so is a name that is no grid's."""
    run = stored()
    Path("mine.yaml").write_text("mine", encoding="utf-8")
    assert main(["next", str(run), "--output", "mine.yaml"]) == 2
    assert main(["next", str(run), "--output", "mine.txt"]) == 2
    assert "mine.yaml exists already" in capsys.readouterr().err
    assert Path("mine.yaml").read_text(encoding="utf-8") == "mine"


@pytest.mark.usefixtures("folder")
def test_a_grid_elsewhere_must_be_copied() -> None:
    """If the grid is not among the suite's grids, the output says where to copy it."""
    said = printed(str(stored()), "--output", "later.yaml")
    assert "Copy it to suites/small/grids/later.yaml before you run it." in said
    assert "--grid later" in said


def test_no_more_rehearsal_than_the_suites_own_pool_has(folder: Path) -> None:
    """The grid asks for no more rehearsal rows than the suite's own `rehearsal.jsonl` has prompts."""
    texts = ["Name a colour.", "Why is the sky blue?", "How do I boil an egg?"]
    (folder / "rehearsal.jsonl").write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts), encoding="utf-8")
    printed(str(stored()))
    amounts = {each.settings.rehearsal for each in load_plan(folder / "grids/next.yaml").variants}
    assert max(amounts) == len(texts)
    assert main(["plan", str(folder), "--grid", "next"]) == 0


def test_without_trials_it_is_said_that_no_grid_was_written(folder: Path) -> None:
    """If only changes of the suite are proposed, the command says that it wrote no grid."""
    made = results(Tried(HIGH, 3), folder=str(folder))
    said = printed(str(stored(made=made)), "--output", "later.yaml")
    assert "In the suite: " in said
    assert said.rstrip().endswith(NO_GRID)
    assert not Path("later.yaml").exists()


@pytest.mark.usefixtures("folder")
def test_a_suite_that_is_gone() -> None:
    """If the suite's folder no longer exists, the grid is in the run's directory."""
    run = stored("suites/gone")
    assert f"Wrote {run}/next.yaml." in printed(str(run))
    assert load_plan(run / "next.yaml").variants


@pytest.mark.usefixtures("folder")
def test_nothing_to_try_is_said() -> None:
    """If the results speak for nothing, the command says so, writes nothing and exits with 0."""
    made = results(Tried(HIGH, 40), held_out=60, again={"passed": 60, "lost": 0}, folder="suites/small")
    assert printed(str(stored(made=made))).strip() == NOTHING
    assert not list(Path().rglob("next*.yaml"))


@pytest.mark.usefixtures("folder")
def test_changes_of_the_suite_alone_write_no_grid() -> None:
    """If only the suite has to change, the changes are printed and no grid is written."""
    said = printed(str(stored(made=results(Tried(HIGH, 40), folder="suites/small"))))
    assert "In the suite: Hold out about a third" in said
    assert not list(Path().rglob("next*.yaml"))


@pytest.mark.usefixtures("folder")
def test_an_unfinished_run_is_continued_first() -> None:
    """If trials have no result yet, nothing is proposed, and the run's own command is printed."""
    made = results(Tried(LOW, 20), Tried(HIGH, 36, lost=20), folder="suites/small")
    stopped = replace(made.variants[0], statuses=(Status.SUCCEEDED, Status.SUCCEEDED, Status.CANCELLED))
    run = stored(made=replace(made, variants=(stopped, *made.variants[1:])))
    assert printed(str(run)).splitlines() == [UNFINISHED, "harness run suites/small --grid quick"]


@pytest.mark.usefixtures("folder")
def test_the_command_of_an_edited_run_is_not_shown() -> None:
    """If an unfinished run has another program as its command, the command does not tell the user to run that."""
    made = results(Tried(LOW, 20), Tried(HIGH, 36, lost=20), folder="suites/small")
    stopped = replace(made.variants[0], statuses=(Status.SUCCEEDED, Status.SUCCEEDED, Status.CANCELLED))
    run = stored(command="rm -rf ~", made=replace(made, variants=(stopped, *made.variants[1:])))
    assert "rm" not in printed(str(run))


@pytest.mark.usefixtures("folder")
def test_a_run_without_a_choice_says_why() -> None:
    """If there is neither a choice nor anything to try, the reasons why nothing was chosen are printed."""
    made = results(Tried(LOW, 20), folder="suites/small")
    none = replace(made, variants=(), choice=Choice(None, ("An older version stored these results.",)))
    assert printed(str(stored(made=none))).splitlines() == [NOTHING, "An older version stored these results."]


def test_a_suite_in_a_file_of_another_name(folder: Path) -> None:
    """If the suite is a promptfooconfig.yaml, the printed command names that file, and the grid lies beside it."""
    file = (folder / "suite.yaml").rename(folder / "promptfooconfig.yaml")
    made = results(Tried(LOW, 20), Tried(HIGH, 36, lost=20), folder=str(folder))
    made = replace(made, run=replace(made.run, suite=replace(made.run.suite, file=file.name)))
    said = printed(str(stored(command=f"harness run {file} --grid quick --model m", made=made)))
    assert (folder / "grids/next.yaml").is_file()
    assert f"Run it: harness run {file} --grid next --model m\n" in said
