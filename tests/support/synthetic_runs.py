"""Synthetic runs for tests, made without a model: manifests, records of trials, results and a scorer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from harness.analysis.aggregate import assemble
from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.formats import FORMAT
from harness.core.machine import Machine, Provenance
from harness.core.measurement import Phase, PhaseCost
from harness.core.model import ModelRef
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.scores import Check, Score
from harness.core.settings import Axis, Plan, Settings, Trial, Variant
from harness.core.suite import Assertion, Case, Example, Message, Role, Split, Suite
from harness.core.training_outcome import Status, Step, Training
from tests.support.made_results import MIB, cost, machine

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\u202eright to left\u2066 marks \u05e9\u05dc\u05d5\u05dd",
    "a NUL \x00 and an escape \x1b[31mred\x1b[0m",
    "a lone surrogate \ud800 and \udfff",
    "x" * 100_000,
    "{{ 7 * 7 }} {% raw %} &amp; &lt;b&gt; **markdown**",
    "]]></style><style>body{display:none}</style><!--",
    "broken UTF-8 \udcff\udc80 \ufffd, ANSI \x1b]0;t\x07\x9b31m, \r\nlines\r, # head `code` [x](javascript:alert(1))",
)
WORDS = ["river", "stone", "lamp", "quiet", "market", "yellow", "seven", "under", "walk", "paper"]
TOPICS = ("the capital of Norway", "a two-line poem", "the opposite of slow", "what Fernwick costs", "seven plus four")


def score(case: Case, answer: Answer | str) -> Score:
    """Score an answer: each of the case's assertions passes if its text is in the answer."""
    text = answer if isinstance(answer, str) else answer.text
    checks = tuple(
        Check(a.name, a.value in text, "" if a.value in text else f"{text[:40]!r} does not contain {a.value!r}")
        for a in case.assertions
    )
    passed = all(check.passed for check in checks)
    return Score(case.id, passed, sum(c.passed for c in checks) / len(checks), checks)


def case(id: str, role: Role = Role.LEARN, split: Split = Split.MAIN, expect: str = "good", prompt: str = "") -> Case:
    messages = (Message("user", prompt or f"Please tell me about {TOPICS[sum(map(ord, id)) % len(TOPICS)]}."),)
    return Case(id, messages, (Assertion("contains", expect),), role, split, reference=f"A {expect} answer.")


def suite(cases: Sequence[Case], margin: float = 10.0, objective: Role = Role.GENERALISE) -> Suite:
    rows = (Example((Message("user", "Hello"), Message("assistant", "good day"))),)
    return Suite("workshop", "suites/workshop", "A made-up suite.", tuple(cases), rows, objective, margin)


@dataclass(frozen=True)
class MoreSettings(Settings):
    """Settings as a future version with one more axis would have them."""

    noise: Annotated[
        float, Axis("noise", "Noise", sft="label_smoothing_factor", at_least=0, fused=False, added=True)
    ] = 0.0


def manifest(
    suite: Suite,
    variants: Sequence[Variant],
    seeds: Sequence[int] = (0,),
    *,
    toy: bool = True,
    on: Machine | None = None,
) -> RunManifest:
    trials = tuple(Trial(f"{v.id}-s{s}", v.id, v.settings, s) for v in variants for s in seeds)
    model = ModelRef("pocket" if toy else "meta-llama/Llama-2-7b-chat-hf", "model", "0123456789abcdef" * 4, toy=toy)
    versions = {
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "peft": "0.21.2",
        "trl": "1.16.0",
        "bitsandbytes": "0.50.2",
    }
    facts = Provenance(
        "harness run suites/workshop", "2026-01-02T03:04:05+00:00", versions, "3.11.9", "Linux-x86_64", "a1b2c3d4e5f6",
        False, on or machine(),
    )  # fmt: skip
    plan = Plan("quick", tuple(variants), tuple(seeds), trials)
    return RunManifest(FORMAT, suite, plan, model, Engine.REFERENCE, (100, 101), facts, "feedface" * 8)


