"""Further attacks for the study `hostile`: on suites, promptfoo's files, grids, rows, models, templates and adapters.

They were written without sight of the guards that they test.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.models.resolving import POCKET
from tests.support.attacks import BOMB, ESCAPES, Attack, Prepare, kept
from tests.support.hostile_files import adapter, edited, fifo, model, suite, template

CASE = "{id: a, role: learn, prompt: hi, assert: [{type: contains, value: x}]}"
HALF = "\\ud800"
"""Half of a character, as JSON and YAML write it."""
PLAN = ("plan", "s", "--grid", "g", "--profile", "cpu")


def judged(assertion: Mapping[str, Any], prompt: str, **case: Any) -> Prepare:
    """Write a suite with one case, whose prompt and reference `harness validate` judges by the assertion."""
    whole = {"id": "a", "role": "learn", "prompt": prompt, "assert": [assertion], **case}
    return lambda folder: suite(folder, json.dumps({"objective": "learn", "tests": [whole]}))


def suites() -> Iterator[Attack]:
    check = ("validate", "s")

    def text(content: str) -> Prepare:
        return lambda folder: suite(folder, content)

    def place(name: str, prepare: Prepare, expected: tuple[int, ...] = (2,)) -> Attack:
        return Attack("suites", name, check, prepare, expected)

    one = f"objective: learn\n%s\ntests:\n- {CASE}\n"
    yield place("pattern without end", judged({"type": "regex", "value": "(a|a)*b"}, "a" * 60 + "!"), (0, 2))
    schema: Mapping[str, Any] = {"type": "string", "pattern": "^(a|a)*b$"}
    yield place(
        "schema's pattern without end",
        judged({"type": "is-json", "value": schema}, "hi", reference=json.dumps("a" * 60)), (0, 2),
    )  # fmt: skip
    for name, ref in {"itself": "#", "a file": "file:///etc/passwd", "a server": "http://127.0.0.1:1/s.json"}.items():
        value = {"type": "is-json", "value": {"$ref": ref}}
        yield place(f"schema that refers to {name}", judged(value, "hi", reference="{}"), (0, 2))
    long = {"type": "levenshtein", "value": "b" * 300_000}
    yield place("comparison of long texts", judged(long, "a" * 300_000, reference="c" * 300_000), (0, 2))
    yield place("JSON within brackets", judged({"type": "contains-json"}, "{" * 60_000 + "[" * 60_000), (0, 2))
    deep = "[" * 200_000 + "]" * 200_000
    yield place("deep JSON as a reference", judged({"type": "is-json"}, "hi", reference=deep), (0, 2))
    nested: Mapping[str, Any] = {"type": "contains", "value": "x"}
    for _ in range(400):
        nested = {"type": "assert-set", "assert": [nested]}
    yield place("400 sets in each other", judged(nested, "hi"))
    yield place("half a character", text(one.replace("prompt: hi", f'prompt: "{HALF}"') % ""), (0, 2))
    yield place("half a character in an id", text(one.replace("id: a", f'id: "{HALF}"') % ""), (0, 2))
    yield place("sexagesimal number", text(one % ("repeats: 1" + ":59" * 40_000)))
    yield place("10^18 repeats", text(one % "repeats: 1000000000000000000"))
    yield place("margin that is no number", text(one % "margin: .nan"))
    yield place("10^12 new tokens", text(one % "decoding: {max_new_tokens: 1000000000000}"))
    yield place("objective that is a mapping", text(one.replace("objective: learn", "objective: {a: 1}") % ""))
    yield place("tests are the suite itself", text("objective: learn\ntests: file://suite.yaml\n"))
    yield place("tests are a folder", text("objective: learn\ntests: file://grids\n"))
    yield place("NUL in the name of a file", text('objective: learn\ntests: "file://a\\0b"\n'))
    yield place("tag of a binary", text(one % "description: !!binary '@@@'"))

    def linked(name: str) -> Prepare:
        def prepare(folder: Path) -> None:
            suite(folder)
            (folder / "s" / name).unlink(missing_ok=True)
            (folder / "s" / name).symlink_to(kept(folder))

        return prepare

    yield place("suite.yaml is a link to a secret", linked("suite.yaml"))

    def loop(folder: Path) -> None:
        path = suite(folder) / "suite.yaml"
        path.unlink()
        path.symlink_to("suite.yaml")

    yield place("suite.yaml is a link to itself", loop)
    weights = {"type": "contains", "value": "x", "weight": 1e308}
    yield place("weights whose sum is infinite", judged({"type": "assert-set", "assert": [weights] * 3}, "hi"), (0, 2))


def promptfoo_suites() -> Iterator[Attack]:
    check = ("validate", "s", "--skip-unsupported")
    passed = [{"type": "contains", "value": "x"}]

    def whole(content: Any, **files: bytes) -> Prepare:
        def prepare(folder: Path) -> None:
            made = suite(folder, content if isinstance(content, str) else json.dumps(content))
            for name, text in files.items():
                edited(made / name.replace("_", "."), text)

        return prepare

    def place(name: str, prepare: Prepare, expected: tuple[int, ...] = (2,), words: tuple[str, ...] = check) -> Attack:
        return Attack("promptfoo", name, words, prepare, expected)

    def asking(prompt: Any, **test: Any) -> Prepare:
        return whole({"prompts": [prompt], "tests": [{"assert": passed, **test}]})

    yield place("2^30 names in braces", asking("file://" + "{a,b}" * 30 + ".txt"))
    yield place("pattern of 5,000 brackets", asking("file://" + "[" * 5_000 + "*.txt"))
    yield place("pattern of 60 stars", asking("file://" + "**/" * 60 + "*.txt"))
    yield place("replacement that grows", asking("{{ t" + ' | replace("", "xxxxxxxx")' * 12 + " }}", vars={"t": "ab"}))
    join = "{{ d.l | join(t) }}"
    yield place("join with long texts", asking(join, vars={"d": {"l": ["a"] * 9_000}, "t": "x" * 90_000}))
    yield place("load of 100,000 brackets", asking("{{ t | load }}", vars={"t": "[" * 100_000}))
    yield place("names of prototypes", asking("{{ a.__proto__.constructor }}", vars={"a": {"b": "c"}}))
    yield place("the environment", asking("{{ env.HOME }}"))
    yield place("set of a name that is reserved", asking("{% set __class__ = 1 %}{{ __class__.__mro__ }}"))
    yield place(
        "CSV with a field of 1 MB", whole({"prompts": ["{{q}}"], "tests": "t.csv"}, t_csv=b"q\n" + b"x" * 2**20), (0, 2)
    )
    yield place("CSV with NUL", whole({"prompts": ["{{q}}"], "tests": "t.csv"}, t_csv=b"q\na\0b\n"), (0, 2))
    million = b'{"vars": {"q": "x"}}\n' * 1_000_000
    yield place("a million tests", whole({"prompts": ["{{q}}"], "tests": "t.jsonl"}, t_jsonl=million))
    product = [{"config": [{}] * 2_000, "tests": [{"assert": passed}] * 2_000}]
    yield place("4 million scenarios", whole({"prompts": ["x"], "scenarios": product}))
    yield place("aliases that double", whole(BOMB + "prompts: [x]\ntests: [{}]\n"))
    merged = "a: &a {k0: 1}\n" + "".join(
        f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}' if n else '*a'] * 60)}], k{n}: 1}}\n" for n in range(60)
    )
    yield place("merge keys of merge keys", whole(merged + "prompts: [x]\ntests: [{}]\n"), (0, 2))
    path = {"type": "contains", "value": "x", "transform": "JSON.parse(output)" + ".a" * 100_000}
    yield place("transform of 100,000 names", asking("x", **{"assert": [path]}), (0, 2))
    yield place("reference to a server", asking("x", **{"assert": [{"$ref": "http://127.0.0.1:1/a"}]}))
    yield place(
        "keys with control characters", whole({"prompts": ["x"], ESCAPES: 1, "tests": [{"assert": passed}]}), (0, 2)
    )
    yield place(
        "label with control characters", asking({"raw": "x", "label": ESCAPES}, prompts=[ESCAPES + "*"]), (0, 2)
    )
    for name, value in {
        "tests of lists": [[[]]],
        "tests that are a number": 5,
        "path that is a number": {"path": 5},
    }.items():
        yield place(name, whole({"prompts": ["x"], "tests": value}))
    yield place("vars that are a number", asking("x", vars=5))
    yield place("half a character", whole('{"prompts": ["\\ud800 {{a}}"], "tests": [{"vars": {"a": "\\udfff"}}]}'))

    def secret(folder: Path) -> None:
        made = suite(folder, json.dumps({"prompts": ["p.txt"], "tests": [{"assert": passed}]}))
        (made / "p.txt").symlink_to(kept(folder))

    yield place("prompt is a link to a secret", secret)
    yield place(
        "prompt is a link to a secret, shown", secret, words=("tokens", "s", "--grid", "g", "--skip-unsupported")
    )


def grids() -> Iterator[Attack]:
    def place(name: str, text: str, expected: tuple[int, ...] = (2,)) -> Attack:
        return Attack("grids", name, PLAN, lambda folder: edited(suite(folder) / "grids" / "g.yaml", text), expected)

    yield place("10^308 epochs", "axes: {rank: [2]}\nsettings: {epochs: 1e308}\n")
    yield place("infinite epochs", "axes: {rank: [2]}\nsettings: {epochs: .inf}\n")
    yield place("10^300 steps of warmup", "axes: {rank: [2]}\nsettings: {warmup: 1e300}\n")
    wide = list(range(2, 202))
    out = [{"rank": rank, "alpha": alpha} for rank in wide for alpha in wide]
    yield place(
        "40,000 combinations, all excluded", json.dumps({"axes": {"rank": wide, "alpha": wide}, "exclude": out})
    )
    yield place("name of another folder", 'rows: [{name: "../../../keep", rank: 2}, {name: b, rank: 4}]', (0, 2))
    yield place("name of the base model", "rows: [{name: base, rank: 2}, {name: b, rank: 4}]", (0, 2))
    yield place("name of 1 MB", json.dumps({"rows": [{"name": "x" * 2**20, "rank": 2}]}), (0, 2))
    yield place("name that is half a character", f'rows: [{{name: "{HALF}", rank: 2}}, {{name: b, rank: 4}}]', (0, 2))
    for name, value in {
        "negative": "[-1]",
        "of 400 digits": f"[{'9' * 400}]",
        "half": "[0.5]",
        "none": "[]",
        "a mapping": "{a: 1}",
    }.items():
        yield place(f"seeds: {name}", f"axes: {{rank: [2]}}\nseeds: {value}\n")
    pattern = json.dumps({"rows": [{"target_modules": ["(a|a)*b", ESCAPES], "rank": 2}]})
    yield place("target modules that are patterns", pattern, (0, 2))
    yield place(
        "description with control characters",
        json.dumps({"axes": {"rank": [2]}, "description": ESCAPES, "about": ESCAPES}),
        (0, 2),
    )
    yield place("rank that is true", "axes: {rank: [true]}")

    def secret(folder: Path) -> None:
        path = suite(folder) / "grids" / "g.yaml"
        path.unlink()
        path.symlink_to(kept(folder))

    yield Attack("grids", "a link to a secret", PLAN, secret)
    yield Attack("grids", "name of a grid outside", ("plan", "s", "--grid", "../../keep/precious"), suite)
    below = "axes: {learning_rate: [" + "1" * 10_000 + "]}"
    yield place("learning rate of 10,000 digits", below)
    many = json.dumps({"rows": [{"rank": 2, "learning_rate": n * 1e-9 + 1e-9} for n in range(30_000)]})
    yield place("30,000 rows", many)


def rows() -> Iterator[Attack]:
    check, new = ("validate", "s"), ("new", "x", "--from", "r")

    def train(content: bytes) -> Prepare:
        return lambda folder: edited(suite(folder) / "train.jsonl", content)

    def source(content: bytes) -> Prepare:
        return lambda folder: edited(folder / "r", content)

    half = b'{"prompt": "a \\ud800 b", "completion": "\\udfff"}\n'
    yield Attack("rows", "half a character, validate", check, train(half), (0, 2))
    yield Attack("rows", "half a character, plan", PLAN, train(half), (0, 2))
    yield Attack("rows", "half a character, tokens", ("tokens", "s", "--grid", "g"), train(half), (0, 2))
    yield Attack("rows", "half a character, new", new, source(half), (0, 2))
    shown = json.dumps({"prompt": ESCAPES, "completion": ESCAPES}).encode() + b"\n"
    yield Attack("rows", "control characters, tokens", ("tokens", "s", "--grid", "g"), train(shown), (0, 2))
    yield Attack(
        "rows",
        "columns with control characters, new",
        new,
        source(f'question,answer,"{ESCAPES}"\na,b,c\n'.encode()),
        (0, 2),
    )
    yield Attack(
        "rows", "a row of 60 MB", check, train(b'{"prompt": "' + b"x" * 60_000_000 + b'", "completion": "a"}\n')
    )
    yield Attack("rows", "CSV with a field of 60 MB", new, source(b'question,answer\n"' + b"x" * 60_000_000 + b'",b\n'))
    yield Attack("rows", "a quote that is not closed", new, source(b'question,answer\n"' + b'a,b\n"",' * 3_000_000))
    yield Attack(
        "rows", "500,000 columns", new, source(b",".join([b"c"] * 500_000) + b"\n" + b",".join([b"d"] * 500_000))
    )
    yield Attack("rows", "NUL", new, source(b"question,answer\na\0,b\0\n"), (0, 2))
    yield Attack("rows", "UTF-16 with half a unit", new, source(b"\xff\xfeq\0u\0,\0a\0\n\0\x00\xd8\n"), (0, 2))
    yield Attack("rows", "numbers that are none", check, train(b'{"prompt": NaN, "completion": Infinity}\n'))
    yield Attack(
        "rows",
        "300,000 messages",
        check,
        train(json.dumps({"messages": [{"role": "user", "content": "a"}] * 300_000}).encode()),
    )
    yield Attack("rows", "columns of another length", new, source(b'{"question": ["a", "b"], "answer": ["c"]}'), (0, 2))
    yield Attack(
        "rows", "SQuAD of other types", new, source(b'{"data": [{"paragraphs": [{"context": 1, "qas": [[]]}]}]}')
    )
    yield Attack(
        "rows", "history of numbers", check, train(b'{"prompt": "a", "completion": "b", "history": [[1], 2, {}]}\n')
    )
    yield Attack(
        "rows",
        "100,000 tags of HTML",
        new,
        source(b"#separator:tab\n#html:true\n" + b"<b>" * 100_000 + b"\tb\n"),
        (0, 2),
    )
    yield Attack(
        "rows",
        "comments of HTML that do not end",
        new,
        source(b"#separator:tab\n#html:true\n" + b"<!--<!" * 50_000 + b"\tb\n"),
        (0, 2),
    )
    yield Attack(
        "rows",
        "character of HTML that is none",
        new,
        source(b"#separator:tab\n#html:true\n&#99999999999;&#xD800;\tb\n"),
        (0, 2),
    )
    yield Attack("rows", "Parquet: damaged", new, source(b"PAR1" + struct.pack("<I", 2**31) + b"PAR1"))
    yield Attack(
        "rows", "Parquet: a footer of zeros", new, source(b"PAR1" + b"\0" * 5000 + struct.pack("<I", 4000) + b"PAR1")
    )

    def parquet(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = pa.array(["x" * 20_000_000] * 100)
        whole = pa.table({"question": text, "answer": text})
        pq.write_table(whole, folder / "r", compression="zstd")  # a small file of 4 GB

    yield Attack("rows", "Parquet: 4 GB in a small file", new, parquet)
    rehearsing = "axes: {rank: [2]}\nsettings: {rehearsal: 5}\n"

    def rehearsal(content: bytes) -> Prepare:
        def prepare(folder: Path) -> None:
            edited(suite(folder) / "grids" / "g.yaml", rehearsing)
            edited(folder / "s" / "rehearsal.jsonl", content)

        return prepare

    def replaced(make: Prepare) -> Prepare:
        return lambda folder: (rehearsal(b"")(folder), make(folder))

    place = "rows of rehearsal"
    yield Attack(place, "100,000 brackets", PLAN, rehearsal(b"[" * 100_000))
    yield Attack(place, "prompts that are lists", PLAN, rehearsal(b'{"prompt": ["a"]}\n'))
    yield Attack(place, "half a character", PLAN, rehearsal(b'{"prompt": "\\ud800"}\n' * 9), (0, 2))
    yield Attack(place, "not UTF-8", PLAN, rehearsal(b'{"prompt": "\xff"}\n'))
    yield Attack(place, "two million rows", PLAN, rehearsal(b'{"prompt": "a"}\n' * 2_000_000))
    yield Attack(place, "a pipe", PLAN, replaced(lambda f: fifo(f / "s" / "rehearsal.jsonl")))
    link = replaced(
        lambda f: (f / "s" / "rehearsal.jsonl").unlink() or (f / "s" / "rehearsal.jsonl").symlink_to(kept(f))
    )  # type: ignore[func-returns-value]
    yield Attack(place, "a link to a secret", PLAN, link)
    yield Attack(place, "an unknown key with control characters", PLAN, rehearsal(json.dumps({ESCAPES: 1}).encode()))


def with_file(name: str, content: object) -> Prepare:
    """Write a model in which a file has another content."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    return lambda folder: edited(model(folder) / name, text)


