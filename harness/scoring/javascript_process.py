"""`python -P -m harness.scoring.javascript_process`: runs JavaScript of a suite in a child process with limits.

The interpreter is QuickJS. It has no files, no network and no modules. Its own limit of time does not apply within a
call of native code; that of the child process does.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import quickjs

from harness.core.limited_process import give_up, serve

MEMORY = 128 * 2**20
"""Memory of one evaluation, in bytes."""
_STACK = 4 * 2**20
"""Half of the stack that Linux gives a process; the 256 KiB that QuickJS allows hold a few hundred calls."""
_TOO_LARGE = {"kind": "limit", "value": f"needed more than {MEMORY // 2**20} MiB of memory"}
_PRELUDE = """
globalThis.console = Object.fromEntries(["log", "info", "warn", "error", "debug"].map((name) => [name, () => {}]));
(given) => {
  // The code may replace everything global, and so what is used after it ran is kept before.
  const { stringify } = JSON, text = String, { isArray } = Array;
  const settled = Promise.resolve.bind(Promise), then = Function.prototype.call.bind(Promise.prototype.then);
  const cut = Function.prototype.call.bind(String.prototype.slice);
  let outcome = { __proto__: null, kind: "pending" };
  const is = (kind) => (value) => typeof value === "undefined" || typeof value === kind;
  const isGrade = (found) => typeof found === "object" && found !== null && typeof found.pass === "boolean"
    && typeof found.score === "number" && typeof found.reason === "string" && is("object")(found.namedScores)
    && (found.componentResults === undefined || isArray(found.componentResults)) && is("string")(found.comment);
  const described = (found) => {
    if (typeof found === "boolean") return { __proto__: null, kind: "boolean", value: found };
    if (typeof found === "number") return { __proto__: null, kind: "number", value: text(found) };
    if (isGrade(found))
      return {
        __proto__: null, kind: "grade", pass: found.pass, score: text(found.score), reason: cut(found.reason, 0, 300),
      };
    return { __proto__: null, kind: "wrong", value: typeof found };
  };
  const words = (error) => cut(text(error?.name ? `${error.name}: ${error.message}` : error), 0, 300);
  const threw = (error) => ({ __proto__: null, kind: "threw", value: words(error) });
  const functionIn = () => {
    if (given.name === null) return new Function("output", "context", given.code);
    const module = { exports: {} };
    new Function("module", "exports", given.code)(module, module.exports);
    const { exports } = module;
    if (given.name) return exports?.[given.name] ?? exports?.default?.[given.name];
    return typeof exports === "function" ? exports : exports?.default;
  };
  const done = (made) => { outcome = made; };
  try {
    const call = functionIn();
    if (typeof call !== "function") outcome = { __proto__: null, kind: "no function" };
    else if (given.find) outcome = { __proto__: null, kind: "boolean", value: true };
    else {
      const found = settled(call(given.output, given.context));
      then(found, (value) => done(described(value)), (error) => done(threw(error)));
    }
  } catch (error) {
    outcome = threw(error);
  }
  return () => stringify(outcome);
}
"""


class _Watch:
    """The address space of this process: its peak shows whether an evaluation needed too much at any time.

    A limit of the interpreter alone does not do: code can catch the error, and go on as if nothing had happened. So the
    interpreter gets what it asks for, and is ended soon after, or its result is not used.
    """

    def __init__(self) -> None:
        self.running = threading.Event()
        started = threading.Event()
        threading.Thread(target=self._end_what_is_too_large, args=(started,), daemon=True).start()
        started.wait()  # the thread has memory of its own
        self._most = _address_space("VmSize") + MEMORY

    @property
    def is_too_large(self) -> bool:
        """Whether an evaluation of this process needed too much."""
        return _address_space("VmPeak") > self._most

    def _end_what_is_too_large(self, started: threading.Event) -> None:
        _address_space("VmSize")
        started.set()
        while self.running.wait():
            if _address_space("VmSize") > self._most:
                give_up(str(_TOO_LARGE["value"]))
            time.sleep(0.005)


def _address_space(name: str) -> int:
    """Return the address space (VmSize) of this process in bytes, or its peak (VmPeak); 0 where no file says it."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith(name)), 0)
    return 0


@cache
def _watch() -> _Watch | None:
    """Return the watch of this process; None where nothing says how much it needs, as on macOS."""
    if not _address_space("VmPeak"):
        return None
    with suppress(OSError):  # if the machine has no memory left, this process is to be ended, and no other
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    return _Watch()


def compiled(item: Any) -> Any:
    """Compile code without running it, and describe why it is no program."""
    context = quickjs.Context()
    context.set_memory_limit(MEMORY)
    parameters = "output, context" if item["name"] is None else "module, exports"
    try:
        # Nothing after `throw` runs, even if the code ends the function.
        context.eval(f"throw null; (function ({parameters}) {{\n{item['code']}\n}})")
    except quickjs.JSException as error:
        if str(error).startswith("SyntaxError"):
            words, _, where = str(error).partition("\n")
            line = re.search(r":(\d+)", where)
            return {"kind": "wrong", "value": words[:300] + (f" (line {int(line[1]) - 1})" if line else "")}
    return {"kind": "boolean", "value": True}


def run(_shared: Any, item: Any) -> Any:
    """Evaluate an item, and return no result if that needed too much memory, whatever the code made of it."""
    if item.get("compile"):
        return compiled(item)
    watch = _watch()
    if watch is None:
        return evaluated(item, MEMORY)
    watch.running.set()
    try:
        found = evaluated(item, -1)
    finally:
        watch.running.clear()
    return _TOO_LARGE if watch.is_too_large else found


def evaluated(item: Any, memory: int) -> Any:
    """Call a function with an answer and a context, and describe what it returns or throws.

    `item` has the `code`, the `output`, the `context`, `find`, with which the function is only looked for, and a
    `name`: that of a function which the code exports, or an empty text for its default export. If the name is None, the
    code is the function's body. `memory` is the interpreter's own limit, in bytes; -1 for none.
    """
    context = quickjs.Context()
    context.set_memory_limit(memory)
    context.set_max_stack_size(_STACK)
    try:
        outcome = context.eval(_PRELUDE)(context.parse_json(json.dumps(item)))
        while context.execute_pending_job():
            pass
        found = json.loads(outcome())
    except quickjs.StackOverflow as error:
        return {"kind": "threw", "value": str(error)[:300]}
    except quickjs.JSException as error:
        if "out of memory" not in str(error):
            raise
        return _TOO_LARGE
    # QuickJS throws null if it has no memory left for an error.
    is_too_large = found["kind"] == "threw" and (found["value"] == "null" or found["value"].endswith("out of memory"))
    return _TOO_LARGE if is_too_large else found


if __name__ == "__main__":
    serve(run, sys.argv[1])
