"""Tests that every executor must pass, and tests of worker processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

import harness
from harness.core import programs
from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job
from harness.core.measurement import Basis, Measurement, Phase, Shortage
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.core.training_outcome import Status
from harness.core.units import Unit
from harness.runner.executors.inline import Inline
from harness.runner.executors.processes import WORKER, Processes
from harness.runner.executors.protocol import Executor, Place
from harness.storage.records import encode_line, write_record
from tests.support.acting_worker import act
from tests.support.executor_contract import ExecutorContract
from tests.support.made_results import machine

SIZE = Measurement(2.0**31, Unit.BYTES, Basis.EMULATED, "NVIDIA H200")
SHORT = Shortage(Phase.TRAIN, SIZE, SIZE, SIZE, None, SIZE, SIZE, 2**34)
SAID = (
    Event(EventKind.LOADED),
    Event(EventKind.STARTED, "a"),
    Event(EventKind.STEP, "a", done=1, total=2, loss=0.5),
    Event(EventKind.FINISHED, "b", Status.OUT_OF_MEMORY, "too large", shortage=SHORT),
    Event(EventKind.FINISHED, "a", Status.FAILED, "half a pair \ud800, a line\u2028, a\nline, \x00 and Grüße"),
)
STEP = Event(EventKind.STEP, "a")

ACTOR = f"""\
import sys, time
said, then = sys.argv[1:3]
sys.stdout.write(said)
sys.stdout.flush()
if then == "crash":
    raise RuntimeError("it broke")
while then == "go on":
    print('{encode_line(STEP)}', flush=True)
    time.sleep(0.01)
"""
"""A worker that prints the given lines; then it ends ("end"), raises an error ("crash") or goes on ("go on")."""


def in_a_process(said: Sequence[Event], then: str) -> Executor:
    lines = "".join(encode_line(event) + "\n" for event in said)
    return Processes(command=[sys.executable, "-c", ACTOR, lines, then])


def in_this_process(said: Sequence[Event], then: str) -> Executor:
    def act(job: Job, emit: Callable[[Event], None]) -> None:
        for event in said:
            emit(event)
        if then == "crash":
            raise RuntimeError("it broke")
        while then == "go on":
            emit(STEP)

    return Inline(act)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The file of a job that has no tasks."""
    path = tmp_path / "001.json"
    model = ModelRef("none", "none", "0")
    write_record(path, Job(model, machine(), Quantization.NONE, Engine.REFERENCE, str(tmp_path), (), Decoding(), ()))
    return path


def run(executor: Executor, job: Path, timeout: float | None = None) -> list[Event]:
    return list(executor.run(job, job.with_suffix(".log"), timeout=timeout))


