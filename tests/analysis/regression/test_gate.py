"""The gate says what is worse, what is safe and what is unknown, and why; a baseline is what it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import regression
from harness.analysis.regression import gate, words
from harness.analysis.regression.run_comparison import pair
from harness.cli import main
from harness.core.engines import Engine
from harness.core.formats import FORMAT
from harness.core.measurement import Basis, Measurement, Phase
from harness.core.regression import Baseline, CostChange, Decision, Policy
from harness.core.results import Results, Verdict
from harness.core.settings import Settings
from harness.core.suite import Assertion, Case, Role
from harness.core.training import Status
from harness.core.units import Unit
from harness.storage.baselines import read_baseline
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import CASES, NAMED, PRINT, SEEDS

LEARN = [case.id for case in CASES if case.role is Role.LEARN]
POLICY = Policy(margin=10)


def decided(after: Baseline, before: Baseline | None = None, policy: Policy = POLICY) -> Decision:
    return gate.decide(pair(before or run_pairs.run(), after), policy)


def critical(cases: tuple[Case, ...] = CASES) -> tuple[Case, ...]:
    return (replace(cases[0], critical=True), *cases[1:])


# --- verdicts ----------------------------------------------------------------------------------------------------


def test_the_same_is_unchanged() -> None:
    """A run held against its like is UNCHANGED, and says what may have been lost and what would have shown."""
    found = decided(run_pairs.run(seeds=(5, 6, 7, 8, 9)))
    assert found.verdict is Verdict.UNCHANGED
    assert "less than" in found.variants[0].reasons[0].text
    assert "would have shown" in found.variants[0].reasons[0].text


def test_a_loss_is_a_regression() -> None:
    """Three of ten learned cases lost under every seed are a regression of `learn`, and of nothing else."""
    found = decided(run_pairs.run(dict.fromkeys(LEARN[:3], SEEDS)))
    worse = [reason.text for reason in found.variants[0].reasons if reason.verdict is Verdict.REGRESSED]
    assert found.verdict is Verdict.REGRESSED
    assert [text.split()[0] for text in worse] == ["learn"]
    assert "100.0%, now 70.0%: 30.0 points lost (p" in worse[0]


def test_a_gain_is_an_improvement() -> None:
    """The same the other way round is IMPROVED."""
    assert decided(run_pairs.run(), run_pairs.run(dict.fromkeys(LEARN[:3], SEEDS))).verdict is Verdict.IMPROVED


def test_a_sure_loss_below_the_least_effect_is_none() -> None:
    """However sure a loss is, below the policy's least effect it is not called a regression."""
    wide = tuple(synthetic_runs.case(f"learn {n}", Role.LEARN) for n in range(60))
    before, after = (run_pairs.run(failing, cases=wide) for failing in ({}, {"learn 1": SEEDS, "learn 2": SEEDS}))
    assert pair(before, after).variants[0].roles[0].worse_adjusted < 0.05
    assert decided(after, before).verdict is Verdict.UNCHANGED
    assert decided(after, before, Policy(10, least=1)).verdict is Verdict.REGRESSED


def test_what_cannot_be_told_is_inconclusive() -> None:
    """Where a loss above the margin can neither be shown nor excluded, the verdict says so and what would help."""
    found = decided(run_pairs.run({id: [0] for id in LEARN[:6]}, seeds=(0, 1)), run_pairs.run(seeds=(0, 1)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "more seeds or cases would tell" in found.variants[0].reasons[0].text


def test_a_critical_case_speaks_for_itself() -> None:
    """One critical case that fails under every seed is a regression; under all but one it is not, nor uncritical."""
    everywhere, nearly = {"learn 0": SEEDS}, {"learn 0": SEEDS[1:]}
    before = run_pairs.run(cases=critical())
    found = decided(run_pairs.run(everywhere, cases=critical()), before, Policy(50, least=50))
    assert (found.verdict, found.variants[0].reasons[0].text) == (
        Verdict.REGRESSED, "critical case learn 0 passed before and fails under all 5 seeds",
    )  # fmt: skip
    assert decided(run_pairs.run(nearly, cases=critical()), before, Policy(50, least=50)).verdict is Verdict.UNCHANGED
    assert decided(run_pairs.run(everywhere), policy=Policy(50, least=50)).verdict is Verdict.UNCHANGED


def test_a_mark_removed_is_still_critical() -> None:
    """A case that the baseline's suite calls critical stays so, whatever the later suite says."""
    found = decided(run_pairs.run({"learn 0": SEEDS}), run_pairs.run(cases=critical()), Policy(50, least=50))
    assert found.verdict is Verdict.REGRESSED


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (Status.DIVERGED, Verdict.REGRESSED),
        (Status.OUT_OF_MEMORY, Verdict.REGRESSED),
        (Status.FAILED, Verdict.INCONCLUSIVE),
        (Status.TIMED_OUT, Verdict.INCONCLUSIVE),
        (Status.CANCELLED, Verdict.INCONCLUSIVE),
    ],
)
def test_trials_that_did_not_succeed(status: Status, verdict: Verdict) -> None:
    """Trainings that break are worse than those that did not; trials without a result show nothing."""
    assert decided(run_pairs.run(status=status)).verdict is verdict


