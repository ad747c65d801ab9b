"""Upgrade parsed JSON from older formats to the newest format, before it is validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.core.formats import FORMAT, RESULTS_FORMAT
from harness.core.run_results import Results


def newest(kind: type) -> int:
    """Return the newest format version of files that contain a record of type `kind`."""
    return RESULTS_FORMAT if kind is Results else FORMAT


def upgraded(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """Convert the parsed JSON of a file to the newest format.

    Args:
        data: the file's content; its `format` is at most `newest(kind)`.
        kind: the type of the record in the file.
    """
    for version in range(max(1, data["format"]), newest(kind)):
        data = _STEPS[kind, version](data) | {"format": version + 1}
    return data


_FLAT = ("tokens", "truncated", "likelihood", "reference", "choices")


def _answers_in_samples(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade results.json from format 1. In that format, a sample held the fields of its answer, except the key."""
    found = {name: data[name] for name in ("samples", "confirmed_samples") if isinstance(data.get(name), list)}
    return data | {name: [_nested(sample) for sample in samples] for name, samples in found.items()}


def _nested(sample: Any) -> Any:
    if not isinstance(sample, dict) or "answer" not in sample:
        return sample  # validation reports the mistake
    answer = {"key": "", "text": sample["answer"]} | {name: sample[name] for name in _FLAT if name in sample}
    return {name: value for name, value in sample.items() if name not in _FLAT} | {"answer": answer}


NOT_COMPARABLE = (
    "An older version of harness stored these results. It computed losses and their bounds by other rules, so its "
    "rates and its choice are not shown. `harness score RUN` computes them again from the stored answers."
)
"""The reason why upgraded results have no choice."""


def _without_old_figures(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade results.json from format 2, whose figures left out some cases, or 3, whose bounds follow older rules.

    Its rates, losses, changes, timelines and choice are removed: only `harness score` can compute them again. In the
    results of a model with random weights, no answer has a score.
    """
    rest = {name: value for name, value in data.items() if name not in ("void", "timelines")}
    for name in ("base", "confirmed_base", "confirmed"):
        rest |= {name: _without_figures(data[name])} if data.get(name) else {}
    if isinstance(data.get("variants"), list):
        rest["variants"] = [_without_figures(variant) for variant in data["variants"]]
    if _shape_only(data):
        samples = {name: data[name] for name in ("samples", "confirmed_samples") if isinstance(data.get(name), list)}
        rest |= {name: [_without_score(sample) for sample in own] for name, own in samples.items()}
    return rest | {"choice": _no_choice(data.get("choice"), keep_reasons=_shape_only(data))}


def _no_choice(choice: Any, *, keep_reasons: bool) -> Any:
    if not isinstance(choice, dict):
        return choice
    rest = {"variant": None, "reasons": choice.get("reasons", []) if keep_reasons else [NOT_COMPARABLE]}
    return rest | ({"objective": choice["objective"]} if "objective" in choice else {})


_FIGURES = ("safety", "loss", "losses", "changes", "by_label")


def _without_figures(outcome: Any) -> Any:
    if not isinstance(outcome, dict):
        return outcome  # validation reports the mistake
    kept = {name: value for name, value in outcome.items() if name not in _FIGURES}
    return kept | {"rates": {}, "fixed": 0, "broken": 0}


def _shape_only(data: dict[str, Any]) -> bool:
    run = data.get("run")
    model = run.get("model") if isinstance(run, dict) else None
    return isinstance(model, dict) and bool(model.get("shape_only"))


def _without_score(sample: Any) -> Any:
    if not isinstance(sample, dict) or not isinstance(sample.get("score"), dict):
        return sample
    score = {"case": sample["score"].get("case"), "passed": False, "value": None, "error": "The weights are random."}
    return sample | {"score": score}


_STEPS: dict[tuple[type, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    (Results, 1): _answers_in_samples,
    (Results, 2): _without_old_figures,
    (Results, 3): _without_old_figures,
}
"""Functions that upgrade parsed JSON by one version. Keys: type of the record, and version before the upgrade."""
