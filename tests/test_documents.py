"""Check the README, the pages of docs/ and the pages for contributors against the code.

`python -m tests.test_documents` writes the generated parts of these pages.
"""

from __future__ import annotations

import ast
import csv
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from harness.cli import cli, main
from harness.core.schedules import NEEDS, OPTIONS, TAKES
from harness.storage.records import write_record
from harness.suites import load_suite
from harness.suites.grids import parse_plan
from tests.support.synthetic_runs import results
from tests.test_layers import ROOMS

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
README, DOCS = ROOT / "README.md", ROOT / "docs"
GLOSSARY, NOTEBOOKS = DOCS / "glossary.md", (DOCS / "gpu.md", DOCS / "cluster.md")
ARCHITECTURE, CONTRIBUTING, TESTS = ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "tests/README.md"
FOR_CONTRIBUTORS = (ARCHITECTURE, CONTRIBUTING, TESTS)
PAGES = (
    README,
    *FOR_CONTRIBUTORS,
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.glob("*.md")),
    ROOT / "suites/README.md",
    *sorted((ROOT / "reports").rglob("*.md")),
)
"""Every page whose links and commands are checked."""
MOST_WORDS = {README: 1200, ARCHITECTURE: 900, CONTRIBUTING: 1100}
MOST_TERMS, MOST_SENTENCES = 40, 2

