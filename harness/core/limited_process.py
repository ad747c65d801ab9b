"""Runs work that may hang, grow or crash, such as the chat templates of models, in a child process with limits.

`LimitedProcess` starts `programs.module(MODULE)` and passes items of work to it. The module calls `serve`, which limits
the child's memory, the time per item and the size of each result. One child serves many items, because its start takes
longer than thousands of them.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import Any, NoReturn

from harness.core import programs

_SLACK = 30.0
"""Seconds that the parent waits beyond the limit, for the start of the child, which itself ends when time is up."""
_CHUNK = 2_000_000
"""Largest number of characters in one request, unless a single item is larger."""
_READ = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What a child process may use."""

    seconds: float = 5.0
    """Time per item, by the clock."""
    processor: float = 0.0
    """Processor time per item, in seconds, which does not depend on what else the machine does; 0 for no limit."""
    memory: int = 512 * 2**20
    """Address space of the process, in bytes; -1 for no limit."""
    output: int = 16 * 2**20
    """Size of one result, in characters."""
    file: int = 0
    """Size of a file that the process writes, in bytes; -1 for no limit."""


class LimitReachedError(Exception):
    """An item of work reached a limit, or ended the process. The text says which limit: `took more than 5 s`."""


@dataclass(frozen=True)
class Refused:
    """The result of an item for which the program raised an error."""

    reason: str
    """The first line of the error."""


class LimitedProcess:
    """A child process that does items of work within limits. It is started for the first item, and after it ended."""

    def __init__(self, module: str, limits: Limits | None = None) -> None:
        self._module, self._limits = module, limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._lock = threading.Lock()

    def work(self, shared: Any, items: Sequence[Any]) -> list[Any]:
        """Return the result of each item, in their order; `Refused` for those for which the program raised an error.

        `shared` is what all items have in common, such as the program itself. It, the items and the results consist of
        values that JSON can hold.

        Raises:
            LimitReachedError: an item reached a limit. The process was ended.
        """
        found: list[Any] = []
        with self._lock:
            try:
                for chunk in _chunks(items):
                    self._send({"shared": shared, "items": chunk})
                    found += [self._result() for _ in chunk]
            except BaseException:  # also Ctrl-C: results that were not read must not answer the next items
                self._end()
                raise
        return found

    def close(self) -> None:
        """End the process, if it is running."""
        with self._lock:
            self._end()

    def _send(self, request: dict[str, Any]) -> None:
        child = self._running()
        assert child.stdin is not None
        # The child reads the whole request before it writes, so neither waits for the other.
        with contextlib.suppress(BrokenPipeError):  # the child ended; reading its result says why
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = programs.start(
                programs.module(self._module, json.dumps(asdict(self._limits))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            atexit.register(self.close)
        return self._child

    def _result(self) -> Any:
        answer = json.loads(self._line())
        if "limit" in answer:
            raise LimitReachedError(answer["limit"])
        return Refused(answer["refused"]) if "refused" in answer else answer["value"]

    def _line(self) -> bytes:
        """Return the next line that the child writes.

        Raises:
            LimitReachedError: the child ended, or wrote nothing for too long.
        """
        child, until = self._running(), time.monotonic() + self._limits.seconds + _SLACK
        assert child.stdout is not None
        with DefaultSelector() as selector:
            selector.register(child.stdout, EVENT_READ)
            parts = [self._rest]
            while b"\n" not in parts[-1]:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise LimitReachedError(_too_slow(self._limits))
                read = os.read(child.stdout.fileno(), _READ)
                if not read:
                    raise LimitReachedError(_ending(child.wait(), self._limits))
                parts.append(read)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _end(self) -> None:
        child, self._child, self._rest = self._child, None, b""
        if child is None:
            return
        atexit.unregister(self.close)
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def _chunks(items: Sequence[Any]) -> Iterator[list[Any]]:
    """Divide items into requests of at most `_CHUNK` characters, but with at least one item each."""
    chunk: list[Any] = []
    size = 0
    for item in items:
        length = len(json.dumps(item))
        if chunk and size + length > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


def _too_slow(limits: Limits) -> str:
    return f"took more than {limits.seconds:g} s"


def _too_large(limits: Limits) -> str:
    return f"needed more than {limits.memory // 2**20} MiB of memory"


def _ending(code: int, limits: Limits) -> str:
    if code == -signal.SIGALRM:
        return _too_slow(limits)
    if code == -signal.SIGPROF:
        return f"took more than {limits.processor:g} s of processor time"
    return f"ended the process that ran it ({'signal' if code < 0 else 'exit code'} {abs(code)})"


# --- in the child process ----------------------------------------------------------------------------------------


def serve(work: Callable[[Any, Any], Any], argument: str) -> None:
    """Do items of work until the parent closes stdin or ends. `work` gets what is shared, and one item.

    Call it as `serve(work, sys.argv[1])` in the module that `LimitedProcess` starts. Import everything before, since
    memory and files are limited from here on.
    """
    limits = Limits(**json.loads(argument))
    _limit(limits)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        for item in request["items"]:
            sys.stdout.write(json.dumps(_answer(work, request["shared"], item, limits)) + "\n")
        sys.stdout.flush()


def give_up(limit: str) -> NoReturn:
    """End this process at once, from any thread; `limit` says which limit the item of work reached."""
    os.write(sys.stdout.fileno(), (json.dumps({"limit": limit}) + "\n").encode())
    os._exit(1)


def _limit(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes stdin
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(work: Callable[[Any, Any], Any], shared: Any, item: Any, limits: Limits) -> dict[str, Any]:
    # The timers end the process even inside a single call of C code, and even if the parent no longer exists.
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    signal.setitimer(signal.ITIMER_PROF, limits.processor)
    try:
        value = work(shared, item)
    except MemoryError:
        return {"limit": _too_large(limits)}
    except Exception as error:  # noqa: BLE001 - an untrusted program can raise any error
        return {"refused": (str(error).strip() or type(error).__name__).splitlines()[0][:500]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    if isinstance(value, str) and len(value) > limits.output:
        return {"limit": f"wrote more than {limits.output:,} characters"}
    return {"value": value}
