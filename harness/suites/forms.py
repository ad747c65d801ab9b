"""What may be written in a suite: the forms of suite.yaml, of a case and of a training row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from harness.records import Role, Split
from harness.yamltext import Count, Form, Line, Text, as_written, nearest, shown

FILE = "file://"


# --- assertions --------------------------------------------------------------------------------------------------


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
    if not isinstance(value, list) or not value:
        raise ValueError('needs a list of texts as its value\nWrite value: ["...", "..."]')
    return [_filled(item) for item in value]


def _nothing(value: Any) -> None:
    if value is not None:
        raise ValueError("takes no value\nRemove the value.")


VALUES: dict[str, Callable[[Any], Any]] = {
    "equals": _text,
    "contains": _filled,
    "icontains": _filled,
    "contains-any": _list,
    "contains-all": _list,
    "icontains-any": _list,
    "icontains-all": _list,
    "starts-with": _filled,
    "regex": _filled,
    "is-json": _nothing,
}
"""Every assertion type and what its value must be."""
TYPES = (*VALUES, *(f"not-{name}" for name in VALUES))


def _known(name: str) -> str:
    if name not in TYPES:
        raise ValueError(f"unknown assertion type {shown(name)}\n{nearest(name, TYPES)}")
    return name


class AssertionForm(Form):
    """One check of the answer; every type has a twin with `not-` before it."""

    type: Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(TYPES)})]
    value: Any = Field(default=None, validate_default=True, description="What the answer is compared with.")
    weight: float = Field(default=1.0, gt=0, description="Its share in the case's score.")
    threshold: float | None = Field(default=None, gt=0, le=1, description="The score from which it counts as passed.")

    @field_validator("value")
    @classmethod
    def _fits_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.data.get("type", "")).removeprefix("not-")
        if name not in VALUES:
            return value
        try:
            return VALUES[name](value)
        except ValueError as problem:
            raise ValueError(f"{info.data['type']} {problem}") from None


# --- cases -------------------------------------------------------------------------------------------------------


class MessageForm(Form):
    role: Literal["system", "user", "assistant"]
    content: Text

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("this message is empty\nA message needs text.")
        return content


def in_turn(messages: list[MessageForm], last: str) -> None:
    """Llama-2's chat template refuses all but this: perhaps a system message, then user and assistant in turn."""
    first = int(messages[0].role == "system")
    for number, message in enumerate(messages[first:]):
        due = ("user", "assistant")[number % 2]
        if message.role != due:
            order = "Order: perhaps one system message, then user and assistant in turn."
            raise ValueError(f"message {first + number + 1} is from {message.role}, not from {due}\n{order}")
    if messages[-1].role != last:
        raise ValueError(f"the last message is not from {last}\nEnd with a message from {last}.")


RoleName = Annotated[Role, Field(strict=False)]
SplitName = Annotated[Split, Field(strict=False)]


class DefaultsForm(Form):
    """What holds for every case: its variables and assertions are joined to the case's, the rest gives way to it."""

    role: RoleName | None = Field(default=None, description="What the case asks of the tuned model (default: learn).")
    split: SplitName | None = Field(default=None, description="confirm: kept back to judge the chosen variant.")
    group: Text | None = Field(default=None, description="Cases of one group count together in statistics.")
    description: Text | None = None
    vars: dict[str, Text] = Field(default={}, description="Texts for {{name}}; nothing else is evaluated.")
    reference: Text | None = Field(default=None, description="An answer as it should be.")
    assertions: list[AssertionForm] = Field(default=[], alias="assert", description="All must hold.")


class CaseForm(DefaultsForm):
    """A test prompt and what its answer must fulfil."""

    id: Line | None = Field(default=None, description="Default: a digest of its messages and assertions.")
    prompt: Text | None = Field(default=None, description="What the user says; instead of messages.")
    messages: list[MessageForm] | None = Field(
        default=None, min_length=1, description="A conversation, ending with the user."
    )

    @field_validator("prompt")
    @classmethod
    def _asks_something(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("the prompt is empty\nWrite what the user says.")
        return prompt

    @field_validator("messages")
    @classmethod
    def _in_turn(cls, messages: list[MessageForm] | None) -> list[MessageForm] | None:
        if messages:
            in_turn(messages, "user")
        return messages

    @model_validator(mode="after")
    def _asks_once(self) -> CaseForm:
        if self.prompt is not None and self.messages is not None:
            raise ValueError("a case has either a prompt or messages\nRemove one of them.")
        return self


# --- the suite ---------------------------------------------------------------------------------------------------


def _is_file(text: str) -> str:
    if not text.startswith(FILE) or text == FILE:
        raise ValueError(f"expected {FILE}NAME, found {shown(text)}\nThe file is looked for beside the suite.")
    return text


FileName = Annotated[str, AfterValidator(_is_file), WithJsonSchema({"type": "string", "pattern": "^file://."})]


class DecodingForm(Form):
    """How answers are generated: greedily."""

    max_new_tokens: Count = 64
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="An answer ends before any of these."
    )


class SuiteForm(Form):
    """A suite of test prompts that say what a model must do before anyone trains it."""

    description: Text = ""
    objective: RoleName = Field(
        default=Role.GENERALISE, description="The role whose pass rate is the quality of a variant."
    )
    margin: float = Field(default=10.0, ge=0, le=100, description="Points that may be lost on retain and avoid.")
    decoding: DecodingForm = DecodingForm()
    system_prompt: Text | None = Field(default=None, description="Put before the messages of every case.")
    train: FileName | None = Field(default=None, description="Training rows (default: train.jsonl).")
    prompts: list[Text] = Field(default=[], description="Cases without prompt are asked with each of these.")
    default_test: DefaultsForm = Field(default=DefaultsForm(), alias="defaultTest")
    tests: FileName | list[CaseForm | FileName]


class SuiteHead(SuiteForm):
    """A suite whose cases are still to be fitted, each in its own file."""

    tests: Any


# --- training rows -----------------------------------------------------------------------------------------------


class ExampleForm(Form):
    messages: list[MessageForm] = Field(min_length=1)

    @field_validator("messages")
    @classmethod
    def _in_turn(cls, messages: list[MessageForm]) -> list[MessageForm]:
        in_turn(messages, "assistant")
        return messages


class PairForm(Form):
    prompt: str
    completion: str

    @field_validator("prompt", "completion")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("this text is empty\nBoth prompt and completion need text.")
        return text
