"""The pool of rehearsal prompts, a suite's own pool, and the prompts that a suite leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.contamination import prompts_around, prompts_near
from harness.core.errors import GridError, SuiteError
from harness.core.settings import Plan
from harness.suites import load_suite
from harness.suites.grids import load_plan, parse_plan
from harness.suites.rehearsal import FILE, MOST, POOL, load_pool, parse_pool, rehearsal_of
from tests.support.small_suite import small_suite

SUITES = Path(__file__).parents[2] / "suites"
SHIPPED = sorted(file.parent for file in SUITES.glob("*/suite.yaml"))


def plan(rows: str) -> Plan:
    return parse_plan(f"axes: {{rehearsal: {rows}}}", "quick.yaml")


def test_the_pool_is_large_and_every_prompt_differs(tmp_path: Path) -> None:
    """The pool has at least 300 prompts, no two of them the same apart from case and punctuation."""
    prompts = load_pool(tmp_path).prompts
    assert len(prompts) >= 300
    assert len({"".join(filter(str.isalnum, prompt)).casefold() for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_pool_is_not_near_the_shipped_suites(folder: Path) -> None:
    """No prompt of the pool is in or near a case or a training row of a suite of this repository."""
    suite = load_suite(folder)
    prompts = load_pool(Path("nowhere")).prompts
    assert prompts_near(suite, prompts) | prompts_around(suite, prompts) == set()


def test_prompts_near_the_suite_are_left_out_and_counted(tmp_path: Path) -> None:
    """Prompts that are in or near a case or a training row are not asked, and the run knows their number."""
    folder = small_suite(tmp_path)
    texts = ["What is the capital of Spain?", "who are you", "What is 3 plus 4?", "Why is the sky blue?"]
    (folder / FILE).write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts), encoding="utf-8")
    found = rehearsal_of(load_suite(folder), plan("[0, 1]"))
    assert found is not None
    assert (found.prompts, found.near) == (("Why is the sky blue?",), 3)


def test_prompts_around_a_question_are_left_out(tmp_path: Path) -> None:
    """A prompt that contains a whole question of a case or of a row is not asked, nor one that is contained in it."""
    suite = load_suite(small_suite(tmp_path))
    question = suite.cases[0].prompt
    assert len(question.split()) >= 4
    inside, around = " ".join(question.split()[:4]), f"Please answer in a single word, my friend: {question}"
    assert prompts_around(suite, [around, inside, "Why is the sky blue?"]) == {around, inside}
    assert prompts_around(suite, ["Hello", "What is?"]) == set()


def test_without_rehearsal_the_pool_is_not_read(tmp_path: Path) -> None:
    """If no variant has rehearsal, there is none, and a mistake in the suite's pool does not matter."""
    folder = small_suite(tmp_path)
    (folder / FILE).write_text("no JSON", encoding="utf-8")
    assert rehearsal_of(load_suite(folder), plan("[0]")) is None


def test_a_suites_own_pool_replaces_the_pool(tmp_path: Path) -> None:
    """If a suite's folder has a rehearsal.jsonl, only its prompts are used, each of them once."""
    assert load_pool(tmp_path).file == POOL
    (tmp_path / FILE).write_text('{"prompt": " One? "}\n\n{"prompt": "Two?"}\n{"prompt": "One?"}\n', encoding="utf-8")
    assert load_pool(tmp_path).prompts == ("One?", "Two?")


def test_prompts_that_are_a_link_to_another_folder(tmp_path: Path) -> None:
    """If `rehearsal.jsonl` is a link to a file outside the suite, it is refused."""
    (tmp_path / "s").mkdir()
    (tmp_path / "private").write_text('{"prompt": "TOP-SECRET"}', encoding="utf-8")
    (tmp_path / "s" / FILE).symlink_to("../private")
    with pytest.raises(SuiteError, match=r"rehearsal\.jsonl leads out of the suite's folder"):
        load_pool(tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompts"),
        ('{"prompt": "  "}', "rehearsal.jsonl:1.*this prompt is empty"),
        ('{"prompt": "One?"}\n{"question": "Two?"}', "rehearsal.jsonl:2"),
        ("One?", "rehearsal.jsonl:1.*not valid JSON"),
        ('{"prompt": "One?"}\n' * (MOST + 1), "holds 2,001 prompts, more than 2,000"),
        (f'{{"prompt": "{"a" * 10_001}"}}', "holds a prompt of 10,001 characters"),
        (f'{{"prompt": "{"a" * 10_000}"}}\n' * 101, "holds prompts of 1,010,000 characters in all"),
    ],
)
def test_mistakes_in_a_pool_are_reported(text: str, message: str) -> None:
    """A mistake in a rehearsal.jsonl is one error with file and line."""
    with pytest.raises(SuiteError, match=message):
        parse_pool(text, FILE)


def test_a_folder_is_no_pool(tmp_path: Path) -> None:
    """A folder named rehearsal.jsonl is refused, and not passed over."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(SuiteError, match="is not a file"):
        load_pool(tmp_path)


def test_more_rehearsal_than_prompts_is_refused(tmp_path: Path) -> None:
    """A variant with more rehearsal rows than there are prompts is refused; the number in the remedy is accepted."""
    suite = load_suite(small_suite(tmp_path))
    most = len(load_pool(tmp_path).prompts)
    with pytest.raises(GridError, match="Set rehearsal to at most ") as refused:
        rehearsal_of(suite, plan("[0, 2000]"))
    number = int(refused.value.remedy.split("at most ")[1].split(" ")[0])
    assert number <= most
    assert rehearsal_of(suite, plan(f"[0, {number}]")) is not None


def test_the_grid_for_real_models_is_small() -> None:
    """The grid `real` of the workshop has at most 12 variants under three seeds, with and without rehearsal."""
    made = load_plan(SUITES / "workshop" / "grids" / "real.yaml")
    assert len(made.variants) <= 12
    assert made.seeds == (0, 1, 2)
    assert {variant.settings.rehearsal for variant in made.variants} == {0, 60, 120}
    assert any(variant.name == "safe" and variant.named for variant in made.variants)


def test_a_trial_id_is_not_changed_by_the_default() -> None:
    """A grid that writes `rehearsal: 0` has the same trials as a grid without it."""
    written, absent = (
        parse_plan(text, "g.yaml") for text in ("axes: {rank: [4], rehearsal: [0]}", "axes: {rank: [4]}")
    )
    assert [replace(trial, variant="") for trial in written.trials] == [
        replace(trial, variant="") for trial in absent.trials
    ]
