"""Tests that `harness gate` says "regressed" (1) only of results: broken input is an error (2)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.core.hashing import digest
from tests.support import run_pairs
from tests.support.run_pairs import CASES, stored

Path_ = tuple[str | int, ...]
"""The keys and indices that lead to a value in JSON."""
BASELINE = Path("reports/baselines/good.json")
RESULTS = Path("run/results.json")
DROP = "drop"
REPEAT = "repeat"
WRONG: list[Any] = [
    None,
    [],
    {},
    "x",
    "",
    -1,
    0,
    True,
    1e308,
    10**400,
    2**63,
    "\ud800",
    [[[[]]]],
    ["x"],
    {"x": 1},
    "1e999",
]
"""Values that most places in a file cannot hold."""


@pytest.fixture
def equal_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a folder with a run, and with the baseline `good` of an equal run.

    They have so few cases that no change of an answer can be a significant regression.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    few = (*CASES[:2], *CASES[10:12])
    for name in ("run", "other"):
        stored(run_pairs.results(cases=few, seeds=(0, 1)), tmp_path / name)
    assert main(["bless", "other", "--name", "good"]) == 0
    return tmp_path


def gate(*more: str) -> int:
    return main(["gate", "run", "--baseline", "good", *more])


def places(value: Any, here: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every value in JSON. Of lists, only the first two values count, since all are alike."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*here, key)
        yield from places(inner, (*here, key))


def broken(whole: Any, place: Path_, change: Any) -> Any:
    """Return a copy of JSON with the value at `place` replaced, dropped or, in a list, repeated."""
    made = json.loads(json.dumps(whole))
    inside = made
    for key in place[:-1]:
        inside = inside[key]
    if change == DROP:
        del inside[place[-1]]
    elif change == REPEAT and isinstance(inside, list):
        inside.append(inside[int(place[-1])])
    else:
        inside[place[-1]] = change
    return made


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_another_value_is_no_regression(equal_runs: Path, data: st.DataObject) -> None:
    """If any value in the results or in the baseline is wrong, missing or repeated, the exit code is not 1 or 70."""
    file = data.draw(st.sampled_from([BASELINE, RESULTS]))
    text = file.read_text(encoding="utf-8")
    whole = json.loads(text)
    place = data.draw(st.sampled_from(list(places(whole))))
    made = broken(whole, place, data.draw(st.sampled_from([DROP, REPEAT, *WRONG])))
    if file == BASELINE:  # otherwise it is refused at once, as edited by hand
        made["digest"] = digest({name: value for name, value in made.items() if name != "digest"})
    try:
        file.write_text(json.dumps(made), encoding="utf-8", errors="replace")
        assert gate("--markdown", "out.md", "--json", "out.json") in (0, 2, 4)
    finally:
        file.write_text(text, encoding="utf-8")


def first_variant(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a change of a file that edits the first variant."""

    def edit(path: Path) -> None:
        made = json.loads(path.read_text(encoding="utf-8"))
        change(made["variants"][0])
        made["digest"] = digest({name: value for name, value in made.items() if name != "digest"})
        path.write_text(json.dumps(made), encoding="utf-8")

    return edit


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a change that removes a file, and lets `make` put something else in its place."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "with a byte order mark": lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
    "of random bytes": lambda path: path.write_bytes(bytes(range(256)) * 99),
    "100,000 brackets": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[]"),
    "another format": lambda path: path.write_text('{"format": 99999}'),
    "3 GiB of zeros": replaced(sparse),
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(os.mkfifo),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a file that the system refuses to read": replaced(lambda path: path.symlink_to("/proc/self/mem")),
    "one seed too many": first_variant(lambda variant: variant["seeds"].append(7)),
    "one message too few": first_variant(lambda variant: variant["messages"].pop()),
}


@pytest.mark.parametrize("file", [BASELINE, RESULTS], ids=["baseline", "results"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_an_error(equal_runs: Path, capsys: pytest.CaptureFixture[str], kind: str, file: Path) -> None:
    """If the baseline or the results are broken, or no file, the exit code is 2, with one error and a remedy."""
    BROKEN[kind](file)
    capsys.readouterr()
    assert gate() == 2
    error = capsys.readouterr().err
    assert error.count("Error:") == 1
    assert len(error.strip().splitlines()) > 1
    assert "Traceback" not in error


def test_answers_to_unknown_cases_are_an_error(equal_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the results have an answer to a case that their suite does not have, the exit code is 2."""
    RESULTS.write_text(RESULTS.read_text(encoding="utf-8").replace('"case": "learn 0"', '"case": "other"', 1))
    assert gate() == 2
    assert "samples answer a case that the suite does not have: 'other'" in capsys.readouterr().err


def test_an_assertion_without_its_text_is_an_error(equal_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If a stored assertion has a value that its type does not accept, the error names the case, with exit code 2."""
    made = json.loads(RESULTS.read_text(encoding="utf-8"))
    made["run"]["suite"]["cases"][0]["assertions"][0]["value"] = ["x"]
    RESULTS.write_text(json.dumps(made), encoding="utf-8")
    assert gate() == 2
    assert "case learn 0: contains needs a text as its value" in capsys.readouterr().err


def test_a_run_of_another_suite_is_no_regression(equal_runs: Path) -> None:
    """If the run has other cases than the baseline, the exit code is 4: the two cannot be compared."""
    stored(run_pairs.results(cases=(*CASES[4:6], *CASES[14:16]), seeds=(0, 1)), equal_runs / "elsewhere")
    assert main(["gate", "elsewhere", "--baseline", "good"]) == 4


@pytest.mark.parametrize("option", ["--markdown", "--json"])
def test_a_verdict_that_cannot_be_written_is_an_error(equal_runs: Path, option: str) -> None:
    """If the verdict cannot be written to the named file, the exit code is 2; a pipe or a device is not replaced."""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for place in ("pipe", "folder", "pipe/below", "/proc/none"):
        assert gate(option, place) == 2
    assert Path("pipe").is_fifo()
