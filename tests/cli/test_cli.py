"""The command line: every mistake has one message with place and remedy, ends with 2, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

import harness
from harness.cli import main
from harness.models.resolving import POCKET
from harness.storage.cache import Cache
from harness.storage.runs import RunStore
from tests.support.small_suite import small_suite
from tests.support.synthetic_runs import results

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from harness.storage.runs import RunStore
with RunStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with the suite `small` and no GPU, to call commands in."""
    small_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    """Each file and folder below, with what it holds."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says; it must say it once, on stderr, and have written nothing."""
    before = everything(Path.cwd())
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("Error:") == 1
    assert "Traceback" not in said.err
    assert everything(Path.cwd()) == before
    return said.err


def new(path: str, content: str | bytes = "") -> Change:
    """Writes a file."""

    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def edit(path: str, old: str, by: str) -> Change:
    """Replaces a text in a file, wherever it stands."""

    def change(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, by), encoding="utf-8")

    return change


def model(*changes: Change) -> Change:
    """A copy of the toy model in `mine`, without its weights, changed."""

    def change(folder: Path) -> None:
        shutil.copytree(POCKET, folder / "mine", ignore=shutil.ignore_patterns("*.safetensors"))
        new("mine/model.safetensors")(folder)
        for each in changes:
            each(folder)

    return change