def models() -> Iterator[Attack]:
    plan = (*PLAN, "--model", "m")
    begin = ("run", *plan[1:])
    on_t4 = ("plan", "s", "--grid", "g", "--profile", "t4", "--model", "m")
    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))

    changes: Mapping[str, Mapping[str, Any]] = {
        "no heads": {"num_attention_heads": 0},
        "no heads of keys": {"num_key_value_heads": 0},
        "an empty vocabulary": {"vocab_size": 0},
        "a vocabulary of 10^12": {"vocab_size": 10**12},
        "a hidden size of 10^9": {"hidden_size": 10**9},
        "sizes that are texts": {"hidden_size": "x", "vocab_size": "y"},
        "sizes that are true": {"hidden_size": True, "num_hidden_layers": True},
        "positions that are none": {"max_position_embeddings": None},
        "sizes that are infinite": {"hidden_size": float("inf"), "intermediate_size": float("nan")},
        "a data type of os": {"torch_dtype": "os.system", "dtype": "os.system"},
        "an activation that is eval": {"hidden_act": "eval"},
        "a quantisation with control characters": {"quantization_config": {"quant_method": ESCAPES}},
        "architectures with control characters": {"architectures": [ESCAPES]},
        "half a character": {"model_type": "\ud800"},
        "rotations that are a list": {"rope_parameters": [1], "rope_scaling": [1]},
    }
    for name, change in changes.items():
        for words in (on_t4,) if change == {"architectures": [ESCAPES]} else (on_t4, begin):  # it is not used
            yield Attack(
                "models",
                f"{name}, {words[0]}",
                words,
                with_file("config.json", config | change),
                (0, 2) if words is on_t4 else (2,),
            )
    ends = {"a text": "x", "of 30 digits": 10**30, "a mapping": {"a": 1}}
    for name, end in ends.items():
        yield Attack(
            "models", f"end of text is {name}", begin, with_file("generation_config.json", {"eos_token_id": end})
        )
    for name, content in {
        "a list": [1],
        "a template that is a number": {"chat_template": 5},
        "tokens of lists": {"added_tokens_decoder": {"x": [1]}},
    }.items():
        lenient = (0, 2) if name.startswith("a template") else (2,)  # the template in another file counts
        change = with_file("tokenizer_config.json", content)
        yield Attack("models", f"tokenizer_config.json: {name}", plan, change, lenient)


