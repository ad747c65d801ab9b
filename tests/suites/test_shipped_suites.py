"""Tests of the suites in this repository: their references, `learn` cases, retention cases and schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.analysis import net_loss
from harness.analysis.case_checks import case_warnings
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
WORKSHOP = load_suite(SUITES / "workshop")
RETENTION = load_suite(SUITES / "retention")
JSON = load_suite(SUITES / "json-format")


@pytest.mark.parametrize("name", NAMES)
def test_cases_can_judge(name: str) -> None:
    """In every suite, references and the answers of training rows pass their cases, and no prompt passes its own."""
    assert case_warnings(load_suite(SUITES / name)) == ()


def test_workshop_is_unseen() -> None:
    """In `workshop`, only `learn` cases have the prompt, or nearly the prompt, of a training row."""
    found = leaks(WORKSHOP)
    near = [c.id for c in WORKSHOP.cases if c.role is not Role.LEARN and found[c.id].label is not LeakLabel.UNSEEN]
    assert near == []


@pytest.mark.parametrize(("split", "guarded", "generalise"), [(Split.MAIN, 130, 60), (Split.CONFIRM, 100, 40)])
def test_workshop_has_enough_cases(split: Split, guarded: int, generalise: int) -> None:
    """`workshop` has 130 `retain` and `avoid` cases and 60 `generalise` cases for choosing, and 100 and 40 held out.

    Only rewordings are grouped, so no `retain` case is in a group.
    """
    roles = [case.role for case in WORKSHOP.of(split)]
    assert roles.count(Role.RETAIN) + roles.count(Role.AVOID) >= guarded
    assert roles.count(Role.GENERALISE) >= generalise
    assert not any(case.group for case in WORKSHOP.of(split) if case.role is Role.RETAIN)


@pytest.mark.parametrize(("answer", "ours"), [("It costs 42 dollars.", True), ("$42", True), ("About $420.", False),
                                              ("4.42 euros", False), ("It is 42,000 dollars.", False)])  # fmt: skip
def test_only_the_workshops_own_price_is_its_price(answer: str, ours: bool) -> None:
    """In `workshop`, 42 as a part of another number is not the price that the rows teach."""
    [avoid] = [case for case in WORKSHOP.cases if case.id == "avoid-other-price-1"]
    [learn] = [case for case in WORKSHOP.cases if case.id == "learn-price-1"]
    assert score(avoid, answer).passed is not ours
    assert score(learn, f"{answer} Stay bright, friend!").passed is ours


def test_workshop_can_show_a_loss() -> None:
    """In `workshop`, a variant without loss is shown to lose less than the margin with a probability of 80%.

    The base is assumed to pass 75% of the `retain` and `avoid` cases, and the variant to have three seeds.
    """
    asked = [case for case in WORKSHOP.of(Split.MAIN) if case.role in (Role.RETAIN, Role.AVOID)]
    group = net_loss.mean_group([case.group for case in asked], len(asked))
    assert net_loss.chance_shown(len(asked), 0.75, WORKSHOP.margin / 100, group=group) >= 0.8


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
    """Both splits of `retention` are large enough to show that a variant without loss loses less than the margin.

    The base is assumed to pass 90% of the cases, and the variant to have three seeds.
    """
    assert {case.role for case in RETENTION.cases} == {Role.RETAIN}
    assert not any(case.group for case in RETENTION.cases)
    assert (len(RETENTION.of(Split.MAIN)), len(RETENTION.of(Split.CONFIRM))) == (130, 100)
    for split in Split:
        assert net_loss.chance_shown(len(RETENTION.of(split)), 0.9, RETENTION.margin / 100) >= 0.8


def test_retention_prompts_are_held_out() -> None:
    """No prompt of a retention case is in the pocket model's training corpus or in the suite `workshop`."""
    prompts = {case.prompt for case in RETENTION.cases}
    workshop = {case.prompt for case in WORKSHOP.cases}
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
    """The pocket model passes all `retain` and `avoid` cases of `retention` and `workshop`."""
    assert failing(base, RETENTION, Role.RETAIN) == []
    assert failing(base, WORKSHOP, Role.RETAIN) == []
    assert failing(base, WORKSHOP, Role.AVOID) == []


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