@pytest.mark.parametrize("acting", [in_a_process, in_this_process])
class TestEveryExecutor:
    """Guarantees of every executor, whether it runs the worker in this process or in another."""

    def test_events_arrive_in_order(self, acting: Callable[..., Executor], job: Path) -> None:
        """The executor passes the worker's events on unchanged and in order, and adds an ENDED event at the end."""
        *said, last = run(acting(SAID, "end"), job)
        assert [(event.kind, event.trial, event.done, event.loss) for event in said] == [
            (event.kind, event.trial, event.done, event.loss) for event in SAID
        ]
        messages = [event.message.replace("\ud800", "?") for event in SAID]
        assert [event.message.replace("\ud800", "?") for event in said] == messages
        assert last == Event(EventKind.ENDED, status=Status.SUCCEEDED)

    @pytest.mark.parametrize("then", ["end", "crash", "go on"])
    def test_one_end(self, acting: Callable[..., Executor], job: Path, then: str) -> None:
        """Whether the worker ends, crashes or times out, the last event is ENDED, and no other event is."""
        events = run(acting(SAID, then), job, timeout=0.3)
        assert [event.kind for event in events].index(EventKind.ENDED) == len(events) - 1

    def test_an_ended_event_of_the_worker_is_ignored(self, acting: Callable[..., Executor], job: Path) -> None:
        """If the worker itself emits an ENDED event, the executor drops this event."""
        ended = Event(EventKind.ENDED, status=Status.SUCCEEDED)
        events = run(acting((ended, *SAID), "crash"), job)
        assert [event.kind for event in events] == [*(event.kind for event in SAID), EventKind.ENDED]
        assert events[-1].status is Status.FAILED

    def test_a_crash_is_a_failure(self, acting: Callable[..., Executor], job: Path) -> None:
        """If a worker raises an exception, its status is FAILED, and the message and the log have the exception."""
        last = run(acting(SAID, "crash"), job)[-1]
        assert last.status is Status.FAILED
        assert "RuntimeError: it broke" in last.message
        assert "RuntimeError: it broke" in job.with_suffix(".log").read_text(encoding="utf-8")

    def test_too_long_is_timed_out(self, acting: Callable[..., Executor], job: Path) -> None:
        """A worker that exceeds the time limit is stopped and TIMED_OUT, even if it still emits events."""
        last = run(acting(SAID, "go on"), job, timeout=0.3)[-1]
        assert (last.status, last.message) == (Status.TIMED_OUT, "stopped after 0.3 s")

    @pytest.mark.parametrize("timeout", [None, 60.0])
    def test_the_end_of_the_run_cancels_the_worker(
        self, acting: Callable[..., Executor], job: Path, timeout: float | None
    ) -> None:
        """When the time for all trials is up, the worker is CANCELLED, whether a trial has a time limit or not."""
        executor, until = acting(SAID, "go on"), time.monotonic() + 0.3
        last = list(executor.run(job, job.with_suffix(".log"), timeout=timeout, until=until))[-1]
        assert last.status is Status.CANCELLED
        assert "time for all trials is up" in last.message


ACTING = programs.python("-m", "tests.support.acting_worker")
TWO = (Place("first"), Place("second"))


class TestInline(ExecutorContract):
    """The contract, for workers in this process."""

    dies = streams = False

    @pytest.fixture
    def executor(self) -> Executor:
        return Inline(act)

    @pytest.fixture
    def two(self) -> Executor:
        return Inline(act, TWO)


class TestProcesses(ExecutorContract):
    """The contract, for worker processes on this machine."""

    @pytest.fixture
    def executor(self) -> Executor:
        return Processes(command=ACTING)

    @pytest.fixture
    def two(self) -> Executor:
        return Processes(command=ACTING, at=TWO)


# --- worker processes ----------------------------------------------------------------------------------------


def script(code: str, show: Callable[[str], None] | None = None) -> Processes:
    return Processes(show, [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('one\\ntwo \\xff\\n', file=sys.stderr); sys.exit(3)",
         "the worker ended with exit code 3; the last line of its log: two \xff"),
        ("import os; os._exit(1)", "the worker ended with exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", "the worker was killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "the worker was killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", "the worker was killed by signal 40"),
        ("import os; os.write(2, b'no \\xff text'); os._exit(2)",
         "the worker ended with exit code 2; the last line of its log: no \ufffd text"),
    ],
)  # fmt: skip
def test_the_message_of_a_dead_process(job: Path, code: str, message: str) -> None:
    """If a worker dies, the message has its exit code or signal, and the last line of its log if there is one."""
    assert run(script(code), job) == [Event(EventKind.ENDED, status=Status.FAILED, message=message)]


@pytest.mark.parametrize(
    "junk", [b"not JSON\n", b"\n", b"\xff\xfe\n", b"5\n", b"{}\n", b'{"kind": "dance"}\n', b"[" * 9999]
)
def test_garbage_on_stdout(job: Path, junk: bytes) -> None:
    """Lines on the worker's stdout that are not events are ignored, including an incomplete last line."""
    said = [encode_line(event).encode() + b"\n" for event in SAID[:2]]
    text = junk.rstrip(b"\n") + b"\n" + said[0] + junk.rstrip(b"\n") + b"\n" + said[1] + junk
    events = run(script(f"import sys; sys.stdout.buffer.write({text!r})"), job)
    assert [event.kind for event in events] == [EventKind.LOADED, EventKind.STARTED, EventKind.ENDED]


def test_megabytes_on_stderr_do_not_block(job: Path) -> None:
    """A worker may print megabytes to stderr, and the log contains all of it."""
    code = "import sys; [print('x' * 999, file=sys.stderr) for _ in range(5000)]"
    assert run(script(code), job)[-1].status is Status.SUCCEEDED
    assert job.with_suffix(".log").stat().st_size == 5_000_000


