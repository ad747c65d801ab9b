"""What may be written in a suite: the forms of suite.yaml, of a case and of a training row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from harness.records import Reducer, Role, Split
from harness.scorers.values import FILE
from harness.suites.assertions import IGNORED, AssertionForm
from harness.yamltext import Count, Form, Line, Text, shown

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
ReducerName = Annotated[Reducer, Field(strict=False)]
SplitName = Annotated[Split, Field(strict=False)]


UNSUPPORTED = "promptfoo's; not supported."


class OptionsForm(Form):
    """promptfoo's options of a case."""

    prefix: Text = Field(default="", description="Put before the prompt.")
    suffix: Text = Field(default="", description="Put after the prompt.")
    transform: Any = Field(default=None, description=UNSUPPORTED)
    transform_vars: Any = Field(default=None, alias="transformVars", description=UNSUPPORTED)
    postprocess: Any = Field(default=None, description=UNSUPPORTED)
    store_output_as: Any = Field(default=None, alias="storeOutputAs", description=UNSUPPORTED)
    provider: Any = Field(default=None, description=IGNORED)
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt", description=IGNORED)
    run_serially: Any = Field(default=None, alias="runSerially", description=IGNORED)
    disable_var_expansion: Any = Field(default=None, alias="disableVarExpansion", description=IGNORED)


class DefaultsForm(Form):
    """What holds for every case: its variables and assertions are joined to the case's, the rest gives way to it."""

    role: RoleName | None = Field(default=None, description="What the case asks of the tuned model (default: learn).")
    split: SplitName | None = Field(default=None, description="confirm: kept back to judge the chosen variant.")
    critical: bool | None = Field(
        default=None, description="Passed under every seed before and failed under every seed now: a regression."
    )
    group: Text | None = Field(default=None, description="Cases of one group count together in statistics.")
    description: Text | None = None
    vars: dict[str, Text] = Field(default={}, description="Texts for {{name}}; nothing else is evaluated.")
    reference: Text | None = Field(default=None, description="An answer as it should be.")
    choices: list[Text] | None = Field(
        default=None, min_length=2, description="Answers of which choice says which one the model should prefer."
    )
    assertions: list[AssertionForm] = Field(default=[], alias="assert", description="All must hold.")
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The weighted score from which the case passes, whichever assertions fail.",
    )
    options: OptionsForm = OptionsForm()
    scoring: Any = Field(default=None, alias="assertScoringFunction", description=UNSUPPORTED)
    provider_output: Any = Field(default=None, alias="providerOutput", description=IGNORED)
    provider: Any = Field(default=None, description=IGNORED)
    providers: Any = Field(default=None, description=IGNORED)
    metadata: Any = Field(default=None, description=IGNORED)


class CaseForm(DefaultsForm):
    """A test prompt and what its answer must fulfil."""

    prompts: Any = Field(default=None, description=UNSUPPORTED)
    id: Line | None = Field(default=None, description="Default: a digest of its messages and assertions.")
    prompt: Text | None = Field(default=None, description="What the user says; instead of messages. TODO: not yet.")
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
    """How answers are generated: greedily, or drawn."""

    max_new_tokens: Count = 64
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="An answer ends before any of these."
    )
    temperature: float = Field(default=0.0, ge=0, le=10, description="0: greedy; above: tokens are drawn.")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class PromptForm(Form):
    """A prompt as promptfoo writes it with a label."""

    raw: Text | None = None
    id: Text | None = Field(default=None, description="file://NAME, or ignored beside raw.")
    label: Any = Field(default=None, description=IGNORED)
    config: Any = Field(default=None, description=IGNORED)

    @model_validator(mode="after")
    def _says_something(self) -> PromptForm:
        if self.raw is None and not (self.id or "").startswith(FILE):
            raise ValueError("this prompt has no text\nGive it as raw, or as id: file://NAME.")
        return self

    @property
    def text(self) -> str:
        return self.raw if self.raw is not None else self.id or ""


class PromptfooForm(Form):
    """What else promptfoo has at the top of a file."""

    providers: Any = Field(default=None, description=IGNORED)
    targets: Any = Field(default=None, description=IGNORED)
    tags: Any = Field(default=None, description=IGNORED)
    env: Any = Field(default=None, description=IGNORED)
    output_path: Any = Field(default=None, alias="outputPath", description=IGNORED)
    evaluate_options: Any = Field(default=None, alias="evaluateOptions", description=IGNORED)
    command_line_options: Any = Field(default=None, alias="commandLineOptions", description=IGNORED)
    sharing: Any = Field(default=None, description=IGNORED)
    write_latest_results: Any = Field(default=None, alias="writeLatestResults", description=IGNORED)
    derived_metrics: Any = Field(default=None, alias="derivedMetrics", description=IGNORED)
    metadata: Any = Field(default=None, description=IGNORED)
    tracing: Any = Field(default=None, description=IGNORED)
    redteam: Any = Field(default=None, description=IGNORED)
    extensions: Any = Field(default=None, description=UNSUPPORTED)
    scenarios: Any = Field(default=None, description=UNSUPPORTED)
    nunjucks_filters: Any = Field(default=None, alias="nunjucksFilters", description=UNSUPPORTED)
    assertion_templates: Any = Field(default=None, alias="assertionTemplates", description=UNSUPPORTED)


class SuiteForm(PromptfooForm):
    """A suite of test prompts that say what a model must do before anyone trains it."""

    description: Text = ""
    objective: RoleName = Field(
        default=Role.GENERALISE, description="The role whose pass rate is the quality of a variant."
    )
    margin: float = Field(default=10.0, ge=0, le=100, description="Points that may be lost on retain and avoid.")
    decoding: DecodingForm = DecodingForm()
    repeats: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How often each case is asked; needs a decoding.temperature above 0."
    )
    reducer: ReducerName = Field(
        default=Reducer.MEAN, description="How a case's repeats count: each (mean), or as one (all, any)."
    )
    system_prompt: Text | None = Field(default=None, description="Put before the messages of every case.")
    train: FileName | None = Field(default=None, description="Training rows (default: train.jsonl).")
    prompts: Annotated[
        list[Text | PromptForm], BeforeValidator(_several, json_schema_input_type=str | list[Text | PromptForm])
    ] = Field(default=[], description="Cases without prompt are asked with each of these.")
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
