"""Pydantic model of an assertion in suite.yaml. `harness.scoring.registry` defines its types and values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from harness.core.yaml import Form, Line, nearest, shown
from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.registry import WRITABLE, find, is_unsupported
from harness.scoring.values import from_file


def _known(name: str) -> str:
    if find(name) is None and not is_unsupported(name):
        raise ValueError(f"unknown assertion type {shown(name)}\n{nearest(name, WRITABLE)}")
    return name


IGNORED = "A key of promptfoo; ignored."
TRANSFORM = "Changes the answer before it is judged, such as JSON.parse(output).city; other code is not supported."


class AssertionForm(Form):
    """One check of the answer; `not-` before any type negates it."""

    type: Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(WRITABLE)})]
    value: Any = Field(
        default=None, validate_default=True, description="The text or other value that the answer is compared with."
    )
    weight: float = Field(
        default=1.0, ge=0, description="Weight in the case's score; with 0 the assertion cannot fail the case."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        validate_default=True,
        description="Lowest score with which the assertion holds; for levenshtein and perplexity, the largest value.",
    )
    metric: Line | None = Field(default=None, description="Name of the metric to which the score is added.")
    children: list[AssertionForm] | None = Field(
        default=None,
        alias="assert",
        min_length=1,
        validate_default=True,
        description="The assertions of an assert-set.",
    )
    metric_only: bool = Field(default=False, alias="metricOnly", description="true has the same effect as weight: 0.")
    transform: Any = Field(default=None, description=TRANSFORM)
    normalize_unicode: Any = Field(
        default=None, alias="normalizeUnicode", description="A key of promptfoo; not supported."
    )
    provider: Any = Field(default=None, description=IGNORED)
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt", description=IGNORED)
    context_transform: Any = Field(default=None, alias="contextTransform", description=IGNORED)
    config: Any = Field(default=None, description=IGNORED)

    @model_validator(mode="before")
    @classmethod
    def _drop_keys_of_unsupported_types(cls, written: Any) -> Any:
        """Drop all other keys if the type is unsupported. The suite's reader later reports or skips the assertion."""
        if isinstance(written, dict) and isinstance(written.get("type"), str) and is_unsupported(written["type"]):
            return {"type": written["type"]}
        return written

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.data.get("type", ""))
        kind = find(name)
        if kind is None or (value is None and kind.value.or_reference) or is_known_later(kind, value):
            return value
        return kind.read(name, value)

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        name = str(info.data.get("type", ""))
        kind = find(name)
        if kind and kind.threshold:
            kind.threshold.check(name, threshold)
        return threshold

    @field_validator("children")
    @classmethod
    def _check_children(cls, children: list[AssertionForm] | None, info: ValidationInfo) -> list[AssertionForm] | None:
        name = str(info.data.get("type", ""))
        kind = find(name)
        holds_others = kind is not None and Need.ASSERTIONS in kind.needs
        if holds_others and not children:
            raise ValueError(f"{name} holds no assertions\nList them under assert.")
        if children and name and not holds_others:
            raise ValueError(f"{name} cannot hold assertions\nUse the type assert-set, or remove assert.")
        return children


def is_known_later(kind: AssertionType, value: Any) -> bool:
    """Whether a value can be validated only when its case is built, because it is in a file or contains variables.

    A value that names code is always validated at once.
    """
    if kind.value.code:
        return False
    return from_file(value) or (isinstance(value, str) and "{{" in value)
