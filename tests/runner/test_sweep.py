"""Tests of which trials are run, reused or repeated. The workers are fakes, which train nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import StoreError
from harness.core.hashing import digest
from harness.core.job import Event, EventKind, Job
from harness.core.measurement import Measurement, Phase, PhaseCost
from harness.core.model import ModelRef
from harness.core.names import BASE
from harness.core.settings import Quantization, Trial
from harness.core.suite import Assertion, Decoding, Example, Message, Split, Suite
from harness.core.training_outcome import Status
from harness.runner.executors.inline import Inline
from harness.runner.executors.protocol import Executor
from harness.runner.listeners.protocol import Listener
from harness.storage.cache import AnswerPass, Cache
from harness.storage.keys import Setup, base_trial
from tests.support.fake_workers import (
    CASES,
    NAMES,
    SETUP,
    SUITE,
    A,
    B,
    EventList,
    Workers,
    ends,
    go,
    nobody,
    sweep,
    texts,
    trial,
)
from tests.support.made_results import cost, machine
from tests.support.synthetic_runs import MoreSettings, case

# --- results are reused ----------------------------------------------------------------------------------------------


def test_the_base_and_all_trials_are_run(tmp_path: Path) -> None:
    """The base and all trials run and are asked every case of the split; their records have the answers and a log."""
    workers, events = Workers(), list[Event]()
    each = replace(sweep(tmp_path, workers), listener=EventList(events))
    records = each.run_trials([A, B], Split.MAIN, "testing")
    asked = [one.prompt for one in CASES[:2]]
    assert workers.tasks == [(BASE, False, asked), ("a", True, asked), ("b", True, asked)]
    assert [record.trial for record in records] == [BASE, A.id, B.id]
    for number, record in enumerate(records, 1):
        assert texts(record) == {"one": [f"to {CASES[0].prompt}"], "two": ["to Two?"]}
        assert (record.status, record.reused, record.log) == (Status.SUCCEEDED, False, f"workers/00{number}.log")
    assert [event.total for event in events if event.kind is EventKind.PLANNED] == [3]
    assert [event.kind for event in events][-1] is EventKind.ENDED


def test_a_stored_record_needs_no_worker(tmp_path: Path) -> None:
    """If the run directory has records of all trials, no worker starts, even if the cache is empty."""
    first = go(tmp_path, Workers())
    Cache(tmp_path / "cache").clear()
    assert go(tmp_path, nobody) == first


def test_cached_results_need_no_worker(tmp_path: Path) -> None:
    """If a trial's training and answers are in the cache, its record is made from these, and no worker starts."""
    first = go(tmp_path, Workers())
    (tmp_path / "run" / "trials" / A.id / "record.json").unlink()
    again = go(tmp_path, nobody)
    assert again["a"] == replace(first["a"], reused=True, log="")
    assert [again[name] for name in (BASE, "b", "c")] == [first[name] for name in (BASE, "b", "c")]
    elsewhere = go(tmp_path, nobody, run="elsewhere")
    assert elsewhere == {name: replace(record, reused=True, log="") for name, record in first.items()}


def test_a_kill_between_training_and_answering_trains_once(tmp_path: Path) -> None:
    """If an adapter is cached without its answers, it is asked, but not trained again, and its record says `reused`."""
    go(tmp_path, Workers(), [A])
    training = SETUP.training_id(A.settings, A.seed)
    for path in (tmp_path / "cache" / "answers" / training).iterdir():
        path.unlink()
    workers = Workers()
    record = go(tmp_path, workers, [A], run="elsewhere")["a"]
    assert [(name, train, len(asked)) for name, train, asked in workers.tasks] == [("a", False, 2)]
    assert (record.status, record.reused, record.log) == (Status.SUCCEEDED, True, "workers/001.log")
    assert [spent.phase for spent in record.costs] == [Phase.TRAIN, Phase.ANSWER_AFTER]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
