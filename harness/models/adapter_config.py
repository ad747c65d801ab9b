"""Judge the configuration of an adapter that somebody else made, and patterns of grids, before PEFT gets them.

PEFT makes matrices of the ranks that the configuration names, and matches its patterns without a time limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.core.errors import GridError, ModelError
from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused

_ALWAYS_ALLOWED = 1024
"""A rank that needs little memory, so the weights need not have it."""
_MOST = 10_000
"""Largest number of target modules and of patterns."""
_LONGEST = 10_000
"""Largest number of characters of a module's name or a pattern."""
_SAVE_AGAIN = "Save the adapter again with PEFT's save_pretrained, or ask whoever made it."
_CHILD = "harness.models.adapter_pattern_process"
_FORMS = (r"{}", r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")
"""The expressions of PEFT 0.19 for target modules, for ranks of single modules, and for names of layers."""
_TEXTS = ("target_modules", "exclude_modules", "layers_pattern")
"""Settings that are a list of names, or a text. PEFT reads a text as a regular expression."""


def ranks_allowed(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the highest rank that an adapter with tensors of these shapes can have.

    The matrix A of a LoRA adapter has one row per rank (Hu et al., 2021).
    """
    ranks = (shape[0] for name, shape in shapes.items() if shape and "lora_A" in name)
    return max(_ALWAYS_ALLOWED, *ranks, 0)


def check_config(where: str, config: Mapping[str, Any], highest: int) -> None:
    """Check types and sizes of the settings that PEFT uses. `where` names the file in messages.

    `highest` is the highest rank that is allowed.

    Raises:
        ModelError: a setting has another type, or a number or text is too large.
    """
    rank = config.get("r", 8)
    _check(where, "r", rank, f"a whole number from 1 to {highest}", _is_rank(rank, highest))
    alpha, base = config.get("lora_alpha", 8), config.get("base_model_name_or_path")
    _check(where, "lora_alpha", alpha, "a number", _is_number(alpha))
    _check(where, "base_model_name_or_path", base, "a text", base is None or isinstance(base, str))
    for setting in _TEXTS:
        value = config.get(setting)
        _check(where, setting, value, "a text or a list of texts", value is None or _are_texts(value))
    for setting, kind in (("rank_pattern", f"whole numbers from 1 to {highest}"), ("alpha_pattern", "numbers")):
        value = config.get(setting) or {}
        fits = isinstance(value, dict) and len(value) <= _MOST and _are_texts(list(value))
        numbers = value.values() if fits else ()
        right = [_is_rank(n, highest) if setting == "rank_pattern" else _is_number(n) for n in numbers]
        _check(where, setting, value, f"an object whose values are {kind}", fits and all(right))


def check_patterns(
    where: str, config: Mapping[str, Any], modules: Iterable[str], *, limits: Limits | None = None
) -> None:
    """Match the patterns of an adapter with the names of the model's modules as PEFT does, but with limits.

    `limits` replace the usual limits of time, memory and output.

    Raises:
        ModelError: a pattern is no regular expression, or takes too long.
    """
    texts = [value for name in _TEXTS if isinstance(value := config.get(name), str)]
    texts += [key for name in ("rank_pattern", "alpha_pattern") for key in config.get(name) or {}]
    if not texts:
        return
    try:
        found = _matched([form.replace("{}", text) for text in texts for form in _FORMS], modules, limits)
    except LimitReachedError as reached:
        raise ModelError(f"{where}: matching its patterns with modules {reached}", remedy=_SAVE_AGAIN) from None
    if isinstance(found, Refused):
        raise ModelError(f"{where}: a pattern is no regular expression: {found.reason}", remedy=_SAVE_AGAIN)


def matching_modules(pattern: str, modules: Iterable[str], *, limits: Limits | None = None) -> frozenset[str]:
    """Return the modules that PEFT adapts for the regular expression `pattern` as `target_modules`.

    Raises:
        GridError: the pattern is no regular expression, or takes too long.
    """
    try:
        found = _matched([pattern], modules, limits)
    except LimitReachedError as reached:
        remedy = "Write a pattern with fewer repetitions, or a list of names."
        raise GridError(f"target_modules: matching the pattern with modules {reached}", remedy=remedy) from None
    if isinstance(found, Refused):
        raise GridError(f"target_modules is no regular expression: {found.reason}", remedy="Correct the pattern.")
    return frozenset(found)


def _matched(patterns: Sequence[str], modules: Iterable[str], limits: Limits | None) -> list[str] | Refused:
    process = LimitedProcess(_CHILD, limits)
    try:
        (found,) = process.work(patterns, [list(modules)])
    finally:
        process.close()
    return found  # type: ignore[no-any-return]


def _check(where: str, setting: str, value: object, wanted: str, fits: bool) -> None:
    if not fits:
        shown = repr(value)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
        raise ModelError(f"{where}: {setting} is {shown}, but must be {wanted}", remedy=_SAVE_AGAIN)


def _is_rank(value: object, highest: int) -> bool:
    return type(value) is int and 1 <= value <= highest


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _are_texts(value: object) -> bool:
    """Whether a value is a text, or a list of texts, of limited length."""
    texts = value if isinstance(value, list) else [value]
    return len(texts) <= _MOST and all(isinstance(text, str) and len(text) <= _LONGEST for text in texts)