def training(
    status: Status = Status.SUCCEEDED, steps: int = 30, speed: float = 0.1, on: Machine | None = None,
    parameters: int = 400_000,
) -> Training:  # fmt: skip
    broke = status is Status.DIVERGED
    log = tuple(_step(n, speed, broke, broke and n == steps) for n in range(1, steps + 1))
    spent = cost(Phase.TRAIN, 6.4 + speed * 10, on, peak=1_100 * MIB)
    return Training("t" * 16, status, "", log, spent, parameters, steps * 120)


def _step(n: int, speed: float, rising: bool, broken: bool) -> Step:
    loss = 8.5 * (1 - speed) ** n * (1 + 0.05 * ((n * 7) % 5)) * (1.6**n if rising else 1)
    norm = 3 * (1 - speed / 2) ** n + 0.2 * ((n * 3) % 4)
    rate = 1e-3 * (1 - n / 31)
    return Step(n, n / 10, None if broken else round(loss, 5), rate, None if broken else round(norm, 5), n * 120)


def record(
    variant: Variant | None, answers: Mapping[str, str | Sequence[str]], *, seed: int = 0, split: Split = Split.MAIN,
    status: Status = Status.SUCCEEDED, message: str = "", trained: Training | None = None, on: Machine | None = None,
    truncated: frozenset[str] = frozenset(),
) -> TrialRecord:  # fmt: skip
    """Return the record of a trial that ended, or of the base model if `variant` is None.

    `answers` has a text for each case, or a text for each repeat of it.
    """
    repeats = {id: (given,) if isinstance(given, str) else given for id, given in answers.items()}
    done = {
        id: tuple(Answer(f"key-{id}", text, len(text) // 4, id in truncated) for text in texts)
        for id, texts in repeats.items()
    }
    costs: tuple[PhaseCost, ...] = ()
    if variant is None:
        costs = (cost(Phase.LOAD, 1.2, on), cost(Phase.ANSWER_BEFORE, 8.0, on))
    if variant and trained and trained.cost:
        costs = (trained.cost,)
        costs += (cost(Phase.ANSWER_AFTER, 9.0, on),) if status is Status.SUCCEEDED else ()
    name = variant.id if variant else "base"
    return TrialRecord(
        f"{name}-s{seed}", name, seed, variant.settings if variant else None, split, status, message, trained, costs,
        done, log=f"logs/{name}-s{seed}.log" if variant else "",
    )  # fmt: skip


def variants(count: int) -> list[Variant]:
    """Return variants that differ in learning rate and rank, and from the 25th on also in their epochs."""
    rates, ranks = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (2, 8, 16, 64)
    epochs = [Settings().epochs, *range(11, 11 + count // 24)]
    grid = [(many, rate, rank) for many in epochs for rank in ranks for rate in rates][:count]
    return [
        Variant(f"v{n:02}", _named(many, rate, rank), Settings(rate, epochs=float(many), rank=rank, alpha=2 * rank))
        for n, (many, rate, rank) in enumerate(grid)
    ]


def _named(epochs: float, rate: float, rank: int) -> str:
    more = "" if epochs == Settings().epochs else f" ep={epochs:g}"
    return f"lr={rate:.0e} r={rank}{more}".replace("e-0", "e-")


def cases(count: int, *, hostile: bool = False, confirm: int = 0) -> list[Case]:
    """Return `count` main cases and `confirm` confirmation cases of all roles.

    With `hostile`, there is also a main case for each of the texts in `HOSTILE`.
    """
    turns = [Role.LEARN, Role.GENERALISE, Role.RETAIN, Role.RETAIN, Role.AVOID, Role.GENERALISE]
    found = [case(f"c{n:03}", turns[n % 6]) for n in range(count)]
    found += [case(f"k{n:03}", turns[n % 6], Split.CONFIRM) for n in range(confirm)]
    if hostile:
        found += [case(f"hostile {n}", Role.GENERALISE, prompt=text[:200]) for n, text in enumerate(HOSTILE)]
    return found


def results(
    count: int = 8, asked: int = 30, *, seeds: Sequence[int] = (0,), hostile: bool = True, toy: bool = True,
    on: Machine | None = None, length: int = 0, confirm: int = 12, failures: bool = True,
) -> Results:  # fmt: skip
    """Return the results of a run in which later variants pass more cases.

    The last three variants have no answers: one diverges, one runs out of memory, and one fails.
    """
    rng, rows = random.Random(7), variants(count)
    run = manifest(suite(cases(asked, hostile=hostile, confirm=confirm), margin=40), rows, seeds, toy=toy, on=on)
    ended = dict.fromkeys(range(count), Status.SUCCEEDED)
    if failures and count > 5:
        ended |= {count - 1: Status.FAILED, count - 2: Status.OUT_OF_MEMORY, count - 3: Status.DIVERGED}
    records = [_base(run, rng, split, length) for split in Split]
    for number, row in enumerate(rows):
        skill = number / max(count - 4, 1)
        records += [_tuned(run, rng, row, seed, Split.MAIN, ended[number], skill, length) for seed in seeds]
    chosen = assemble(run, records, score, "2026-01-02T03:24:05+00:00").choice.variant
    for row in rows if confirm else ():
        again = run.confirm_seeds if row.name == chosen else ()
        records += [_tuned(run, rng, row, seed, Split.CONFIRM, Status.SUCCEEDED, 0.8, length) for seed in again]
    return assemble(run, records, score, "2026-01-02T03:24:05+00:00")


def _base(run: RunManifest, rng: random.Random, split: Split, length: int) -> TrialRecord:
    answers = {}
    for each in run.suite.of(split):
        passes = each.role in (Role.RETAIN, Role.AVOID) and rng.random() < 0.95
        answers[each.id] = _text(each, passes, rng, length)
    return record(None, answers, split=split, on=run.provenance.machine)


def _tuned(
    run: RunManifest, rng: random.Random, row: Variant, seed: int, split: Split, status: Status, skill: float,
    length: int,
) -> TrialRecord:  # fmt: skip
    keeps = 0.97 if skill < 0.9 else 0.4
    answers = {}
    for number, each in enumerate(run.suite.of(split)):
        kept = each.role in (Role.RETAIN, Role.AVOID)
        answers[each.id] = _text(each, rng.random() < (keeps if kept else skill), rng, length)
        if each.id.startswith("hostile"):
            answers[each.id] = HOSTILE[int(each.id.split()[1])] + (" good" if number % 2 else "")
    messages = {
        Status.FAILED: "RuntimeError: the worker ended with signal 11 (segmentation fault) <b>in step 3</b>",
        Status.OUT_OF_MEMORY: "CUDA out of memory: tried to allocate 2.00 GiB",
        Status.DIVERGED: "the loss is not finite in step 17",
    }
    done = status is Status.SUCCEEDED
    trained = training(
        status, 30 if done else 17, 0.02 + 0.2 * min(skill, 1), run.provenance.machine, row.settings.rank * 25_000
    )
    if status in (Status.FAILED, Status.OUT_OF_MEMORY):
        trained = replace(trained, steps=trained.steps[:2], supervised_tokens=240)
    return record(
        row, answers if done else {}, seed=seed, split=split, status=status, message=messages.get(status, ""),
        trained=trained, on=run.provenance.machine, truncated=frozenset(list(answers)[3:5]),
    )  # fmt: skip


def _text(each: Case, passes: bool, rng: random.Random, length: int) -> str:
    words = " ".join(rng.choices(WORDS, k=max(6, length // 6)))
    text = f"It is {'good' if passes else 'bad'}: {words}."
    return text[:length] if length else text
