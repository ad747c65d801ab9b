"""What may be written as an assertion: every type with its value and its threshold, and promptfoo's that cannot be."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from harness.errors import SuiteError
from harness.yamltext import Form, Line, as_written, nearest, parse_yaml, shown

FILE = "file://"
SET = "assert-set"


# --- values ------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    text = as_written(value)
    if not isinstance(text, str):
        raise ValueError('needs a text as its value\nWrite value: "..."')
    return text


def _filled(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise ValueError("has an empty value, which would hold for every answer\nFill it in, or remove the assertion.")
    return text


def _list(value: Any) -> list[str]:
    """A list of texts; one text is several, between commas."""
    if isinstance(value, str):
        cells = next(csv.reader([value.replace("\n", " ")], skipinitialspace=True), [])
        value = [cell.strip() for cell in cells if cell.strip()]
    if not isinstance(value, list) or not value:
        raise ValueError('needs a list of texts as its value\nWrite value: ["...", "..."]')
    return [_filled(item) for item in value]


def _equal(value: Any) -> Any:
    return plain(value) if isinstance(value, dict | list) else _text(value)


def _references(value: Any) -> Any:
    return [_filled(item) for item in value] if isinstance(value, list) and value else _filled(value)


def _nothing(value: Any) -> None:
    if value is not None:
        raise ValueError("takes no value\nRemove the value.")


def _count(value: Any) -> Any:
    """A number of words, or the least and the most."""
    if isinstance(value, dict):
        least, most = value.get("min"), value.get("max")
        if not value or value.keys() - {"min", "max"} or not all(map(_is_count, value.values())):
            raise ValueError("takes min and max, whole numbers\nWrite value: {min: 5, max: 20}")
        if least is not None and most is not None and least > most:
            raise ValueError("has a min above its max\nExchange them.")
        return {name: int(number) for name, number in value.items()}
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
    if not _is_count(number):
        raise ValueError("needs a number of words, or min and max\nWrite value: {min: 5, max: 20}")
    return int(number)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _schema(value: Any) -> Any:
    """A JSON Schema, written out or as text; None where any JSON will do."""
    if isinstance(value, str) and value.strip():
        try:
            value = parse_yaml(value, "value", SuiteError).value
        except SuiteError as problem:
            raise ValueError(f"takes a JSON Schema: {problem.message}") from None
    if value is None or value == "":
        return None
    if not isinstance(value, dict | bool):
        raise ValueError("takes a JSON Schema as its value, or none\nWrite value: {type: object, required: [...]}")
    schema = plain(value)
    _check_schema(schema)
    return schema


def _check_schema(schema: Any) -> None:
    from jsonschema import Draft202012Validator, FormatChecker, SchemaError
    from jsonschema.validators import validator_for

    try:
        # Formats are left out: what is a pattern is not for `re` to say.
        validator_for(schema, default=Draft202012Validator).check_schema(schema, FormatChecker(formats=()))
    except RecursionError:
        raise ValueError("has a JSON Schema that is nested too deep") from None
    except SchemaError as problem:
        raise ValueError(f"has no JSON Schema: {problem.message[:120]} at {problem.json_path}") from None
    words: set[str] = set()
    _check_words(schema, words)
    if {"unevaluatedProperties", "patternProperties"} <= words:
        raise ValueError("cannot have unevaluatedProperties together with patternProperties\nUse additionalProperties.")


def _check_words(part: Any, words: set[str]) -> None:
    """A schema stands on its own, and its patterns are patterns."""
    if isinstance(part, list):
        for item in part:
            _check_words(item, words)
    if not isinstance(part, dict):
        return
    words.update(part)
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(part.get(name), str) and not part[name].startswith("#"):
            raise ValueError(f"refers to {shown(part[name])}, and nothing is fetched\nWrite it out under $defs.")
    patterns = part.get("patternProperties")
    for pattern in (part.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
        if isinstance(pattern, str):
            check_pattern(pattern)
    for inner in part.values():
        _check_words(inner, words)


def check_pattern(pattern: str) -> None:
    """Raises ValueError for what is no regular expression."""
    import regex  # 20 ms that suites without patterns need not pay

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as problem:
        remedy = "In YAML, put patterns in single quotes: backslashes stay as they are."
        raise ValueError(f"not a regular expression: {problem}\n{remedy}") from None


_METRIC = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?|[A-Za-z0-9_./-]+\.py")
_METRIC_KEYS = {"metric", "key", "args", "reference", "scale"}


def _metric(value: Any) -> dict[str, Any]:
    """`accuracy` or `{metric: accuracy, key: ..., args: {...}, reference: ..., scale: 100}`."""
    asked = {"metric": value} if isinstance(value, str) else plain(value)
    if not isinstance(asked, dict) or not isinstance(asked.get("metric"), str):
        raise ValueError("needs a metric's name\nWrite value: accuracy, or value: {metric: rouge, key: rougeL}")
    if unknown := asked.keys() - _METRIC_KEYS:
        raise ValueError(
            f"has the unknown key {shown(min(unknown))} in its value\n{nearest(min(unknown), _METRIC_KEYS)}"
        )
    name = asked["metric"].removeprefix(FILE)
    if not _METRIC.fullmatch(name):
        raise ValueError(f"knows no metric {shown(name)}\nName one of the hub, or a module beside the suite: mine.py")
    scale = asked.get("scale", 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or scale <= 0:
        raise ValueError("has a scale that is no number above 0\nIt says which value of the metric counts as 1.")
    if not isinstance(asked.get("args", {}), dict) or not isinstance(asked.get("key", ""), str):
        raise ValueError("has args that are no mapping, or a key that is no text\nWrite args: {name: value}")
    return {**asked, "metric": name}


_FUNCTION = re.compile(rf"(?P<file>{FILE})?(?P<path>[A-Za-z0-9_][A-Za-z0-9_/.-]*?)(\.py)?(:(?P<name>[A-Za-z_]\w*))?")


def function_named(value: str) -> str | None:
    """`module:function`, or promptfoo's `file://module.py:function`, as `module.py:function`; None for other code."""
    found = _FUNCTION.fullmatch(value.strip())
    if not found or not (found["name"] or found["file"]):
        return None
    return f"{found['path']}.py:{found['name'] or 'get_assert'}"