def test_failed_trials_run_again(tmp_path: Path, status: Status) -> None:
    """The next session repeats trials that FAILED or TIMED_OUT, and no others."""
    broken = Workers({B.id: Event(EventKind.FINISHED, B.id, status, "why")})
    first = go(tmp_path, broken)
    assert ends(first) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": status, "c": Status.SUCCEEDED}
    assert (first["b"].message, first["b"].log, first["b"].answers) == ("why", "workers/003.log", {})
    workers = Workers()
    assert set(ends(go(tmp_path, workers)).values()) == {Status.SUCCEEDED}
    assert [(name, train) for name, train, _ in workers.tasks] == [("b", True)]


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.OUT_OF_MEMORY])
def test_diverged_and_out_of_memory_do_not_run_again(tmp_path: Path, status: Status) -> None:
    """A trial that DIVERGED or ran OUT_OF_MEMORY is not repeated, neither in this run nor in another run."""
    first = go(tmp_path, Workers({B.id: status}))
    assert (first["b"].status, first["b"].message) == (status, status.value)
    assert first["b"].costs == (cost(Phase.TRAIN, 5.0),)
    assert go(tmp_path, nobody) == first
    assert go(tmp_path, nobody, run="elsewhere")["b"].status is status


def test_a_record_of_another_training_is_ignored(tmp_path: Path) -> None:
    """A record in the run directory is ignored if its training used other library versions."""
    go(tmp_path, Workers({A.id: Status.DIVERGED}), [A])
    other = replace(SETUP, versions={"torch": "2.14.0"})
    assert ends(go(tmp_path, Workers(), [A], setup=other)) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """If a record is damaged, an error names its path; the trial is not simply repeated."""
    go(tmp_path, Workers())
    path = tmp_path / "run" / "trials" / A.id / "record.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=f"{path} is damaged"):
        go(tmp_path, nobody)


# --- changes that need a new training or new answers -----------------------------------------------------------------


def with_suite(**changes: object) -> Setup:
    return replace(SETUP, suite=replace(SUITE, **changes))  # type: ignore[arg-type]


def work_after(folder: Path, setup: Setup, trials: Sequence[Trial] = (A,)) -> list[tuple[str, bool, list[str]]]:
    """Run trial A with SETUP, then `trials` with `setup` and the same cache; return the tasks of the second run."""
    go(folder, Workers(), [A])
    workers = Workers()
    assert set(ends(go(folder, workers, trials, setup=setup, run="after")).values()) == {Status.SUCCEEDED}
    return workers.tasks


def test_an_added_case_is_asked_alone(tmp_path: Path) -> None:
    """After a case is added to the suite, a new run asks only the prompt of this case, and trains nothing."""
    setup = with_suite(cases=(*CASES, case("three", prompt="Three?")))
    assert work_after(tmp_path, setup) == [(BASE, False, ["Three?"]), ("a", False, ["Three?"])]


def test_an_added_case_is_asked_in_the_same_run_too(tmp_path: Path) -> None:
    """If a case is added and the run's own records lack it, only the prompt of this case is asked."""
    go(tmp_path, Workers(), [A])
    workers = Workers()
    records = go(tmp_path, workers, [A], setup=with_suite(cases=(*CASES, case("three", prompt="Three?"))))
    assert [asked for _, _, asked in workers.tasks] == [["Three?"]] * 2
    assert all(set(record.answers) == {"one", "two", "three"} for record in records.values())


def test_a_removed_case_needs_no_worker(tmp_path: Path) -> None:
    """If a case is removed from the suite, a new run starts no worker."""
    assert work_after(tmp_path, with_suite(cases=CASES[1:])) == []


def test_assertions_and_places_change_nothing(tmp_path: Path) -> None:
    """If assertions, case ids, line numbers, the folder or the margin change, nothing is trained or asked again."""
    cases = tuple(
        replace(one, id=f"{one.id}-b", line=one.line + 7, assertions=(Assertion("equals", "x"),), description="new")
        for one in CASES
    )
    examples = tuple(replace(example, line=example.line + 7) for example in SUITE.examples)
    setup = with_suite(cases=cases, examples=examples, folder="elsewhere", margin=1.0)
    assert setup.training_id(A.settings, 0) == SETUP.training_id(A.settings, 0)
    assert [setup.prompt("t", one).key for one in cases] == [SETUP.prompt("t", one).key for one in CASES]
    assert work_after(tmp_path, setup) == []


def test_decoding_asks_again_and_trains_nothing(tmp_path: Path) -> None:
    """If the decoding settings change, all prompts are asked again, and nothing is trained."""
    assert [(name, train, len(asked)) for name, train, asked in work_after(
        tmp_path, with_suite(decoding=Decoding(9))
    )] == [(BASE, False, 2), ("a", False, 2)]  # fmt: skip


