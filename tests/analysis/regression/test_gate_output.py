"""Tests of the output of `harness gate`: text, Markdown, JSON and GitHub annotations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.regression import gate_output, verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.bless import bless
from harness.analysis.regression.run_comparison import compare
from harness.cli import main
from harness.core.regression import Decision
from harness.core.run_results import Verdict
from harness.storage.records import read_record
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import LEARN, NAMED, POLICY, PRINT, SEEDS, decided, stored


def test_drift_decides_nothing_and_comes_first() -> None:
    """Settings drift, a change of the training's fingerprint, is listed before pass rates; the verdict ignores it."""
    found = decided(run_pairs.run(fingerprint=replace(PRINT, saved_dtype="BF16")))
    said = gate_output.text(found)
    assert found.verdict is Verdict.UNCHANGED
    assert said.index("settings drift: saved dtype: F32 -> BF16") < said.index("learn 100.0%")


def test_what_is_said_of_a_regression(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text output of `harness gate` begins with the verdict, gives the reasons, and lists the lost cases."""
    capsys.readouterr()
    assert main(["gate", "worse", "--baseline", "good"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("REGRESSED: worse against good (2026-01-02")
    assert "!! learn 100.0%, now 60.0%: 40.0 points lost (p" in said
    assert "lost: learn 0 (learn), 5 of 5, now 0 of 5 seeds" in said
    assert "::error" not in said


def test_files_for_people_and_programs(here: Path) -> None:
    """`--markdown` writes the comparison as a table, and `--json` as a record with the same verdict."""
    assert main(["gate", "worse", "--baseline", "good", "--markdown", "out.md", "--json", "out.json"]) == 1
    page = Path("out.md").read_text(encoding="utf-8")
    assert page.startswith("## Regression gate: regressed\n")
    assert re.search(
        r"^\| learn, 10 cases \| 100.0% \| 60.0% \| -40.0 points \(.*\) \| p < 0.001 \|$", page, re.MULTILINE
    )
    assert read_record(Path("out.json"), Decision).verdict is Verdict.REGRESSED


def test_costs_that_are_not_judged_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the baseline has fewer than three trainings, text, Markdown and JSON say why costs are not judged."""
    bless(stored(run_pairs.results(seeds=(0, 1)), here / "two"), "two", here / "reports" / "baselines")
    capsys.readouterr()
    main(["gate", "worse", "--baseline", "two", "--markdown", "out.md", "--json", "out.json"])
    why = "not judged: the baseline has 2 finished trainings; bless a run with at least 3 seeds"
    (unjudged,) = read_record(Path("out.json"), Decision).variants[0].unjudged[1:]
    assert re.fullmatch(f"peak memory while training .* MiB, now .* MiB: {why}", unjudged)
    assert f"  - {unjudged}\n" in capsys.readouterr().out
    assert re.search(rf"^\| peak memory while training .* \| `{why}` \|$", Path("out.md").read_text(), re.MULTILINE)


def test_annotations_on_github(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a GitHub workflow, a regression is printed as an error annotation and settings drift as a warning."""
    drifted = run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS), fingerprint=replace(PRINT, saved_dtype="BF16"))
    stored(drifted, here / "drifted")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    capsys.readouterr()
    assert main(["gate", "drifted", "--baseline", "good"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "::warning title=default%3A settings drift::saved dtype: F32 -> BF16" in said
    assert any(line.startswith("::error title=default%3A regressed::learn 100.0%25, now 60.0%25") for line in said)


@pytest.mark.parametrize(
    "hostile", [*synthetic_runs.HOSTILE, "`` ``` ````", "a | b\n\n| c |", "::error::pwned\n::error::x", "##[error]x"]
)
def test_other_peoples_text_steers_nothing(here: Path, hostile: str) -> None:
    """No answer can put control characters into the terminal, end its code span in Markdown, or make an annotation."""
    results = run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS))
    bad = tuple(
        replace(s, answer=replace(s.answer, text=hostile)) if not s.score.passed and s.variant != "base" else s
        for s in results.samples
    )
    found = verdict.decide(compare(run_pairs.run(), baseline_of(replace(results, samples=bad), "hostile")), POLICY)
    said, page = gate_output.text(found), gate_output.markdown(found)
    assert all(c.isprintable() or c == "\n" for c in said + page)
    assert max(map(len, said.splitlines())) < 420
    assert not any(line.strip().startswith("::") or "##[" in line for line in said.splitlines())
    for line in page.splitlines():
        if "  - now:" in line:
            fence = re.match(r"  - now: (`+)", line)
            assert fence is not None
            assert line.endswith(fence.group(1))
            assert len(re.findall(rf"(?<!`){fence.group(1)}(?!`)", line)) == 2


def test_a_variants_name_is_no_command() -> None:
    """If a variant's name looks like a GitHub workflow command, no line of the output begins with it."""
    called = replace(NAMED, name="::error::pwned")
    found = decided(run_pairs.run(variant=called), run_pairs.run(variant=called))
    assert not any(line.strip().startswith("::") for line in gate_output.text(found).splitlines())
