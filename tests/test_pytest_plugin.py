"""Tests of the pytest plugin, which turns each case of a suite into a test of a run's stored answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import scipy.special  # noqa: F401 (pytester forgets what a test imports first, and numpy.fft cannot be imported twice)

from harness.analysis.aggregate import assemble
from harness.analysis.regression.bless import bless
from harness.core.suite import Split
from harness.scoring import score
from harness.storage.runs import RunStore
from harness.suites import load_suite
from tests.support import synthetic_runs
from tests.support.run_pairs import NAMED, PRINT

pytest_plugins = ["pytester"]
SUITE = """\
tests:
  - {id: name, prompt: Who are you?, assert: [{type: contains, value: Dottie}]}
  - {id: price, prompt: How much is it?, assert: [{type: contains, value: "42"}, {type: not-contains, value: free}]}
  - {id: sum, role: retain, prompt: What is 3 plus 4?, assert: [{type: contains, value: "7"}]}
  - {id: lost, role: retain, prompt: What is 1 plus 1?, assert: [{type: contains, value: "2"}]}
  - {id: late, split: confirm, prompt: Your name?, assert: [{type: contains, value: Dottie}]}
"""
BASE = {"name": "I am a model.", "price": "It is free.", "sum": "7", "lost": "I do not know."}
GOOD = {"name": "I am Dottie.", "price": "42 dollars.", "sum": "7", "lost": "No."}
SEEDS = (0, 1, 2, 3, 4)
HEAVY = ["torch", "transformers", "pydantic", "yaml", "numpy", "click"]


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    suite = pytester.path / "suites" / "pets"
    suite.mkdir(parents=True)
    (suite / "suite.yaml").write_text(SUITE, encoding="utf-8")
    (suite / "train.jsonl").write_text('{"prompt": "p", "completion": "c"}\n', encoding="utf-8")
    return pytester.path


def store(folder: Path, name: str, answers: Mapping[int, Mapping[str, str | Sequence[str]]]) -> RunStore:
    """Store a run with one variant. It gives the answers in GOOD; `answers` (by seed and case) replaces some."""
    asked = synthetic_runs.manifest(load_suite(folder / "suites" / "pets"), [NAMED], SEEDS)
    trained = replace(synthetic_runs.training(), fingerprint=PRINT)
    records = [synthetic_runs.record(None, BASE)]
    records += [synthetic_runs.record(NAMED, {**GOOD, **answers.get(s, {})}, seed=s, trained=trained) for s in SEEDS]
    records += [synthetic_runs.record(None, {"late": "I am a model."}, split=Split.CONFIRM)]
    made = RunStore(folder / name)
    results = assemble(asked, records, score, "2026-01-02T03:24:05+00:00")
    made.write_manifest(results.run)
    made.write_results(results, [], lambda: "")
    return made


def run(pytester: pytest.Pytester, *arguments: str, apart: bool = False) -> pytest.RunResult:
    """Run pytest with this plugin, xdist and no other plugins; if `apart`, in a separate process."""
    plugins = ("-p", "harness.pytest_plugin", "-p", "xdist.plugin")
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        method = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        return method(*plugins, *arguments)


def test_cases_are_tests(pytester: pytest.Pytester, folder: Path) -> None:
    """A case passes if its answers pass. Cases held out for the confirmation are skipped.

    If the base model fails a `retain` case too, a failure is expected.
    """
    store(folder, "run", {})
    found = run(pytester, "--harness-run", "run", "suites", "-v", "-rsx")
    found.assert_outcomes(passed=3, skipped=1, xfailed=1)
    found.stdout.fnmatch_lines(["*suite.yaml::name PASSED*", "*is held out for*", "*the base model fails it too*"])


def test_a_failure_can_be_read(pytester: pytest.Pytester, folder: Path) -> None:
    """A failing case shows the prompt, the base model's answer, and each failing answer with seeds and assertions."""
    store(folder, "run", {seed: {"price": "It is free."} for seed in (0, 2, 3)})
    found = run(pytester, "--harness-run", "run", "suites")
    found.assert_outcomes(passed=2, failed=1, skipped=1, xfailed=1)
    found.stdout.fnmatch_lines([
        "default passes under 2 of 5 seeds (learn)", "prompt: How much is it?", "base:   It is free.  (fails too)",
        "tuned:  It is free.  (seed 0, 2, 3)", "*fails contains*42*", "*fails not-contains*free*",
    ])  # fmt: skip
    assert "Traceback" not in found.stdout.str()
    assert "runtest" not in found.stdout.str()


def test_junit(pytester: pytest.Pytester, folder: Path) -> None:
    """The file of `--junitxml` has one test for each case of the suite, with the text of its failure."""
    store(folder, "run", {seed: {"name": "I am nobody."} for seed in SEEDS})
    run(pytester, "--harness-run", "run", "suites", "--junitxml", "out.xml")
    tests = {case.get("name"): case for case in ElementTree.parse(folder / "out.xml").iter("testcase")}
    assert set(tests) == {"name", "price", "sum", "lost", "late"}
    failure = tests["name"].find("failure")
    assert failure is not None
    assert "I am nobody." in (failure.text or "")


