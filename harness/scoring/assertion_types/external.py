"""Assertion types that run external code: metrics of the `evaluate` library, and functions in the suite's folder.

Code in the suite's folder, and metrics on the Hub that are not part of the library, run only with --allow-code.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, cast

from harness.core.javascript import to_json
from harness.core.suite import Assertion
from harness.scoring.assertion_type import SHARE, AssertionType, Need, Value
from harness.scoring.findings import CannotScoreError, Evidence, Finding, Scoring, bounded, code_file
from harness.scoring.values import FILE, filled, misnamed, plain


def _guarded(what: str, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Call external code. Raise its exceptions as `CannotScoreError`, and send its output to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call(*given, **named)
    except (Exception, SystemExit) as problem:  # noqa: BLE001
        words = str(problem).strip().partition("\n")[0][:200]
        raise CannotScoreError(f"{what} failed: {type(problem).__name__}: {words}") from None


# --- evaluate ----------------------------------------------------------------------------------------------------


def _evaluate(evidence: Evidence, assertion: Assertion) -> Finding:
    asked: Mapping[str, Any] = assertion.value
    bounded(evidence.text)
    name, reference = asked["metric"], asked.get("reference", evidence.case.reference)
    scoring = evidence.scoring
    metric, failure = _metric(name, str(code_file(name, scoring)) if name.endswith(".py") else _hub_name(name, scoring))
    if metric is None:
        raise CannotScoreError(failure)
    given = {"predictions": [evidence.text], **({} if reference is None else {"references": [reference]})}
    result = _guarded(name, metric.compute, **given, **asked.get("args", {}))
    value = _number(result, name, asked.get("key"))
    degree = _share(value, asked.get("scale"), name)
    threshold = 0.5 if assertion.threshold is None else assertion.threshold
    return Finding(degree >= threshold, f"has {name} {value:.4g}, where {threshold:g} is asked", degree)


def _hub_name(name: str, scoring: Scoring) -> str:
    """Return the name of a metric on the Hub; raise `CannotScoreError` if it is not allowed to run.

    A name without a slash is a metric of the library. `user/metric` is code by any user of the Hub. A folder with the
    metric's name in the working directory is also unknown code: the library would load it instead of its own metric.
    """
    here = Path(name, f"{name.rpartition('/')[2]}.py")
    if ("/" in name or here.is_file()) and not scoring.allow_code:
        raise CannotScoreError(f"runs code ({name}), which only --allow-code permits")
    return name


@cache
def _metric(name: str, path: str) -> tuple[Any, str]:
    """Load a metric, or return the reason for the failure. The result is cached: a failing download is slow."""
    try:
        return _guarded(name, _load, path), ""
    except CannotScoreError as problem:
        return None, str(problem)


def _load(path: str) -> Any:
    import evaluate

    return evaluate.load(path, keep_in_memory=True)


def _number(result: Any, name: str, key: str | None) -> float:
    """Return the metric's result that is named `key`, else the one named like the metric, else the only number."""
    if not isinstance(result, Mapping):
        raise CannotScoreError(f"{name} returned no mapping")
    if key is not None and key not in result:
        raise CannotScoreError(f"{name} returned no {key}, but {', '.join(map(str, result))}")
    figures = {str(k): v for k, v in result.items() if _number_in(v) is not None}
    own = Path(name).stem
    chosen = key or (own if own in figures else next(iter(figures), "") if len(figures) == 1 else "")
    if chosen not in figures:
        raise CannotScoreError(f"{name} returned {', '.join(map(str, result)) or 'nothing'}; name one of them as key")
    value = _number_in(figures[chosen])
    if value is None or not math.isfinite(value):
        raise CannotScoreError(f"{name} returned {value}, which is no finite number")
    return value


def _number_in(value: Any) -> float | None:
    """Convert a number, or a list of one number, to a float; return None for any other value."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    return float(value) if isinstance(value, Real) else None


def _share(value: float, scale: float | None, name: str) -> float:
    if scale is not None:
        return min(max(value / scale, 0.0), 1.0)
    if not 0 <= value <= 1:
        raise CannotScoreError(
            f"{name} returned {value:.4g}, which is not from 0 to 1; say with scale what counts as 1"
        )
    return value


# --- python ------------------------------------------------------------------------------------------------------


def _called(value: Any, scoring: Scoring) -> Callable[..., Any]:
    """Return the function that a value names."""
    name, _, function = str(value).partition(":")
    path = code_file(name, scoring)
    module = _guarded(name, _module, path, path.stat().st_mtime_ns)
    call = getattr(module, function, None)
    if not callable(call):
        raise CannotScoreError(f"there is no function {function} in {name}")
    return cast(Callable[..., Any], call)


def _load_function(value: Any, scoring: Scoring) -> None:
    _called(value, scoring)


def _misnamed(value: Any, text: str) -> str:
    """Describe a function that the text of a Python file cannot hold; else return an empty text."""
    name, _, function = str(value).partition(":")
    return "" if "import *" in text else misnamed(function, text, name)


def _python(evidence: Evidence, assertion: Assertion) -> Finding:
    call = _called(assertion.value, evidence.scoring)
    case = evidence.case
    values = {name: value if isinstance(value, str) else to_json(value) for name, value in case.vars.items()}
    described = {
        "prompt": case.prompt,
        "vars": values,
        "test": {"id": case.id, "description": case.description, "vars": values, "reference": case.reference},
    }
    return _verdict(_guarded(assertion.value, call, evidence.text, described), assertion)


@cache
def _module(path: Path, written: int) -> Any:
    """Import the module in a file. With `written`, the time of its last change, a changed file is imported again."""
    name = f"_beside_suite_{path.stem}_{abs(hash((path, written)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


def _verdict(result: Any, assertion: Assertion) -> Finding:
    """Convert a result to a finding: a truth value, a number from 0 to 1, or promptfoo's `{pass, score, reason}`."""
    if isinstance(result, bool):
        return Finding(result, f"{assertion.value} returned {result}")
    if isinstance(result, Mapping):
        return _graded(result, assertion)
    degree = _number_in(result)
    if degree is None or not 0 <= degree <= 1:
        raise CannotScoreError(
            f"{assertion.value} returned {str(result)[:60]}, which is neither a truth value nor 0 to 1"
        )
    holds = degree > 0 if assertion.threshold is None else degree >= assertion.threshold
    return Finding(holds, f"{assertion.value} returned {degree:.4g}", degree)