def test_a_reference_asks_its_case_again(tmp_path: Path) -> None:
    """If a case's reference or choices change, only this case is asked again, with its new reference and choices."""
    edited = replace(CASES[1], reference="Two.", choices=("a", "b"))
    assert work_after(tmp_path / "one", with_suite(cases=(CASES[0], edited, CASES[2]))) == [
        (BASE, False, ["Two?"]),
        ("a", False, ["Two?"]),
    ]
    asked = with_suite(cases=(edited,)).prompt("t", edited)
    assert (asked.reference, asked.choices) == ("Two.", ("a", "b"))


DRAWN = Decoding(temperature=0.7)


def test_more_repeats_ask_only_the_new_ones(tmp_path: Path) -> None:
    """If `repeats` grows, only the additional repeats are asked; if it shrinks, the first stored answers are used."""
    go(tmp_path, Workers(), [A], setup=with_suite(decoding=DRAWN, repeats=2), run="two")
    workers = Workers()
    four = go(tmp_path, workers, [A], setup=with_suite(decoding=DRAWN, repeats=4), run="four")
    assert [(name, train, len(asked)) for name, train, asked in workers.tasks] == [(BASE, False, 4), ("a", False, 4)]
    keys = [[answer.key for answer in repeats] for repeats in four["a"].answers.values()]
    assert [len(set(own)) for own in keys] == [4, 4]
    assert four == go(tmp_path, nobody, [A], setup=with_suite(decoding=DRAWN, repeats=4), run="four")
    three = go(tmp_path, nobody, [A], setup=with_suite(decoding=DRAWN, repeats=3), run="three")
    assert [[answer.key for answer in repeats] for repeats in three["a"].answers.values()] == [own[:3] for own in keys]


def test_a_case_without_all_its_repeats_is_not_finished(tmp_path: Path) -> None:
    """If a stored record has too few repeats, only the missing ones are asked and added."""
    go(tmp_path, Workers(), [A], setup=with_suite(decoding=DRAWN, repeats=2))
    workers = Workers()
    found = go(tmp_path, workers, [A], setup=with_suite(decoding=DRAWN, repeats=3))
    assert [len(asked) for _, _, asked in workers.tasks] == [2, 2]
    assert [len(repeats) for repeats in found["a"].answers.values()] == [3, 3]


def test_optional_parts_of_a_prompt_change_only_their_own_keys() -> None:
    """A prompt's reference, choices, temperature and repeat are part of its cache key only if the prompt has them."""
    plain = replace(CASES[0], reference=None)
    key = digest({"of": "t", "messages": plain.messages, "decoding": {"max_new_tokens": 64, "stop": ()}})
    assert SETUP.prompt("t", plain).key == key
    others = [
        SETUP.prompt("t", CASES[0]),
        SETUP.prompt("t", replace(plain, reference="")),
        SETUP.prompt("t", replace(plain, choices=("a", "b"))),
        SETUP.prompt("t", replace(plain, choices=("b", "a"))),
        with_suite(decoding=DRAWN).prompt("t", plain),
        with_suite(decoding=DRAWN).prompt("t", plain, 1),
    ]
    assert len({key, *(other.key for other in others)}) == 7


BASE_AND_A = [(BASE, False, 2), ("a", True, 2)]


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        (with_suite(examples=(Example((Message("user", "Hello"), Message("assistant", "good night"))),)),
         [("a", True, 2)]),
        (with_suite(examples=SUITE.examples * 2), [("a", True, 2)]),
        (replace(SETUP, model=replace(SETUP.model, digest="4567")), BASE_AND_A),
        (replace(SETUP, versions={"torch": "2.14.0"}), BASE_AND_A),
        (replace(SETUP, machine=machine("cuda")), BASE_AND_A),
        (replace(SETUP, machine=replace(machine(), compute_dtype="bfloat16")), BASE_AND_A),
    ],
    ids=["example", "more examples", "model", "library", "device", "dtype"],
)  # fmt: skip
def test_a_changed_input_of_training_trains_again(
    tmp_path: Path, setup: Setup, expected: list[tuple[str, bool, int]]
) -> None:
    """If training rows, model, libraries, device or data type change, trials are trained again.

    The base is also asked again, except if only training rows have changed.
    """
    found = work_after(tmp_path, setup)
    assert [(name, train, len(asked)) for name, train, asked in found] == expected


