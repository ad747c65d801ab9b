"""`python -P -m harness.scoring.javascript_process`: runs JavaScript of a suite in a child process with limits.

The interpreter is QuickJS. It has no files, no network and no modules. Its own limit of time does not apply within a
call of native code; that of the child process does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import quickjs

from harness.core.limited_process import serve

MEMORY = 128 * 2**20
"""Memory of one evaluation, in bytes."""
_STACK = 4 * 2**20
"""Half of the stack that Linux gives a process; the 256 KiB that QuickJS allows hold a few hundred calls."""
_TOO_LARGE = {"kind": "limit", "value": f"needed more than {MEMORY // 2**20} MiB of memory"}
_PRELUDE = """
globalThis.console = Object.fromEntries(["log", "info", "warn", "error", "debug"].map((name) => [name, () => {}]));
(given) => {
  let outcome = { kind: "pending" };
  const is = (kind) => (value) => typeof value === "undefined" || typeof value === kind;
  const isGrade = (found) => typeof found === "object" && found !== null && typeof found.pass === "boolean"
    && typeof found.score === "number" && typeof found.reason === "string" && is("object")(found.namedScores)
    && (found.componentResults === undefined || Array.isArray(found.componentResults)) && is("string")(found.comment);
  const described = (found) => {
    if (typeof found === "boolean") return { kind: "boolean", value: found };
    if (typeof found === "number") return { kind: "number", value: String(found) };
    if (isGrade(found))
      return { kind: "grade", pass: found.pass, score: String(found.score), reason: found.reason.slice(0, 300) };
    return { kind: "wrong", value: typeof found };
  };
  const words = (error) => String(error?.name ? `${error.name}: ${error.message}` : error).slice(0, 300);
  const threw = (error) => ({ kind: "threw", value: words(error) });
  const functionIn = () => {
    if (given.name === null) return new Function("output", "context", given.code);
    const module = { exports: {} };
    new Function("module", "exports", given.code)(module, module.exports);
    const found = module.exports[given.name] ?? module.exports;
    return typeof found === "function" ? found : found?.default?.[given.name] ?? found?.default;
  };
  const done = (made) => { outcome = made; };
  try {
    const call = functionIn();
    if (typeof call !== "function") outcome = { kind: "no function" };
    else {
      const found = Promise.resolve(call(given.output, given.context));
      found.then((value) => done(described(value)), (error) => done(threw(error)));
    }
  } catch (error) {
    outcome = threw(error);
  }
  return () => JSON.stringify(outcome);
}
"""


def run(_shared: Any, item: Any) -> Any:
    """Call a function with an answer and a context, and describe what it returns or throws.

    `item` has the `code`, the `output`, the `context` and a `name`: that of a function which the code exports, or an
    empty text for its default export. If the name is None, the code is the function's body.
    """
    context = quickjs.Context()
    context.set_memory_limit(MEMORY)
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
