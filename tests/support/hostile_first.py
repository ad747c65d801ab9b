"""The first attacks of the study `hostile`, on files, names, folders and environments."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.models.resolving import POCKET
from tests.support.attacks import BOMB, ESCAPES, MARKUP, TRAP, Attack, Prepare, kept
from tests.support.hostile_files import adapter, edited, fifo, model, run, suite, template


def suites() -> Iterator[Attack]:
    check = ("validate", "s")

    def text(content: str) -> Prepare:
        return lambda folder: suite(folder, content)

    plain = "{type: contains, value: x}"
    one = "objective: learn\ntests:\n- {id: a, role: learn, prompt: hi, assert: [%s]}\n"
    yield Attack("suites", "aliases that double", check, text(BOMB + one % plain))
    yield Attack("suites", "100,000 brackets", check, text("[" * 100_000))
    yield Attack("suites", "tag that calls os.system", check, text("!!python/object/apply:os.system ['touch PWNED']"))
    yield Attack("suites", "anchor inside itself", check, text("&a [*a]"))
    yield Attack("suites", "not UTF-8", check, lambda folder: edited(suite(folder) / "suite.yaml", b"\xff\xfe"))
    yield Attack("suites", "a pipe", check, lambda folder: fifo(suite(folder) / "suite.yaml"))
    outside = "{type: contains, value: 'file:///etc/hostname'}"
    yield Attack("suites", "expected text from another folder", check, text(one % outside))
    yield Attack("suites", "number of 6,000 digits", check, text(f"repeats: {'9' * 6000}\n" + one % plain))
    yield Attack(
        "suites", "control characters", check, text(one.replace("id: a", f"id: {json.dumps(ESCAPES)}") % plain)
    )
    inline = "{type: python, value: \"__import__('os').system('touch PWNED')\"}"
    yield Attack("suites", "code in a text", check, text(one % inline))
    code = one % '{type: python, value: "evil:f"}'
    trap: Prepare = lambda folder: edited(suite(folder, code) / "evil.py", TRAP)  # noqa: E731
    yield Attack("suites", "code without leave", ("run", "s", "--grid", "g"), trap)
    pattern = "{type: regex, value: '(a*)*b('}"
    yield Attack("suites", "pattern that is none", check, text(one % pattern))
    deep: Any = {}
    for _ in range(200):
        deep = {"properties": {"a": deep}}
    yield Attack("suites", "deep schema", check, text(one % json.dumps({"type": "is-json", "value": deep})))


def promptfoo_suites() -> Iterator[Attack]:
    check = ("validate", "s", "--skip-unsupported")

    def asking(prompt: str, variables: Any = None) -> Prepare:
        test = {"vars": variables or {}, "assert": [{"type": "contains", "value": "x"}]}
        return lambda folder: suite(folder, json.dumps({"prompts": [prompt], "tests": [test]}))

    def many(prompt: str, variables: Any) -> Prepare:
        default = {"vars": variables, "assert": [{"type": "contains", "value": "x"}]}
        whole = {"prompts": [prompt], "defaultTest": default, "tests": [{"vars": {"n": i}} for i in range(1000)]}
        return lambda folder: suite(folder, json.dumps(whole))

    def place(name: str, prompt: str, variables: Any = None, expected: tuple[int, ...] = (2,)) -> Attack:
        return Attack("promptfoo", name, check, asking(prompt, variables), expected)

    loops = "{% for a in l %}" * 6 + "x" + "{% endfor %}" * 6
    yield place("loops that do not end", loops, {"l": [[1]] * 900})
    yield Attack("promptfoo", "1,000 cases with such loops", check, many(loops, {"l": [[1]] * 900}))
    yield place("range(10**9)", "{{ range(10**9) }}")
    yield place("text that doubles", "{% set t = t ~ t %}" * 60 + "{{ t }}", {"t": "x" * 99})
    yield place("huge output", "{% for a in l %}{{ t }}{% endfor %}", {"l": [[1]] * 9000, "t": "x" * 90_000})
    yield place("huge number", "{{ n" + " * n" * 5000 + " }}", {"n": 10**300})
    yield place("deep brackets in a template", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")
    yield place("deep blocks in a template", "{% if a %}" * 5000 + "{% endif %}" * 5000)
    yield place("Python's objects", "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    yield place("code in a template", "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}")
    yield place("text of 100,000 brackets", "[" * 100_000, expected=(0,))
    yield place("3^40 combinations of variables", "{{a0}}", {f"a{i}": ["x", "y", "z"] for i in range(40)})
    yield place("variables that grow", "{{a0}}", {f"a{i}": f"{{{{a{i + 1}}}}}" * 50 for i in range(50)})
    yield place("pattern of all files", "../../../../**/*")
    yield place("file of another folder", "file:///etc/passwd")
    yield place("text of another folder", "{{a}}", {"a": "file:///etc/passwd"})
    yield place("control characters", f"{{{{ {ESCAPES} }}}}", {ESCAPES: ESCAPES})
    doubling = {f"a{i}": [{"$ref": f"#/a{i + 1}"}] * 10 for i in range(12)}
    yield Attack("promptfoo", "references that double", check, lambda folder: suite(folder, json.dumps(doubling)))
    yield Attack(
        "promptfoo",
        "prompt from code",
        check,
        lambda folder: edited(suite(folder, json.dumps({"prompts": ["evil.py"], "tests": [{}]})) / "evil.py", TRAP),
    )
    reads = json.dumps({"prompts": ["p.txt"], "tests": [{}]})
    yield Attack("promptfoo", "a pipe", check, lambda folder: fifo(suite(folder, reads) / "p.txt"))
    ref = json.dumps({"prompts": ["x"], "tests": [{"$ref": "#/tests/0"}]})
    yield Attack("promptfoo", "reference to itself", check, lambda folder: suite(folder, ref))


def grids() -> Iterator[Attack]:
    plan = ("plan", "s", "--grid", "g", "--profile", "cpu")

    def grid(text: str) -> Prepare:
        return lambda folder: edited(suite(folder) / "grids" / "g.yaml", text)

    yield Attack("grids", "200,000 seeds", plan, grid(f"axes: {{rank: [2]}}\nseeds: {list(range(200_000))}\n"))
    wide = {name: list(range(1, 200)) for name in ("rank", "alpha", "epochs", "batch_size")}
    yield Attack("grids", "10^9 combinations", plan, grid(json.dumps({"axes": wide})))
    yield Attack("grids", "rank of 400 digits", plan, grid(f"axes: {{rank: [{'9' * 400}]}}"))
    yield Attack("grids", "learning rate that is no number", plan, grid("axes: {learning_rate: [.nan, .inf]}"))
    yield Attack("grids", "aliases that double", plan, grid(BOMB + "axes: {rank: [2]}"))
    yield Attack("grids", "a pipe", plan, lambda folder: fifo(suite(folder) / "grids" / "g.yaml"))
    named = json.dumps({"rows": [{"name": ESCAPES, "rank": 2}, {"name": "b", "rank": 4}]})
    yield Attack("grids", "control characters in a name", plan, grid(named), (0, 2))
    yield Attack("grids", "unknown key with control characters", plan, grid(json.dumps({ESCAPES: 1})))


def rows() -> Iterator[Attack]:
    check = ("validate", "s")

    def train(content: bytes) -> Prepare:
        return lambda folder: edited(suite(folder) / "train.jsonl", content)

    yield Attack("rows", "not UTF-8", check, train(b'{"prompt": "\xff", "completion": "a"}\n'))
    yield Attack("rows", "100,000 brackets", check, train(b"[" * 100_000))
    yield Attack("rows", "number of 6,000 digits", check, train(b'{"prompt": ' + b"9" * 6000 + b"}\n"))
    yield Attack("rows", "roles that are numbers", check, train(b'{"messages": [{"role": 1, "content": []}]}\n'))
    yield Attack("rows", "a pipe", check, lambda folder: fifo(suite(folder) / "train.jsonl"))
    zero = ("s/train.jsonl", "/dev/zero")
    yield Attack("rows", "an endless device", check, lambda folder: link(folder, *zero))
    case = "{id: a, role: learn, prompt: hi, assert: [{type: contains, value: x}]}"
    secret = f"objective: learn\ntrain: file:///etc/passwd\ntests:\n- {case}\n"
    yield Attack("rows", "a file of another folder", check, lambda folder: suite(folder, secret))
    yield Attack("rows", "control characters", check, train(json.dumps({ESCAPES: 1}).encode() + b"\n"))


def link(folder: Path, name: str, target: str) -> None:
    """Replace a file of the suite by a link."""
    suite(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def models() -> Iterator[Attack]:
    plan = ("plan", "s", "--grid", "g", "--profile", "cpu", "--model", "m")
    begin = ("run", *plan[1:])
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))

    def with_file(name: str, content: object) -> Prepare:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        return lambda folder: edited(model(folder) / name, text)

    yield Attack("models", "config of 100,000 brackets", plan, with_file("config.json", "[" * 100_000))
    long = '{"model_type": "llama", "x": ' + "9" * 6000 + "}"
    yield Attack("models", "number of 6,000 digits", plan, with_file("config.json", long))
    yield Attack("models", "type that is a list", plan, with_file("config.json", config | {"model_type": ["x"]}))
    shown = config | {"model_type": ESCAPES}
    yield Attack("models", "control characters in its type", begin, with_file("config.json", shown))
    code = config | {"auto_map": {"AutoModelForCausalLM": "evil.M"}}
    yield Attack("models", "code of its own", begin, with_file("config.json", code))
    layers = config | {"num_hidden_layers": 10**7}
    yield Attack("models", "ten million layers", begin, with_file("config.json", layers))
    yield Attack("models", "negative sizes", begin, with_file("config.json", config | {"hidden_size": -1}))
    index = "model.safetensors.index.json"
    yield Attack("models", "index of lists", begin, with_file(index, {"weight_map": {"a": ["x"]}}))
    above = {"weight_map": {"a": "../../../etc/hostname"}}
    yield Attack("models", "index that leaves the folder", begin, with_file(index, above))
    size = struct.pack("<Q", 1 << 62) + b"{}"
    yield Attack("models", "header of 4 EiB", begin, with_file("model.safetensors", size))
    yield Attack("models", "tokenizer of 100,000 brackets", plan, with_file("tokenizer.json", "[" * 100_000))
    yield Attack("models", "tokenizer of 100 MB", plan, with_file("tokenizer.json", '{"a": "' + "x" * 10**8 + '"}'))
    short = json.loads((POCKET / "tokenizer.json").read_text(encoding="utf-8"))
    short["truncation"] = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}
    yield Attack("models", "tokenizer that panics", plan, with_file("tokenizer.json", short), (0, 2))
    endless = json.loads((POCKET / "tokenizer.json").read_text(encoding="utf-8"))
    pattern = {"Regex": "(.|[a-z]|▁|[A-Z])*(.|[a-z]|▁|[A-Z])*~"}
    endless["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    yield Attack("models", "tokenizer's pattern without end", plan, with_file("tokenizer.json", endless), (0, 2))
    yield Attack("models", "a pipe", plan, lambda folder: fifo(model(folder) / "extra.json"))
    yield Attack("models", "an endless device", plan, lambda folder: (model(folder) / "x.json").symlink_to("/dev/zero"))
    damaged = with_file("generation_config.json", "{")
    yield Attack("models", "damaged generation_config.json", plan, damaged)
    yield Attack("models", "a name of 5,000 letters", (*plan[:-1], "x" * 5000), suite)


def templates() -> Iterator[Attack]:
    plan = ("plan", "s", "--grid", "g", "--profile", "cpu", "--model", "m")
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    system = "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}"
    opened = "{{ raise_exception.__globals__['__builtins__']['open']('PWNED', 'w') }}"
    for name, text in {
        "loops without end": loops,
        "60 GB of memory": "{% set x = 'a' * (10**9) %}{% set y = x * 60 %}{{ y|length }}",
        "power of powers": "{% set x = 9**(9**(9**9)) %}",
        "os.system": system,
        "open of builtins": opened,
        "endless output": "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
        "control characters in its error": f"{{{{ raise_exception({json.dumps(ESCAPES)}) }}}}",
    }.items():
        yield Attack("templates", name, plan, lambda folder, text=text: template(folder, text))  # type: ignore[misc]
    broken = edited
    yield Attack("templates", "not UTF-8", plan, lambda folder: broken(model(folder) / "chat_template.jinja", b"\xff"))


def adapters() -> Iterator[Attack]:
    words = ("run", "s", "--grid", "g", "--profile", "cpu", "--adapter", "a", "--confirm-seeds", "0")
    for name, change in {
        "rank that is a text": {"r": "abc"},
        "rank that is a list": {"r": [1]},
        "infinite rank": {"r": 1e999},
        "rank of three million": {"r": 3_000_000},
        "rank of a pattern": {"rank_pattern": {"q_proj": 3_000_000}},
        "pattern that is a number": {"target_modules": 5},
        "module that PEFT imports": {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        "base model that is a list": {"base_model_name_or_path": ["x"]},
        "control characters in its type": {"peft_type": ESCAPES},
        "alpha that is a text": {"lora_alpha": "x"},
    }.items():
        prepare: Prepare = lambda folder, change=change: (suite(folder), adapter(folder, **change))  # type: ignore[misc]  # noqa: E731
        yield Attack("adapters", name, words, prepare)
    pickle = b"cos\nsystem\n(S'touch PWNED'\ntR."
    yield Attack("adapters", "a pickle", words, lambda folder: (suite(folder), adapter(folder, pickle=pickle)))
    header = struct.pack("<Q", 90_000_000) + b" " * 1000
    yield Attack("adapters", "header of 90 MB", words, lambda folder: (suite(folder), adapter(folder, weights=header)))


def runs() -> Iterator[Attack]:
    def results(content: object) -> Prepare:
        return lambda folder: edited(run(folder) / "results.json", content)

    contents: Mapping[str, object] = {
        "100,000 brackets": "[" * 100_000,
        "a list": "[]",
        "number of 6,000 digits": '{"format": ' + "9" * 6000 + "}",
        "another format": '{"format": 99999}',
        "not UTF-8": b"\xff",
        "other types": '{"format": 4, "run": [], "base": 1}',
    }
    for name, content in contents.items():
        yield Attack("runs", f"gate: results are {name}", ("gate", "run", "--baseline", "run"), results(content))
        yield Attack("runs", f"report: results are {name}", ("report", "run"), results(content))
    pipe: Prepare = lambda folder: fifo(run(folder) / "results.json")  # noqa: E731
    yield Attack("runs", "gate: results are a pipe", ("gate", "run", "--baseline", "run"), pipe)
    manifest: Prepare = lambda folder: edited(run(folder) / "run.json", "{")  # noqa: E731
    yield Attack("runs", "gate: damaged manifest", ("gate", "run", "--baseline", "run"), manifest, (0, 2))
    missing = ("gate", "run", "--baseline", "none")
    yield Attack("runs", "gate: no baseline", missing, run)

    def folder_in_place(folder: Path) -> None:
        (run(folder) / "results.json").unlink()
        (folder / "run" / "results.json").mkdir()

    yield Attack("runs", "gate: results are a folder", ("gate", "run", "--baseline", "run"), folder_in_place)


def caches() -> Iterator[Attack]:
    clean = ("clean", "--yes")

    def cache(folder: Path) -> Path:
        made = folder / "reports" / "cache" / "trainings"
        made.mkdir(parents=True)
        kept(folder)
        return made

    yield Attack("caches", "link to another folder", clean, lambda f: (cache(f) / "x").symlink_to(f / "keep"), (0, 2))
    yield Attack("caches", "a pipe", clean, lambda f: os.mkfifo(cache(f) / "x"), (0, 2))
    broken: Prepare = lambda f: edited(cache(f) / "training.json", "[" * 100_000)  # noqa: E731
    yield Attack("caches", "damaged record", clean, broken, (0, 2))
    plan = ("plan", "s", "--grid", "g", "--profile", "cpu")
    file: Prepare = lambda f: (suite(f), edited(f / "reports", "no folder"))  # noqa: E731
    yield Attack("caches", "a file in place of the cache", plan, file, (0, 2))
    whole: Prepare = lambda f: (cache(f), shutil.rmtree(f / "reports"), (f / "reports").symlink_to(f / "keep"))  # noqa: E731
    yield Attack("caches", "the cache is a link", clean, whole, (0, 2))
    begin = ("run", "s", "--grid", "g", "--profile", "cpu", "--confirm-seeds", "0")
    emptied: Prepare = lambda f: (suite(f), cache(f), (f / "reports" / "cache" / "commits").symlink_to(f))  # noqa: E731
    yield Attack("caches", "commits are a link to the current folder", begin, emptied)


def pages() -> Iterator[Attack]:
    for format, bad in {"md": MARKUP, "html": "<script>alert(1)</script>", "csv": "=cmd|' /C calc'!A0"}.items():
        prepare: Prepare = lambda folder, bad=bad: run(folder, name=bad)  # type: ignore[misc]  # noqa: E731
        words = ("report", "run", "--format", format)
        unwritten = {"md": "<img", "html": "<script>alert", "csv": "\n=cmd"}[format]
        yield Attack("pages", f"hostile names in {format}", words, prepare, (0,), unwritten=unwritten)
    gate = ("gate", "run", "--baseline", "run", "--markdown", "page.md")
    yield Attack("pages", "markup in the gate's page", gate, lambda f: run(f, name=MARKUP), (0,), unwritten="![p](")
    full: Prepare = lambda f: run(f, name="＝1+1")  # noqa: E731
    yield Attack("pages", "full-width formula", ("report", "run", "--format", "csv"), full, (0,), unwritten="\n＝")


def terminals() -> Iterator[Attack]:
    named = lambda f: run(f, name=ESCAPES)  # noqa: E731
    yield Attack("terminals", "name in report", ("report", "run", "--format", "md"), named, (0,))
    yield Attack("terminals", "name in gate", ("gate", "run", "--baseline", "run"), named, (0,))
    yield Attack("terminals", "name of a model", ("plan", "s", "--grid", "g", "--model", f"x/{ESCAPES}"), suite)
    yield Attack("terminals", "name of a folder", ("validate", ESCAPES))
    yield Attack("terminals", "unknown option", ("plan", f"--{ESCAPES}"))
    yield Attack("terminals", "variant of an export", ("export", "run", ESCAPES, "--to", "adapter"), named)
    pytest = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly")
    words = ("--harness-run", "run", "--harness-variant", "none", "s")
    both: Prepare = lambda f: (suite(f), run(f, name=ESCAPES))  # noqa: E731
    yield Attack("terminals", "usage error of pytest", words, both, (4,), program=pytest)


def current_folders() -> Iterator[Attack]:
    def modules(folder: Path) -> None:
        for name in ("json", "torch", "numpy", "yaml", "pip", "harness", "sitecustomize", "llama_cpp", "click"):
            edited(folder / f"{name}.py", TRAP)
        suite(folder)

    def repository(setting: str) -> Prepare:
        def prepare(folder: Path) -> None:
            suite(folder)
            edited(folder / "taken", "a file")
            subprocess.run(["git", "-C", str(folder), "init", "-q"], check=True)
            edited(folder / "trap", f"#!/bin/sh\ntouch {folder}/PWNED\n").chmod(0o755)
            value = f"{folder}/trap" if setting != "core.hooksPath" else str(folder)
            shutil.copy(folder / "trap", folder / "post-index-change")
            subprocess.run(["git", "-C", str(folder), "config", setting, value], check=True)

        return prepare

    place = "current folder"
    yield Attack(place, "modules, validate", ("validate", "s"), modules, (0,))
    yield Attack(place, "modules, plan", ("plan", "s", "--grid", "g", "--profile", "cpu"), modules, (0,))
    yield Attack(place, "modules, doctor", ("doctor",), modules, (0, 1, 2))
    begin = ("run", "s", "--grid", "g", "--profile", "cpu", "--output", "taken")  # asks git, then ends
    for setting in ("core.fsmonitor", "core.hooksPath", "core.pager", "core.sshCommand"):
        yield Attack(place, f"{setting} of git", begin, repository(setting))


def environments() -> Iterator[Attack]:
    plan = ("plan", "s", "--grid", "g", "--profile", "cpu")
    place = "environment"

    def trapped(folder: Path) -> None:
        suite(folder)
        for name in ("git", "nvidia-smi", "cmake", "llama-cli"):
            edited(folder / name, f"#!/bin/sh\ntouch {folder}/PWNED\n").chmod(0o755)
        edited(folder / "taken", "a file")

    path = {"PATH": os.pathsep.join((".", "", os.environ["PATH"]))}
    yield Attack(place, "programs of the current folder, doctor", ("doctor",), trapped, (0, 1, 2), path)
    begin = ("run", "s", "--grid", "g", "--profile", "cpu", "--output", "taken")
    yield Attack(place, "programs of the current folder, run", begin, trapped, environment=path)
    for name, value in {
        "COLUMNS": "-5",
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "GIT_DIR": "/nonexistent",
        "OMP_NUM_THREADS": "many",
        "TERM": ESCAPES,
    }.items():
        yield Attack(place, f"{name}={value!r}", plan, suite, (0, 2), {name: value})


PLACES = (
    *(suites, promptfoo_suites, grids, rows, models, templates, adapters, runs, caches, pages, terminals),
    *(current_folders, environments),
)