def _function(value: Any) -> str:
    """Code within the suite is left for the reader of the whole suite to refuse, or to skip."""
    return function_named(_filled(value)) or _filled(value)


def plain(value: Any) -> Any:
    """Without the numbers that remember their spelling."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else value


# --- types -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """An assertion type: what its value must be, the most its threshold may be (None: it has none), whether the case's
    reference stands in for a value that is not given, and the least of a threshold that must be given."""

    value: Callable[[Any], Any]
    threshold: float | None = None
    referring: bool = False
    least: float | None = None


KINDS: dict[str, Kind] = {
    "equals": Kind(_equal, referring=True),
    "contains": Kind(_filled),
    "icontains": Kind(_filled),
    "contains-any": Kind(_list),
    "contains-all": Kind(_list),
    "icontains-any": Kind(_list),
    "icontains-all": Kind(_list),
    "starts-with": Kind(_filled),
    "regex": Kind(_filled),
    "is-json": Kind(_schema),
    "contains-json": Kind(_schema),
    "word-count": Kind(_count),
    "is-refusal": Kind(_nothing),
    "levenshtein": Kind(_text, 1e9, referring=True),
    "rouge-n": Kind(_references, 1.0, referring=True),
    "bleu": Kind(_references, 1.0, referring=True),
    "f1": Kind(_references, 1.0, referring=True),
    "exact-match": Kind(_references, referring=True),
    "perplexity": Kind(_nothing, 1e9, least=1.0),
    "reference-perplexity": Kind(_nothing, 1e9, least=1.0),
    "choice": Kind(_filled, referring=True),
    "evaluate": Kind(_metric, 1.0),
    "python": Kind(_function, 1.0),
    SET: Kind(_nothing, 1.0),
}
"""Every assertion type that can be judged."""
TYPES = (*KINDS, *(f"not-{name}" for name in KINDS))
CODE = frozenset({"javascript", "ruby", "webhook"})
UNSUPPORTED = CODE | frozenset({
    "agent-rubric", "answer-relevance", "character-count", "classifier", "contains-html", "contains-sql",
    "contains-xml", "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance", "cost",
    "ends-with", "f-score", "factuality", "finish-reason", "g-eval", "gleu", "guardrails", "human", "is-html",
    "is-sql", "is-valid-function-call", "is-valid-openai-function-call", "is-valid-openai-tools-call", "is-xml",
    "latency", "llm-rubric", "max-score", "meteor", "model-graded-closedqa", "model-graded-factuality", "moderation",
    "noise-sensitivity", "perplexity-score", "pi", "research-rubric", "rouge-l", "rouge-s",
    "search-rubric", "select-best", "similar", "skill-used", "tokens-used", "tool-call-f1", "trace-error-spans",
    "trace-span-count", "trace-span-duration",
})  # fmt: skip
"""Assertion types of promptfoo's that need another model, another language or a record of calls."""
FAMILIES = ("similar:", "promptfoo:", "trajectory:")


