"""Asks a judge and an embedding model about all answers of a run, before these are scored.

What a suite's assertions need is found by evaluating them: what is not stored yet is collected, and asked all at once.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.analysis.judging import judging, repeated
from harness.analysis.opinions import known_opinions, scoring_of
from harness.core.answers import Answer
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind
from harness.core.judges import REPEATED, Question, Reply, embedder, title
from harness.core.machine import Machine
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.core.suite import Case, JudgeRef, Suite
from harness.core.wording import plural
from harness.runner.executors.protocol import Executor
from harness.runner.judges import similarities
from harness.runner.judges.collecting import evaluate, judged_cases, questions_about
from harness.runner.judges.endpoint import Endpoint, Unanswered
from harness.runner.judges.local_model import LocalModel
from harness.runner.judges.naming import key_of
from harness.scoring import Need, Opinions, Scoring, needs
from harness.scoring.findings import Pair, pair_key
from harness.storage.cache import Cache
from harness.storage.runs import RunStore
from harness.storage.verdicts import VerdictStore, source_of

Asker = Callable[[Sequence[Question], Callable[[Reply], None]], Generator[Reply | Unanswered]]
Asked = tuple[Case, Answer]
_SHOWN_SECONDS = 20.0
"""Seconds between two notices of progress."""


@dataclass
class Asking:
    """The opinions of other models about the answers of one run.

    `local` asks a judge that is a model on this machine.
    """

    suite: Suite
    allow_code: bool
    cache: Path | None
    run: Path
    local: Asker
    on_event: Callable[[Event], None]
    on_verdicts: Callable[[], None] = lambda: None
    """Called while and after replies are stored."""
    opinions: Opinions = field(init=False)
    asked: int = 0
    """Number of questions that were asked in this session."""
    _may_ask: bool = field(default=True, init=False)
    _tried: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.opinions = known_opinions(self.suite, self.run, self.cache)

    @property
    def scoring(self) -> Scoring:
        """The options with which answers are scored."""
        return scoring_of(self.suite, self.opinions, allow_code=self.allow_code)

    def try_out(self) -> None:
        """Ask one question and compare one pair of texts, so that a mistake is found before anything is trained.

        The question is about a case's reference or, without one, its prompt, in place of an answer. A local judge was
        found before, and is not asked. This is done once a session, and not for an embedding model that was used
        before.

        Raises:
            UsageError: the judge's endpoint, or the embedding model, cannot be used, or the judge gives no verdict.
        """
        if self._tried or not self._may_ask:
            return
        self._tried = True
        own = self.suite.judge
        if own and own.base_url:
            about = (
                (case, text) for case in judged_cases(self.suite) for text in (case.reference, case.prompt) if text
            )
            found = next(
                ((case, text, asked[0]) for case, text in about if (asked := questions_about(case, text))), None
            )
            if found:
                self._try_judge(own, *found)
        if not self.opinions.similarities and any(needs(case.assertions, Need.EMBEDDINGS) for case in self.suite.cases):
            self._try_embedder()

    def _try_judge(self, own: JudgeRef, case: Case, text: str, question: Question) -> None:
        stored = VerdictStore(source_of(own), self.cache, self.run)
        (found,) = Endpoint(own, key_of(own)).ask([question], stored.add)
        if isinstance(found, Unanswered):
            remedy = f"{found.remedy or 'check the address and the name of the model'}, then run the same command again"
            raise _cannot_judge(own, found.reason, f"{remedy[0].upper()}{remedy[1:]}")
        self.opinions.replies[found.key] = found
        self.opinions.used[found.key] = None
        self.asked += 1
        cost = f"{found.tokens_read:,} tokens read and {found.tokens_written:,} written"
        self._say(f"Judge {title(own)} replied to a first question ({cost}).")
        alone = Opinions(named=True)
        alone.replies[found.key], alone.failure = found, ""  # only this question was asked
        if why := evaluate(case, Answer(case.id, text, 0, False), Scoring(opinions=alone), (Need.JUDGE,)):
            raise _cannot_judge(own, why, "Name another judge with --judge")

    def _try_embedder(self) -> None:
        model = embedder(self.suite)
        self._say(f"Loading {model}, which compares texts.")
        ((_, found),) = similarities.measure(model, [("a text", "a text")])
        if isinstance(found, str):
            raise UsageError(f"nothing was trained: {found}", remedy=similarities.REMEDY)

    def about(self, records: Sequence[TrialRecord]) -> None:
        """Ask what is needed to score the answers in the records, unless it is stored.

        If a model cannot be reached, the reason is noted, and the answers have no score for it.
        """
        found = list(_answers(self.suite, records))
        if not found:
            return
        repeats = self._repeats(found)
        # Only an answer with a verdict is judged again, and `answer-relevance` compares what the judge replied.
        for _ in range(4):
            again = self._collect(found, repeats)
            questions, pairs = tuple(self.opinions.questions.values()), dict(self.opinions.pairs)
            self.opinions.questions.clear()
            self.opinions.pairs.clear()
            if not self._ask_all(questions, again) + self._measure(pairs):
                break
        self._keep()

    def judged(self, results: Results) -> Results:
        """Add what the judge said, and how far it can be trusted."""
        return replace(results, judging=judging(results, self.scoring, self.asked))

    def forbid(self, reason: str) -> None:
        """Do not ask the judge; `reason` says why answers without a stored verdict have no score."""
        self.opinions.failure = reason
        self._may_ask = False

    def _repeats(self, found: Sequence[Asked]) -> list[Asked]:
        """Return the answers about which the judge is asked again. A local judge decodes greedily: it is not."""
        own = self.suite.judge
        return repeated(found) if own and own.base_url and own.repeats > 1 else []

    def _collect(self, found: Sequence[Asked], repeats: Sequence[Asked]) -> set[str]:
        """Evaluate what needs another model, so that missing questions are noted.

        Return the keys of the questions that only repeat others: about answers on which there is a verdict.
        """
        for case, answer in found:
            evaluate(case, answer, self.scoring, (Need.JUDGE, Need.EMBEDDINGS))
        first = set(self.opinions.questions)
        for case, answer in repeats:
            if evaluate(case, answer, self.scoring, (Need.JUDGE,)):
                continue
            for repeat in range(1, self.suite.judge.repeats if self.suite.judge else 1):
                evaluate(case, answer, replace(self.scoring, repeat=repeat), (Need.JUDGE,))
        return self.opinions.questions.keys() - first

    def _ask_all(self, questions: Sequence[Question], again: Collection[str]) -> int:
        """Ask the judge, and return the number of new replies. `again` are the keys of repeated questions."""
        own = self.suite.judge
        if own is None or not own.model or not self._may_ask:
            return 0
        waiting = [question for question in questions if question.key not in self.opinions.failures]
        if not waiting:
            return 0
        usable = len(self.opinions.replies.keys() & self.opinions.used.keys())
        self._say(_announced(own, waiting, sum(question.key in again for question in waiting), usable))
        began = time.monotonic()
        new = self._replies(own, waiting)
        self.asked += len(new)
        self._say(_spent(title(own), waiting, new, self.opinions.failures, time.monotonic() - began))
        self.on_verdicts()
        return len(new)

    def _replies(self, own: JudgeRef, waiting: Sequence[Question]) -> list[Reply]:
        stored = VerdictStore(source_of(own), self.cache, self.run)
        asker = Endpoint(own, key_of(own)).ask if own.base_url else self.local
        new: list[Reply] = []
        said = time.monotonic()
        with closing(asker(waiting, stored.add)) as replies:
            for reply in replies:
                if isinstance(reply, Unanswered):
                    self.opinions.failures[reply.question.key] = reply.words
                    continue
                self.opinions.replies[reply.key] = reply
                new.append(reply)
                if time.monotonic() - said > _SHOWN_SECONDS:
                    said = time.monotonic()
                    self._say(f"Judge {title(own)}: {len(new)} of {len(waiting)} questions answered.")
                    self.on_verdicts()
        return new

    def _measure(self, pairs: Mapping[str, Pair]) -> int:
        """Measure similarities, and return the number of new ones."""
        waiting = [pair for key, pair in pairs.items() if key not in self.opinions.failures]
        if not waiting:
            return 0
        model = embedder(self.suite)
        stored, new = VerdictStore(source_of(model), self.cache, self.run), 0
        self._say(f"Comparing {plural(len(waiting), 'pair')} of texts with {model}.")
        for pair, found in similarities.measure(model, waiting):
            if isinstance(found, str):
                self.opinions.failures[pair_key(pair)] = found
                continue
            stored.add(found)
            self.opinions.similarities[found.key] = float(found.text)
            new += 1
        if missing := self.opinions.failures.get(pair_key(waiting[-1])):
            self._say(f"{new:,} of {plural(len(waiting), 'pair')} of texts compared: {missing}.")
        self.on_verdicts()
        return new

    def _keep(self) -> None:
        """Write everything that is known into the run directory, without replies about answers of other runs."""
        own, used = self.suite.judge, self.opinions.used
        replies = (self.opinions.replies[key] for key in used if key in self.opinions.replies)
        if own:
            VerdictStore(source_of(own), None, self.run).keep(replies)
        near = self.opinions.similarities
        pairs = (Reply(key, repr(near[key])) for key in used if key in near)
        VerdictStore(source_of(embedder(self.suite)), None, self.run).keep(pairs)

    def _say(self, message: str) -> None:
        self.on_event(Event(EventKind.NOTICED, message=message))


def asking_of(
    suite: Suite,
    run: RunStore,
    cache: Cache,
    machine: Callable[[], Machine],
    executor: Callable[[], Executor],
    on_event: Callable[[Event], None],
    on_verdicts: Callable[[], None] = lambda: None,
    *,
    allow_code: bool,
) -> Asking:
    """Return what asks other models about the answers of a run. A local judge runs on `machine`, by `executor`."""
    judge = suite.judge or JudgeRef("")
    local = LocalModel(judge, machine, executor, cache, run.root, on_event)
    return Asking(suite, allow_code, cache.root, run.root, local.ask, on_event, on_verdicts)


def _answers(suite: Suite, records: Sequence[TrialRecord]) -> Iterator[Asked]:
    """Yield each different answer to each case that needs another model. Surrounding white space is ignored.

    Answers after single epochs are judged only if the verdicts decide: otherwise nothing shows them.
    """
    epochs = suite.judge is not None and suite.judge.decides
    cases = {
        case.id: case
        for case in suite.cases
        if needs(case.assertions, Need.JUDGE) or needs(case.assertions, Need.EMBEDDINGS)
    }
    seen: set[tuple[str, str]] = set()
    for record in records:
        timeline = [(each.answers, True) for each in record.timeline]
        for answers, is_earlier in ((record.answers, False), *timeline):
            for case, repeats in answers.items():
                is_asked = case in cases and (epochs or not is_earlier or not needs(cases[case].assertions, Need.JUDGE))
                for answer in repeats if is_asked else ():
                    if (case, answer.text.strip()) not in seen:
                        seen.add((case, answer.text.strip()))
                        yield cases[case], answer


def _cannot_judge(own: JudgeRef, reason: str, remedy: str) -> UsageError:
    """Return the error about a judge whose first reply is none, or no verdict."""
    later = f"`harness score RUN --judge {shlex.quote(f'{own.model}@{own.base_url}')}`"
    return UsageError(
        f"{title(own)} cannot judge, so nothing was trained: {reason}",
        remedy=f"{remedy}. Or leave out --judge (and `judge:` in suite.yaml) now, and judge the finished run with "
        f"{later}.",
    )


def _announced(own: JudgeRef, waiting: Sequence[Question], again: int, usable: int) -> str:
    """Say what will be asked, and why some questions are asked again."""
    tokens = sum(question.tokens for question in waiting)
    words = f"Judge {title(own)}: {plural(len(waiting), 'question')}, about {tokens:,} tokens; {usable} stored."
    if not again:
        return words
    return (
        f"{words} {again:,} of them {'repeats' if again == 1 else 'repeat'} others: up to {REPEATED} answers are "
        f"judged {own.repeats} times, which shows how often the judge contradicts itself (`judge: {{repeats: 1}}` in "
        "suite.yaml leaves this out)."
    )


def _spent(name: str, asked: Sequence[Question], new: Sequence[Reply], failures: dict[str, str], seconds: float) -> str:
    """Say what asking took, and why questions have no reply."""
    read, written = sum(reply.tokens_read for reply in new), sum(reply.tokens_written for reply in new)
    done = f"{len(new)} of {plural(len(asked), 'question')} answered in {seconds:.0f} s"
    words = f"Judge {name}: {done}, {read:,} tokens read and {written:,} written."
    missing = [failures[question.key] for question in asked if question.key in failures]
    return f"{words} {len(missing)} without a reply: {missing[0]}." if missing else words
