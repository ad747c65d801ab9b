"""The form of an assertion in a suite; which types there are and what they take is asked of the registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from harness.core.yaml import Form, Line, nearest, shown
from harness.scoring.registry import WRITABLE, find, is_unsupported
from harness.scoring.types import AssertionType, Need
from harness.scoring.values import from_file


def _known(name: str) -> str:
    if find(name) is None and not is_unsupported(name):
        raise ValueError(f"unknown assertion type {shown(name)}\n{nearest(name, WRITABLE)}")
    return name


IGNORED = "promptfoo's; ignored."


class AssertionForm(Form):
    """One check of the answer; `not-` before any type negates it."""

    type: Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(WRITABLE)})]
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
        """Drop all other keys, which may be anything: the reader of the whole suite refuses it or skips it."""
        if isinstance(written, dict) and isinstance(written.get("type"), str) and is_unsupported(written["type"]):
            return {"type": written["type"]}
        return written

    @field_validator("value")
    @classmethod
    def _fits_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.data.get("type", ""))
        kind = find(name)
        if kind is None or (value is None and kind.value.or_reference) or is_known_later(kind, value):
            return value
        return kind.read(name, value)

    @field_validator("threshold")
    @classmethod
    def _within_reach(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        name = str(info.data.get("type", ""))
        kind = find(name)
        if kind and kind.threshold:
            kind.threshold.check(name, threshold)
        return threshold

    @field_validator("children")
    @classmethod
    def _in_a_set(cls, children: list[AssertionForm] | None, info: ValidationInfo) -> list[AssertionForm] | None:
        name = str(info.data.get("type", ""))
        kind = find(name)
        holds_others = kind is not None and Need.ASSERTIONS in kind.needs
        if holds_others and not children:
            raise ValueError(f"{name} holds no assertions\nList them under assert.")
        if children and name and not holds_others:
            raise ValueError(f"{name} cannot hold assertions\nOnly assert-set can.")
        return children


def is_known_later(kind: AssertionType, value: Any) -> bool:
    """Whether a value can be read only later: it stands in a file or has variables. Names of code are read at once."""
    if kind.value.code:
        return False
    return from_file(value) or (isinstance(value, str) and "{{" in value)