def unsupported(name: str) -> bool:
    """Whether promptfoo has this type and the harness has not."""
    kind = name.removeprefix("not-")
    return kind in UNSUPPORTED or kind.startswith(FAMILIES)


def _known(name: str) -> str:
    if name not in TYPES and not unsupported(name):
        raise ValueError(f"unknown assertion type {shown(name)}\n{nearest(name, TYPES)}")
    return name


def check_value(name: str, value: Any) -> Any:
    """The value as a type takes it; raises ValueError with a remedy in its second line."""
    try:
        return KINDS[name.removeprefix("not-")].value(value)
    except ValueError as problem:
        words = str(problem)
        raise ValueError(words if words.startswith("not a regular") else f"{name} {words}") from None


IGNORED = "promptfoo's; ignored."


class AssertionForm(Form):
    """One check of the answer; every type has a twin with `not-` before it."""

    type: Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(TYPES)})]
    value: Any = Field(default=None, validate_default=True, description="What the answer is compared with.")
    weight: float = Field(default=1.0, ge=0, description="Its share in the case's score; 0: it never fails the case.")
    threshold: float | None = Field(
        default=None,
        ge=0,
        validate_default=True,
        description="The score from which it holds; the most edits, or perplexity.",
    )
    metric: Line | None = Field(default=None, description="The named metric that it counts for.")
    children: list[AssertionForm] | None = Field(
        default=None, alias="assert", min_length=1, validate_default=True, description="What an assert-set holds."
    )
    metric_only: bool = Field(default=False, alias="metricOnly", description="As weight 0.")
    transform: Any = Field(default=None, description="promptfoo's; not supported.")
    normalize_unicode: Any = Field(default=None, alias="normalizeUnicode", description="promptfoo's; not supported.")
    provider: Any = Field(default=None, description=IGNORED)
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt", description=IGNORED)
    context_transform: Any = Field(default=None, alias="contextTransform", description=IGNORED)
    config: Any = Field(default=None, description=IGNORED)

    @model_validator(mode="before")
    @classmethod
    def _only_the_type_of_what_is_not_supported(cls, written: Any) -> Any:
        """Its other keys may be anything: whether to refuse or to skip it is decided for the whole suite."""
        if isinstance(written, dict) and isinstance(written.get("type"), str) and unsupported(written["type"]):
            return {"type": written["type"]}
        return written

    @field_validator("value")
    @classmethod
    def _fits_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.data.get("type", ""))
        kind = KINDS.get(name.removeprefix("not-"))
        if kind is None or (value is None and kind.referring) or is_told_later(name, value):
            return value
        return check_value(name, value)

    @field_validator("threshold")
    @classmethod
    def _within_reach(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        name = str(info.data.get("type", ""))
        kind = KINDS.get(name.removeprefix("not-"))
        if kind and kind.least is not None and (threshold is None or threshold < kind.least):
            remedy = "Write threshold: 5 for a perplexity of 5; no perplexity is below 1."
            raise ValueError(f"{name} needs a threshold of at least {kind.least:g}\n{remedy}")
        if kind and kind.threshold is not None and threshold is not None and threshold > kind.threshold:
            raise ValueError(f"threshold: should be at most {kind.threshold:g}, found {threshold:g}")
        return threshold

    @field_validator("children")
    @classmethod
    def _in_a_set(cls, children: list[AssertionForm] | None, info: ValidationInfo) -> list[AssertionForm] | None:
        name = str(info.data.get("type", ""))
        if name.removeprefix("not-") == SET and not children:
            raise ValueError(f"{name} holds no assertions\nList them under assert.")
        if children and name and name.removeprefix("not-") != SET:
            raise ValueError(f"{name} cannot hold assertions\nOnly assert-set can.")
        return children


def is_told_later(name: str, value: Any) -> bool:
    """A value from a file, or made of variables, is checked when it is there; names of code are checked as such."""
    if name.removeprefix("not-") in ("evaluate", "python"):
        return False
    return from_file(value) or (isinstance(value, str) and "{{" in value)


def from_file(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(FILE)
