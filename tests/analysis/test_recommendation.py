"""Tests of recommendations, their reasons, and what is missing if nothing is recommended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.analysis.aggregate import assemble
from harness.analysis.recommendation import recommend
from harness.analysis.selection import Caps
from harness.cli import cli
from harness.core.measurement import GIB, Basis, Phase
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Variant
from harness.core.suite import Role, Split
from harness.report import headline, samples_file
from harness.report.pass_rates import scores_by_role
from harness.storage.runs import RunStore
from tests.support.made_results import MIB, cost, machine
from tests.support.synthetic_runs import case, manifest, record, score, suite, training, variants

ONE, TWO, THREE = variants(3)
CASES = [
    *(case(f"word {n}", Role.GENERALISE) for n in range(40)),
    *(case(f"keep {n}", Role.RETAIN) for n in range(60)),
    *(case(f"late {n}", Role.GENERALISE, Split.CONFIRM) for n in range(20)),
    *(case(f"late keep {n}", Role.RETAIN, Split.CONFIRM) for n in range(40)),
]
GPU = machine("cuda")


def trial(
    row: Variant | None, passes: int, *, lost: int = 0, seed: int = 0, split: Split = Split.MAIN, minutes: float = 4,
    gib: float = 6, basis: Basis = Basis.MEASURED, kind: str = "cuda",
) -> TrialRecord:  # fmt: skip
    """Return a trial that passes `passes` of the `generalise` cases, and fails `lost` of the cases of other roles."""
    asked = [each for each in CASES if each.split is split]
    words = [each.id for each in asked if each.role is Role.GENERALISE]
    failed = [*words[passes:], *[each.id for each in asked if each.role is not Role.GENERALISE][:lost]]
    answers = {each.id: "bad" if each.id in failed else "good" for each in asked}
    on = machine(kind, basis)
    spent = cost(Phase.TRAIN, 60 * minutes, on, peak=int(gib * 1024 * MIB))
    done = replace(training(on=on), cost=spent, supervised_tokens=3600)
    made = record(row, answers, seed=seed, split=split, trained=done if row else None, on=on)
    return made if row is None else replace(made, costs=(spent,))


def run(*trials: TrialRecord, seeds: Sequence[int] = (0,), toy: bool = False, kind: str = "cuda") -> Results:
    asked = manifest(suite(CASES, margin=10), [ONE, TWO, THREE], seeds, toy=toy, on=machine(kind))
    base = [trial(None, 0, kind=kind), trial(None, 0, split=Split.CONFIRM, kind=kind)]
    return assemble(asked, [*base, *trials], score, "now")


def again(row: Variant, passes: int, *, lost: int = 0, kind: str = "cuda") -> list[TrialRecord]:
    """Return two confirmation trials, the second of which passes one case fewer than the first."""
    counts = {100: passes, 101: max(0, passes - 1)}
    return [trial(row, count, lost=lost, seed=seed, split=Split.CONFIRM, kind=kind) for seed, count in counts.items()]


GOOD = [trial(ONE, 30), trial(TWO, 20), trial(THREE, 29, minutes=9), *again(ONE, 16)]


def test_a_confirmed_choice_is_recommended() -> None:
    """If the confirmation shows a gain beyond the noise, the variant is recommended, with code to copy.

    The headline names model and suite, with the numbers of cases and seeds.
    """
    found = recommend(run(*GOOD))
    assert found.variant == ONE.name
    assert found.headline == (
        f"Recommended for meta-llama/Llama-2-7b-chat-hf, workshop, 160 cases, 1 + 2 seeds: {ONE.name}."
    )
    assert f"learning_rate={ONE.settings.learning_rate}" in found.sft_config
    assert f"r={ONE.settings.rank}," in found.lora_config
    assert not found.missing
    assert any("4.0 min (measured on" in reason and "6.00 GiB" in reason for reason in found.reasons)


def test_the_toy_is_never_recommended() -> None:
    """If the run is of the toy model, nothing is recommended, there is no code to copy, and the reason is given."""
    found = recommend(run(*GOOD, toy=True))
    assert (found.variant, found.best) == (None, ONE.name)
    assert found.headline.startswith("Best in this demonstration")
    assert found.sft_config == found.lora_config == found.script == ""
    assert any("toy model" in reason for reason in found.missing)


def test_one_seed_recommends_nothing() -> None:
    """If there is only one seed, or no confirmation, nothing is recommended, and the reason says what is missing."""
    found = recommend(run(trial(ONE, 30), trial(TWO, 20), trial(THREE, 10)))
    assert (found.variant, found.best, found.script) == (None, ONE.name, "")
    assert any("3 seeds" in reason for reason in found.missing)
    passed = {ONE.id: 30, TWO.id: 20, THREE.id: 10}
    seeded = [trial(row, passed[row.id], seed=seed) for row in (ONE, TWO, THREE) for seed in (0, 1, 2)]
    alone = recommend(run(*seeded, seeds=(0, 1, 2)))
    assert alone.variant is None
    assert any("not confirmed" in reason and "best of 3" in reason for reason in alone.missing)
    assert recommend(run(*seeded, *again(ONE, 16), seeds=(0, 1, 2))).variant == ONE.name


def test_what_is_within_the_noise_is_not_recommended() -> None:
    """If the gain is within the noise, nothing is recommended, and the reason gives the number of cases needed."""
    few = [trial(row, 3, seed=seed) for row in (ONE, TWO, THREE) for seed in (0, 1, 2)]
    found = recommend(run(*few, seeds=(0, 1, 2)))
    assert (found.variant, found.best) == (None, ONE.name)
    assert any("within the noise" in reason and "cases like these" in reason for reason in found.missing)


def test_a_refuted_choice_is_not_recommended() -> None:
    """If the confirmation contradicts the choice, nothing is recommended, and the reason gives the contradiction."""
    found = recommend(run(trial(ONE, 30), trial(TWO, 20), trial(THREE, 10), *again(ONE, 16, lost=15)))
    assert found.variant is None
    assert found.headline == f"Nothing is recommended. Best so far, refuted: {ONE.name}."
    assert any("held-out retain and avoid cases" in why and "more than" in why for why in found.missing)


def test_an_unconfirmed_choice_is_not_recommended() -> None:
    """If the confirmation neither confirms nor refutes the choice, nothing is recommended, and the headline says so."""
    found = recommend(run(trial(ONE, 30), trial(TWO, 20), trial(THREE, 10), *again(ONE, 0)))
    assert found.variant is None
    assert found.headline == f"Nothing is recommended. Best so far, not confirmed: {ONE.name}."
    assert any("held-out generalise cases it is not shown to be better" in reason for reason in found.missing)


def test_a_suite_without_held_out_cases_confirms_nothing() -> None:
    """If the suite has no held-out cases, nothing is recommended, and the reason says which cases to hold out."""
    made = run(trial(ONE, 30), trial(TWO, 20), trial(THREE, 10))
    main = replace(made.run, suite=replace(made.run.suite, cases=made.run.suite.of(Split.MAIN)))
    found = recommend(replace(made, run=main))
    assert any("give some generalise, retain and avoid cases `split: confirm`" in reason for reason in found.missing)


def test_caps_choose_among_what_fits() -> None:
    """If minutes or memory are limited, the best variant within the limits is chosen.

    The reasons name the better variants that exceed a limit.
    """
    grid = [trial(ONE, 30, minutes=40), trial(TWO, 28, minutes=5, gib=12), trial(THREE, 20, minutes=3)]
    trials = [*grid, *again(ONE, 16)]
    by_time = recommend(run(*trials), Caps(minutes=10))
    assert by_time.best == TWO.name
    assert any(f"{ONE.name}, whose training takes more than 10 minutes" in reason for reason in by_time.reasons)
    assert any("one training" in reason for reason in by_time.missing), "the confirmation is of another variant"
    by_both = recommend(run(*trials), Caps(minutes=10, memory=8))
    assert by_both.best == THREE.name
    assert any(f"{TWO.name}, which may take more than 8 GiB" in reason for reason in by_both.reasons)
    none = recommend(run(*trials), Caps(minutes=1))
    assert (none.variant, none.best) == (None, None)


def test_a_choice_within_limits_has_a_remedy_of_its_own() -> None:
    """If a limit excludes the run's own choice, which was confirmed, the reason says how to confirm the other one.

    The same `harness run` would confirm the run's own choice again.
    """
    trials = [trial(ONE, 30, minutes=40), trial(TWO, 28, minutes=0.5), trial(THREE, 5, minutes=3), *again(ONE, 16)]
    found = recommend(run(*trials), Caps(minutes=1))
    assert (found.variant, found.best) == (None, TWO.name)
    [remedy] = [reason for reason in found.missing if "--grid" in reason]
    assert f"confirms the run's own choice, {ONE.name}. To confirm {TWO.name} instead" in remedy
    assert any("more than 1 minute." in reason for reason in found.reasons)


def test_the_page_names_the_same_memory() -> None:
    """The page and `harness recommend` name the same memory for a variant: the GPU's peak with the CUDA context."""

    def whole(each: TrialRecord) -> TrialRecord:
        costs = [replace(own, peak_device=replace(own.peak(), value=7.25 * GIB)) for own in each.costs]
        return replace(each, costs=tuple(costs))

    made = run(*map(whole, GOOD))
    page = headline.headline(made, ONE.name, scores_by_role(made, made.samples))
    assert "at most 7.25 GiB of GPU memory" in page.cost
    assert "at most 7.25 GiB of GPU memory" in " ".join(recommend(made).reasons)