def test_the_log_is_shown_completely(job: Path) -> None:
    """The callback `show` gets the whole log in pieces, and no piece ends within a character."""
    shown: list[str] = []
    # Longer than the interval between two reads of the log, with a pause within a character.
    code = """
import os, time
for _ in range(3):
    for byte in "Grüße, ✓\\n".encode():
        os.write(2, bytes([byte]))
        time.sleep(0.03)
"""
    assert run(script(code, shown.append), job)[-1].status is Status.SUCCEEDED
    assert "".join(shown) == "Grüße, ✓\n" * 3 == job.with_suffix(".log").read_text(encoding="utf-8")


STAYING = f"""
import json, os, sys
from harness.core.programs import end_with_parent
end_with_parent()
done = '{encode_line(Event(EventKind.DONE))}'
print('{encode_line(Event(EventKind.LOADED))[:-1]}, "done": %d}}' % os.getpid(), flush=True)
print("first", file=sys.stderr, flush=True)
print(done, flush=True)
for number, line in enumerate(sys.stdin):
    if "--other" in sys.argv:
        sys.exit(75)
    file = os.open(json.loads(line)["log"], os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 2)
    print("next", file=sys.stderr, flush=True)
    print('{encode_line(Event(EventKind.LOADED))[:-1]}, "done": %d}}' % os.getpid(), flush=True)
    print(done, flush=True)
"""
"""A worker that sends its process id, and stays for further jobs, or ends with exit code 75 if it gets one."""


@pytest.mark.parametrize("other", [(), ("--other",)], ids=["same base", "other base"])
def test_a_worker_is_kept_for_the_next_job(tmp_path: Path, job: Path, other: tuple[str, ...]) -> None:
    """The next job of a place gets the same worker, though another thread asks, unless it needs another base model."""
    place, code = Place("here"), [sys.executable, "-c", STAYING, *other]
    executor = Processes(command=code, at=(place,))
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    one, two = (_in_a_thread(partial(executor.run, job, log, timeout=60, place=place)) for log in logs)
    ended = Event(EventKind.ENDED, status=Status.SUCCEEDED)
    assert (one[1:], two[1:]) == ([ended], [ended])
    assert (one[0].done == two[0].done) is not bool(other)
    expected = "first\n" if other else "next\n"
    assert [log.read_text(encoding="utf-8") for log in logs] == ["first\n", expected]
    process = psutil.Process(two[0].done)
    executor.close()
    assert_gone([process])


SHARING = f"""
import json, sys
wanted = 3 if sys.argv[1].endswith("long") else 1
print('{encode_line(Event(EventKind.LOADED))}', flush=True)
for _ in range(wanted):
    print(json.loads(sys.stdin.readline())["threads"], file=sys.stderr, flush=True)
print('{encode_line(Event(EventKind.DONE))}', flush=True)
sys.stdin.read()
"""
"""A worker that logs the numbers of threads that it gets: one number, or three for a job with the name `long`."""


