"""Tests that a page's figures can be computed again from the run's files, and that wrong figures would be found."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.aggregate import assemble
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost
from harness.core.rehearsal import Rehearsal, RehearsalAnswers
from harness.core.rehearsal_answers import LeftOut
from harness.core.run_results import Results
from harness.core.settings import Quantization
from harness.core.suite import Case, Reducer, Role, Split
from harness.core.training_outcome import Status
from harness.core.units import Unit
from harness.report import render_bases, render_handout, report_files
from harness.storage.runs import RunStore
from tests.studies.recompute import check, check_bases, check_handout, main, pack
from tests.studies.recomputed.figures import read
from tests.support.committed_runs import FOLDERS
from tests.support.synthetic_runs import case, manifest, record, results, score, suite, training, variants
from tests.support.two_bases import two_bases

SEEDS = (0, 1, 2)


def figure(value: float, unit: Unit = Unit.BYTES, basis: Basis = Basis.MEASURED) -> Measurement:
    return Measurement(value, unit, basis, "a GPU")


PREDICTED = figure(7.5e8, basis=Basis.PREDICTED)


def stored(made: Results, folder: Path) -> Path:
    """Write the files of a run: results.json, samples.jsonl and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    store = RunStore(folder)
    store.write_manifest(made.run)
    report_files.write(store, made, now="2026-01-02 03:30 UTC")
    return folder