def test_one_bad_seed_is_no_regression() -> None:
    """One of five trainings that fails every learned case is a bad draw."""
    assert decided(run_pairs.run({id: [3] for id in LEARN})).verdict is not Verdict.REGRESSED


def test_not_comparable_says_why() -> None:
    """Another model is told with both names, and no variant is judged."""
    other = run_pairs.run()
    found = decided(replace(other, model=replace(other.model, name="llama", digest="d" * 16)))
    assert (found.verdict, found.reasons, found.variants) == (
        Verdict.NOT_COMPARABLE, ("model: pocket -> llama",), (),
    )  # fmt: skip


def test_no_common_case_is_not_comparable() -> None:
    """Two suites that share no case have nothing to be compared by."""
    strange = tuple(synthetic_runs.case(f"strange {n}", Role.LEARN) for n in range(3))
    assert decided(run_pairs.run(cases=strange)).verdict is Verdict.NOT_COMPARABLE


def test_the_gravest_counts() -> None:
    """Of several verdicts NOT_COMPARABLE outweighs REGRESSED, that INCONCLUSIVE, that IMPROVED, that UNCHANGED."""
    order = (Verdict.NOT_COMPARABLE, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED, Verdict.UNCHANGED)
    for number in range(len(order)):
        assert gate.gravest(order[number:][::-1]) is order[number]


def test_drift_decides_nothing_and_comes_first() -> None:
    """Another saved dtype is told by name before any statistics, and the verdict stays what behaviour says."""
    found = decided(run_pairs.run(fingerprint=replace(PRINT, saved_dtype="BF16")))
    said = words.text(found)
    assert found.verdict is Verdict.UNCHANGED
    assert said.index("settings drift: saved dtype: F32 -> BF16") < said.index("learn 100.0%")


# --- what cannot be compared --------------------------------------------------------------------------------------


def test_nothing_to_compare_is_not_unchanged() -> None:
    """A variant of which the earlier run has no result is inconclusive, and it is said what that run had instead."""
    before = run_pairs.run()
    row = before.variants[0]
    never = replace(row, statuses=(Status.CANCELLED,) * 5, messages=("stopped",) * 5, answers={}, costs=())
    found = pair(replace(before, variants=(never,)), run_pairs.run()).variants[0]
    judged = gate.judge(found, POLICY)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "nothing of it could be compared: before, seed 0: cancelled: stopped" in judged.reasons[0].text


def test_a_score_that_is_gone_is_not_unchanged() -> None:
    """What can no longer be scored may be what was broken: the case is counted, and nothing is called unchanged."""
    after = run_pairs.run()
    row = after.variants[0]
    left = {case: answers for case, answers in row.answers.items() if case not in LEARN[:2]}
    judged = gate.judge(
        pair(run_pairs.run(), replace(after, variants=(replace(row, answers=left),))).variants[0], POLICY
    )
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert any("2 cases that had a score before" in reason.text for reason in judged.reasons)


def test_the_trial_that_has_no_result_is_the_one_that_is_told() -> None:
    """Not one that diverged, which is a result."""
    after = run_pairs.run()
    ends = (Status.DIVERGED, *(Status.SUCCEEDED,) * 3, Status.FAILED)
    row = replace(after.variants[0], statuses=ends, messages=("loss nan", "", "", "", "boom"))
    judged = gate.judge(pair(run_pairs.run(), replace(after, variants=(row,))).variants[0], POLICY)
    assert any("1 of 5 trials have no result: seed 4: failed: boom" in reason.text for reason in judged.reasons)


def test_a_training_that_broke_off_saves_nothing() -> None:
    """Its seconds are no part of what trainings take."""
    before = run_pairs.run()
    row = before.variants[0]
    broken = replace(row, statuses=(Status.DIVERGED, *row.statuses[1:]))
    found = pair(replace(before, variants=(broken,)), before).variants[0]
    assert [(len(cost.before), len(cost.after)) for cost in found.costs] == [(4, 5), (4, 5)]


