"""Tests of the suites in this repository: their references, `learn` cases, retention cases and schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.analysis import net_loss
from harness.analysis.contamination import leaks
from harness.core.suite import LeakLabel, Role, Split, Suite
from harness.scoring import score
from harness.suites import load_suite
from harness.suites.new.write_suite import RETAIN_FILE, retention_cases
from tests.studies.pocket.corpus import is_held_out
from tests.support.short_trainings import ask

if TYPE_CHECKING:
    from harness.engine.loading import Base

SUITES = Path(__file__).parents[2] / "suites"
NAMES = sorted(file.parent.name for file in SUITES.glob("*/suite.yaml"))
RETENTION = load_suite(SUITES / "retention")
JSON = load_suite(SUITES / "json-format")


@pytest.mark.parametrize("name", NAMES)
def test_references_pass(name: str) -> None:
    """The reference of every case passes the case's assertions."""
    failing = [c.id for c in load_suite(SUITES / name).cases if c.reference and not score(c, c.reference).passed]
    assert failing == []


@pytest.mark.parametrize("name", NAMES)
def test_learn_cases_are_training_rows(name: str) -> None:
    """Only `learn` cases have prompts that are in the training rows, and the rows' answers pass these cases."""
    suite = load_suite(SUITES / name)
    found, rows = leaks(suite), {row.line: row for row in suite.examples}
    for case in suite.cases:
        label, line = found[case.id].label, found[case.id].line
        assert (label is LeakLabel.SEEN) == (case.role is Role.LEARN), case.id
        if case.role is Role.LEARN:
            assert line is not None
            assert score(case, rows[line].messages[-1].content).passed, case.id


@pytest.mark.parametrize("path", sorted(SUITES.glob("*/suite.yaml")) + sorted(SUITES.glob("*/grids/*.yaml")), ids=str)
def test_suites_and_grids_name_their_schema(path: Path) -> None:
    """The first line of every suite and grid refers to its schema in the folder `suites`."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    kind = "suite" if path.name == "suite.yaml" else "grid"
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("$schema=")[2]).resolve() == SUITES / f"{kind}.schema.json"


@pytest.mark.parametrize("path", sorted(SUITES.glob(f"*/{RETAIN_FILE}")), ids=lambda path: path.parent.name)
def test_retention_cases_equal_those_of_the_package(path: Path) -> None:
    """If a suite has retention cases in a file of their own, the file is equal to the one in the package."""
    assert path.read_text(encoding="utf-8") == retention_cases()


def test_there_are_enough_retention_cases() -> None:
    """Both splits of the suite `retention` have so many cases that passing all shows a loss below the margin."""
    assert {case.role for case in RETENTION.cases} == {Role.RETAIN}
    assert len(RETENTION.of(Split.MAIN)) >= 60
    for split in Split:
        groups = [case.group for case in RETENTION.of(split)]
        assert len(groups) >= net_loss.least_passes(RETENTION.margin / 100, groups, len(groups))


def test_retention_prompts_are_held_out() -> None:
    """No prompt of a retention case is in the pocket model's training corpus or in the suite `workshop`."""
    prompts = {case.prompt for case in RETENTION.cases}
    workshop = {case.prompt for case in load_suite(SUITES / "workshop").cases}
    assert all(is_held_out(prompt) for prompt in prompts)
    assert len(prompts) == len(RETENTION.cases)
    assert not prompts & workshop


def test_json_format_tests_for_json() -> None:
    """In the suite `json-format`, answers to `learn` and `generalise` cases must be JSON of a schema.

    Answers to `avoid` cases must not contain JSON.
    """
    taught = [case for case in JSON.cases if case.role in (Role.LEARN, Role.GENERALISE)]
    assert {a.type for case in taught for a in case.assertions} == {"is-json"}
    assert all(a.value["required"] == ["name", "age", "city"] for case in taught for a in case.assertions)
    avoided = {a.name for case in JSON.cases if case.role is Role.AVOID for a in case.assertions}
    assert avoided == {"not-contains-json"}


@pytest.mark.slow
def test_the_pocket_model_passes_the_retention_cases(base: Base) -> None:
    """The pocket model passes all retention cases."""
    assert failing(base, RETENTION, Role.RETAIN) == []


@pytest.mark.slow
def test_the_pocket_model_does_not_know_json_format(base: Base) -> None:
    """In `json-format`, the pocket model fails 90% of `learn` and `generalise` cases, and passes all `avoid` cases."""
    for role in (Role.LEARN, Role.GENERALISE):
        assert len(failing(base, JSON, role)) >= 0.9 * sum(case.role is role for case in JSON.cases)
    assert failing(base, JSON, Role.AVOID) == []


def failing(base: Base, suite: Suite, role: Role) -> list[str]:
    cases = [case for case in suite.cases if case.role is role]
    answers = ask(base, texts=[case.prompt for case in cases], decoding=suite.decoding)
    return [case.id for case, answer in zip(cases, answers, strict=True) if not score(case, answer.text).passed]