def _graded(result: Mapping[str, Any], assertion: Assertion) -> Finding:
    holds = result.get("pass", result.get("pass_"))
    if not isinstance(holds, bool):
        raise CannotScoreError(f"{assertion.value} returned a mapping without pass: true or false")
    degree = _number_in(result.get("score", holds))
    if degree is None or not 0 <= degree <= 1:
        raise CannotScoreError(f"{assertion.value} returned a score that is not from 0 to 1")
    enough = assertion.threshold is None or degree >= assertion.threshold
    reason = str(result.get("reason") or f"{assertion.value} returned {degree:.4g}")
    return Finding(holds and enough, reason[:200], degree)


# --- values ------------------------------------------------------------------------------------------------------

_METRIC = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?|[A-Za-z0-9_./-]+\.py")
_METRIC_KEYS = {"metric", "key", "args", "reference", "scale"}


def _metric_asked(value: Any) -> dict[str, Any]:
    """Validate a metric: `accuracy` or `{metric: accuracy, key: ..., args: {...}, reference: ..., scale: 100}`."""
    from harness.core.yaml import nearest, shown

    asked = {"metric": value} if isinstance(value, str) else plain(value)
    if not isinstance(asked, dict) or not isinstance(asked.get("metric"), str):
        raise ValueError("needs a metric's name\nWrite value: accuracy, or value: {metric: rouge, key: rougeL}")
    if unknown := asked.keys() - _METRIC_KEYS:
        raise ValueError(
            f"has the unknown key {shown(min(unknown))} in its value\n{nearest(min(unknown), _METRIC_KEYS)}"
        )
    name = asked["metric"].removeprefix(FILE)
    if not _METRIC.fullmatch(name):
        remedy = "Name a metric on the Hub, or a module in the suite's folder: mine.py"
        raise ValueError(f"cannot have the metric {shown(name)}\n{remedy}")
    scale = asked.get("scale", 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or scale <= 0:
        raise ValueError(
            "has a scale that is not a number above 0\n"
            "The score is the metric's value divided by the scale, limited to 0 to 1."
        )
    if not isinstance(asked.get("args", {}), dict) or not isinstance(asked.get("key", ""), str):
        raise ValueError("needs a mapping as args, and a text as key\nWrite args: {name: value}, key: rougeL")
    return {**asked, "metric": name}


_FUNCTION = re.compile(rf"(?P<file>{FILE})?(?P<path>[A-Za-z0-9_][A-Za-z0-9_/.-]*?)(\.py)?(:(?P<name>[A-Za-z_]\w*))?")


def _function_named(value: str) -> str | None:
    """Rewrite `module:function`, or promptfoo's `file://module.py:function`, as `module.py:function`.

    Returns None for code that is written in the suite itself.
    """
    found = _FUNCTION.fullmatch(value.strip())
    if not found or not (found["name"] or found["file"]):
        return None
    return f"{found['path']}.py:{found['name'] or 'get_assert'}"


def _function(value: Any) -> str:
    """Accept the name of a function, and inline code, which `_inline_code` then reports as not supported."""
    return _function_named(filled(value)) or filled(value)


def _inline_code(value: Any) -> str:
    """Describe inline code as not supported; return an empty text for the name of a function."""
    named = _function_named(str(value)) is not None
    return "" if named else "with inline code (value: module:function names a function in the suite's folder)"


def _metric_file(value: Any) -> str:
    """Return the file of a metric in the suite's folder; empty for a metric of the library or the Hub."""
    name = str(value["metric"])
    return name if name.endswith(".py") else ""


def _function_file(value: Any) -> str:
    return str(value).partition(":")[0]


def _metric_code(value: Any) -> str:
    """Return the name of a metric that is not part of `evaluate`; empty for the library's own metrics."""
    name = str(value["metric"])
    return name if name.endswith(".py") or "/" in name else ""


TYPES = (
    AssertionType(
        "evaluate",
        Value(_metric_asked, code=_metric_code, file=_metric_file),
        _evaluate,
        "reaches `threshold` (0.5) in a metric of the `evaluate` library",
        "the metric / `scale`",
        SHARE,
    ),
    AssertionType(
        "python",
        Value(
            _function, code=str, file=_function_file, misnamed=_misnamed, load=_load_function, unsupported=_inline_code
        ),
        _python,
        "is accepted by `module:function` in the suite's folder; needs `--allow-code`",
        "what the function returns",
        SHARE,
        frozenset({Need.VARIABLES}),
    ),
)