# --- costs -------------------------------------------------------------------------------------------------------


def measured(*values: float, unit: Unit = Unit.SECONDS) -> tuple[Measurement, ...]:
    return tuple(Measurement(value, unit, Basis.MEASURED, "Tesla T4") for value in values)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((100, 100, 100, 100, 100), (109,) * 5, False),
        ((100, 100, 100, 100, 100), (111,) * 5, True),
        ((80, 120, 100, 90, 110), (130,) * 5, False),
        ((80, 120, 100, 90, 110), (200,) * 5, True),
        ((100, 100, 100, 100, 100), (50,) * 5, False),
    ],
)
def test_costs_rise_beyond_the_repeats(before: tuple[float, ...], after: tuple[float, ...], worse: bool) -> None:
    """Time is a regression beyond a tenth, and beyond what the baseline's own repeats make of chance."""
    base = pair(run_pairs.run(), run_pairs.run()).variants[0]
    cost = CostChange("training time", measured(*before), measured(*after))
    verdict = gate.judge(replace(base, costs=(cost,)), POLICY).verdict
    assert (verdict is Verdict.REGRESSED) is worse


def test_costs_that_are_not_compared_decide_nothing() -> None:
    """Costs of another device, of a CPU's time, or with fewer than three repeats to learn from are told, not judged."""
    base = pair(run_pairs.run(), run_pairs.run()).variants[0]
    dear = CostChange("training time", measured(1, 1, 1), measured(9, 9, 9), "another device")
    few = CostChange("training time", measured(1, 1), measured(9, 9))
    assert gate.judge(replace(base, costs=(dear, few)), POLICY).verdict is Verdict.UNCHANGED
    assert [cost.hindrance for cost in base.costs] == ["a CPU's time is also that of what else it does", ""]


def test_chance_alone_raises_no_cost() -> None:
    """Of 2,000 simulated pairs whose costs differ by chance alone, 5% or 30% each, at most 0.5% are called worse."""
    import numpy as np

    rng = np.random.default_rng(0)
    base = pair(run_pairs.run(), run_pairs.run()).variants[0]
    alarms = 0
    for number in range(2_000):
        sides = rng.lognormal(0, (0.05, 0.3)[number % 2], size=(2, 5))
        cost = CostChange("training time", measured(*sides[0]), measured(*sides[1]))
        alarms += gate.judge(replace(base, roles=(), costs=(cost,)), POLICY).verdict is Verdict.REGRESSED
    assert alarms / 2_000 <= 0.005


# --- baselines ---------------------------------------------------------------------------------------------------


def stored(results: Results, folder: Path) -> RunStore:
    store = RunStore(folder)
    store.write_manifest(results.run)
    store.write_results(results, [], "")
    return store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run `first`, blessed as `good`, and `worse`, which has lost four cases."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    stored(run_pairs.results(), tmp_path / "first")
    stored(run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS)), tmp_path / "worse")
    assert main(["bless", "first", "--name", "good"]) == 0
    return tmp_path


GOOD = Path("reports/baselines/good.json")


@pytest.mark.usefixtures("here")
def test_blessing_says_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    """The file alone goes to stdout, for scripts; how to use it is said beside it, and works as said."""
    capsys.readouterr()
    assert main(["bless", "first", "--name", "v1.2"]) == 0
    said = capsys.readouterr()
    assert said.out == "reports/baselines/v1.2.json\n"
    told = said.err.strip().partition("harness ")[2].replace("RUN", "first")
    assert told == "gate first --baseline v1.2"
    assert main(told.split()) == 0


def test_a_baseline_is_what_was_blessed(here: Path) -> None:
    """What is read is the run reduced, and blessing it again writes the same bytes."""
    first = GOOD.read_bytes()
    kept = read_baseline(GOOD)
    assert replace(kept, digest="") == replace(run_pairs.run(name="good"), provenance=kept.provenance)
    assert main(["bless", "first", "--name", "good"]) == 0
    assert GOOD.read_bytes() == first


def test_a_baseline_is_small_and_has_no_rows(here: Path) -> None:
    """Answers that all seeds gave alike are there once, on a line of their own; no training row and no path is."""
    text = GOOD.read_text(encoding="utf-8")
    assert re.search(r'^ +"learn 0": \[\{"text": "good", "seeds": \[0, 1, 2, 3, 4\].*\}\],$', text, re.MULTILINE)
    assert "good day" not in text
    assert "suites/workshop" not in text
    assert len(text) < 30_000