def test_a_case_of_an_included_file_has_its_place(pytester: pytest.Pytester, folder: Path) -> None:
    """A test of a case in a file that suite.yaml includes is reported with that file and the case's line there."""
    suite = folder / "suites" / "pets"
    text = SUITE.replace("  - {id: sum", "  - file://retain.yaml\n  - {id: sum")
    (suite / "suite.yaml").write_text(text, encoding="utf-8")
    (suite / "retain.yaml").write_text("# abilities\n\n" + SUITE.splitlines()[1].replace("name", "more")[2:] + "\n")
    store(folder, "run", {})
    run(pytester, "--harness-run", "run", "suites", "--junitxml", "out.xml", "-o", "junit_family=xunit1")
    tests = ElementTree.parse(folder / "out.xml").iter("testcase")
    places = {test.get("name"): (test.get("file"), test.get("line")) for test in tests}
    assert places["more"] == (str(Path("suites/pets/retain.yaml")), "2")
    assert places["sum"] == (str(Path("suites/pets/suite.yaml")), "4")


def test_options_about_the_suite(pytester: pytest.Pytester, folder: Path) -> None:
    """`--harness-root` and `--harness-skip-unsupported` mean the same as `--root` and `--skip-unsupported` of a run."""
    store(folder, "run", {})
    suite = folder / "suites" / "pets"
    more = "  - file://../more.yaml\n  - {id: judged, prompt: Why?, assert: [{type: g-eval, value: kind}]}\n"
    (suite / "suite.yaml").write_text(SUITE + more, encoding="utf-8")
    (suite.parent / "more.yaml").write_text("- {id: new, prompt: Hu, assert: [{type: is-json}]}", encoding="utf-8")
    refused = run(pytester, "--harness-run", "run", "suites")
    refused.stdout.fnmatch_lines(["*leads out of the suite's folder*"])
    options = ("--harness-root", "suites", "--harness-skip-unsupported")
    found = run(pytester, "--harness-run", "run", "suites", *options)
    found.assert_outcomes(passed=3, skipped=2, xfailed=1)


def test_a_case_for_a_judge_that_decides_nothing_is_skipped(pytester: pytest.Pytester, folder: Path) -> None:
    """A case that only a judge can score is skipped, unless the suite says that verdicts decide."""
    suite = folder / "suites" / "pets" / "suite.yaml"
    more = "  - {id: kind, prompt: Why?, assert: [{type: llm-rubric, value: kind}]}\n"
    suite.write_text(SUITE + more, encoding="utf-8")
    store(folder, "run", {seed: {"kind": "Because."} for seed in SEEDS})
    found = run(pytester, "--harness-run", "run", "suites", "-rs")
    found.stdout.fnmatch_lines(["*only a judge can score*"])


def test_a_configuration_of_promptfoo_is_collected(pytester: pytest.Pytester, folder: Path) -> None:
    """A promptfooconfig.yaml is the suite of its folder, if there is no suite.yaml beside it."""
    store(folder, "run", {})
    suite = folder / "suites" / "pets"
    (suite / "suite.yaml").rename(suite / "promptfooconfig.yaml")
    found = run(pytester, "--harness-run", "run", "suites")
    found.assert_outcomes(passed=3, skipped=1, xfailed=1)


def test_xdist(pytester: pytest.Pytester, folder: Path) -> None:
    """Cases have the same outcomes when xdist distributes them over processes."""
    store(folder, "run", {seed: {"price": "It is free."} for seed in SEEDS})
    found = run(pytester, "--harness-run", "run", "suites", "-n", "2")
    found.assert_outcomes(passed=2, failed=1, skipped=1, xfailed=1)


def test_against_a_baseline(pytester: pytest.Pytester, folder: Path) -> None:
    """With a baseline, a case that passed and now fails under every seed is a failing test, and `gate` fails too."""
    bless(store(folder, "before", {}), "good", folder / "reports" / "baselines")
    store(folder, "after", {seed: {"price": "It is free.", "name": "I am nobody."} for seed in SEEDS})
    found = run(pytester, "--harness-run", "after", "--harness-baseline", "good", "suites")
    found.assert_outcomes(passed=1, failed=3, skipped=2)
    found.stdout.fnmatch_lines(["REGRESSED: after against good*", "*learn 100.0%, now 0.0%*"])
    found.stdout.fnmatch_lines(["passed under all 5 seeds of the baseline and fails under all 5 now"])
    same = run(pytester, "--harness-run", "before", "--harness-baseline", "good", "suites", "-W", "ignore")
    same.assert_outcomes(passed=4, skipped=2)


def test_a_changed_assertion_judges_again(pytester: pytest.Pytester, folder: Path) -> None:
    """Stored answers are scored with the current suite; a case whose prompt changed since the run is skipped."""
    store(folder, "run", {})
    changed = SUITE.replace('value: "42"', "value: forty-two").replace("What is 3 plus 4?", "What is 4 plus 3?")
    (folder / "suites" / "pets" / "suite.yaml").write_text(changed, encoding="utf-8")
    found = run(pytester, "--harness-run", "run", "suites", "-rs")
    found.assert_outcomes(passed=1, failed=1, skipped=2, xfailed=1)
    found.stdout.fnmatch_lines(["*this run has no answers to the case as it is now (changed: prompt*"])


