"""Further attacks for the study `hostile`: on runs, caches, pages, terminals, the current folder and the environment.

They were written without sight of the guards that they test.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core import programs
from tests.support.attacks import ESCAPES, MARKUP, TRAP, Attack, Prepare, kept
from tests.support.hostile_files import edited, fifo, run, suite

PLAN = ("plan", "s", "--grid", "g", "--profile", "cpu")
TRAINED = "reports/runs/s-g-pocket"
GATE = ("gate", "run", "--baseline", "run")
READS: Mapping[str, tuple[str, ...]] = {
    "gate": GATE,
    "report": ("report", "run"),
    "score": ("score", "run"),
    "recommend": ("recommend", "run"),
    "next": ("next", "run"),
    "bless": ("bless", "run", "--name", "b"),
}
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly")


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    edited(path, json.dumps(content))


def results(change: Callable[[Any], object], *, file: str = "results.json") -> Prepare:
    """Write a run whose results are changed."""
    return lambda folder: changed(run(folder) / file, change)


@functools.cache
def _trained() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """Train the suite once."""
    scratch = tempfile.TemporaryDirectory(prefix="hostile-trained-")
    folder = Path(scratch.name)
    suite(folder)
    words = ("run", "s", "--grid", "g", "--profile", "cpu", "--confirm-seeds", "0")
    subprocess.run(
        programs.python("-m", "harness", *words), cwd=folder, env=programs.environment({"HF_HUB_OFFLINE": "1"}),
        check=True, capture_output=True,
    )  # fmt: skip
    return scratch, folder


def trained(folder: Path) -> Path:
    """Copy a suite that has been trained, its run and its cache. Return the folder of the cache."""
    shutil.copytree(_trained()[1], folder, dirs_exist_ok=True)
    return folder / "reports" / "cache"


def training(folder: Path) -> Path:
    """Copy a suite that has been trained, and return the stored training that an export uses."""
    cache = trained(folder)
    plan = json.loads((folder / TRAINED / "run.json").read_text(encoding="utf-8"))["plan"]
    best = max(plan["variants"], key=lambda each: each["settings"]["learning_rate"])
    records = [json.loads(path.read_text()) for path in sorted((folder / TRAINED / "trials").glob("*/record.json"))]
    (record,) = [each for each in records if each["variant"] == best["id"]]
    return cache / "trainings" / record["training"]["id"]


def replaced(path: Path, target: Path | str) -> None:
    """Replace a file or a folder by a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def runs() -> Iterator[Attack]:
    def huge(found: Any) -> None:
        found["samples"] = found["samples"] * 20_000

    def deep(found: Any) -> None:
        nest: Any = "x"
        for _ in range(900):
            nest = [nest]
        found["run"]["suite"]["description"] = nest

    spoiled: Mapping[str, Callable[[Any], object]] = {
        "no variants": lambda found: found.update(variants=None),
        "variants that are texts": lambda found: found.update(variants=["x"]),
        "samples that are numbers": lambda found: found.update(samples=[1, 2]),
        "scores that are infinite": lambda found: [
            each["score"].update(score=float("inf")) for each in found["samples"]
        ],
        "seeds that are texts": lambda found: found["run"]["plan"].update(seeds=["x"]),
        "an unknown role": lambda found: [each.update(role="evil") for each in found["run"]["suite"]["cases"]],
        "a margin of 1e999": lambda found: found["run"]["suite"].update(margin=float("inf")),
        "ids that are half a character": lambda found: [
            each.update(id="\ud800") for each in found["run"]["plan"]["variants"]
        ],
        "deep values": deep,
    }
    for what, change in spoiled.items():
        for name, words in READS.items():
            yield Attack("runs", f"{name}: {what}", words, results(change), (0, 2) if name != "gate" else (0, 2, 4))
    yield Attack("runs", "report: a million samples", READS["report"], results(huge), (0, 2))