def tokenizers() -> Iterator[Attack]:
    plan = (*PLAN, "--model", "m")
    tokenizer = json.loads((POCKET / "tokenizer.json").read_text(encoding="utf-8"))

    def tokens(**changes: Any) -> Prepare:
        return with_file("tokenizer.json", tokenizer | changes)

    twice = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    yield Attack(
        "models", "normaliser that doubles", plan, tokens(normalizer={"type": "Sequence", "normalizers": [twice] * 40})
    )
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA/////w=="}
    yield Attack("models", "normaliser that is damaged", plan, tokens(normalizer=charsmap))
    vocabulary = {"type": "WordLevel", "vocab": {"a": 2**40, "b": -1}, "unk_token": "a"}
    yield Attack("models", "tokens with ids of 2^40", plan, tokens(model=vocabulary))
    merges = tokenizer["model"] | {"merges": [["zz zz", "yy"]] * 5}
    yield Attack("models", "merges of tokens that are none", plan, tokens(model=merges))
    added = [*tokenizer["added_tokens"], {**tokenizer["added_tokens"][0], "id": 2**31, "content": ESCAPES}]
    yield Attack("models", "added token with an id of 2^31", plan, tokens(added_tokens=added), (0, 2))


def weights_of_models() -> Iterator[Attack]:
    begin = ("run", *PLAN[1:], "--model", "m")

    def weights(header: object, body: bytes = b"\0" * 64) -> Prepare:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return with_file("model.safetensors", struct.pack("<Q", len(text)) + text + body)

    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield Attack("models", "weights of 2^80 values", begin, weights({"a": tensor | {"shape": [2**40, 2**40]}}))
    yield Attack("models", "weights that overlap", begin, weights({"a": tensor, "b": tensor}))
    yield Attack("models", "weights with control characters", begin, weights({ESCAPES: tensor}))
    yield Attack("models", "weights of an unknown type", begin, weights({"a": tensor | {"dtype": ESCAPES}}))
    yield Attack("models", "header of 100,000 brackets", begin, weights(b"[" * 100_000))
    yield Attack("models", "header of half a character", begin, weights(b'{"\\ud800": {}}'))