def test_the_cores_belong_to_the_workers_with_jobs(tmp_path: Path) -> None:
    """On a CPU, a worker uses all cores while it is the only one with a job, and otherwise its share."""
    places = (Place("one", threads=1), Place("two", threads=1))
    executor = Processes(command=[sys.executable, "-c", SHARING], at=places)
    long = executor.run(tmp_path / "long", tmp_path / "long.log", timeout=60, place=places[0])
    first = next(long)
    short = list(executor.run(tmp_path / "short", tmp_path / "short.log", timeout=60, place=places[1]))
    ends = [each[-1].status for each in ([first, *long], short)]
    executor.close()
    cores = len(os.sched_getaffinity(0))
    half = max(1, cores // 2)
    assert ends == [Status.SUCCEEDED] * 2
    assert (tmp_path / "long.log").read_text(encoding="utf-8") == f"{cores}\n{half}\n{cores}\n"
    assert (tmp_path / "short.log").read_text(encoding="utf-8") == f"{half}\n"


def _in_a_thread(run: Callable[[], Iterable[Event]]) -> list[Event]:
    """Return the events of a run whose thread has ended, like that of a place of a dispatcher."""
    found: list[Event] = []
    thread = threading.Thread(target=lambda: found.extend(run()))
    thread.start()
    thread.join()
    return found


def test_a_kept_worker_that_has_died_is_replaced(job: Path) -> None:
    """If a worker dies while it waits for a job, the job gets a new worker."""
    place = Place("here")
    executor = Processes(command=[sys.executable, "-c", STAYING], at=(place,))
    first = list(executor.run(job, job.with_suffix(".log"), timeout=60, place=place))
    os.kill(first[0].done, signal.SIGKILL)
    assert_gone([psutil.Process(first[0].done)])
    again = list(executor.run(job, job.with_suffix(".log"), timeout=60, place=place))
    executor.close()
    assert again[-1].status is Status.SUCCEEDED
    assert again[0].done != first[0].done


def test_stopping_ends_a_silent_worker(job: Path) -> None:
    """If `stop` is set, a worker that sends nothing is killed, and the job is CANCELLED."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    code = "import time; time.sleep(600)"
    events = list(script(code).run(job, job.with_suffix(".log"), timeout=None, stop=stop))
    assert [event.status for event in events] == [Status.CANCELLED]


def test_closing_kills_the_worker(job: Path) -> None:
    """If the iterator of events is closed, the worker and its child processes are killed."""
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{encode_line(Event(EventKind.LOADED))[:-1]}, "done": %d, "total": %d}}' % (os.getpid(), child.pid), flush=True)
time.sleep(600)
"""
    events = script(code).run(job, job.with_suffix(".log"), timeout=None)
    up = next(events)
    processes = [psutil.Process(pid) for pid in (up.done, up.total)]
    close = getattr(events, "close")  # noqa: B009 - declared as an iterator, but a generator
    close()
    assert_gone(processes)


def test_a_worker_that_hangs_after_closing_stdout_times_out(job: Path) -> None:
    """A worker that hangs after closing its stdout is stopped at the time limit."""
    last = run(script("import os, time; os.close(1); time.sleep(600)"), job, timeout=0.3)[-1]
    assert last.status is Status.TIMED_OUT


def test_a_child_of_a_dead_worker_does_not_block(job: Path) -> None:
    """If a worker dies, this is reported at once, even if a child process still holds the worker's stdout open."""
    code = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
os.kill(os.getpid(), 9)
"""
    assert "SIGKILL" in run(script(code), job)[-1].message


PARENT = """\
import sys
from pathlib import Path
from harness.runner.executors.processes import Processes
for event in Processes(command=sys.argv[2:]).run(Path(sys.argv[1]), Path(sys.argv[1] + ".log"), timeout=None):
    pass
"""


@pytest.mark.parametrize(
    "command", [WORKER, (sys.executable, "-c", "import sys; sys.stdin.read()")], ids=["worker", "script"]
)
def test_a_worker_ends_with_its_parent(tmp_path: Path, command: Sequence[str]) -> None:
    """If the process that started a worker is killed, the worker's stdin closes, and the worker ends."""
    job = tmp_path / "job"
    os.mkfifo(job)  # nobody writes to this pipe, so the worker waits for its job
    environment = os.environ | {"PYTHONPATH": str(Path(harness.__file__).parent.parent)}
    parent = psutil.Popen([sys.executable, "-c", PARENT, str(job), *command], env=environment)
    try:
        while not (workers := parent.children()):
            assert parent.poll() is None
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert_gone(workers)


def test_a_broken_job_file_ends_the_worker(tmp_path: Path) -> None:
    """If a worker cannot read its job file, it fails, and the message repeats the last line of its log."""
    job = tmp_path / "001.json"
    job.write_text(json.dumps({"format": 1}), encoding="utf-8")
    (last,) = run(Processes(), job)
    assert last.status is Status.FAILED
    assert "it redoes only what is missing" in last.message


def assert_gone(processes: list[psutil.Process]) -> None:
    """Wait until none of the processes is alive. After a minute, kill those that are left and fail."""
    deadline = time.monotonic() + 60
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in alive:
        process.kill()
    assert not alive


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is running. A zombie counts as ended: without an init process, orphans stay zombies."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