@pytest.mark.parametrize(
    "other",
    [
        replace(A, settings=replace(A.settings, learning_rate=1.1e-4)),
        replace(A, settings=replace(A.settings, target_modules=("q_proj",))),
        replace(A, seed=1),
    ],
    ids=["rate", "targets", "seed"],
)
def test_another_setting_or_seed_trains_again(tmp_path: Path, other: Trial) -> None:
    """If a setting or the seed changes, the trial is trained again, even under the same id; the base is not asked."""
    assert [(name, train, len(asked)) for name, train, asked in work_after(tmp_path, SETUP, [other])] == [
        ("a", True, 2)
    ]


def test_a_cache_is_still_used_after_an_axis_is_added(tmp_path: Path) -> None:
    """If the harness gets a new setting, cached results are still reused for trials with this setting's default."""
    go(tmp_path, Workers(), [A])
    before = sweep(tmp_path, nobody, run="later")
    default = MoreSettings(**A.settings.as_dict())
    records = before.run_trials([replace(A, settings=default)], Split.MAIN, "testing")
    assert [(record.status, record.reused) for record in records] == [(Status.SUCCEEDED, True)] * 2
    work = Workers()
    other = replace(A, settings=replace(default, noise=5.0))
    sweep(tmp_path, work, run="other").run_trials([other], Split.MAIN, "testing")
    assert [(trial, train) for trial, train, _ in work.tasks] == [("a", True)]


def test_name_path_and_threads_change_no_id() -> None:
    """Cache keys do not depend on the model's name and path or on the machine's number of threads."""
    moved = replace(
        SETUP, model=ModelRef("other", "elsewhere", SETUP.model.digest), machine=replace(machine(), threads=64)
    )
    assert moved.training_id(A.settings, 0) == SETUP.training_id(A.settings, 0)
    assert moved.base_id(Quantization.NF4) == SETUP.base_id(Quantization.NF4)


def test_forgotten_results_are_made_again(tmp_path: Path) -> None:
    """The trials given to `forget` run again, and so does the base; other trials keep their results."""
    go(tmp_path, Workers(), [A, B])
    sweep(tmp_path, nobody).forget([A])
    workers = Workers()
    records = go(tmp_path, workers, [A, B], run="elsewhere")
    assert [(name, train) for name, train, _ in workers.tasks] == [(BASE, False), ("a", True)]
    assert {name: record.reused for name, record in records.items()} == {BASE: False, "a": False, "b": True}


# --- jobs and costs --------------------------------------------------------------------------------------------------


PLAIN = trial(1e-4, quantization=Quantization.NONE)
BASE_NONE = base_trial(Quantization.NONE)


def test_no_job_has_two_quantizations(tmp_path: Path) -> None:
    """Trials with different quantisations run in separate jobs, and the base is asked in the first job of each."""
    workers = Workers()
    records = go(tmp_path, workers, [A, PLAIN, B], setup=replace(SETUP, engine=Engine.FUSED))
    assert [(job.quantization, [task.trial for task in job.tasks]) for job in workers.jobs] == [
        (Quantization.NF4, [BASE]),
        (Quantization.NF4, [A.id, B.id]),
        (Quantization.NONE, [BASE_NONE]),
        (Quantization.NONE, [PLAIN.id]),
    ]
    assert list(records) == [BASE, BASE_NONE, "a", PLAIN.id, "b"]
    assert {record.variant for record in list(records.values())[:2]} == {BASE}
    assert [record.quantization for record in records.values()] == [
        Quantization.NF4, Quantization.NONE, Quantization.NF4, Quantization.NONE, Quantization.NF4,
    ]  # fmt: skip
    assert len({job.tasks[0].training for job in workers.jobs}) == 4


def test_the_order_of_the_trials_does_not_change_the_bases(tmp_path: Path) -> None:
    """A time limit may put another quantisation first: each base keeps its record, and none is asked again."""
    first = go(tmp_path, Workers(), [A, PLAIN])
    assert go(tmp_path, nobody, [PLAIN, A]) == first
    workers = Workers()
    other = go(tmp_path / "other", workers, [PLAIN, A])
    assert [job.quantization for job in workers.jobs] == [Quantization.NONE] * 2 + [Quantization.NF4] * 2
    assert {name: record.answers for name, record in other.items()} == {n: r.answers for n, r in first.items()}


