"""Judges that reach outside: metrics of the `evaluate` library, and code beside the suite, which must be allowed."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

from harness.records import Assertion
from harness.scorers.findings import CannotScoreError, Context, Finding, bounded

Judge = Callable[[str, Assertion, Context], Finding]


def code_of(assertion: Assertion) -> str:
    """The code that an assertion would run, by name; nothing for most."""
    if assertion.type == "python":
        return str(assertion.value)
    name = str(assertion.value["metric"]) if assertion.type == "evaluate" else ""
    return name if name.endswith(".py") or "/" in name else ""


def _code(name: str, context: Context) -> Path:
    """The path of a file of code beside the suite, if it may be run."""
    if not context.scoring.allow_code:
        raise CannotScoreError(f"runs code ({name}), which only --allow-code permits")
    if context.scoring.folder is None:
        raise CannotScoreError(f"there is no folder to look for {name} in")
    folder = context.scoring.folder.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise CannotScoreError(f"{name} leads out of the suite's folder")
    if not path.is_file():
        raise CannotScoreError(f"there is no {name} beside the suite")
    return path


def _guarded(what: str, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Calls what others wrote: whatever it raises is the reason why there is no score; what it prints is no result."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call(*given, **named)
    except (Exception, SystemExit) as problem:  # noqa: BLE001
        words = str(problem).strip().partition("\n")[0][:200]
        raise CannotScoreError(f"{what} failed: {type(problem).__name__}: {words}") from None


# --- evaluate ----------------------------------------------------------------------------------------------------


def _evaluate(answer: str, assertion: Assertion, context: Context) -> Finding:
    asked: Mapping[str, Any] = assertion.value
    bounded(answer)
    name, reference = asked["metric"], asked.get("reference", context.case.reference)
    metric, failure = _metric(name, str(_code(name, context)) if name.endswith(".py") else _hub_name(name, context))
    if metric is None:
        raise CannotScoreError(failure)
    given = {"predictions": [answer], **({} if reference is None else {"references": [reference]})}
    result = _guarded(name, metric.compute, **given, **asked.get("args", {}))
    value = _number(result, name, asked.get("key"))
    degree = _share(value, asked.get("scale"), name)
    threshold = 0.5 if assertion.threshold is None else assertion.threshold
    return Finding(degree >= threshold, f"has {name} {value:.4g}, where {threshold:g} is asked", degree)


def _hub_name(name: str, context: Context) -> str:
    """A plain name is a metric that the library's makers wrote; `user/metric` is anybody's code, and so is a folder of
    that name in the working directory, which the library would take instead."""
    here = Path(name, f"{name.rpartition('/')[2]}.py")
    if ("/" in name or here.is_file()) and not context.scoring.allow_code:
        raise CannotScoreError(f"runs code ({name}), which only --allow-code permits")
    return name


@cache
def _metric(name: str, path: str) -> tuple[Any, str]:
    """A metric, or why there is none: looked for once, because without a network every attempt takes long."""
    try:
        return _guarded(name, _load, path), ""
    except CannotScoreError as problem:
        return None, str(problem)


def _load(path: str) -> Any:
    import evaluate

    return evaluate.load(path, keep_in_memory=True)


def _number(result: Any, name: str, key: str | None) -> float:
    """The one figure that is meant of what a metric returned."""
    if not isinstance(result, Mapping):
        raise CannotScoreError(f"{name} returned no mapping")
    if key is not None and key not in result:
        raise CannotScoreError(f"{name} returned no {key}, but {', '.join(map(str, result))}")
    figures = {str(k): v for k, v in result.items() if _plain(v) is not None}
    own = Path(name).stem
    chosen = key or (own if own in figures else next(iter(figures), "") if len(figures) == 1 else "")
    if chosen not in figures:
        raise CannotScoreError(f"{name} returned {', '.join(map(str, result)) or 'nothing'}; name one of them as key")
    value = _plain(figures[chosen])
    if value is None or not math.isfinite(value):
        raise CannotScoreError(f"{name} returned {value}, which is no finite number")
    return value


def _plain(value: Any) -> float | None:
    """A number, also as a list of one: some metrics return one per answer."""
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


def _python(answer: str, assertion: Assertion, context: Context) -> Finding:
    name, _, function = str(assertion.value).partition(":")
    path = _code(name, context)
    module = _guarded(name, _module, path, path.stat().st_mtime_ns)
    call = getattr(module, function, None)
    if not callable(call):
        raise CannotScoreError(f"there is no function {function} in {name}")
    case = context.case
    told = {
        "prompt": case.prompt,
        "vars": dict(case.vars),
        "test": {"id": case.id, "description": case.description, "vars": dict(case.vars), "reference": case.reference},
    }
    return _verdict(_guarded(assertion.value, call, answer, told), assertion)


@cache
def _module(path: Path, written: int) -> Any:
    """The module in a file as it was `written`; a changed one is read again."""
    name = f"_beside_suite_{path.stem}_{abs(hash((path, written)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _verdict(result: Any, assertion: Assertion) -> Finding:
    """A truth value, a number from 0 to 1, or a mapping with `pass`, `score` and `reason`, as promptfoo takes them."""
    if isinstance(result, bool):
        return Finding(result, f"{assertion.value} returned {result}")
    if isinstance(result, Mapping):
        return _graded(result, assertion)
    degree = _plain(result)
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
    degree = _plain(result.get("score", holds))
    if degree is None or not 0 <= degree <= 1:
        raise CannotScoreError(f"{assertion.value} returned a score that is not from 0 to 1")
    enough = assertion.threshold is None or degree >= assertion.threshold
    reason = str(result.get("reason") or f"{assertion.value} returned {degree:.4g}")
    return Finding(holds and enough, reason[:200], degree)


JUDGES: dict[str, Judge] = {"evaluate": _evaluate, "python": _python}
