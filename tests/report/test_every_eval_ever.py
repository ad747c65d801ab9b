"""Tests of the form of Every Eval Ever, with the schemas and the validator of its own package."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from harness.analysis.aggregate import assemble
from harness.cli import main
from harness.core.answers import Answer
from harness.core.judges import JudgedRate, Judging
from harness.core.model import ModelRef
from harness.core.run_results import Results
from harness.core.scores import Score
from harness.core.suite import Case, JudgeRef, Message, Reducer, Role
from harness.report import every_eval_ever
from tests.support import synthetic_runs
from tests.support.report_runs import stored
from tests.support.two_bases import two_bases

CHOSEN = synthetic_runs.results(8, 18, seeds=(0, 1))


def repeated(reducer: Reducer) -> Results:
    """Return a run with three repeats of each case, some of which pass; one answer of the base has no score."""
    cases = [synthetic_runs.case(f"c{n}", role) for n, role in enumerate(Role)]
    suite = replace(synthetic_runs.suite(cases), repeats=3, reducer=reducer)
    variant = synthetic_runs.variants(1)[0]
    run = synthetic_runs.manifest(suite, [variant])
    tuned = {case.id: ["good", "bad", "good"] for case in cases}
    base = {case.id: ["good", "good", "unscorable"] for case in cases}

    def score(case: Case, answer: Answer) -> Score:
        found = synthetic_runs.score(case, answer)
        return replace(found, value=None, error="no score") if answer.text == "unscorable" else found

    records = [synthetic_runs.record(None, base)]
    records.append(synthetic_runs.record(variant, tuned, trained=synthetic_runs.training()))
    return assemble(run, records, score, "2026-01-02T03:24:05+00:00")


def conversation() -> Results:
    """Return a run whose cases are conversations of several turns under a system prompt."""
    turns = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Who are you?"))
    suite = CHOSEN.run.suite
    cases = tuple(replace(case, messages=turns, choices=("yes", "no")) for case in suite.cases)
    return replace(CHOSEN, run=replace(CHOSEN.run, suite=replace(suite, cases=cases, system_prompt="Be brief.")))


def unnamed() -> Results:
    """Return a run of a Hub model, whose suite has a name that no file can have."""
    run = replace(CHOSEN.run, model=ModelRef("meta-llama/Llama-2-7b-chat-hf", "model", "ab" * 32, revision="f5db02d"))
    return replace(CHOSEN, run=replace(run, suite=replace(run.suite, name="../\u202e: ")))


def judged() -> Results:
    """Return a run about whose base model a judge at an endpoint said something."""
    rate = JudgedRate("base", Role.RETAIN, 9, 10, 0, 0.6, 0.98)
    judge = JudgeRef("tester", "https://h/v1")
    return replace(CHOSEN, judging=Judging(judge, 60, 20, 5, 1234, 56, rates=(rate,)))


RUNS = {
    "judged": judged,
    "chosen": lambda: CHOSEN,
    "nothing chosen": lambda: synthetic_runs.results(3, 12, confirm=0, hostile=False),
    "two bases": two_bases,
    "repeats": lambda: repeated(Reducer.MEAN),
    "all repeats": lambda: repeated(Reducer.ALL),
    "conversation": conversation,
    "unnamed": unnamed,
}


def pairs(results: Results) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return each aggregate with its rows."""
    found = every_eval_ever.files(results)
    return [
        (json.loads(text), [json.loads(line) for line in found[f"{path[:-5]}_samples.jsonl"].splitlines()])
        for path, text in found.items()
        if path.endswith(".json")
    ]


@pytest.mark.parametrize("kind", RUNS)
def test_files_are_valid(kind: str, tmp_path: Path) -> None:
    """The files of each kind of run pass the validator of Every Eval Ever, with its schemas and without warnings."""
    if find_spec("every_eval_ever") is None:
        problem = "every_eval_ever is not installed (`nox -s eee` installs it)"
        pytest.fail(problem) if os.environ.get("HARNESS_EEE") else pytest.skip(problem)
    from every_eval_ever import schemas
    from every_eval_ever.validator import validation_core
    from jsonschema import Draft7Validator

    folder = Path(schemas.__file__).parent
    formal = {
        name: Draft7Validator(json.loads((folder / name).read_text(encoding="utf-8")))
        for name in ("eval.schema.json", "instance_level_eval.schema.json")
    }
    for path, text in every_eval_ever.files(RUNS[kind]()).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
        name = "eval.schema.json" if path.endswith(".json") else "instance_level_eval.schema.json"
        for each in [text] if path.endswith(".json") else text.splitlines():
            formal[name].validate(json.loads(each))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        where = path.relative_to(tmp_path).as_posix()
        report = validation_core.validate_file(path, repo_path=where)
        assert report.valid, report.errors
        assert not report.warnings
    assert files


