"""Pydantic models of suite.yaml, of its cases, and of rehearsal prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from harness.core.judges import url_problem
from harness.core.settings import MOST
from harness.core.suite import Message, Reducer, Role, Split
from harness.core.yaml import Form, Line, Text, shown
from harness.scoring.values import FILE
from harness.suites.assertions import IGNORED, TRANSFORM, AssertionForm

# --- cases -------------------------------------------------------------------------------------------------------


class MessageForm(Form):
    role: Literal["system", "user", "assistant"]
    content: Text

    @field_validator("content")
    @classmethod
    def _is_not_blank(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("this message is empty\nA message needs text.")
        return content


def in_turn(messages: Sequence[MessageForm | Message], last: str) -> None:
    """Check the order of messages: an optional system message, then user and assistant in turn, ending with `last`.

    Llama-2's chat template raises an error for any other order.
    """
    first = int(messages[0].role == "system")
    for number, message in enumerate(messages[first:]):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            order = "Order the messages: an optional system message, then user and assistant in turn."
            raise ValueError(f"message {first + number + 1} is from {message.role}, not from {expected}\n{order}")
    if messages[-1].role != last:
        raise ValueError(f"the last message is not from {last}\nEnd with a message from {last}.")


RoleName = Annotated[Role, Field(strict=False)]
ReducerName = Annotated[Reducer, Field(strict=False)]
SplitName = Annotated[Split, Field(strict=False)]


UNSUPPORTED = "A key of promptfoo; not supported."


class OptionsForm(Form):
    """The options of a case, as in promptfoo."""

    prefix: Text = Field(default="", description="Text to put before the prompt.")
    suffix: Text = Field(default="", description="Text to put after the prompt.")
    disable_default_asserts: bool = Field(
        default=False, alias="disableDefaultAsserts", description="true: leave out the assertions of defaultTest."
    )
    transform: Any = Field(default=None, description=TRANSFORM)
    transform_vars: Any = Field(default=None, alias="transformVars", description=UNSUPPORTED)
    postprocess: Any = Field(default=None, description="The old name of transform.")
    store_output_as: Any = Field(default=None, alias="storeOutputAs", description=UNSUPPORTED)
    provider: Any = Field(default=None, description=IGNORED)
    providers: Any = Field(default=None, description=IGNORED)
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt", description=IGNORED)
    run_serially: Any = Field(default=None, alias="runSerially", description=IGNORED)
    disable_var_expansion: bool = Field(
        default=False, alias="disableVarExpansion", description="true: a list under vars makes one case, not several."
    )
    repeat: Any = Field(default=None, description=IGNORED)


class DefaultsForm(Form):
    """Defaults for all cases. A case adds its own variables and assertions, and replaces other fields by its own."""

    role: RoleName | None = Field(default=None, description="What the case tests (default: learn).")
    split: SplitName | None = Field(
        default=None,
        description="main, or confirm for a case that is held out to confirm the best variant (default: main).",
    )
    critical: bool | None = Field(
        default=None,
        description="Whether the case is a regression by itself if it passed under all seeds and now fails under all.",
    )
    group: Text | None = Field(
        default=None,
        description="Name of a group of similar cases. In statistics, the cases of a group count as one cluster.",
    )
    description: Text | None = None
    vars: dict[str, Any] = Field(
        default={},
        description="Values by name, for templates such as {{name}}. A list of texts makes a case for each of them.",
    )
    prompts: list[str] | None = Field(default=None, description="Labels or ids of the suite's prompts to use.")
    reference: Text | None = Field(default=None, description="An example of a correct answer.")
    choices: list[Text] | None = Field(
        default=None,
        min_length=2,
        description="Possible answers for the assertion type choice, whose value is the correct answer.",
    )
    assertions: list[AssertionForm] = Field(
        default=[], alias="assert", description="Checks of the answer. All of them must hold."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The lowest weighted score with which the case passes, even if some assertions fail.",
    )
    options: OptionsForm = OptionsForm()
    scoring: Any = Field(default=None, alias="assertScoringFunction", description=UNSUPPORTED)
    provider_output: Any = Field(default=None, alias="providerOutput", description=UNSUPPORTED)
    provider: Any = Field(default=None, description=IGNORED)
    providers: Any = Field(default=None, description=IGNORED)
    metadata: Any = Field(default=None, description=IGNORED)


class CaseForm(DefaultsForm):
    """A test prompt with the assertions about its answer."""

    id: Line | None = Field(
        default=None, description="Name of the case (default: a digest of its messages and assertions)."
    )
    prompt: Text | None = Field(
        default=None, description="The user's message; replaces messages. TODO marks a case that is not written yet."
    )
    messages: list[MessageForm] | None = Field(
        default=None, min_length=1, description="A conversation that ends with a message from the user."
    )

    @field_validator("prompt")
    @classmethod
    def _is_not_blank(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("the prompt is empty\nWrite the user's message.")
        return prompt

    @field_validator("messages")
    @classmethod
    def _in_turn(cls, messages: list[MessageForm] | None) -> list[MessageForm] | None:
        if messages:
            in_turn(messages, "user")
        return messages

    @model_validator(mode="after")
    def _has_one_prompt(self) -> CaseForm:
        if self.prompt is not None and self.messages is not None:
            raise ValueError("a case has either a prompt or messages, not both\nRemove one of them.")
        return self


# --- the suite ---------------------------------------------------------------------------------------------------


def _is_file(text: str) -> str:
    if not text.startswith(FILE) or text == FILE:
        raise ValueError(
            f"expected {FILE}NAME, found {shown(text)}\nWrite the file's path relative to the suite's folder."
        )
    return text


FileName = Annotated[str, AfterValidator(_is_file), WithJsonSchema({"type": "string", "pattern": "^file://."})]


class DecodingForm(Form):
    """How answers are generated: greedily or by sampling."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MOST)] = 64
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="An answer ends before the first of these texts."
    )
    temperature: float = Field(default=0.0, ge=0, le=10, description="0: greedy decoding; above 0: sampling.")