def in_groups(split: Split, count: int) -> list[Case]:
    """Return cases of all roles, of which three in four share a group with others."""
    prefix = "held-" if split is Split.CONFIRM else "case-"
    made = [case(f"{prefix}{n}", list(Role)[n % 4], split) for n in range(count)]
    return [replace(one, group=f"g{n // 12}") if n // 4 % 4 else one for n, one in enumerate(made)]


def grouped(
    *, keeps: Sequence[float] = (0.97, 0.5), learns: float = 0.8, repeats: int = 1, reducer: Reducer = Reducer.MEAN,
    adapters: Sequence[tuple[str, float]] = (), model: str = "",
) -> Results:  # fmt: skip
    """Return a run with groups, repeats and cut answers, whose base passes some cases of every role.

    Each of the two variants keeps its share of what the base passes, and learns the share `learns` of the rest. The
    second seed of the third variant was cancelled. `adapters`: names of adapters trained elsewhere, each with the share
    that it keeps. `model`: another name of the base model.
    """
    rng, rows = random.Random(11), variants(3)
    cases = [*in_groups(Split.MAIN, 96), *in_groups(Split.CONFIRM, 48)]
    given = replace(suite(cases, margin=50), repeats=repeats, reducer=reducer)
    run = manifest(given, rows, SEEDS, toy=False)
    if model:
        run = replace(run, model=replace(run.model, name=model, digest=model))

    def said(passes: float) -> tuple[str, ...]:
        return tuple("A good answer." if rng.random() < passes else "A bad one." for _ in range(repeats))

    def chance(one: Case, keep: float) -> float:
        return 0.9 * keep if one.role in (Role.RETAIN, Role.AVOID) else learns

    cut = frozenset(one.id for one in cases if one.role is Role.RETAIN and one.id.endswith(("1", "2", "3")))
    records = [
        record(None, {c.id: said(0.9 if c.role in (Role.RETAIN, Role.AVOID) else 0.1) for c in given.of(split)},
               split=split, truncated=cut)
        for split in Split
    ]  # fmt: skip
    for row, keep in zip(rows, [*keeps, 1.0], strict=True):
        for split, seeds in ((Split.MAIN, SEEDS), (Split.CONFIRM, run.confirm_seeds)):
            for seed in seeds:
                stopped = row is rows[2] and seed == 1
                answers = {} if stopped else {c.id: said(chance(c, keep)) for c in given.of(split)}
                status = Status.CANCELLED if stopped else Status.SUCCEEDED
                trained = None if stopped else training()
                records.append(record(row, answers, seed=seed, split=split, status=status, trained=trained))
    for name, keep in adapters:
        own = record(rows[0], {c.id: said(chance(c, keep)) for c in given.of(Split.MAIN)})
        records.append(replace(own, trial=name, variant=name, settings=None))
    return assemble(run, records, score, "2026-01-02T03:24:05+00:00")


def test_a_run_with_every_kind_of_trial(tmp_path: Path) -> None:
    """The figures of a run in which a trial diverged, one ran out of memory and one failed can be computed again."""
    found = check(stored(results(8, 18, seeds=(0, 1), confirm=12, hostile=True), tmp_path))
    assert found.differences == []
    assert found.counts.total() > 1000


@pytest.mark.parametrize(("repeats", "reducer"), [(2, Reducer.MEAN), (3, Reducer.ALL), (3, Reducer.ANY)])
def test_a_run_with_groups_repeats_and_cut_answers(tmp_path: Path, repeats: int, reducer: Reducer) -> None:
    """Figures over groups, repeats, cut answers and a cancelled seed can be computed again, by any reducer."""
    made = grouped(repeats=repeats, reducer=reducer)
    found = check(stored(made, tmp_path))
    assert found.differences == []
    assert found.counts["sentences"] > 10


def test_a_run_without_a_choice(tmp_path: Path) -> None:
    """The figures of a run in which no variant can be chosen can be computed again."""
    made = grouped(keeps=(0.3, 0.2))
    assert made.choice.variant is None
    assert check(stored(made, tmp_path)).differences == []
    nothing = grouped(learns=0.0)
    assert nothing.choice.variant is None
    assert check(stored(nothing, tmp_path / "nothing")).differences == []


FIGURES = (
    r'(<td class="n rate">.*?<b>)(\d+)(%</b>)',  # a pass rate at the top
    r'(<small>)(\d+)(/\d+</small><small class="span">)',  # its counts
    r'(<small class="span">)(\d+)(–)',  # its interval
    r"(passes )(\d+)( of \d+ \()",  # a sentence
    r'(<td class="n " data-s="[-\d.]+">\?? ?)(\d+)(\.?\d* <small>-?[\d.]+ to )',  # a net loss
    r"( broken, )(\d+)(\.?\d* fixed)",  # its counts
    r'(Answers cut at )(\d+)( tokens)',
    r"(retain: base )(\d+)(%)",  # the share of cut answers
    r"( retain cases form )(\d+)( clusters)",
    r'(<td class="n (?:better|worse|unclear)" title="[^"]*">[+-])(\d+)(</td>)',  # a difference of two variants
    r'(<b>)(\d+)(%</b> <span>of the )',  # the first screen: what was learned
    r'(<b>)(\d+)(\.?\d* points lost</b> <span>of what)',  # and what was lost
    r'(<ul class="chips".*?</span> )(\d+)(e-\d+</li>)',  # a setting
    r'(<td class="h [a-z0-9]+" title="[^"]*">[−+])(\d+)()',  # cases of a kind
    r'(: kept )(\d+)(\.?\d*, lost )',
    r'(<p class="can-show">.*?with a probability of )(\d+)(%)',
    r'(is noticed: its 95% interval is above 0</th><td class="n">)(\d+)(%)',
    r'(lose less than [^<]*</th><td class="n">\d+%</td><td class="n">)(\d+)(%)',
    r'(<p>By role: retain )(\d+)(\.?\d* points)',
    r'(<p>By role: [^<]*avoid )(\d+)(\.?\d* points)',
    r"(<small>gained in )(\d+)( of \d+ seeds)",
    r"(<small>lost in )(\d+)( of \d+ seeds)",
    r'(<td>(?:chosen|eligible|not eligible)</td></tr>\s*<tr><td>2</td><td>[^<]*</td><td>)(\d+)()',  # a gain
    r'(<th scope="row">Train</th><td class="n">)(\d+)( s</td>)',
    r'(<section id="adapters">.*?<td class="n"><b>)(\d+)(%</b>)',
    r'(<section id="adapters">.*?<td class="n [a-z]+">[+-])(\d+)( <small>)',
    r'(<pre id="settings"[^>]*>.*?lora_alpha=)(\d+)(,)',
)  # fmt: skip


def test_a_run_with_two_quantisations(tmp_path: Path) -> None:
    """If the base model ran in two quantisations, the figures of each variant are those beside its own base."""
    found = check(stored(two_bases(), tmp_path))
    assert found.differences == []
    assert found.counts["variants"] > 50


def test_a_run_with_rehearsal(tmp_path: Path) -> None:
    """The costs of rehearsal can be computed again, also peaks that are marked because the driver did not know them."""
    made = grouped()
    load = PhaseCost(Phase.LOAD, figure(9.0, Unit.SECONDS), 0, figure(2e9), figure(1e8), figure(2e8), PREDICTED)
    costs = (load, replace(load, phase=Phase.REHEARSE, tokens=500))
    answers = RehearsalAnswers(Quantization.NF4, (), {LeftOut.CUT: 1}, costs)
    run = replace(made.run, rehearsal=Rehearsal(("Name a tree.",), 0, (answers,)))
    found = check(stored(replace(made, run=run), tmp_path))
    assert found.differences == []
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Base model answers rehearsal prompts" in page
    assert "≈ 715 MiB" in page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with groups, which tests must not change."""
    class_ = [("anna", 0.98), ("ben", 0.97), ("cleo", 0.2)]
    return stored(grouped(adapters=class_), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path, dirs_exist_ok=True)


def test_a_wrong_figure_is_found(folder: Path) -> None:
    """If a figure on the page is changed, the recomputation finds it: rates, intervals, losses, counts and costs."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    for pattern in FIGURES:
        (folder / "report.html").write_text(changed_by_one(page, pattern), encoding="utf-8")
        assert check(folder).differences, pattern


HANDOUT = (
    r"(<b>)(\d+)(%</b> <span>of the )",
    r"(<b>)(\d+)(\.?\d* points lost</b>)",
    r"(<small>gained in )(\d+)( of \d+ seeds)",
    r"(lora_alpha=)(\d+)(,)",
)
BASES = (
    r"(a variant was confirmed: )(\d+)(% of the )",
    r"(It passes most of the )(\d+)( bases)",
    r"(: it passes )(\d+)(\.?\d* points)",
    r"(Training alone takes )(\d+)(\.\d s)",
    r"(</span><b>)(\d+)(%</b> <small>of the )",
    r"(</span><b>)(\d+)(\.?\d* points lost</b>)",
    r"(<small>learning rate )(\d+)(e-\d)",
    r'(<details class="numbers">.*?<td>)(\d+)( to )',
    r'(<th scope="row" class="kind">[^<]*</th><td class="n">)(\d+)(</td>)',
    r'(<td class="h [a-z0-9]+" title="[^"]*">[−+])(\d+)()',
    r'(<td class="h [gl])(\d)(" title)',
)


def changed_by_one(page: str, pattern: str) -> str:
    """Return the page with the first figure that fits the pattern raised by one."""
    wrong, changed = re.subn(pattern, lambda m: f"{m[1]}{int(m[2]) + 1}{m[3]}", page, count=1, flags=re.DOTALL)
    assert changed, f"the page has no {pattern}"
    return wrong


def test_a_handout_agrees_with_its_answers(whole: Path) -> None:
    """Every figure of a handout can be computed again, and a wrong one is found."""
    page = render_handout(RunStore(whole).results(), now="now")
    found = check_handout(whole, page)
    assert found.differences == []
    assert found.counts["handout"] == 3
    for pattern in HANDOUT:
        assert check_handout(whole, changed_by_one(page, pattern)).differences, pattern


def test_a_page_of_several_bases_agrees_with_its_answers(whole: Path, tmp_path: Path) -> None:
    """Every figure of the page of several runs can be computed again, and a wrong one is found."""
    others = {"second": grouped(keeps=(0.99, 0.6), learns=0.6, model="second"),
              "third": grouped(keeps=(0.3, 0.2), model="third")}  # fmt: skip
    folders = [whole, *(stored(made, tmp_path / name) for name, made in others.items())]
    page = render_bases([(folder, RunStore(folder).results()) for folder in folders], now="now")
    found = check_bases(folders, page)
    assert found.differences == []
    assert "cannot be told apart" in page
    assert "none chosen" in page
    for pattern in BASES:
        assert check_bases(folders, changed_by_one(page, pattern)).differences, pattern


def test_a_sentence_without_a_rule_is_reported(folder: Path) -> None:
    """If a sentence at the top has a figure that no rule explains, the recomputation reports it."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    wrong = page.replace('<ul class="reasons">', '<ul class="reasons"><li>About 7 of 9.</li>', 1)
    (folder / "report.html").write_text(wrong, encoding="utf-8")
    [found] = check(folder).differences
    assert "no rule" in found
    assert "7 of 9" in found


def test_an_answer_that_was_changed_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If a verdict in samples.jsonl differs from the page, the command names the figures and exits with 1."""
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    lines[0] = json.dumps(first | {"passed": not first["passed"]})
    (folder / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main([str(folder)]) == 1
    assert first["case"] in capsys.readouterr().out


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_run_agrees_with_its_answers(folder: Path) -> None:
    """Every figure of a committed report can be computed again from the answers that lie beside it."""
    found = check(folder)
    assert found.differences == []
    assert found.counts.total() > 9000


@pytest.mark.slow
def test_a_fresh_run_agrees_with_its_answers(trained_run: RunStore, tmp_path: Path) -> None:
    """Every figure of a run that was just trained can be computed again, also from compressed copies of its files."""
    assert check(trained_run.root).differences == []
    pack(trained_run.root, tmp_path)
    assert check(tmp_path).differences == []
    model = json.loads(read(tmp_path, "results.json"))["run"]["model"]
    assert model["path"] == Path(trained_run.manifest().model.path).name