def folders_of_models() -> Iterator[Attack]:
    plan = (*PLAN, "--model", "m")

    def linked(name: str, target: str | None = None) -> Prepare:
        def prepare(folder: Path) -> None:
            path = model(folder) / name
            path.unlink(missing_ok=True)
            path.symlink_to(target or kept(folder))

        return prepare

    yield Attack("models", "LICENSE is a link to a secret", plan, linked("LICENSE"), (0, 2))
    yield Attack("models", "config is a link to a secret", plan, linked("config.json"))
    yield Attack("models", "template is a link to a secret", plan, linked("chat_template.jinja"))
    yield Attack("models", "config is a link to itself", plan, linked("config.json", "config.json"))

    def many(folder: Path) -> None:
        made = model(folder)
        edited(made / "extra.json", "{}")
        for number in range(50_000):
            (made / f"x{number}.json").touch()

    yield Attack("models", "50,000 files", plan, many)
    yield Attack("models", "name that leaves the folder", (*PLAN, "--model", "../../../etc/passwd"), suite)
    yield Attack("models", "shape that is a path", (*PLAN, "--model", "shape:../../keep"), suite)


def gguf_models() -> Iterator[Attack]:
    plan = (*PLAN, "--model", "m.gguf")

    def text(value: bytes, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(value) if length is None else length) + value

    def key(name: str, kind: int, value: bytes) -> bytes:
        return text(name.encode("utf-8", "surrogatepass")) + struct.pack("<I", kind) + value

    def file(
        *keys: bytes,
        tensors: bytes = b"",
        counts: tuple[int, int] | None = None,
        version: int = 3,
        magic: bytes = b"GGUF",
    ) -> bytes:
        number = counts or (tensors.count(b"T\1") or bool(tensors), len(keys))
        return magic + struct.pack("<IQQ", version, *number) + b"".join(keys) + tensors + b"\0" * 64

    llama = key("general.architecture", 8, text(b"llama"))
    integer = lambda name, value: key(name, 4, struct.pack("<I", value))  # noqa: E731
    shape = text(b"token_embd.weight") + struct.pack("<I4QIQ", 4, *[2**62] * 4, 0, 0)
    nested = struct.pack("<IQ", 9, 1) * 5_000 + struct.pack("<IQ", 4, 0)
    contents: Mapping[str, bytes] = {
        "empty": b"",
        "only the magic": b"GGUF",
        "another order of bytes": file(magic=b"FUGG"),
        "version 2^31": file(llama, version=2**31),
        "2^63 keys": file(llama, counts=(0, 2**63)),
        "2^63 tensors": file(llama, counts=(2**63, 1)),
        "a text of 2^62 bytes": file(key("general.architecture", 8, text(b"llama", 2**62))),
        "a list of 2^60 numbers": file(llama, key("a", 9, struct.pack("<IQ", 4, 2**60))),
        "5,000 lists in each other": file(llama, key("a", 9, nested)),
        "an alignment of 0": file(llama, integer("general.alignment", 0), tensors=shape),
        "a tensor of 2^248 values": file(llama, tensors=shape),
        "a tensor with 2^32 dimensions": file(llama, tensors=text(b"a") + struct.pack("<I", 2**32 - 1)),
        "an unknown type of value": file(llama, key("a", 77, b"\0" * 8)),
        "not UTF-8": file(key("general.architecture", 8, text(b"\xff\xfe"))),
        "control characters": file(
            *(key(f"general.{name}", 8, text(ESCAPES.encode())) for name in ("architecture", "name"))
        ),
        "an architecture that is a number": file(integer("general.architecture", 7)),
        "a billion layers": file(llama, integer("llama.block_count", 10**9), integer("llama.embedding_length", 2**31)),
        "the same key 1,000 times": file(*[llama] * 1_000),
        "tokens that are numbers": file(llama, key("tokenizer.ggml.tokens", 9, struct.pack("<IQ3I", 4, 3, 1, 2, 3))),
    }  # fmt: skip
    for name, content in contents.items():
        yield Attack(
            "gguf", name, plan, lambda folder, content=content: (suite(folder), edited(folder / "m.gguf", content))
        )  # type: ignore[misc]
    yield Attack("gguf", "a pipe", plan, lambda folder: (suite(folder), fifo(folder / "m.gguf")))
    yield Attack(
        "gguf", "an endless device", plan, lambda folder: (suite(folder), (folder / "m.gguf").symlink_to("/dev/zero"))
    )

    def whole(**metadata: str | int) -> Prepare:
        def prepare(folder: Path) -> None:
            from tests.support.gguf_files import pocket_as_gguf

            suite(folder)
            pocket_as_gguf(folder / "m.gguf", **metadata)

        return prepare

    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

    def with_template(folder: Path) -> None:
        whole()(folder)
        path = folder / "m.gguf"
        content = path.read_bytes()
        at = content.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
        (length,) = struct.unpack("<Q", content[at : at + 8])
        path.write_bytes(content[: at + 8] + (loops + " " * length).encode()[:length] + content[at + 8 + length :])

    # The plan counts no tokens before the file has been converted, so it does not render the template.
    yield Attack("gguf", "a template without end", plan, with_template, (0, 2))
    yield Attack(
        "gguf",
        "a template without end, run",
        ("run", "s", "--grid", "g", "--profile", "cpu", "--model", "m.gguf"),
        with_template,
    )
    yield Attack("gguf", "one of 10^9 parts", plan, whole(**{"split.count": 10**9}))
    yield Attack(
        "gguf",
        "a base model with control characters",
        plan,
        whole(**{"general.source.url": ESCAPES, "general.license": ESCAPES}),
        (0, 2),
    )


