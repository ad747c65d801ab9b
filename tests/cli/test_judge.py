"""Tests of `--judge`, which means the same in every command that reads a suite or a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.core.scores import Score
from harness.storage.runs import RunStore
from harness.suites import load_suite
from tests.support.judge_server import KEY, JudgeServer, serving
from tests.support.synthetic_runs import manifest, record, variants

(ONE,) = variants(1)
SUITE = """\
objective: learn
tests:
- {id: both, prompt: Which colour?, assert: [{type: icontains, value: teal}, {type: llm-rubric, value: 'says "teal"'}]}
- {id: judged, prompt: Which pet?, role: retain, assert: [{type: llm-rubric, value: 'says "cat"'}]}
"""
ROW = '{"prompt": "p", "completion": "c"}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a suite with a judge's criteria, and a run of it, into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_JUDGE_KEY", KEY)
    suite = tmp_path / "suite"
    (suite / "grids").mkdir(parents=True)
    (suite / "suite.yaml").write_text(SUITE, encoding="utf-8")
    (suite / "train.jsonl").write_text(ROW, encoding="utf-8")
    (suite / "grids" / "quick.yaml").write_text("axes: {rank: [4]}", encoding="utf-8")
    store = RunStore(tmp_path / "run")
    store.write_manifest(manifest(load_suite(suite), [ONE]))
    store.write_trial(record(None, {"both": "It is red.", "judged": "A cat."}))
    store.write_trial(record(ONE, {"both": "It is teal.", "judged": "A dog."}))
    return tmp_path


def scores() -> dict[tuple[str, str], Score]:
    return {(sample.variant, sample.case): sample.score for sample in RunStore(Path("run")).results().samples}


def decide(folder: Path, url: str, more: str = "decides: true") -> None:
    judge = f"judge: {{model: tester, base_url: '{url}', {more}}}\n"
    (folder / "suite" / "suite.yaml").write_text(judge + SUITE, encoding="utf-8")


def test_a_finished_run_is_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness score --judge` judges stored answers, says what it costs, and shows the verdicts apart."""
    with serving() as server:
        assert main(["score", "run", "--judge", f"tester@{server.url}"]) == 0
    printed = capsys.readouterr()
    assert "questions, about" in printed.err
    assert "Judged by tester at 127.0.0.1" in printed.out
    found = RunStore(folder / "run").results().judging
    assert found is not None
    assert {(rate.variant, rate.role.value): rate.passed for rate in found.rates} == {
        ("base", "learn"): 0, (ONE.name, "learn"): 1, ("base", "retain"): 1, (ONE.name, "retain"): 0,
    }  # fmt: skip
    assert scores()["base", "both"].value == 0
    assert "only a judge" in scores()["base", "judged"].error


def test_the_key_is_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is sent to the endpoint, and is in no file of the run or the cache, nor in what is printed."""
    with serving() as server:
        main(["score", "run", "--judge", f"tester@{server.url}"])
        server.refuse = lambda _: 403
        (folder / "run" / "verdicts").rename(folder / "aside")
        main(["score", "run", "--judge", f"other@{server.url}"])
    assert server.keys == {f"Bearer {KEY}"}
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_verdicts_decide_if_the_suite_says_so(folder: Path) -> None:
    """With `decides: true`, the verdicts are part of the scores of cases, and rescoring asks nothing."""
    with serving() as server:
        decide(folder, server.url)
        arguments = ["score", "run", "--suite", "suite"]
        assert main([*arguments, "--judge", "suite"]) == 0
        asked = len(server.bodies)
        assert main(arguments) == 0
        assert len(server.bodies) == asked > 0
    assert {key: score.value for key, score in scores().items()} == {
        ("base", "both"): 0, (ONE.name, "both"): 1, ("base", "judged"): 1, (ONE.name, "judged"): 0,
    }  # fmt: skip


def test_the_suites_endpoint_gets_nothing_without_permission(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` refuses a suite that names an endpoint, and `score` asks nobody, unless `--judge suite` permits it."""
    with serving() as server:
        decide(folder, server.url)
        assert main(["run", "suite", "--profile", "cpu"]) == 2
        assert "--judge suite" in capsys.readouterr().err
        assert main(["score", "run", "--suite", "suite"]) == 0
        assert server.bodies == []
    assert "--judge suite" in scores()["base", "judged"].error


def test_a_judge_that_is_down_leaves_reasons(folder: Path) -> None:
    """If the endpoint refuses, the command still ends with 0, and answers have the reason in place of a verdict."""
    with serving(JudgeServer(refuse=lambda _: 401)) as server:
        decide(folder, server.url)
        assert main(["score", "run", "--suite", "suite", "--judge", "suite"]) == 0
    assert "401" in scores()["base", "judged"].error


def test_a_judge_that_is_down_is_found_before_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` ends with 2 before anything is trained, if the judge refuses the key."""
    with serving(JudgeServer(refuse=lambda _: 401)) as server:
        assert main(["run", "suite", "--profile", "cpu", "--judge", f"tester@{server.url}", "--output", "new"]) == 2
        assert len(server.bodies) == 1
    said = capsys.readouterr().err
    assert "nothing was trained" in said
    assert "Set HARNESS_JUDGE_KEY" in said
    assert not list((folder / "new").rglob("record.json"))


def test_commands_say_what_a_judge_will_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`validate` and `plan` say how many cases need a judge, and at most how many questions it gets."""
    assert main(["validate", "suite"]) == 0
    assert "2 cases have assertions for a judge, and none is named" in " ".join(capsys.readouterr().out.split())
    assert main(["validate", "suite", "--judge", "m@https://h/v1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "They are judged by m at h" in said
    assert "1 case (1 retain) has no other assertions, so it counts for no pass rate" in said
    assert "at most 12 questions" in said
    assert "1 retain case and a margin" not in said  # it cannot show a loss
    assert main(["plan", "suite", "--profile", "cpu", "--judge", "m@https://h/v1"]) == 0
    assert "Grid quick asks a judge at most 12 questions, 8 of them to measure" in capsys.readouterr().out
    assert main(["validate", "suite", "--judge", "m@http://"]) == 2


def test_the_gate_uses_stored_verdicts(folder: Path) -> None:
    """`harness gate` asks no judge: it uses the verdicts in the directory of the run."""
    with serving() as server:
        decide(folder, server.url)
        assert main(["score", "run", "--suite", "suite", "--judge", "suite"]) == 0
        asked = len(server.bodies)
        assert main(["gate", "run", "--baseline", "run", "--json", "verdict.json"]) == 0
    assert len(server.bodies) == asked
    assert json.loads(Path("verdict.json").read_text())["verdict"] in ("unchanged", "inconclusive")