def gone(pattern: str) -> Change:
    """Deletes files or folders."""

    def change(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def nothing(folder: Path) -> None:
    """Leaves the folder as it is."""


def begun(path: str) -> Change:
    """A run that was begun and has no results."""
    return lambda folder: RunStore(folder / path).write_manifest(results(count=2, failures=False).run)


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Another process works in this run's directory."""
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate()


# --- bad input ---------------------------------------------------------------------------------------------------

GRID_FILE = "small/grids/quick.yaml"
SUITES: dict[str, tuple[Change, str, str]] = {
    "not YAML": (new("small/suite.yaml", "tests: [\n  a: {"), "suite.yaml:3:1: not valid YAML", "Check indentation"),
    "an unknown key": (
        edit("small/suite.yaml", '"margin"', '"margn"'),
        'suite.yaml:3:2: unknown key "margn"',
        'Did you mean "margin"?',
    ),
    "an unknown assertion": (
        edit("small/suite.yaml", '"contains"', '"containz"'),
        'suite.yaml:15:14: unknown assertion type "containz"',
        'Did you mean "contains"?',
    ),
    "an id twice": (
        edit("small/suite.yaml", '"learn-who"', '"learn-name"'),
        'suite.yaml:21:10: two cases have the id "learn-name": suite.yaml:8:3 and suite.yaml:20:3',
        "Give each its own id",
    ),
    "a training line that is not JSON": (
        new("small/train.jsonl", '{"prompt": "a", "completion": "b"}\n{\'prompt\': 1}\n'),
        "train.jsonl:2:2: not valid JSON",
        "Every line must be one JSON object",
    ),
    "a training line without an answer": (
        new("small/train.jsonl", '{"prompt": "a"}\n'),
        'train.jsonl:1: "completion" is missing',
        'Add "completion: ..."',
    ),
    "no such axis": (
        new(GRID_FILE, "axes: {learning_rat: [1]}"),
        'quick.yaml:1:8: unknown key "learning_rat"',
        'Did you mean "learning_rate"?',
    ),
    "an empty grid": (new(GRID_FILE), "quick.yaml:1:1: the grid is empty", "Add axes"),
    "a grid of seeds alone": (new(GRID_FILE, "seeds: [0]"), "quick.yaml:1:1: the grid is empty", "Add axes"),
    "an empty axis": (new(GRID_FILE, "axes: {rank: []}"), "quick.yaml:1:14: rank: is empty", "Fill it in"),
}


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
@pytest.mark.parametrize("mistake", SUITES)
def test_a_mistake_in_a_suite(capsys: pytest.CaptureFixture[str], here: Path, mistake: str, command: str) -> None:
    """A mistake in a suite or its grid is told in the same words by whatever reads it, with file and line."""
    change, said, remedy = SUITES[mistake]
    change(here)
    error = error_of(capsys, command, "small")
    assert said in error
    assert remedy in error


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_no_such_suite(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Where there is no such suite, those that are there are named."""
    assert error_of(capsys, command, "smal") == (
        'Error: smal: there is no such suite\nDid you mean "small"? Suites here: small.\n'
    )


def test_a_folder_that_is_no_suite(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """A folder that is there is not said to be missing: what it lacks is suite.yaml."""
    (here / "empty").mkdir()
    assert "empty: this folder holds no suite.yaml\nSuites here: small." in error_of(capsys, "run", "empty")


RUNS: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "no such grid": (nothing, ("--grid", "t4"), "small/grids/t4.yaml: there is no such grid", "quick"),
    "nearly a grid": (nothing, ("--grid", "quik"), "quik.yaml: there is no such grid", 'Did you mean "quick"?'),
    "no grids": (gone("small/grids"), (), "quick.yaml: there is no such grid", "YAML files in its folder grids"),
    "a grid's file": (nothing, ("--grid", "small/grids/quick.yaml"), "names a file", "--grid quick"),
    "a seed twice": (nothing, ("--seed", "1", "--seed", "1"), "1 is given twice", "Name each seed once"),
    "a seed below zero": (nothing, ("--seed", "-1"), "'--seed': -1", "0<=x<=4294967295"),
    "negative confirmation": (nothing, ("--confirm-seeds", "-1"), "--confirm-seeds cannot be negative", "0 skips"),
    "no training rows": (
        gone("small/train.jsonl"),
        (),
        "small/suite.yaml: the suite has no training rows",
        "Put a train.jsonl beside it",
    ),
    "an empty training file": (new("small/train.jsonl"), (), "train.jsonl: holds no training rows", "One per line"),
    "only confirm cases": (
        edit("small/suite.yaml", '"main"', '"confirm"'),
        (),
        "small/suite.yaml: all cases have `split: confirm`",
        "Remove `split: confirm` from some",
    ),
    "no GPU": (nothing, ("--profile", "t4"), "--profile t4 needs an NVIDIA GPU", "--profile cpu"),
    "no such folder": (nothing, ("--model", "./llama"), "there is no folder ./llama", "Name `pocket`, a folder"),
    "offline": (nothing, ("--model", "owner/name"), "the Hub cannot be reached (offline)", "--model pocket"),
    "a GGUF model's name": (
        nothing,
        ("--model", "TheBloke/Llama-2-7B-Chat-GGUF"),
        "is a GGML/GGUF model for llama.cpp and cannot be fine-tuned",
        "meta-llama/Llama-2-7b-chat-hf instead of",
    ),
    "a GGUF file": (new("llama.bin", b"GGUF"), ("--model", "llama.bin"), "cannot be fine-tuned", "made from"),
    "a GGUF folder": (new("llama/q4.gguf", b"GGUF"), ("--model", "llama"), "cannot be fine-tuned", "made from"),
    "pickled weights": (
        model(gone("mine/model.safetensors"), new("mine/pytorch_model.bin")),
        ("--model", "mine"),
        "mine holds no .safetensors file; its pickled weights are not loaded",
        "save_pretrained",
    ),
    "a model's own code": (
        model(new("mine/config.json", '{"auto_map": {}}')),
        ("--model", "mine"),
        "mine needs its own code",
        "transformers includes",
    ),
    "no tokenizer": (model(gone("mine/tokenizer*")), ("--model", "mine"), "mine holds no tokenizer", "Save it"),
    "a damaged config": (
        model(new("mine/config.json", "{")),
        ("--model", "mine"),
        "mine/config.json is damaged",
        "Download or copy the model again",
    ),
    "output full of other things": (
        new("o/notes.txt"),
        ("--output", "o"),
        "o is not empty and holds no run",
        "Name a new directory with --output",
    ),
    "output is a file": (new("o"), ("--output", "o"), "o is a file", "Name a directory with --output"),
    "output below a file": (new("o"), ("--output", "o/x"), "cannot write o/x", "Name another place"),
    "output of another run": (begun("o"), ("--output", "o"), "o holds another run", "Name another directory"),
}


@pytest.mark.parametrize("mistake", RUNS)
def test_a_mistake_in_what_a_run_is_given(capsys: pytest.CaptureFixture[str], here: Path, mistake: str) -> None:
    """Before a worker is started, `run` refuses what cannot be done, and says what can."""
    change, options, said, remedy = RUNS[mistake]
    change(here)
    error = error_of(capsys, "run", "small", *options)
    assert said in error
    assert remedy in error


def test_a_run_directory_in_use(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """While another process works in a run's directory, `run`, `score` and `clean` keep away and say so."""
    directory = here / "reports" / "runs" / "small-quick-pocket"
    new("reports/cache/trainings/one/training.json", "{}")(here)
    with held(directory), Cache(here / "reports" / "cache").in_use(directory):
        said = error_of(capsys, "run", "small")
        assert said.startswith("Error: another process is working in reports/runs/small-quick-pocket")
        assert "Wait until it has ended, stop it, or name another directory with --output." in said
        begun(str(directory))(here)
        assert "another process is working" in error_of(capsys, "score", str(directory))
        before = everything(here)
        assert main(["clean", "--yes"]) == 2
        assert "a run is using reports/cache\nWait until it has ended, or stop it." in capsys.readouterr().err
        assert everything(here) == before


@pytest.mark.parametrize("command", ["score", "report"])
@pytest.mark.parametrize("run", ["nowhere", "small", "small/suite.yaml"])
def test_what_is_no_run(capsys: pytest.CaptureFixture[str], command: str, run: str) -> None:
    """What is no run is answered with how to make one."""
    said = error_of(capsys, command, run)
    assert said == f"Error: there is no run in {run}\nCreate one with `harness run SUITE`.\n"


def test_what_is_no_run_but_some_are(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """Where there are runs, they are named."""
    begun("reports/runs/a")(here)
    begun("reports/runs/b")(here)
    assert "Runs here: reports/runs/a, reports/runs/b\n" in error_of(capsys, "report", "nowhere")


def test_the_report_of_a_run_without_results(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """A run that was begun and has no results yet has no page to write; the remedy is a run."""
    begun("o")(here)
    said = error_of(capsys, "report", "o")
    assert "harness run" in said


# --- places that cannot be written -------------------------------------------------------------------------------

ODD = {"a long name": "x" * 300, "no such system": "/proc/nothing/x", "below a file": "file/x", "a folder": "small"}
WRITERS = {
    "new": ("new", "{}", "--from", "rows.csv"),
    "run --output": ("run", "small", "--output", "{}"),
    "run --sync": ("run", "small", "--output", "fresh", "--sync", "{}/x/y"),
    "report --output": ("report", "made", "--output", "{}"),
    "report --format md": ("report", "made", "--format", "md", "--output", "{}"),
    "report --format csv": ("report", "made", "--format", "csv", "--output", "{}/suite.yaml"),
    "report of two": ("report", "made", "again", "--output", "{}"),
    "gate --markdown": ("gate", "made", "--baseline", "again", "--markdown", "{}"),
    "gate --json": ("gate", "made", "--baseline", "again", "--json", "{}"),
    "bless --name": ("bless", "made", "--name", "{}/x"),
    "read: report": ("report", "{}"),
    "read: gate": ("gate", "made", "--baseline", "{}"),
    "read: plan": ("plan", "{}/x"),
}
"""Every command that takes a path, the odd place as `{}`."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("writer", WRITERS)
def test_an_odd_place(capsys: pytest.CaptureFixture[str], here: Path, writer: str, odd: str) -> None:
    """Whatever cannot lie where a person says is one error that names the place, and never a traceback."""
    new("rows.csv", "question,answer\nWho?,I.\n")(here)
    new("file")(here)
    made = results(count=2, failures=False)
    for name in ("made", "again"):
        RunStore(here / name).write_manifest(made.run)
        RunStore(here / name).write_results(made, (), "")
    before = everything(here)
    place = ODD[odd]
    assert main([word.format(place) for word in WRITERS[writer]]) == 2
    said = capsys.readouterr().err
    assert said.count("Error:") == 1
    assert place in said
    assert "Name another place" in said or said.strip().count("\n") == 1, "a line with the remedy"
    assert everything(here) == before


# --- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rum", "small"), "No such command 'rum'. Did you mean 'run'?"),
        (("run", "small", "--profil", "cpu"), "Did you mean '--profile'?"),
        (("run",), "Missing argument 'SUITE'."),
        (("run", "small", "--profile", "gpu"), "'gpu' is not one of 'auto', 'cpu', 't4'."),
        (("run", "small", "--timeout", "0"), "'--timeout'"),
        (("plan", "small", "--seed", "x"), "'x' is not a valid integer"),
        (("schema", "sweet"), "is not one of 'suite', 'grid'."),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    """A wrong command, option or value is answered with the nearest right one, and where help is."""
    error = error_of(capsys, *arguments)
    assert re.sub("[()]", "", said) in re.sub("[()]", "", error)
    assert "--help' for help." in error


def test_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness` alone prints its help."""
    assert main([]) in (0, 2)
    said = capsys.readouterr()
    assert "Start with `harness run suites/workshop`" in said.out + said.err


@pytest.mark.parametrize(
    "command", [(), ("new",), ("validate",), ("plan",), ("run",), ("score",), ("report",), ("clean",)]
)
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """Every command explains itself, after -h as after --help."""
    assert main([*command, "--help"]) == 0
    long = capsys.readouterr().out
    assert main([*command, "-h"]) == 0
    assert capsys.readouterr().out == long
    assert long.startswith("Usage: harness")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is the package's."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"harness, version {harness.__version__}\n"


# --- new ---------------------------------------------------------------------------------------------------------

ROWS = "question,answer\nWho are you?,I am Dottie.\nWhat does it cost?,42 dollars.\n"
NEW: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "no such file": (nothing, ("mine", "--from", "no.csv"), "no.csv: there is no such file", "CSV or JSONL"),
    "a folder that is there": (nothing, ("small", "--from", "rows.csv"), "small exists already", "another name"),
    "a spreadsheet": (new("rows.xlsx"), ("mine", "--from", "rows.xlsx"), "rows.xlsx: rows are read from", "as CSV"),
    "another encoding": (
        new("rows.csv", "question,answer\nWo?,K\u00f6ln\n".encode("latin-1")),
        ("mine", "--from", "rows.csv"),
        "rows.csv:2: is not UTF-8 text",
        "as UTF-8",
    ),
    "no such column": (
        nothing,
        ("mine", "--from", "rows.csv", "--prompt-column", "frage"),
        'rows.csv:1: there is no column "frage"',
        "The columns are: question, answer. Name one with --prompt-column.",
    ),
    "a conflict": (
        new("rows.csv", f"{ROWS}who are you,I am Tom.\n"),
        ("mine", "--from", "rows.csv"),
        "rows.csv:4: repeats the question in line 2",
        "Remove one",
    ),
    "a place below a file": (nothing, ("rows.csv/mine", "--from", "rows.csv"), "cannot write", "another folder"),
}


@pytest.mark.parametrize("mistake", NEW)
def test_a_mistake_in_rows(capsys: pytest.CaptureFixture[str], here: Path, mistake: str) -> None:
    """`new` refuses what it cannot make a suite of, with file, line and remedy."""
    new("rows.csv", ROWS)(here)
    change, arguments, said, remedy = NEW[mistake]
    change(here)
    error = error_of(capsys, "new", *arguments)
    assert said in error
    assert remedy in error


def test_new(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`new` writes a suite that `validate` finds nothing wrong with, and says which cases are still to be written."""
    new("rows.csv", ROWS)(here)
    assert main(["new", "suites/mine", "--from", "rows.csv"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Wrote suites/mine: 2 training rows, 2 learn cases, ")
    assert "Then: harness run suites/mine" in said
    assert main(["validate", "suites/mine"]) == 0
    said = capsys.readouterr().out
    assert "still TODO: generalise-001 (suite.yaml:" in said
    assert "The suite is valid." in said


# --- commands that look ------------------------------------------------------------------------------------------


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    """`validate` counts cases by role and split, training rows and variants, and tells what a reader should know."""
    assert main(["validate", "small"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines.pop(5)[:4] == ["line", "56:", "confirm-name", "has"]
    assert lines == [
        ["small:", "6", "cases,", "4", "training", "rows"],
        ["role", "main", "confirm"],
        ["learn", "2", "1"],
        ["retain", "2", "1"],
        ["grid", "quick:", "2", "variants,", "1", "seed"],
        ["The", "suite", "is", "valid."],
    ]


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` counts variants and trials, and shows what differs and how many steps each takes."""
    assert main(["plan", "small", "--seed", "3", "--seed", "4", "--profile", "cpu"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["small,", "grid", "quick:", "2", "variants,", "seeds", "3,", "4:", "4", "trials"],
        ["variant", "learning", "rate", "steps"],
        ["lr=1e-5", "1e-5", "8"],
        ["lr=0.01", "0.01", "8"],
    ]


IMPOSSIBLE = {
    "no such folder": ("./nowhere", "there is no folder ./nowhere"),
    "a folder's name with a known shape in it": ("./llama-2-7b", "there is no folder ./llama-2-7b"),
    "no owner": ("llama", "there is no model llama"),
    "empty": ("", "--model is given an empty name"),
    "two revisions": ("a/b@c@d", "there is no folder a/b@c@d"),
    "no such shape": ("shape:gpt", "there is no shape 'gpt'"),
    "a folder that is no model": ("small", "holds no config.json, so it is not a model"),
    "a file": ("small/suite.yaml", "is a file, and a base model is a folder"),
    "nobody's home": ("~nobody-at-all/x", "~nobody-at-all/x cannot be the name of a model"),
    "a long name": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize("command", [("plan",), ("plan", "--profile", "cpu"), ("run",)], ids=" ".join)
@pytest.mark.parametrize("mistake", IMPOSSIBLE)
def test_a_model_that_cannot_be(capsys: pytest.CaptureFixture[str], mistake: str, command: tuple[str, ...]) -> None:
    """What no model can be called, `plan` refuses as `run` does; it does not call that a missing prediction."""
    name, said = IMPOSSIBLE[mistake]
    error = error_of(capsys, *command, "small", "--model", name)
    assert said in error
    assert error.strip().count("\n") == 1, "a line with the remedy"


@pytest.mark.parametrize("kind", ["suite", "grid"])
def test_schema(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """`schema` prints what is committed beside the suites."""
    assert main(["schema", kind]) == 0
    assert capsys.readouterr().out == (ROOT / "suites" / f"{kind}.schema.json").read_text(encoding="utf-8")


# --- clean -------------------------------------------------------------------------------------------------------


def test_clean_where_nothing_is_held(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """An empty cache is said to be empty; nothing is asked and nothing made."""
    before = everything(here)
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "reports/cache holds nothing.\n"
    assert everything(here) == before


def test_clean_frees(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`clean --yes` says what is held and frees it; runs stay."""
    new("reports/cache/trainings/one/adapter.safetensors", b"x" * 300_000)(here)
    new("reports/cache/answers/one/0001.json", b"{}")(here)
    begun("reports/runs/a")(here)
    assert main(["clean", "--yes"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"trainings +1 +0\.3 MB", said)
    assert said.endswith("Deleted.\n")
    assert (here / "reports" / "runs" / "a" / "run.json").is_file()
    assert not list((here / "reports" / "cache").rglob("*.*"))


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("\n", 0), ("", 2)], ids=["no", "return", "nobody"])
def test_clean_without_a_yes(here: Path, answer: str, code: int) -> None:
    """Without a clear yes nothing is freed; where nobody can answer, --yes is named."""
    new("reports/cache/trainings/one/training.json", b"{}")(here)
    before = everything(here)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "clean"], cwd=here, env=os.environ | {"PYTHONPATH": str(ROOT)}, input=answer,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert "Delete it? [y/N]" in done.stdout
    assert ("--yes" in done.stderr) == (code == 2)
    assert everything(here) == before


# --- ends --------------------------------------------------------------------------------------------------------


def ending(error: BaseException) -> click.Command:
    """A program that ends with this."""

    def end() -> None:
        raise error

    return click.Command("end", callback=end)


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends with 130, and says that nothing finished is lost."""
    assert main([], ending(KeyboardInterrupt())) == 130
    said = capsys.readouterr().err
    assert "Finished work is kept; run the same command to continue." in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "bug", [ValueError("a bug"), EOFError("a bug"), OSError("a bug")], ids=lambda bug: type(bug).__name__
)
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    """What is no mistake of the user's is raised as it is."""
    with pytest.raises(type(bug), match="a bug") as caught:
        main([], ending(bug))
    assert caught.value is bug


def test_the_words_of_the_command_are_kept() -> None:
    """A command knows the words that it was called with, also where these are not the process's."""
    kept: list[tuple[str, ...]] = []

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    @click.pass_obj
    def program(given: tuple[str, ...], words: tuple[str, ...]) -> None:
        kept.append(given)

    assert main(["small", "--seed", "1"], program) == 0
    assert kept == [("small", "--seed", "1")]