@pytest.mark.parametrize("kind", RUNS)
def test_rows_give_the_rates(kind: str) -> None:
    """The mean score of the rows that name a rate is that rate, which is the rate of the report."""
    results = RUNS[kind]()
    every = (*results.every_base, *results.variants)
    outcomes = {each.name: each for each in every if any(rate.total for rate in each.rates.values())}
    found = pairs(results)
    assert len(found) == len(outcomes)
    for (aggregate, rows), outcome in zip(found, outcomes.values(), strict=True):
        for result in aggregate["evaluation_results"]:
            id = result["evaluation_result_id"]
            if id.startswith("judged"):
                continue
            own = [row["evaluation"]["score"] for row in rows if row.get("evaluation_result_id") == id]
            assert fmean(own) == pytest.approx(result["score_details"]["score"])
        rates = {r["evaluation_result_id"]: r["score_details"]["score"] for r in aggregate["evaluation_results"]}
        assert {f"main-{role}": rate.value for role, rate in outcome.rates.items() if rate.total} == {
            id: value for id, value in rates.items() if id.startswith("main")
        }


def test_every_answer_is_a_row() -> None:
    """Each answer of the run is one row, also an answer without a score, which says why and names no rate."""
    results = repeated(Reducer.MEAN)
    rows = [row for _, rows in pairs(results) for row in rows]
    assert len(rows) == len(results.samples)
    without = [row for row in rows if row["output"]["raw"] == ["unscorable"]]
    assert {(row["error"], row.get("evaluation_result_id")) for row in without} == {("no score", None)}


def test_a_conversation_is_a_transcript() -> None:
    """A case of several turns has all its messages, from the suite's system prompt to the answer."""
    row = pairs(conversation())[0][1][0]
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert row["answer_attribution"][0]["extracted_value"] == row["messages"][-1]["content"]
    assert row["interaction_type"] == "multi_turn"


def test_a_judge_is_apart_from_pass_rates() -> None:
    """What a judge said is a result of its own that names the judge; pass rates name none."""
    results = pairs(judged())[0][0]["evaluation_results"]
    scoring = {each["evaluation_result_id"]: each["metric_config"].get("llm_scoring") for each in results}
    assert [id for id, found in scoring.items() if found] == ["judged-retain"]
    assert scoring["judged-retain"]["judges"][0]["model_info"]["name"] == "tester"
    assert (
        next(each for each in results if each["evaluation_result_id"] == "judged-retain")["score_details"]["score"]
        == 0.9
    )


def test_models_have_ids_of_their_own() -> None:
    """A Hub model keeps its name; a tuned model has another id, which does not claim to be on the Hub."""
    ids = [aggregate["model_info"]["id"] for aggregate, _ in pairs(unnamed())]
    assert ids[0] == "meta-llama/Llama-2-7b-chat-hf"
    assert len(set(ids)) == len(ids)
    assert all(id.startswith("local/") for id in ids[1:])


def test_the_chosen_variant_is_marked() -> None:
    """The aggregate of the chosen variant says so, and has the verdict of the confirmation and its held-out rates."""
    found = [a for a, _ in pairs(CHOSEN) if a["model_info"]["additional_details"].get("chosen") == "true"]
    assert [a["model_info"]["name"] for a in found] == [f"pocket {CHOSEN.choice.variant}"]
    assert CHOSEN.choice.confirmation
    assert found[0]["model_info"]["additional_details"]["confirmation"] == CHOSEN.choice.confirmation.finding
    assert any(r["evaluation_result_id"].startswith("confirm-") for r in found[0]["evaluation_results"])


def test_the_command_writes_the_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness report RUN --format eee` writes the files into the run's folder, and replaces them when repeated."""
    stored(CHOSEN, Path("run"))
    for _ in range(2):
        assert main(["report", "run", "--format", "eee"]) == 0
    written = sorted(path for path in Path("run/eee").rglob("*") if path.is_file())
    assert len(written) == len(every_eval_ever.files(CHOSEN))
    assert str(written[0]) in capsys.readouterr().out


def test_two_runs_have_no_form(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the comparison of two runs, --format eee exits with 2 and says which command works."""
    assert main(["report", "first", "second", "--format", "eee"]) == 2
    assert "harness report RUN --format eee" in capsys.readouterr().err