def test_odd_texts_survive(tmp_path: Path) -> None:
    """Quotes, control characters, foreign scripts and half a surrogate pair do not make a baseline look edited."""
    results = run_pairs.results()
    odd = [
        replace(s, answer=replace(s.answer, text=synthetic_runs.HOSTILE[n % len(synthetic_runs.HOSTILE)]))
        for n, s in enumerate(results.samples)
    ]
    store = stored(replace(results, samples=tuple(odd)), tmp_path / "run")
    assert read_baseline(regression.bless(store, "odd", tmp_path)).name == "odd"


def edited(change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(GOOD.read_text(encoding="utf-8"))
    change(data)
    GOOD.write_text(json.dumps(data), encoding="utf-8")


def pretend_better(data: dict[str, Any]) -> None:
    data["variants"][0]["answers"]["learn 0"][0]["passed"] = False


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: edited(lambda data: data.update(format=FORMAT + 1)), r"has format \d+.*\nUpgrade the harness"),
        (lambda: GOOD.write_text(GOOD.read_text()[:900]), r"good.json is damaged.*\nRestore it.*harness bless"),
        (
            lambda: edited(pretend_better),
            r"damaged: its content does not match its digest, so it was edited\nRestore it",
        ),
        (lambda: edited(lambda data: data.pop("digest")), "so it was edited"),
        (lambda: GOOD.write_text("[]"), "good.json is damaged: it does not hold a JSON object"),
        (lambda: GOOD.unlink(), "there is no baseline 'good' in reports/baselines\nMake one with"),
    ],
    ids=["newer", "truncated", "edited", "no digest", "not an object", "missing"],
)
def test_a_bad_baseline_is_one_error(
    here: Path, spoil: Callable[[], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A baseline that is newer, truncated, edited by hand or missing is one error with a remedy, and exit code 2."""
    spoil()
    capsys.readouterr()
    assert main(["gate", "first", "--baseline", "good"]) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err, re.DOTALL)
    assert (said.out, said.err.count("Error:")) == ("", 1)


def test_a_reformatted_baseline_is_the_same(here: Path) -> None:
    """The digest is of what a baseline says, not of how its JSON is laid out."""
    edited(lambda data: None)
    assert main(["gate", "first", "--baseline", "good"]) == 0


def test_a_missing_variant_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that lacks one of the baseline's variants cannot pass for it; the message names it and the way out."""
    other = replace(NAMED, name="another", settings=Settings(5e-3))
    stored(run_pairs.results(variant=other), here / "other")
    assert main(["gate", "other", "--baseline", "good"]) == 2
    assert re.search("other lacks what the baseline good has: default\nRun the", capsys.readouterr().err)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED])
def test_an_empty_run_is_an_error(here: Path, status: Status, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without any finished trial can neither be gated nor blessed."""
    stored(run_pairs.results(status=status), here / "empty")
    assert main(["gate", "empty", "--baseline", "good"]) == 2
    assert "the run in empty is empty: it has no finished trial" in capsys.readouterr().err
    assert main(["bless", "empty"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_an_unfinished_run_is_not_blessed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A baseline needs every trial's result."""
    results = run_pairs.results()
    half = replace(results.variants[0], statuses=(Status.SUCCEEDED, *[Status.CANCELLED] * 4))
    stored(replace(results, variants=(half,)), here / "half")
    assert main(["bless", "half"]) == 2
    assert "4 trials have no result, among them default, seed 1: cancelled" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "", ".hidden", "a b"])
def test_a_baseline_has_a_plain_name(here: Path, name: str) -> None:
    """No name leads out of the baselines' directory."""
    before = sorted(here.rglob("*"))
    assert main(["bless", "first", "--name", name]) == (0 if name == "" else 2)
    assert [path for path in sorted(here.rglob("*")) if path not in before] == (
        [here / "reports/baselines/workshop-quick-pocket.json"] if name == "" else []
    )


# --- the command -------------------------------------------------------------------------------------------------


def test_exit_codes(here: Path) -> None:
    """0 for what is as good, 1 for a regression, 4 for what cannot be compared, and for doubt where that is asked."""
    stored(run_pairs.results({id: [0] for id in LEARN[:6]}, seeds=(0, 1)), here / "doubtful")
    stored(run_pairs.results(seeds=(0, 1)), here / "two")
    other = replace(run_pairs.results(), run=replace(run_pairs.results().run, engine=Engine.FUSED))
    stored(replace(other, run=replace(other.run, model=replace(other.run.model, digest="f" * 16))), here / "llama")
    assert main(["gate", "first", "--baseline", "good"]) == 0
    assert main(["gate", "worse", "--baseline", "good"]) == 1
    assert main(["gate", "llama", "--baseline", "good"]) == 4
    assert main(["gate", "doubtful", "--baseline", "two"]) == 0
    assert main(["gate", "doubtful", "--baseline", "two", "--strict"]) == 4
    assert main(["gate", "first"]) == 2