class JudgeForm(Form):
    """The model that judges answers for assertions such as llm-rubric."""

    model: Line = Field(
        default="",
        description="The endpoint's name of the model or, without base_url, a local model as --model takes it.",
    )
    base_url: Line = Field(
        default="",
        description="Address of an OpenAI-compatible endpoint. It is asked only with --judge suite; its key is in the "
        "environment variable HARNESS_JUDGE_KEY.",
    )
    repeats: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="How often an endpoint is asked about each answer of a sample, to measure its noise."
    )
    decides: bool = Field(
        default=False, description="true: verdicts count for pass rates and the choice, like other assertions."
    )

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if url and (problem := url_problem(url)):
            raise ValueError(f"the address {problem}\nWrite base_url: https://HOST/v1")
        return url.rstrip("/")


class PromptForm(Form):
    """A prompt with a label, as in promptfoo."""

    raw: Text | None = None
    id: Text | None = Field(default=None, description="file://NAME, if there is no raw.")
    label: Text | None = Field(default=None, description="Name by which cases choose the prompt.")
    config: Any = Field(default=None, description=IGNORED)


class PromptfooForm(Form):
    """Top-level keys of promptfoo that are ignored or not supported."""

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
    nunjucks_filters: Any = Field(default=None, alias="nunjucksFilters", description=IGNORED)
    scenarios: Any = Field(default=None, description="As in promptfoo: each entry of config with each of tests.")
    assertion_templates: Any = Field(
        default=None,
        alias="assertionTemplates",
        description="Assertions that {$ref: '#/assertionTemplates/NAME'} names.",
    )


class SuiteForm(PromptfooForm):
    """A suite: test prompts with the assertions that a fine-tuned model's answers must pass."""

    description: Text = ""
    objective: RoleName = Field(
        default=Role.GENERALISE, description="The role whose pass rate measures the quality of a variant."
    )
    margin: float = Field(
        default=10.0,
        ge=0,
        le=100,
        description="The largest allowed loss on retain and avoid, in points of what the base model passes.",
    )
    decoding: DecodingForm = DecodingForm()
    repeats: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Number of answers to each case; more than 1 needs a decoding.temperature above 0."
    )
    reducer: ReducerName = Field(
        default=Reducer.MEAN,
        description="mean: every repeat counts. all, any: repeats count as one answer, which passes if all (any) pass.",
    )
    judge: JudgeForm | None = Field(default=None, description="The model that judges answers (--judge replaces it).")
    embedder: Line = Field(
        default="", description="Name or folder of the sentence-transformers model with which similar compares texts."
    )
    system_prompt: Text | None = Field(
        default=None, description="A system message that is put before the messages of every case."
    )
    train: FileName | None = Field(default=None, description="The file of training rows (default: train.jsonl).")
    prompts: str | dict[str, str] | list[Text | PromptForm] = Field(
        default=[],
        description="Prompts for cases without their own prompt; each such case is repeated for every prompt. "
        "A path or a pattern such as prompts/*.txt stands for the prompts in these files.",
    )
    default_test: DefaultsForm | FileName = Field(default=DefaultsForm(), alias="defaultTest")
    tests: str | list[CaseForm | str] = Field(description="Cases, and files of cases.")


class SuiteHead(SuiteForm):
    """A suite whose prompts, defaults and cases are validated later, because they may be in other files."""

    prompts: Any = None
    default_test: Any = Field(default=None, alias="defaultTest")
    tests: Any = None


# --- rehearsal -----------------------------------------------------------------------------------------------------


class RehearsalForm(Form):
    """A line of rehearsal.jsonl."""

    prompt: Text

    @field_validator("prompt")
    @classmethod
    def _is_not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("this prompt is empty\nWrite a question or a task.")
        return text