def templates() -> Iterator[Attack]:
    plan, tokens = (*PLAN, "--model", "m"), ("tokens", "s", "--grid", "g", "--model", "m")
    texts = {
        "format that reads globals": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "100,000 brackets": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
        "50,000 blocks in each other": "{% if 1 %}" * 50_000 + "{% endif %}" * 50_000,
        "indent of 10^9": "{{ messages | tojson(indent=1000000000) }}",
        "centre of 10^9": "{{ 'x' | center(1000000000) }}",
        "format of 10^9": "{{ '%1000000000d' | format(1) }}",
        "list of 10^9": "{{ [1] * 1000000000 }}",
        "lipsum": "{{ lipsum(1000000) }}",
        "dates without end": "{{ strftime_now('%Y' * 10000000) }}",
        "error that is a list": "{{ raise_exception([1]) }}",
        "error of 100 MB": "{{ raise_exception('x' * 100000000) }}",
        "a file": "{% include '/etc/passwd' %}",
        "a module": "{% import 'os' as os %}{{ os.system('touch PWNED') }}",
        "messages that are emptied": "{{ messages.clear() }}",
        "half a character": "{{ '\\ud800' }}",
        "an unknown tag": "{% TOP %}",
        "a name that is not there": "{{ nothing.at.all }}",
        "a template of 30 MB": "{# " + "x" * 30_000_000 + " #}",
    }  # fmt: skip
    for name, text in texts.items():
        harmless = ("format that reads globals", "half a character", "a template of 30 MB", "dates without end")
        lenient = (0, 2) if name in harmless else (2,)  # every date is the same, and its format is not read
        yield Attack("templates", name, plan, lambda folder, text=text: template(folder, text), lenient)  # type: ignore[misc]
    shown = f"{{{{ {json.dumps(ESCAPES)} }}}}"
    yield Attack(
        "templates", "control characters in its text, tokens", tokens, lambda folder: template(folder, shown), (0, 2)
    )
    yield Attack(
        "templates",
        "control characters in its text, ids",
        (*tokens, "--ids"),
        lambda folder: template(folder, shown),
        (0, 2),
    )


