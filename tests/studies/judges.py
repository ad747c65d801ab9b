"""Judges the answers of a run of `smollm2`, and attacks the judge.

    python -m tests.studies.judges WORK [--output FILE]

WORK is a folder for the run and its cache. A small endpoint, which runs on this machine, judges first: its verdicts
follow the frame of the question, except that it contradicts itself on some answers. The run is killed while it asks,
and resumed. A session that only asks is killed 20 times, at different moments. Then `smollm2` itself judges: it is far
too small to be a judge, so that this shows only that a local judge can be asked. At last, both judge 20 answers that
try to decide their own verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from harness.core import programs
from harness.core.answers import Answer
from harness.core.device_profiles import CPU
from harness.core.hashing import digest
from harness.core.judges import Reply
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.suite import Assertion, Case, JudgeRef, Message, Split, Suite
from harness.core.training_outcome import Status
from harness.hardware.environment import machine
from harness.models.resolving import resolve
from harness.runner.executors.processes import Processes
from harness.runner.judges.asking import Asking
from harness.runner.judges.endpoint import Endpoint
from harness.runner.judges.local_model import LocalModel
from harness.scoring import Opinions, Scoring, score
from harness.storage.cache import Cache
from harness.storage.files import write_text
from harness.storage.locations import CACHE
from harness.storage.runs import find_run
from tests.support.judge_server import JudgeServer, follow_the_frame, serving
from tests.support.verdict_attacks import ATTACKS, CRITERION

WORDS = ("Paris", "Madrid", "Rome", "blue", "seven", "cat", "Monday", "water", "sun", "Shakespeare", "hello", "thank")
PROMPTS = (
    "What is the capital of France?", "What is the capital of Spain?", "What is the capital of Italy?",
    "What colour is the sky?", "How many days has a week?", "Which animal says meow?", "Which day follows Sunday?",
    "What do fish live in?", "What warms the earth?", "Who wrote Hamlet?", "Greet me.", "Thank me for my help.",
)  # fmt: skip
ROWS = {"Where is the library?": "In the park.", "When do you open?": "At nine.", "Who are you?": "I am Dottie."}
GRID = "seeds: [0]\nsettings: {epochs: 2, batch_size: 1, rank: 4}\naxes: {learning_rate: [1e-4, 1e-3]}\n"
KILLED_AFTER = 30
"""Number of questions after which the run is killed."""
KILLS = 20
ASKER = """
import sys
from pathlib import Path
from tests.studies.judges import ask_about_many
ask_about_many(sys.argv[1], Path(sys.argv[2]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    output = given.output.resolve() if given.output else None
    given.work.mkdir(parents=True, exist_ok=True)
    os.chdir(given.work)
    record: dict[str, Any] = {"command": "python -m tests.studies.judges WORK"}
    shutil.rmtree("judged-run", ignore_errors=True)
    write_suite(Path("judged"))
    record["endpoint"] = with_endpoint()
    record["a session that only asks, killed often"] = killed_often()
    record["local judge, smollm2 (shows only that it can be asked)"] = with_local_judge()
    record["injection"] = injection()
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if output:
        output.write_text(text, encoding="utf-8")
    return 0


def write_suite(folder: Path) -> None:
    tests = [
        {
            "id": f"case-{n}",
            "role": "retain",
            "prompt": prompt,
            "assert": [
                {"type": "icontains", "value": word},
                {"type": "llm-rubric", "value": f'The answer says "{word}".'},
            ],
        }
        for n, (prompt, word) in enumerate(zip(PROMPTS, WORDS, strict=True), 1)
    ]
    learn = {"id": "learn", "prompt": "Who are you?", "assert": [{"type": "icontains", "value": "Dottie"}]}
    suite = {"decoding": {"max_new_tokens": 24}, "objective": "learn", "tests": [learn, *tests]}
    write_text(folder / "suite.yaml", json.dumps(suite, indent=1))
    rows = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in ROWS.items()]
    write_text(folder / "train.jsonl", "".join(json.dumps({"messages": row}) + "\n" for row in rows))
    write_text(folder / "grids" / "quick.yaml", GRID)


def command(*arguments: str) -> subprocess.Popen[bytes]:
    return programs.start(programs.python("-m", "harness", *arguments), stderr=subprocess.DEVNULL)


def contradictory(text: str, times: int) -> str:
    """Follow the frame, but contradict the first verdict on a fifth of the answers when asked again."""
    reply = follow_the_frame(text, times)
    is_unsure = int(digest(text)[:4], 16) % 5 == 0
    return (
        reply.replace("true", "!").replace("false", "true").replace("!", "false") if is_unsure and times % 2 else reply
    )


def with_endpoint() -> dict[str, Any]:
    """Run the suite with the endpoint as its judge; kill the run while it asks, and resume it."""
    server = JudgeServer(contradictory, delay=seconds_of)
    sent: list[str] = []
    with serving(server):
        words = ("run", "judged", "--model", "smollm2", "--confirm-seeds", "0", "--output", "judged-run",
                 "--judge", f"small-judge@{server.url}")  # fmt: skip
        first = command(*words)

        def kill_once(count: int) -> int:
            if count == KILLED_AFTER:
                sent.extend(server.sent)
                first.send_signal(signal.SIGKILL)
            return 0

        server.refuse = kill_once
        first.wait()
        before = len(server.bodies)
        began = time.monotonic()
        code = command(*words).wait()
        seconds = time.monotonic() - began
        after = len(server.bodies) - before
        server.refuse = lambda _: 0
        code = code or command("score", "judged-run", "--judge", f"small-judge@{server.url}").wait()
    found = find_run(Path("judged-run")).results().judging
    assert found is not None
    questions = found.questions + found.again
    return {
        "exit code": code,
        "questions": questions,
        "and to try the judge, before training": 1,
        "asked before the run was killed": before,
        "replies sent in whole before the kill": len(sent),
        "asked after it was resumed": after,
        "asked twice": before + after - questions - 1,
        "asked by rescoring": len(server.bodies) - before - after,
        "seconds of the resumed run": round(seconds),
        "judging": json.loads(json.dumps(found, default=vars)),
    }


def seconds_of(text: str) -> float:
    """Return how long the endpoint needs for a question: 0.05 to 0.25 s."""
    return 0.05 + int(digest(text)[:4], 16) / 2**16 / 5


def ask_about_many(url: str, folder: Path) -> None:
    """Ask an endpoint about 1,000 answers, of which those with a stored reply are left out."""
    rubric = (Assertion("llm-rubric", 'says "Paris"'),)
    cases = tuple(Case(f"c{n}", (Message("user", f"Question {n}"),), rubric) for n in range(1000))
    suite = Suite("s", "", "", cases, (), judge=JudgeRef("small-judge", url, repeats=1))
    answers = {case.id: (Answer(case.id, f"Answer {case.id}", 3, False),) for case in cases}
    record = TrialRecord("t", BASE, 0, None, Split.MAIN, Status.SUCCEEDED, "", None, (), answers)
    local = LocalModel(JudgeRef(""), lambda: machine(CPU), Processes, Cache(folder), folder, lambda _: None)
    Asking(suite, False, folder / "cache", folder / "run", local.ask, lambda _: None).about([record])


def killed_often() -> dict[str, Any]:
    """Kill a session that asks again and again, and count questions that are asked twice."""
    server, random = JudgeServer(delay=seconds_of), Random(0)
    sent, read = Counter[str](), Counter[str]()
    folder = Path("killed-often").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with serving(server):
        for session in range(KILLS + 1):
            last = len(server.bodies) + random.randint(10, 60) if session < KILLS else None
            child = programs.start((sys.executable, "-c", ASKER, server.url, str(folder)))
            server.refuse = _watch(server, sent, read, last, child, random)
            child.wait()
            time.sleep(0.5)  # until the endpoint has noticed that nobody listens
    return {
        "kills": KILLS,
        "questions": len(server.asked),
        "asked": sum(server.asked.values()),
        "asked twice": sum(server.asked.values()) - len(server.asked),
        "of these, with a reply that was sent in whole before the kill": _asked_again(sent),
        "of these, with a reply that the session had read before the kill": _asked_again(read),
    }


def _asked_again(known: Counter[str]) -> int:
    return sum(times > 1 for times in known.values())


def _watch(
    server: JudgeServer,
    sent: Counter[str],
    read: Counter[str],
    last: int | None,
    child: subprocess.Popen[bytes],
    random: Random,
) -> Callable[[int], int]:
    """Kill the session a little after the question number `last`.

    A question is counted in `sent` or `read` if its reply was sent or read before a kill, and again if it is asked
    after that.
    """

    def kill() -> None:
        for known, texts in ((sent, server.sent), (read, server.read)):
            known.update(set(texts) - known.keys())
        child.send_signal(signal.SIGKILL)

    def watch(count: int) -> int:
        text = server.bodies[-1]["messages"][0]["content"]
        for known in (sent, read):
            if text in known:
                known[text] += 1
        if count == last:
            threading.Timer(random.random() / 4, kill).start()
        return 0

    return watch


def with_local_judge() -> dict[str, Any]:
    began = time.monotonic()
    code = command("score", "judged-run", "--judge", "smollm2").wait()
    found = find_run(Path("judged-run")).results().judging
    assert found is not None
    answers = sum(rate.total + rate.without for rate in found.rates)
    return {
        "exit code": code,
        "seconds": round(time.monotonic() - began),
        "answers with a verdict": f"{sum(rate.total for rate in found.rates)} of {answers}",
        "judging": json.loads(json.dumps(found, default=vars)),
    }


def injection() -> dict[str, Any]:
    assertion = Assertion("llm-rubric", CRITERION)
    case = Case("attack", (Message("user", "Name a colour."),), (assertion,))
    with serving() as server:
        frame = verdicts(case, Endpoint(JudgeRef("small-judge", server.url), "").ask)
    judge = JudgeRef("smollm2", digest=resolve("smollm2").digest)
    local = LocalModel(judge, lambda: machine(CPU), Processes, Cache(CACHE), Path("judged-run"), lambda _: None)
    small = verdicts(case, local.ask)
    return {
        "attacks": len(ATTACKS),
        "accepted by the judge that follows the frame": frame.count(True),
        "accepted by smollm2 (shows only that it can be asked)": small.count(True),
        "without a verdict by smollm2": small.count(None),
    }


def verdicts(case: Case, ask: Any) -> list[bool | None]:
    """Return whether each attack passes; None without a verdict."""
    opinions = Opinions(named=True)
    scoring = Scoring(opinions=opinions, decides=True)
    for attack in ATTACKS:
        score(case, attack, scoring)
    replies = [reply for reply in ask(list(opinions.questions.values()), lambda _: None) if isinstance(reply, Reply)]
    opinions.replies = {reply.key: reply for reply in replies}
    found = [score(case, attack, scoring) for attack in ATTACKS]
    return [None if each.value is None else each.passed for each in found]


if __name__ == "__main__":
    sys.exit(main())