def test_what_a_batch_of_models_took_is_no_ones_need() -> None:
    """If several variants answered in one batch, the batch's memory is not compared with the limit of one variant."""
    beside = replace(cost(Phase.ANSWER_AFTER, 60, GPU, peak=12 * 1024 * MIB), models=9)
    trials = [
        replace(trial(ONE, 30), costs=(*trial(ONE, 30).costs, given)) for given in (beside, replace(beside, models=1))
    ]
    capped = [recommend(run(one, trial(TWO, 20), *again(ONE, 16)), Caps(memory=8)) for one in trials]
    assert [found.best for found in capped] == [ONE.name, TWO.name]
    assert "at most 6.00 GiB" in " ".join(recommend(run(trials[0], trial(TWO, 20), *again(ONE, 16))).reasons)


def test_a_cpus_figures_meet_no_cap() -> None:
    """If minutes or memory are limited, but the figures are of a CPU, nothing is recommended; the reason is given."""
    trials = [trial(row, 30, kind="cpu") for row in (ONE, TWO, THREE)]
    found = recommend(run(*trials, *again(ONE, 16, kind="cpu"), kind="cpu"), Caps(minutes=100))
    assert found.best is None
    assert any("CPU times do not carry over to a GPU" in reason for reason in found.missing)
    found = recommend(run(*trials, *again(ONE, 16, kind="cpu"), kind="cpu"), Caps(memory=100))
    assert any("memory on a GPU is not known" in reason for reason in found.missing)