def adapters() -> Iterator[Attack]:
    words = ("run", "s", "--grid", "g", "--profile", "cpu", "--adapter", "a", "--confirm-seeds", "0")

    def place(name: str, prepare: Prepare, words: tuple[str, ...] = words) -> Attack:
        return Attack("adapters", name, words, lambda folder: (suite(folder), prepare(folder)))

    changes: Mapping[str, Mapping[str, Any]] = {
        "rank that is true": {"r": True},
        "rank of 0": {"r": 0},
        "rank of 1.5": {"r": 1.5},
        "modules: a pattern without end": {"target_modules": "(.*.*.*.*.*.*.*.*.*.*.*.*)*Q"},
        "modules: a pattern that is none": {"target_modules": "((("},
        "modules: a million": {"target_modules": [f"m{n}" for n in range(1_000_000)]},
        "modules: lists": {"target_modules": [["q_proj"]]},
        "ranks: a pattern without end": {"rank_pattern": {"(.*.*.*.*.*.*.*.*.*.*.*.*)*Q": 3}},
        "alphas: a pattern without end": {"alpha_pattern": {"(.*.*.*.*.*.*.*.*.*.*.*.*)*Q": 3}},
        "alpha that is infinite": {"lora_alpha": 1e999},
        "alpha that is none": {"lora_alpha": float("nan")},
        "layers of 10^12": {"layers_to_transform": [10**12]},
        "layers: a pattern without end": {"layers_pattern": "(.*.*.*.*.*.*.*.*)*Q", "layers_to_transform": [0]},
        "10^9 layers repeated": {"layer_replication": [[0, 10**9]]},
        "class of another library": {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
        "tokens of 10^12": {"trainable_token_indices": {"embed_tokens": [10**12]}},
        "revision with control characters": {"revision": ESCAPES, "base_model_name_or_path": ESCAPES},
        "unknown key with control characters": {ESCAPES: 1},
        "half a character": {"base_model_name_or_path": "\ud800", "peft_type": "\ud800"},
        "loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 10**9}},
        "task that is a mapping": {"task_type": {"a": 1}},
        "parameters of other modules": {"target_parameters": ["(.*)*x"], "modules_to_save": ["lm_head"]},
    }
    for name, change in changes.items():
        yield place(name, lambda folder, change=change: adapter(folder, **change))  # type: ignore[misc]

    def config(content: bytes) -> Prepare:
        return lambda folder: edited(adapter(folder) / "adapter_config.json", content)

    yield place("configuration of 100,000 brackets", config(b"[" * 100_000))
    yield place("number of 6,000 digits", config(b'{"peft_type": "LORA", "r": ' + b"9" * 6_000 + b"}"))
    yield place("configuration is a pipe", lambda folder: fifo(adapter(folder) / "adapter_config.json"))
    yield place("weights are a pipe", lambda folder: fifo(adapter(folder) / "adapter_model.safetensors"))

    def linked(name: str, target: str | None = None) -> Prepare:
        def prepare(folder: Path) -> None:
            path = adapter(folder) / name
            path.unlink(missing_ok=True)
            path.symlink_to(target or kept(folder))

        return prepare

    yield place("configuration is a link to a secret", linked("adapter_config.json"))
    yield place("weights are an endless device", linked("adapter_model.safetensors", "/dev/zero"))

    def tensors(header: object) -> Prepare:
        text = json.dumps(header).encode()
        return lambda folder: adapter(folder, weights=struct.pack("<Q", len(text)) + text + b"\0" * 64)

    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    yield place("weights with control characters", tensors({ESCAPES: tensor}))
    yield place("weights of half a character", tensors({"\ud800": tensor}))
    yield place("weights of 2^80 values", tensors({name: tensor | {"shape": [2**40, 2**40]}}))
    yield place("weights without dimension", tensors({name: tensor | {"shape": []}}))
    yield place("weights of a negative shape", tensors({name: tensor | {"shape": [-2, -2]}}))
    yield place("200,000 weights", tensors({f"{name}{n}": tensor for n in range(200_000)}))
    renamed = lambda folder: adapter(folder).rename(folder / ESCAPES.replace("/", ""))  # noqa: E731
    yield place("folder with control characters", renamed, (*words[:-3], ESCAPES.replace("/", ""), *words[-2:]))


PLACES = (
    *(suites, promptfoo_suites, grids, rows, models, tokenizers, weights_of_models, folders_of_models, gguf_models),
    *(templates, adapters),
)