def files_of_runs() -> Iterator[Attack]:
    def elsewhere(folder: Path) -> None:
        kept(folder)
        for file in ("results.json", "run.json"):
            changed(
                run(folder) / file,
                lambda found: (found.get("run") or found)["suite"].update(folder=str(folder / "keep")),
            )

    yield Attack("runs", "next: the suite's folder is another", READS["next"], elsewhere, (0, 2))
    for name in ("score", "bless", "next"):
        lock: Prepare = lambda folder: replaced(run(folder) / ".lock", kept(folder))  # noqa: E731
        yield Attack("runs", f"{name}: the lock is a link", READS[name], lock, (0, 2))
        pipe: Prepare = lambda folder: fifo(run(folder) / ".lock")  # noqa: E731
        yield Attack("runs", f"{name}: the lock is a pipe", READS[name], pipe, (0, 2))
    page: Prepare = lambda folder: replaced(run(folder) / "report.html", kept(folder))  # noqa: E731
    yield Attack("runs", "report: the page is a link", READS["report"], page, (0, 2))

    def base(folder: Path) -> None:
        run(folder)
        (folder / "reports").mkdir(exist_ok=True)
        (folder / "reports" / "baselines").symlink_to(kept(folder).parent)

    yield Attack("runs", "bless: the baselines are a link", READS["bless"], base, (0, 2))
    endless: Prepare = lambda folder: replaced(run(folder) / "results.json", "/dev/zero")  # noqa: E731
    yield Attack("runs", "gate: results are an endless device", GATE, endless)
    secret: Prepare = lambda folder: replaced(run(folder) / "results.json", kept(folder))  # noqa: E731
    yield Attack("runs", "gate: results are a link to a secret", GATE, secret)
    loop: Prepare = lambda folder: (folder / "run").symlink_to("run")  # noqa: E731
    yield Attack("runs", "gate: the run is a link to itself", GATE, loop)
    for name, content in {
        "100,000 brackets": b"[" * 100_000,
        "a number": b"5",
        "not UTF-8": b"\xff",
        "empty": b"",
    }.items():
        baseline: Prepare = lambda folder, content=content: (run(folder), edited(folder / "b.json", content))  # type: ignore[misc]  # noqa: E731
        yield Attack("runs", f"gate: the baseline is {name}", ("gate", "run", "--baseline", "b.json"), baseline)
    piped: Prepare = lambda folder: (run(folder), fifo(folder / "b.json"))  # noqa: E731
    yield Attack("runs", "gate: the baseline is a pipe", ("gate", "run", "--baseline", "b.json"), piped)
    yield Attack(
        "runs",
        "gate: the baseline is a secret",
        ("gate", "run", "--baseline", "keep/precious"),
        lambda folder: (run(folder), kept(folder)),
    )
    full = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
    yield Attack("runs", "gate: the terminal is full", GATE, run, (2, 70, 74), around=full)
    yield Attack(
        "runs", "gate: there is no terminal", GATE, run, (0, 2, 70), around=("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    )


def records() -> Iterator[Attack]:
    def recorded(change: Callable[[Any], object] | None, content: bytes = b"", *, name: str = "record.json") -> Prepare:
        def prepare(folder: Path) -> None:
            trained(folder)
            (folder / TRAINED / "results.json").unlink()
            for path in (folder / TRAINED / "trials").glob(f"*/{name}"):
                changed(path, change) if change else edited(path, content)

        return prepare

    score = ("score", TRAINED)
    yield Attack("records", "score: 100,000 brackets", score, recorded(None, b"[" * 100_000))
    yield Attack("records", "score: not UTF-8", score, recorded(None, b"\xff"))
    yield Attack("records", "score: other types", score, recorded(lambda found: found.update(answers=[1])))
    fake = lambda found: [each.update(text="Dottie") for all in found["answers"].values() for each in all]  # noqa: E731
    yield Attack("records", "score: changed answers", score, recorded(fake))
    yield Attack(
        "records",
        "score: a log elsewhere",
        score,
        recorded(lambda found: found.update(log="../../../../keep/precious", status="failed", sha256="")),
    )


def caches() -> Iterator[Attack]:
    clean = ("clean", "--yes")
    export = ("export", TRAINED, "lr=0.01", "--to", "adapter", "--output", "out")

    def entries(make: Callable[[Path], object]) -> Prepare:
        def prepare(folder: Path) -> None:
            kept(folder)
            (folder / "reports" / "cache" / "trainings").mkdir(parents=True)
            make(folder / "reports" / "cache")

        return prepare

    def deep(cache: Path) -> None:
        with contextlib.chdir(cache / "trainings"):
            for _ in range(3_000):
                Path("d").mkdir()
                os.chdir("d")

    yield Attack("caches", "3,000 folders in each other", clean, entries(deep), (0, 2))
    named = lambda cache: (cache / "trainings" / os.fsdecode(b"\xff\x1b[2J")).mkdir()  # noqa: E731
    yield Attack("caches", "a name that is not UTF-8", clean, entries(named), (0, 2))
    yield Attack(
        "caches",
        "20,000 entries",
        clean,
        entries(lambda cache: [(cache / "trainings" / f"{n}").mkdir() for n in range(20_000)]),
        (0, 2),
    )
    for name in ("clearing.lock", "users", "commits", "answers", "bases", "trainings", "converted"):
        link = entries(
            lambda cache, name=name: replaced(
                cache / name, cache.parent.parent / "keep" / ("precious" if "lock" in name else "")
            )
        )  # type: ignore[misc]
        yield Attack("caches", f"{name} is a link", clean, link, (0, 2))
    yield Attack(
        "caches", "the lock is a pipe", clean, entries(lambda cache: os.mkfifo(cache / "clearing.lock")), (0, 2)
    )
    user = entries(lambda cache: ((cache / "users").mkdir(), os.mkfifo(cache / "users" / "a.lock")))
    yield Attack("caches", "the lock of a user is a pipe", clean, user, (0, 2))
    one = entries(lambda cache: edited(cache / "trainings" / "x", "x"))
    yield Attack("caches", "no answer to its question", ("clean",), one, (2, 130))

    def spoiled(make: Callable[[Path], object]) -> Prepare:
        return lambda folder: (kept(folder), make(training(folder)))

    def listed(made: Path, text: bytes) -> None:
        edited(made / "MANIFEST.sha256", text)

    def grown(made: Path) -> None:
        path = made / "adapter_model.safetensors"
        edited(path, path.read_bytes()[:-1] + b"\x7f")

    for name, make in {
        "weights that changed": grown,
        "a program that is not listed": lambda made: edited(made / "evil.py", TRAP),
        "a link to a secret": lambda made: (made / "LICENSE").symlink_to("../../../../keep/precious"),
        "weights are a link": lambda made: replaced(made / "adapter_model.safetensors", "../../../../keep/precious"),
        "an empty list of files": lambda made: listed(made, b""),
        "a list of files elsewhere": lambda made: listed(made, b"0" * 64 + b"  ../../../../keep/precious\n"),
        "a list that is not UTF-8": lambda made: listed(made, b"\xff"),
        "a list that is a pipe": lambda made: fifo(made / "MANIFEST.sha256"),
        "a list of 100 MB": lambda made: listed(made, (b"0" * 64 + b"  x\n") * 1_500_000),
        "configuration of 100,000 brackets": lambda made: edited(made / "adapter_config.json", "[" * 100_000),
        "a damaged record": lambda made: edited(made / "training.json", "[" * 100_000),
        "a record that is a pipe": lambda made: fifo(made / "training.json"),
    }.items():
        lenient = (0, 2) if "record" in name or "program" in name or "secret" in name else (2,)
        yield Attack("caches", f"export: {name}", export, spoiled(make), lenient)


def everywhere(text: str) -> Prepare:
    """Put a text into every place of a run that may hold any text."""

    def change(found: Any) -> None:
        manifest = found.get("run") or found
        manifest["suite"].update(description=text, name=text)
        manifest["model"].update(name=text)
        manifest["provenance"].update(command=text, versions={text: text})
        for case in manifest["suite"]["cases"]:
            case.update(description=text, group=text)
            case["messages"][0]["content"] = text
        for sample in found.get("samples", []):
            sample["answer"]["text"] = text

    def prepare(folder: Path) -> None:
        made = run(folder, name=text)
        for file in ("results.json", "run.json"):
            changed(made / file, change)

    return prepare


def pages() -> Iterator[Attack]:
    texts = {
        "html": {
            "script": ("</script><script>alert(1)</script>", "<script>alert"),
            "comment": ("<!--<script>alert(1)", "<!--<script>"),
            "attribute": ("x\" onmouseover=\"alert(1)\" ' onfocus='alert(1)' x=", '="x" onmouseover="alert'),
            "style": ("</style><img src=x onerror=alert(1)>", "<img src=x"),
            "expression": ("datum['x']; {{constructor.constructor('alert(1)')()}}</svg><img src=y>", "<img src=y>"),
        },
        "md": {
            "heading": ("x\n# Approved\n", "\n# Approved"),
            "ticks": ("``` ` `` <img src=x>", "<img src=x>"),
            "link": ("[x](javascript:alert) <javascript:alert>", "[x](javascript"),
            "table": ("a | b |\n|---|---|\n| c", "\n|---|---|\n| c"),
            "mention": ("@octocat", "@octocat"),
            "html": ("<details open><summary>x", "<details open><summary>x"),
        },
        "csv": {
            "tab": ("\t=cmd", "\n\t="),
            "return": ("\r=cmd", "\n\r="),
            "minus": ("-2+3+cmd|' /C calc'!A0", "\n-2+3"),
            "at": ("@SUM(1)", "\n@SUM"),
            "quote": ('",=cmd', "\n=cmd"),
        },
    }  # fmt: skip
    for format, bad in texts.items():
        for name, (text, unwritten) in bad.items():
            yield Attack(
                "pages",
                f"{name} in {format}",
                ("report", "run", "--format", format),
                everywhere(text),
                (0, 2),
                unwritten=unwritten,
            )
    for name, (text, unwritten) in texts["md"].items():
        yield Attack(
            "pages",
            f"{name} in the gate's page",
            (*GATE, "--markdown", "page.md"),
            everywhere(text),
            (0, 2, 4),
            unwritten=unwritten,
        )
    two = ("report", "run", "run", "--format", "md")
    yield Attack("pages", "markup in a comparison", two, everywhere(MARKUP), (0, 2), unwritten="![p](")


def cards() -> Iterator[Attack]:
    def card(text: str) -> Prepare:
        def prepare(folder: Path) -> None:
            trained(folder)
            for file in ("results.json", "run.json"):
                changed(
                    folder / TRAINED / file,
                    lambda found: (found.get("run") or found)["suite"].update(name=text, description=text),
                )

        return prepare

    hub = ("export", TRAINED, "lr=0.01", "--to", "hub", "--repo", "a/b", "--dry-run")
    yield Attack("pages", "control characters in a card", hub, card(ESCAPES), (0, 2))
    yield Attack("pages", "front matter in a card", hub, card("x\n---\nevil: 1\n---\n"), (0, 2), unwritten="\nevil: 1")
    notebook = ("notebook", TRAINED, "lr=0.01", "--output", "out.ipynb")
    code = "x\"\"\"'''\nimport os; os.system('touch PWNED')\n"
    yield Attack("pages", "code in a notebook", notebook, card(code), (0, 2), unwritten='"import os; os.system')


def terminals() -> Iterator[Attack]:
    named: Prepare = lambda folder: run(folder, name=ESCAPES)  # noqa: E731
    for words in (
        ("recommend", "run"),
        ("next", "run"),
        ("score", "run"),
        ("bless", "run", "--name", "b"),
        ("report", "run", "run"),
        ("recommend", "run", "--json"),
    ):
        yield Attack("terminals", f"name in {' '.join(words)}", words, named, (0, 2))
    for words in (
        ("bless", "run", "--name", ESCAPES), ("gate", "run", "--baseline", ESCAPES),
        ("export", "run", "x", "--to", ESCAPES), ("chat", "run", ESCAPES, "--ask", ESCAPES),
        ("score", "run", "--suite", ESCAPES), ("report", "run", "--output", ESCAPES),
    ):  # fmt: skip
        yield Attack("terminals", f"word of {words[0]}", words, named, (0, 2))
    for option in ("--grid", "--profile", "--seed", "--gpus", "--workers", "--width", "--root"):
        yield Attack("terminals", f"value of {option}", ("plan", "s", option, ESCAPES), suite)
    for option in ("--budget", "--timeout", "--adapter", "--executor", "--engine"):
        yield Attack(
            "terminals", f"value of {option}", ("run", "s", "--grid", "g", "--profile", "cpu", option, ESCAPES), suite
        )
    yield Attack("terminals", "file of rows", ("new", "x", "--from", ESCAPES))
    half = os.fsdecode(b"\xff\xfe")
    yield Attack("terminals", "name of a folder that is not UTF-8", ("validate", half))
    yield Attack("terminals", "name of a run that is not UTF-8", ("gate", half, "--baseline", half))
    yield Attack(
        "terminals",
        "name of a suite that is not UTF-8",
        ("plan", half, "--grid", "g", "--profile", "cpu"),
        lambda folder: suite(folder).rename(folder / half),
        (0, 2),
    )

    def asked(folder: Path) -> None:
        case = {
            "id": ESCAPES,
            "role": "learn",
            "prompt": ESCAPES,
            "description": ESCAPES,
            "assert": [{"type": "contains", "value": ESCAPES}],
        }
        suite(folder, json.dumps({"objective": "learn", "tests": [case]}))

    yield Attack("terminals", "case in tokens", ("tokens", "s", "--grid", "g"), asked, (0, 2))
    yield Attack("terminals", "case in validate", ("validate", "s"), asked, (0, 2))
    trap: Prepare = lambda folder: (suite(folder), run(folder, name=ESCAPES))  # noqa: E731
    words = ("--harness-run", "run", "--harness-variant", ESCAPES, "-v", "s")
    yield Attack("terminals", "variant of pytest", words, trap, (0, 1, 4, 5), program=PYTEST)
    damaged: Prepare = lambda folder: (suite(folder), edited(run(folder) / "results.json", "[" * 100_000))  # noqa: E731
    yield Attack("terminals", "damaged run of pytest", ("--harness-run", "run", "s"), damaged, (4,), program=PYTEST)


def current_folders() -> Iterator[Attack]:
    place = "current folder"

    def modules(folder: Path) -> None:
        for name in (
            "os",
            "json",
            "torch",
            "numpy",
            "yaml",
            "pip",
            "harness",
            "sitecustomize",
            "usercustomize",
            "click",
            "rich",
            "altair",
            "pyarrow",
            "ray",
            "jinja2",
            "transformers",
            "conftest",
        ):
            edited(folder / f"{name}.py", TRAP)
        edited(folder / "evil.pth", f"import os; open({str(folder / 'PWNED')!r}, 'w')\n")
        edited(folder / ".env", "A=1\n")
        suite(folder)
        run(folder)

    commands: Sequence[tuple[str, ...]] = (
        ("report", "run"), ("report", "run", "--format", "csv"), ("score", "run"), GATE,
        ("bless", "run", "--name", "b"), ("recommend", "run"), ("next", "run"), ("tokens", "s", "--grid", "g"),
        ("clean", "--yes"), ("schema", "suite"), ("new", "x", "--from", "s/train.jsonl"),
        ("run", "s", "--grid", "g", "--profile", "cpu", "--executor", "ray", "--address", "127.0.0.1:1"),
    )  # fmt: skip
    for words in commands:
        yield Attack(place, f"modules, {' '.join(words)[:40]}", words, modules, (0, 2))

    gone = ("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh")
    for words in (("validate", "s"), ("doctor",), GATE, ("clean", "--yes"), ("run", "s")):
        yield Attack(place, f"a deleted folder, {words[0]}", words, suite, (0, 2), around=gone)

    def configured(folder: Path) -> None:
        suite(folder)
        edited(folder / "pip.conf", "[global]\nindex-url = http://127.0.0.1:1/\n")
        edited(folder / "pyproject.toml", "[tool.pytest.ini_options]\naddopts = '--evil'\n")
        edited(folder / "setup.cfg", "[global]\n")
        edited(folder / "pyvenv.cfg", f"home = {folder}\n")

    yield Attack(place, "files of configuration", ("validate", "s"), configured, (0,))


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def repository(folder: Path, then: Callable[[Path, Path], object]) -> None:
    suite(folder)
    edited(folder / "taken", "a file")
    trap = edited(folder / "trap", f"#!/bin/sh\ntouch {folder}/PWNED\n")
    trap.chmod(0o755)
    git(folder, "init", "-q")
    then(folder, trap)


def cleaning(folder: Path, trap: Path) -> None:
    git(folder, "add", "s")
    git(folder, "commit", "-q", "-m", "x")
    edited(folder / ".gitattributes", "* filter=evil\n")
    for setting in ("filter.evil.clean", "filter.evil.process", "diff.external"):
        git(folder, "config", setting, str(trap))
    for path in (folder / "s").rglob("*.*"):
        edited(path, path.read_bytes())
        os.utime(path, (1, 1))


def submodule(folder: Path, trap: Path) -> None:
    other = folder / ".other"
    other.mkdir()
    git(other, "init", "-q")
    edited(other / "file", "x")
    git(other, "add", "file")
    git(other, "commit", "-q", "-m", "x")
    git(folder, "submodule", "add", "-q", str(other), "sub")
    git(folder, "commit", "-q", "-m", "x")
    git(folder / "sub", "config", "core.fsmonitor", str(trap))
    git(folder / "sub", "config", "filter.evil.clean", str(trap))
    edited(folder / "sub" / ".gitattributes", "* filter=evil\n")
    edited(folder / "sub" / "file", "y")


def pointing(folder: Path, trap: Path) -> None:
    (folder / ".git").rename(folder / "elsewhere")
    edited(folder / ".git", "gitdir: elsewhere\n")
    git(folder, "config", "core.fsmonitor", str(trap))


def bare(folder: Path, trap: Path) -> None:
    for path in (folder / ".git").iterdir():
        path.rename(folder / path.name)
    (folder / ".git").rmdir()
    with (folder / "config").open("a", encoding="utf-8") as file:
        file.write(f"[core]\n\tbare = false\n\tworktree = {folder}\n\tfsmonitor = {trap}\n")


def included(folder: Path, trap: Path) -> None:
    edited(folder / "more", f"[core]\n\tfsmonitor = {trap}\n[alias]\n\tstatus = !{trap}\n")
    git(folder, "config", "include.path", str(folder / "more"))


def repositories() -> Iterator[Attack]:
    place = "current folder"
    begin = ("run", "s", "--grid", "g", "--profile", "cpu", "--output", "taken")  # asks git, then ends
    for name, then in {
        "filters of git": cleaning,
        "a submodule": submodule,
        "a .git that points elsewhere": pointing,
        "a bare repository": bare,
        "an included configuration": included,
    }.items():
        yield Attack(place, name, begin, lambda folder, then=then: repository(folder, then))  # type: ignore[misc]


def environments() -> Iterator[Attack]:
    place = "environment"
    for name, value in {
        "COLUMNS": "1000000000",
        "LINES": "x",
        "TZ": ESCAPES,
        "LANG": ESCAPES,
        "HF_HOME": "/dev/null",
        "HF_ENDPOINT": ESCAPES,
        "XDG_CACHE_HOME": "/dev/null",
        "TMPDIR": "/dev/null",
        "HOME": "",
        "PATH": "",
        "CUDA_VISIBLE_DEVICES": ESCAPES,
        "GIT_CONFIG_COUNT": "x",
        "GIT_WORK_TREE": "/nonexistent",
        "RAY_ADDRESS": ESCAPES,
        "PYTHONWARNINGS": "error",
        "PYTHONUTF8": "0",
        "TERM": "dumb",
        "USER": ESCAPES,
    }.items():
        yield Attack(place, f"{name}={value!r}, plan", PLAN, suite, (0, 2), {name: value})
    for name, value in {
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "PATH": "",
        "COLUMNS": "0",
        "LC_ALL": "C",
    }.items():
        yield Attack(place, f"{name}={value!r}, gate", GATE, run, (0, 2, 4), {name: value})
        yield Attack(
            place, f"{name}={value!r}, report", ("report", "run", "--format", "md"), run, (0, 2), {name: value}
        )

    def monitored(folder: Path) -> None:
        suite(folder)
        edited(folder / "taken", "a file")
        edited(folder / "trap", f"#!/bin/sh\ntouch {folder}/PWNED\n").chmod(0o755)
        subprocess.run(["git", "-C", str(folder), "init", "-q"], check=True)

    begin = ("run", "s", "--grid", "g", "--profile", "cpu", "--output", "taken")
    asked = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "./trap"}
    yield Attack(place, "configuration of git in variables", begin, monitored, environment=asked)
    yield Attack(
        place,
        "GIT_EXTERNAL_DIFF",
        begin,
        monitored,
        environment={"GIT_EXTERNAL_DIFF": "./trap", "GIT_SSH_COMMAND": "./trap"},
    )

    def limited(words: str) -> Sequence[str]:
        return ("sh", "-c", f'{words}; exec "$@"', "sh")

    yield Attack(place, "24 open files, plan", PLAN, suite, (0, 2), around=limited("ulimit -n 24"))
    yield Attack(place, "24 open files, gate", GATE, run, (0, 2), around=limited("ulimit -n 24"))
    yield Attack(place, "files of 8 KB, report", ("report", "run"), run, (2,), around=limited("ulimit -f 16"))
    yield Attack(
        place, "files of 8 KB, bless", ("bless", "run", "--name", "b"), run, (0, 2), around=limited("ulimit -f 16")
    )
    yield Attack(
        place,
        "full terminal, report",
        ("report", "run", "--format", "md"),
        run,
        (2, 70, 74),
        around=("sh", "-c", 'exec "$@" >/dev/full', "sh"),
    )
    yield Attack(
        place, "no standard streams, plan", PLAN, suite, (0, 2), around=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    )
    if sys.platform == "linux" and os.geteuid() == 0:
        yield Attack(
            place,
            "nothing can be written, plan",
            PLAN,
            suite,
            (0, 2),
            around=("sh", "-c", 'umask 777; exec "$@"', "sh"),
        )
    yield Attack(
        place,
        "signals are ignored",
        PLAN,
        suite,
        (0, 2),
        around=("sh", "-c", 'trap "" TERM INT HUP PIPE CHLD; exec "$@"', "sh"),
    )


def clusters() -> Iterator[Attack]:
    """Attack the executor of a cluster. Without Ray, each ends with the advice to install it."""
    ray = ("run", "s", "--grid", "g", "--profile", "cpu", "--executor", "ray", "--address")
    for name, address in {
        "control characters": ESCAPES,
        "no port": "127.0.0.1",
        "a path": "../../keep",
        "an option": "--help",
    }.items():
        yield Attack("clusters", f"address: {name}", (*ray, address), suite)


PLACES = (
    *(runs, files_of_runs, records, caches, pages, cards, terminals, current_folders, repositories, environments),
    clusters,
)