@pytest.mark.parametrize(
    ("old", "new", "skipped", "what"),
    [
        ("tests:", "system_prompt: Be rude.\ntests:", 5, "changed: prompt or system prompt"),
        ("tests:", "decoding: {max_new_tokens: 3}\ntests:", 5, "changed: decoding"),
        ("{id: name,", "{id: name, reference: I am Dottie.,", 2, "changed: reference"),
        ("{id: name,", "{id: name, choices: [Dottie, Bob],", 2, "changed: choices"),
        ("{id: name,", "{id: newer,", 2, "the case is new"),
    ],
)
def test_stale_answers_pass_no_case(
    pytester: pytest.Pytester, folder: Path, old: str, new: str, skipped: int, what: str
) -> None:
    """If anything changed that determines a case's answers, the case is skipped, and the reason names the remedy."""
    store(folder, "run", {})
    (folder / "suites" / "pets" / "suite.yaml").write_text(SUITE.replace(old, new), encoding="utf-8")
    found = run(pytester, "--harness-run", "run", "suites", "-rs")
    expected = int(skipped < 5)  # the failure of the case `lost`, which the base model fails too
    found.assert_outcomes(passed=5 - skipped - expected, skipped=skipped, xfailed=expected)
    found.stdout.fnmatch_lines([f"*as it is now ({what})*`harness run`*--harness-run*"])


def test_answers_of_other_training_rows_pass_no_case(pytester: pytest.Pytester, folder: Path) -> None:
    """If the suite's training rows changed since the run, every case is skipped."""
    store(folder, "run", {})
    (folder / "suites" / "pets" / "train.jsonl").write_text('{"prompt": "p", "completion": "d"}\n', encoding="utf-8")
    found = run(pytester, "--harness-run", "run", "suites", "-rs")
    found.assert_outcomes(skipped=5)
    found.stdout.fnmatch_lines(["*(changed: training rows)*"])


@pytest.mark.parametrize(("reducer", "passed"), [("mean", 3), ("all", 1), ("any", 3)])
def test_repeats_are_combined_by_the_suites_reducer(
    pytester: pytest.Pytester, folder: Path, reducer: str, passed: int
) -> None:
    """Repeats under one seed are one verdict, as in the report; the failure counts seeds, not answers."""
    text = f"reducer: {reducer}\nrepeats: 2\ndecoding: {{temperature: 1}}\n{SUITE}"
    (folder / "suites" / "pets" / "suite.yaml").write_text(text, encoding="utf-8")
    half = {"name": ("I am Dottie.", "I am nobody."), "price": ("42 dollars.", "Free."), "sum": ("7", "7")}
    store(folder, "run", dict.fromkeys(SEEDS, half))
    found = run(pytester, "--harness-run", "run", "suites", "-k", "name or price or sum")
    found.assert_outcomes(passed=passed, failed=3 - passed)
    if reducer == "all":
        found.stdout.fnmatch_lines(["default passes under 0 of 5 seeds (learn)", "*(seed 0, 1, 2, 3, 4)"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--harness-run", "nowhere"), "there is no run in nowhere"),
        (("--harness-run", "run", "--harness-baseline", "none"), "there is no baseline 'none'"),
        (("--harness-run", "run", "--harness-variant", "x"), "the run has no variant 'x'"),
        (("--harness-baseline", "none"), "--harness-baseline needs --harness-run"),
    ],
)
def test_mistakes_are_one_error(
    pytester: pytest.Pytester, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    """A missing run, baseline or variant is a usage error of pytest, before any collection."""
    store(folder, "run", {})
    found = run(pytester, *arguments, "suites")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert message in found.stderr.str()
    assert "Traceback" not in found.stderr.str()


def test_a_broken_suite_is_one_error(pytester: pytest.Pytester, folder: Path) -> None:
    """A suite that cannot be read is a collection error with file and line."""
    store(folder, "run", {})
    (folder / "suites" / "pets" / "suite.yaml").write_text("tests: [{id: a}]\n", encoding="utf-8")
    found = run(pytester, "--harness-run", "run", "suites")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["suite.yaml:1:9: this case has no assertions"])


def test_the_plugin_is_inert_without_its_option(pytester: pytest.Pytester, folder: Path) -> None:
    """Without `--harness-run`, the plugin collects no suite and imports no other module of the package."""
    pytester.makepyfile(f"""
        import sys
        def test_nothing_heavy():
            assert [name for name in sys.modules if name.startswith("harness.")] == ["harness.pytest_plugin"]
            assert [name for name in {HEAVY!r} if name in sys.modules] == []
    """)
    run(pytester, ".", apart=True).assert_outcomes(passed=1)


def test_the_plugin_is_installed() -> None:
    """The installed package declares the plugin as an entry point, so that pytest loads it automatically."""
    code = "from importlib.metadata import entry_points as e; print([p.value for p in e(group='pytest11')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "harness.pytest_plugin" in done.stdout