def test_a_variant_is_confirmed_beside_the_base_of_its_quantization(tmp_path: Path) -> None:
    """The base that answers the held-out cases has the quantisation of the variant that is confirmed."""
    confirmed = go(tmp_path, Workers(), [PLAIN], split=Split.CONFIRM)
    assert list(confirmed) == [BASE_NONE, PLAIN.id]
    assert set(confirmed[BASE_NONE].answers) == {"kept"}


def test_splits_have_records_of_their_own(tmp_path: Path) -> None:
    """For the split `confirm`, trained adapters are asked only its cases, and records of `main` stay unchanged."""
    first = go(tmp_path, Workers(), [A])
    workers = Workers()
    confirmed = go(tmp_path, workers, [A], split=Split.CONFIRM)
    assert workers.tasks == [(BASE, False, ["Kept?"]), ("a", False, ["Kept?"])]
    assert set(confirmed["a"].answers) == {"kept"}
    assert go(tmp_path, nobody, [A]) == first


def test_the_same_question_is_asked_once(tmp_path: Path) -> None:
    """A prompt that two cases share is asked once, and both cases get the answer."""
    suite: Suite = replace(SUITE, cases=(CASES[1], replace(CASES[1], id="again")))
    workers = Workers()
    records = go(tmp_path, workers, [A], setup=replace(SETUP, suite=suite))
    assert [asked for _, _, asked in workers.tasks] == [["Two?"]] * 2
    assert texts(records["a"]) == {"two": ["to Two?"], "again": ["to Two?"]}


def test_costs_of_several_passes_are_pooled(tmp_path: Path) -> None:
    """If a trial answers in several parts, seconds and tokens are summed, peaks are maxima, and loading counts once."""

    def spent(phase: Phase, seconds: float, peak: int) -> PhaseCost:
        return cost(phase, seconds, machine("cuda"), peak)

    def in_passes(job: Job, emit: Callable[[Event], None]) -> None:
        first, cache = job.tasks[0], Cache(Path(job.cache))
        emit(Event(EventKind.LOADED))
        for number, prompt in enumerate(first.prompts, start=1):
            costs = (spent(Phase.LOAD, 1.0, 100), spent(Phase.ANSWER_BEFORE, 2.0 * number, 200 * number))
            cache.commit_answers(first.training, AnswerPass((Answer(prompt.key, "x", 1, False),), costs))
        emit(Event(EventKind.FINISHED, first.trial, Status.SUCCEEDED))

    costs = go(tmp_path, in_passes, [A])[BASE].costs
    assert [each.phase for each in costs] == [Phase.LOAD, Phase.ANSWER_BEFORE]
    load, answering = costs
    assert load == spent(Phase.LOAD, 1.0, 100)
    assert (answering.seconds.value, answering.tokens) == (6.0, 3000)
    peaks = [answering.peak_resident, answering.peak_allocated, answering.peak_reserved, answering.peak_device]
    assert [peak.value for peak in peaks if isinstance(peak, Measurement)] == [400.0] * 4


def test_costs_of_the_other_split_are_left_out(tmp_path: Path) -> None:
    """A record of the split `main` does not include the costs of the split `confirm`."""
    first = go(tmp_path, Workers(), [A])
    go(tmp_path, Workers(), [A], split=Split.CONFIRM)
    assert go(tmp_path, nobody, [A], run="elsewhere")["a"].costs == first["a"].costs


def test_an_interruption_keeps_finished_records(tmp_path: Path) -> None:
    """If a listener raises KeyboardInterrupt, the worker is stopped, and the records of finished trials are kept."""
    closed: list[str] = []

    class Watched(Executor):
        def run(self, job: Path, log: Path, *, timeout: float | None, **more: Any) -> Generator[Event]:
            try:
                yield from Inline(Workers()).run(job, log, timeout=timeout)
            finally:
                closed.append(job.name)

    class Interrupting(Listener):
        def on_event(self, event: Event) -> None:
            if event.kind is EventKind.FINISHED and event.trial == A.id:
                raise KeyboardInterrupt

    each = replace(sweep(tmp_path, nobody), executor=Watched(), listener=Interrupting())
    with pytest.raises(KeyboardInterrupt):
        each.run_trials([A, B], Split.MAIN, "testing")
    assert closed == ["001.json", "002.json"]
    assert {NAMES[record.trial] for record in each.run.records()} == {BASE, "a"}