def test_the_margin_is_the_baselines(here: Path) -> None:
    """A later suite that allows more loss than the blessed one does not loosen the gate by itself."""
    lax = synthetic_runs.manifest(synthetic_runs.suite(CASES, margin=100), [NAMED], SEEDS)
    found = regression.decide(stored(run_pairs.results(run=lax), here / "lax"), "good")
    assert found.policy.margin == 10


def test_what_is_said_of_a_regression(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text leads with the verdict, gives the reason and shows lost cases with both answers."""
    capsys.readouterr()
    assert main(["gate", "worse", "--baseline", "good"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("REGRESSED: worse against good (2026-01-02")
    assert "!! learn 100.0%, now 60.0%: 40.0 points lost (p" in said
    assert "lost: learn 0 (learn), 5 of 5, now 0 of 5 seeds" in said
    assert "::error" not in said


def test_files_for_people_and_programs(here: Path) -> None:
    """`--markdown` and `--json` write the same verdict, the one as a table, the other as a record."""
    assert main(["gate", "worse", "--baseline", "good", "--markdown", "out.md", "--json", "out.json"]) == 1
    page = Path("out.md").read_text(encoding="utf-8")
    assert page.startswith("## Regression gate: regressed\n")
    assert re.search(
        r"^\| learn, 10 cases \| 100.0% \| 60.0% \| -40.0 points \(.*\) \| p < 0.001 \|$", page, re.MULTILINE
    )
    assert read_record(Path("out.json"), Decision).verdict is Verdict.REGRESSED


def test_annotations_on_github(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where GitHub runs it, a regression is an error annotation and drift a warning."""
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
    """An answer can neither send control characters to a terminal, nor leave its code in Markdown, nor annotate."""
    results = run_pairs.results(dict.fromkeys(LEARN[:4], SEEDS))
    bad = tuple(
        replace(s, answer=replace(s.answer, text=hostile)) if not s.score.passed and s.variant != "base" else s
        for s in results.samples
    )
    found = gate.decide(pair(run_pairs.run(), regression.reduced(replace(results, samples=bad), "hostile")), POLICY)
    said, page = words.text(found), words.markdown(found)
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
    """A variant called like one of GitHub's commands is a name all the same."""
    called = replace(NAMED, name="::error::pwned")
    found = decided(run_pairs.run(variant=called), run_pairs.run(variant=called))
    assert not any(line.strip().startswith("::") for line in words.text(found).splitlines())


def test_another_run_can_be_the_baseline(here: Path) -> None:
    """`--baseline` takes a baseline's file or another run's directory as well."""
    assert main(["gate", "worse", "--baseline", "first"]) == 1
    assert main(["gate", "worse", "--baseline", str(GOOD)]) == 1
    assert main(["gate", "first", "--baseline", "worse"]) == 0


def test_code_judges_again_only_if_allowed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that came to judge by code runs none of it on the baseline's answers unless that is allowed."""
    by_code = (replace(CASES[0], assertions=(Assertion("python", "judge.py:judge"),)), *CASES[1:])
    stored(run_pairs.results(cases=by_code), here / "coded")
    assert main(["gate", "coded", "--baseline", "good"]) == 2
    assert re.search("runs code: .*judge.py.*\nIf you trust it, pass --allow-code", capsys.readouterr().err)


def test_last_digits_do_not_matter() -> None:
    """A run on another machine, where one answer in a hundred differs and memory is another, is green."""
    there = replace(synthetic_runs.machine(), device="Another CPU")
    other = run_pairs.results(
        {"learn 3": [2]}, run=synthetic_runs.manifest(synthetic_runs.suite(CASES), [NAMED], SEEDS, on=there)
    )
    found = decided(regression.reduced(other, "there"))
    assert found.verdict is Verdict.UNCHANGED
    assert any("Another CPU" in line for line in words.text(found).splitlines())


def test_phases_are_not_mixed() -> None:
    """The costs of a variant are those of its trainings."""
    assert {cost.phase for cost in run_pairs.run().variants[0].costs} == {Phase.TRAIN}