def test_emulated_figures_say_so() -> None:
    """If times and memory are emulated, the reasons say so and name the device."""
    trials = [trial(ONE, 30, basis=Basis.EMULATED), trial(TWO, 20), trial(THREE, 10), *again(ONE, 16)]
    reasons = recommend(run(*trials)).reasons
    assert any("(emulated on" in reason and "never run on a T4" in reason for reason in reasons)
    assert any("takes a different time on a T4 than on" in reason for reason in reasons)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command(tmp_path: Path, options: list[str]) -> None:
    """`harness recommend RUN` prints the headline, the reasons and the code to copy; with `--json`, as JSON."""
    results = run(*GOOD)
    store = RunStore(tmp_path)
    store.write_manifest(results.run)
    store.write_results(results, samples_file.samples(results), lambda: "")
    done = CliRunner().invoke(cli, ["recommend", str(tmp_path), *options], obj=())
    assert done.exit_code == 0, done.output
    found = json.loads(done.output) if options else {}
    assert found.get("variant", ONE.name) == ONE.name
    assert "SFTConfig(" in done.output
    assert "Recommended for" in done.output


def test_an_older_run_is_told_what_to_do() -> None:
    """If an older version stored results without changes, the reason says to score the run, not to add cases."""
    results = run(*GOOD)
    bare = replace(results, confirmed=None, variants=tuple(replace(v, changes={}) for v in results.variants))
    assert any("`harness score RUN`" in reason for reason in recommend(bare).missing)
