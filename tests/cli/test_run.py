"""Tests of wrong input that `harness run` refuses before any worker starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.models.resolving import POCKET
from harness.storage.cache import Cache
from tests.support.command_line import (
    Change,
    delete,
    edit,
    error_of,
    locked,
    model,
    nothing,
    start_run,
    tree,
    write,
)

RUNS: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "no such grid": (nothing, ("--grid", "t4"), "small/grids/t4.yaml: there is no such grid", "quick"),
    "nearly a grid": (nothing, ("--grid", "quik"), "quik.yaml: there is no such grid", 'Did you mean "quick"?'),
    "no grids": (
        delete("small/grids"),
        (),
        "quick.yaml: there is no such grid",
        "Create this file",
    ),
    "a grid's file": (nothing, ("--grid", "small/grids/quick.yaml"), "names a file", "--grid quick"),
    "a seed twice": (nothing, ("--seed", "1", "--seed", "1"), "1 is given twice", "Name each seed once"),
    "a seed below zero": (nothing, ("--seed", "-1"), "'--seed': -1", "0<=x<=4294967295"),
    "negative confirmation": (nothing, ("--confirm-seeds", "-1"), "--confirm-seeds cannot be negative", "Pass 0"),
    "no training rows": (
        delete("small/train.jsonl"),
        (),
        "small/suite.yaml: the suite has no training rows",
        "Put a train.jsonl beside it",
    ),
    "an empty training file": (
        write("small/train.jsonl"),
        (),
        "train.jsonl: holds no training rows",
        "Write one row per line",
    ),
    "only confirm cases": (
        edit("small/suite.yaml", '"main"', '"confirm"'),
        (),
        "small/suite.yaml: all cases have `split: confirm`",
        "Remove `split: confirm` from some",
    ),
    "no GPU": (nothing, ("--profile", "t4"), "--profile t4 needs an NVIDIA GPU", "--profile cpu"),
    "no such folder": (
        nothing,
        ("--model", "./llama"),
        "there is no folder ./llama",
        "Name `pocket`, `smollm2`, a folder",
    ),
    "offline": (nothing, ("--model", "owner/name"), "the Hub cannot be reached (offline)", "--model pocket"),
    "a GGUF model's name": (
        nothing,
        ("--model", "TheBloke/Llama-2-7B-Chat-GGUF"),
        "models of the Hub for llama.cpp (GGML, GGUF) cannot be fine-tuned",
        "meta-llama/Llama-2-7b-chat-hf instead of",
    ),
    "a GGML file": (write("llama.bin", b"lmgg"), ("--model", "llama.bin"), "cannot be fine-tuned", "made from"),
    "a damaged GGUF file": (
        write("llama.bin", b"GGUF"),
        ("--model", "llama.bin"),
        "llama.bin is not a complete GGUF file",
        "Download or copy the file again",
    ),
    "a GGUF folder": (
        write("llama/q4.gguf", b"GGUF"),
        ("--model", "llama"),
        "is a folder with GGUF files",
        "--model llama/q4.gguf",
    ),
    "pickled weights": (
        model(delete("mine/model.safetensors"), write("mine/pytorch_model.bin")),
        ("--model", "mine"),
        "mine holds no .safetensors file; its pickled weights are not loaded",
        "save_pretrained",
    ),
    "a model's own code": (
        model(write("mine/config.json", '{"auto_map": {}}')),
        ("--model", "mine"),
        "mine needs its own code",
        "transformers includes",
    ),
    "no tokenizer": (
        model(delete("mine/tokenizer*"), write("mine/model.safetensors", (POCKET / "model.safetensors").read_bytes())),
        ("--model", "mine"),
        "mine holds no tokenizer",
        "Save it",
    ),
    "a damaged config": (
        model(write("mine/config.json", "{")),
        ("--model", "mine"),
        "mine/config.json is damaged",
        "Download or copy the model again",
    ),
    "output full of other things": (
        write("o/notes.txt"),
        ("--output", "o"),
        "o is not empty and holds no run",
        "Name a new directory with --output",
    ),
    "output is a file": (write("o"), ("--output", "o"), "o is a file", "Name a directory with --output"),
    "output below a file": (write("o"), ("--output", "o/x"), "cannot write o/x", "Name another place"),
    "output of another run": (start_run("o"), ("--output", "o"), "o holds another run", "Name another directory"),
}


@pytest.mark.parametrize("mistake", RUNS)
def test_wrong_input_of_a_run(capsys: pytest.CaptureFixture[str], here: Path, mistake: str) -> None:
    """If the input of `run` is wrong, no worker starts, and the error has a remedy."""
    change, options, message, remedy = RUNS[mistake]
    change(here)
    error = error_of(capsys, "run", "small", *options)
    assert message in error
    assert remedy in error


def test_a_run_directory_in_use(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """While another process works in a run, `run` and `score` refuse to use its directory, and `clean` its cache."""
    directory = here / "reports" / "runs" / "small-quick-pocket"
    write("reports/cache/trainings/one/training.json", "{}")(here)
    with locked(directory), Cache(here / "reports" / "cache").in_use(directory):
        error = error_of(capsys, "run", "small")
        assert error.startswith("Error: another process is working in reports/runs/small-quick-pocket")
        assert "Wait until it has ended, stop it, or name another directory with --output." in error
        start_run(str(directory))(here)
        assert "another process is working" in error_of(capsys, "score", str(directory))
        before = tree(here)
        assert main(["clean", "--yes"]) == 2
        assert "a run is using reports/cache\nWait until it has ended, or stop it." in capsys.readouterr().err
        assert tree(here) == before