GENERATED = re.compile(r"(?<=<!-- generated: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SCRIPT = re.compile(r"\b(tests/[\w/]+\.(?:py|json|txt))\b|python -m (tests(?:\.\w+)+)")
PLACEHOLDER = re.compile(r"\bROOM\b|_MODULE\b|\bMODULE\b|\bNAME\b")
"""Words that stand for any name in a path."""
TERM = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.MULTILINE)


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page that are in one of these languages."""
    return [content for language, content in FENCE.findall(text(page)) if language in languages]


def on_every_page(found: Any) -> list[Any]:
    """Test parameters: each page, paired with each item that `found` returns for the page."""
    return [pytest.param(page, each, id=f"{name(page)}: {str(each)[:60]}") for page in PAGES for each in found(page)]


# --- what is generated -------------------------------------------------------------------------------------------


def help_of(command: str) -> str:
    """Return what `harness COMMAND --help` prints in 80 columns."""
    words = [*command.split()[1:], "--help"]
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(cli, words, prog_name="harness", catch_exceptions=False).output


def help_pages() -> Iterator[str]:
    yield f"```text\n{help_of('harness')}```\n"
    for command in cli.list_commands(click.Context(cli)):
        yield f"\n## harness {command}\n\n```text\n{help_of(f'harness {command}')}```\n"


LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list of names"}


def settings_table() -> Iterator[str]:
    """Lines of the table of a grid's settings, with defaults and limits from the JSON Schema of grids."""
    schema = json.loads(CliRunner().invoke(cli, ["schema", "grid"], catch_exceptions=False).output)
    yield "| Setting | Default | Values |\n|---|---|---|\n"
    for setting, form in schema["$defs"]["Row"]["properties"].items():
        if setting != "name":
            default = {} if form.get("type") == "object" else form.get("default", [])
            yield f"| `{setting}` | {_plain(default)} | {_values(form, schema)} |\n"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _values(form: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in form:
        form = schema["$defs"][form["$ref"].rpartition("/")[2]] | {
            key: form[key] for key in form.keys() & {"description"}
        }
    if "anyOf" in form:
        return ", or ".join(_values(each, schema) for each in form["anyOf"])
    if "enum" in form:
        return ", ".join(f"`{value}`" for value in form["enum"])
    if form.get("items", {}).get("type") == "integer":
        return f"a list of whole numbers{_remark(form.get('description', ''))}"
    if form["type"] == "string":
        return "a regular expression for whole names of modules"
    if form["type"] == "object":
        return "a mapping of [options](#options-of-schedulers)"
    limits = [f"{words} {form[key]:,}" for key, words in LIMITS.items() if key in form]
    return f"{' '.join((KINDS[form['type']], ' and '.join(limits))).strip()}{_remark(form.get('description', ''))}"


def schedules_table() -> Iterator[str]:
    """Lines of the table of the schedulers that take options."""
    yield "| Scheduler | Options | Needed |\n|---|---|---|\n"
    for scheduler, names in TAKES.items():
        needed = " or ".join(f"`{name}`" for name in NEEDS.get(scheduler, ()))
        yield f"| `{scheduler}` | {'; '.join(f'`{name}`: {OPTIONS[name].words}' for name in names)} | {needed} |\n"


def _remark(description: str) -> str:
    return f" ({description.rstrip('.')})" if description else ""


WIDTH = 72
"""Columns of the picture; divisible by 2, 3 and 4, so that up to four rooms fill a row evenly."""


def rooms_picture() -> Iterator[str]:
    """Lines of a picture of the rooms. Each room stands one row above the highest room that it imports."""
    rows: dict[str, int] = {}
    for name, room in ROOMS.items():
        rows[name] = 1 + max((rows[below] for below in room.below.split()), default=-1)
    yield "```text\n"
    for row in range(max(rows.values()), -1, -1):
        names = [name for name in ROOMS if rows[name] == row]
        width = WIDTH // len(names) - 1
        yield f"+{'+'.join('-' * width for _ in names)}+\n|{'|'.join(name.center(width) for name in names)}|\n"
    yield f"+{'-' * (WIDTH - 1)}+\n```\n"


GENERATORS = {
    "help": help_pages, "settings": settings_table, "schedules": schedules_table, "rooms": rooms_picture,
}  # fmt: skip


def written_anew(page: Path) -> str:
    """Return a page's text in which the generated parts are up to date."""
    return GENERATED.sub(lambda found: f"{found[1]}{found[2]}{''.join(GENERATORS[found[1]]())}", text(page))


@pytest.mark.parametrize("page", [page for page in PAGES if GENERATED.search(text(page))], ids=name)
def test_generated_parts_are_current(page: Path) -> None:
    """The generated parts of a page (help of commands, settings, picture of rooms) match the program."""
    assert text(page) == written_anew(page), "run `python -m tests.test_documents`"


# --- commands ----------------------------------------------------------------------------------------------------


def console_lines(page: Path) -> Iterator[str]:
    """Find every call of `harness` on a page: in text, in a block, or in a notebook's cell."""
    lines = [line for block in blocks(page, "sh", "python", "") for line in block.splitlines()]
    for line in (*SPAN.findall(text(page)), *INDENTED.findall(text(page)), *lines):
        for part in line.split("&&"):
            if found := re.match(r"!?(harness [a-z-].*)", part.strip().removeprefix("$ ")):
                yield found[1]


@pytest.mark.parametrize(("page", "line"), on_every_page(lambda page: dict.fromkeys(console_lines(page))))
def test_commands_exist(page: Path, line: str) -> None:
    """Every call of `harness` on a page names a command and options that exist, with values that they accept."""
    words = shlex.split(line, comments=True)[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    command = cli.commands[words[0]]
    parser = command.make_parser(click.Context(command, help_option_names=["-h", "--help"]))
    given, left, _ = parser.parse_args(words[1:])
    assert not left, f"{name(page)}: too many arguments"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            assert value in parameter.type.choices


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sessions_exist(page: Path) -> None:
    """Every `nox -s SESSION` on a page is a session of noxfile.py."""
    assert set(re.findall(r"nox -s ([a-z]+)", text(page))) <= set(sessions())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_of_pytest_exist(page: Path) -> None:
    """Every `--harness-...` on a page is an option of the pytest plugin."""
    plugin = (ROOT / "harness/pytest_plugin.py").read_text(encoding="utf-8")
    assert set(re.findall(r"--harness-[a-z-]+", text(page))) <= set(re.findall(r'"(--harness-[a-z-]+)"', plugin))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_exist(page: Path) -> None:
    """If a page names a script of tests/, by path or as a module, this script exists."""
    for path, module in SCRIPT.findall(text(page)):
        program = path or f"{module.replace('.', '/')}.py"
        assert PLACEHOLDER.search(program) or (ROOT / program).is_file(), program


# --- names in the code -------------------------------------------------------------------------------------------

PATH = re.compile(r"\.?[\w-]+(?:/[\w.-]+)+|[\w-]+\.(?:md|py|toml|txt|yaml|json)")
NAMED = re.compile(rf"({PATH.pattern}): ([A-Za-z_]\w*(?:\.\w+)*)")
"""`file: function`, `file: Class` or `file: Class.member`."""


def spans(page: Path, form: re.Pattern[str]) -> list[str]:
    """Return the different texts in backticks on a page that have this form."""
    return [span for span in dict.fromkeys(SPAN.findall(FENCE.sub("", text(page)))) if form.fullmatch(span)]


def for_contributors(form: re.Pattern[str]) -> list[Any]:
    """Test parameters: each page for contributors with each text in backticks that has this form."""
    return [pytest.param(span, id=f"{name(page)}: {span}") for page in FOR_CONTRIBUTORS for span in spans(page, form)]


def members(nodes: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Find the functions, classes and variables that statements define."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield ast.unparse(target), node


def section(page: Path, heading: str) -> str:
    """Return the text of a page from a heading of the second level to the next one."""
    return text(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(page: Path, heading: str) -> list[str]:
    """Return the first cell of each row of the table in a section."""
    rows = [row for row in FENCE.sub("", section(page, heading)).splitlines() if row.startswith("| ")]
    return [row.split("|")[1].strip(" `") for row in rows[1:]]


def sessions() -> list[str]:
    """Return the names of all nox sessions, in the order of noxfile.py."""
    return re.findall(r"^def ([a-z]+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", for_contributors(PATH))
def test_paths_exist(path: str) -> None:
    """Every path in backticks on a page for contributors exists, or its part before a placeholder such as NAME does."""
    known = path if not (found := PLACEHOLDER.search(path)) else path[: found.start()].rpartition("/")[0]
    assert (ROOT / known).exists()


@pytest.mark.parametrize("span", for_contributors(NAMED))
def test_named_code_exists(span: str) -> None:
    """Every `file: function` on a page for contributors names a definition in that file."""
    path, _, dotted = span.partition(": ")
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for part in dotted.split("."):
        found = dict(members(body))
        assert part in found, f"{path} has no {dotted}"
        body = getattr(found[part], "body", [])


def test_the_table_of_rooms_is_complete() -> None:
    """ARCHITECTURE.md says what every room of the table ROOMS owns, in the order of that table."""
    assert first_cells(ARCHITECTURE, "The rooms") == list(ROOMS)


def test_changes_are_in_both_documents() -> None:
    """ARCHITECTURE.md and CONTRIBUTING.md describe the same ten changes."""
    changes = first_cells(CONTRIBUTING, "Ten changes")
    assert len(changes) == 10
    assert first_cells(ARCHITECTURE, "Where ten changes go") == changes


def test_all_sessions_are_documented() -> None:
    """CONTRIBUTING.md names every session of noxfile.py."""
    assert set(re.findall(r"nox -s ([a-z]+)", section(CONTRIBUTING, "Commands"))) == set(sessions())


def test_every_study_is_listed() -> None:
    """tests/README.md gives the command of every program in tests/studies."""
    modules = (ROOT / "tests/studies").glob("*.py")
    programs = {path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")}
    assert programs <= set(re.findall(r"python -m tests\.studies\.(\w+)", text(TESTS)))


# --- examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "block"), on_every_page(lambda page: blocks(page, "yaml")))
def test_yaml_is_quoted_or_read(page: Path, block: str, tmp_path: Path) -> None:
    """A YAML example that names its file is in that file word for word; one with cases or a grid can be read.

    An example of a workflow gives the action the inputs that it has, and one for pre-commit names its hook.
    """
    first, _, rest = block.partition("\n")
    if first.startswith("# from "):
        assert rest in (ROOT / first.removeprefix("# from ")).read_text(encoding="utf-8")
    elif re.search(r"^tests:", block, re.MULTILINE):
        (tmp_path / "suite.yaml").write_text(block, encoding="utf-8")
        (tmp_path / "retain.yaml").write_bytes((ROOT / "suites/retention/retain.yaml").read_bytes())
        assert load_suite(tmp_path).cases
    elif steps := re.findall(r"uses: \./(\S+)\n\s+with:((?: \{.*\}\n)|(?:\n\s+.+)+)", block):
        action = yaml.safe_load((ROOT / steps[0][0] / "action.yml").read_text(encoding="utf-8"))
        given = set(re.findall(r"([\w-]+): ", steps[0][1]))
        assert {name for name, of in action["inputs"].items() if of.get("required")} <= given <= set(action["inputs"])
    elif "repos" in (yaml.safe_load(block) or {}):
        hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
        assert [hook["id"] for hook in yaml.safe_load(block)["repos"][0]["hooks"]] == [hook["id"] for hook in hooks]
    elif re.search(r"^(search|axes|paired):", block, re.MULTILINE):
        assert parse_plan(block, "grid.yaml").variants
    else:
        assert re.fullmatch(r"# yaml-language-server: \$schema=\S+\n", block), f"{name(page)}: unchecked YAML"


@pytest.mark.parametrize(
    ("page", "block"), on_every_page(lambda page: blocks(page, "python") if page not in NOTEBOOKS else [])
)
def test_python_runs(page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code on a page runs without errors if the run directory that it names exists."""
    folder = tmp_path / "reports/runs/workshop-quick-pocket"
    made = results(4, 8, hostile=False)
    write_record(folder / "run.json", made.run)
    write_record(folder / "results.json", made)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, name(page), "exec"), {})


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name)
def test_cells_are_python(page: Path) -> None:
    """The notebook cells in docs/gpu.md and docs/cluster.md are valid Python, except lines that begin with ! or %."""
    cells = blocks(page, "python")
    assert cells
    for cell in cells:
        ast.parse("\n".join(line for line in cell.splitlines() if not line.startswith(("!", "%"))))


def test_the_rows_become_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the README's CSV rows are saved, its commands `harness new` and `harness validate` succeed."""
    (rows,) = blocks(README, "csv")
    assert len(list(csv.DictReader(rows.splitlines()))) > 1
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text(rows, encoding="utf-8")
    lines = list(console_lines(README))
    for command in ("new", "validate"):
        (line,) = (line for line in lines if line.startswith(f"harness {command} "))
        assert main(shlex.split(line)[1:]) == 0


def test_named_parts_of_the_report_exist() -> None:
    """Every section and heading that docs/report.md names is in the sample report."""
    sample = html.unescape((ROOT / "reports/sample/report.html").read_text(encoding="utf-8"))
    table = text(DOCS / "report.md").partition("## Sections")[2].partition("\n\n|")[2].partition("\n\n")[0]
    sections = re.findall(r"^\| ([A-Z][\w -]+) \|", table, re.MULTILINE)[1:]
    assert len(sections) > 1
    for heading in (*sections, *re.findall(r'"([A-Z][^"]+)"', text(DOCS / "report.md"))):
        assert f">{heading}<" in sample


# --- links -------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in HEADING.findall(FENCE.sub("", text(page))))
    return {re.sub(r"[^\w\- ]", "", html.unescape(heading).lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize(("page", "target"), on_every_page(lambda page: sorted(set(LINK.findall(text(page))))))
def test_links_lead_somewhere(page: Path, target: str) -> None:
    """Every relative link leads to an existing file or folder, and its anchor, if any, to a heading there."""
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists()
    assert not anchor or anchor in anchors(there)


def test_every_page_is_in_the_index() -> None:
    """The README links to every page of docs/."""
    linked = {(ROOT / target).resolve() for target in LINK.findall(text(README)) if "#" not in target}
    assert set(DOCS.glob("*.md")) <= linked


# --- length and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", MOST_WORDS, ids=name)
def test_pages_are_short(page: Path) -> None:
    """The README has at most 1,200 words, as counted by `wc -w`, ARCHITECTURE.md 900 and CONTRIBUTING.md 1,100."""
    assert len(text(page).split()) <= MOST_WORDS[page]


def test_glossary_is_short_and_sorted() -> None:
    """The glossary has at most 40 terms in alphabetical order, each defined once in one or two sentences."""
    entries = TERM.findall(text(GLOSSARY))
    terms = [term.casefold() for term, _ in entries]
    assert 0 < len(terms) <= MOST_TERMS
    assert terms == sorted(set(terms))
    for term, definition in entries:
        assert 1 <= len(re.findall(r"\.(?:\s|$)", definition)) <= MOST_SENTENCES, term


def test_glossary_is_used() -> None:
    """Every term of the glossary is used on another page."""
    others = " ".join(" ".join(text(page).split()).casefold() for page in PAGES if page != GLOSSARY)
    missing = [term for term, _ in TERM.findall(text(GLOSSARY)) if term.casefold() not in others]
    assert not missing


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(written_anew(each), encoding="utf-8")
