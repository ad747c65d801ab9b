"""Validate values with forms (strict pydantic models), and report every mistake with its place and a remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from harness.core.errors import HarnessError
from harness.core.yaml.document import Document

SHOWN_PROBLEMS = 5
MAX_PROBLEMS = 100
"""Mistakes after the first 100 are ignored: a hostile file may have a million, and finding each remedy takes time."""


class Form(BaseModel):
    """The base of all forms: unknown keys are mistakes, and text and numbers are not converted to each other."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=False)
    other_names: ClassVar[Mapping[str, str]] = {}
    """Names that other programs have for keys of the form, each with the key. They are suggested, not accepted."""


def as_written(value: Any) -> Any:
    """Return a number or truth value as it is spelt in the file, for a key that expects text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return getattr(value, "written", None) or str(value)
    return value


Text = Annotated[str, BeforeValidator(as_written, json_schema_input_type=str | float | bool)]
"""Any text. An unquoted number counts as text, as it is spelt in the file."""
_ONE_LINE = StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")
Line = Annotated[str, _ONE_LINE, BeforeValidator(as_written, json_schema_input_type=str | float | bool)]
"""One line of text that is not blank, such as a name."""
FormType = TypeVar("FormType", bound=BaseModel)


def fit(form: type[FormType], document: Document, value: Any = None) -> FormType:
    """Validate the document's value (or `value`, made from it) with a form; raise all mistakes as one error."""
    try:
        return form.model_validate(document.value if value is None else value)
    except ValidationError as invalid:
        found = invalid.errors(include_url=False)[:MAX_PROBLEMS]
    problems = [_problem(form, document, problem) for problem in found]
    raise_all(sorted(problems, key=_position))
    raise AssertionError("unreachable: a ValidationError has at least one problem")


def _position(problem: HarnessError) -> tuple[int, int]:
    place = problem.place
    return (place.line or 0, place.column or 0) if place else (0, 0)


def raise_all(problems: Sequence[HarnessError]) -> None:
    """Raise the first problem, if there is one. Its message also lists the next problems, each with its own place."""
    if not problems:
        return
    first, rest = problems[0], problems[1:SHOWN_PROBLEMS]
    if not rest:
        raise first
    lines = [f"{first.message}  {first.remedy}".rstrip(), *(str(problem).replace("\n", "  ") for problem in rest)]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
    raise type(first)("\n".join(lines), place=first.place)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the most similar known word, or all known words."""
    names = sorted(known)
    # PEFT's `use_rslora` and `lora_alpha` end with the word that is meant, and look more like others, as `use_dora`.
    ending = [name for name in names if word.lower()[:60].endswith(f"_{name}")]
    close = ending or difflib.get_close_matches(word.lower()[:60], names, n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else f"Known: {', '.join(names)}."


def shown(value: Any) -> str:
    """Return a value as a short text on one line, for messages."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _problem(form: type[BaseModel], document: Document, problem: Any) -> HarnessError:
    location = problem["loc"]
    name = str(location[-1]) if location else ""
    if problem["type"] == "extra_forbidden":
        inner = _form_at(form, location[:-1])
        known = [info.alias or key for key, info in inner.model_fields.items()]
        meant = getattr(inner, "other_names", {}).get(name)
        remedy = nearest(meant if meant in known else name, known)
        return document.wrong(f"unknown key {shown(name)}", remedy, location, key=True)
    if problem["type"] == "missing":
        return document.wrong(f'"{name}" is missing', f'Add "{name}: ...".', location)
    if problem["type"] in ("enum", "literal_error"):
        known = [word.strip(" '") for word in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return document.wrong(f"unknown {_noun(location)} {shown(problem['input'])}",
                              nearest(str(problem["input"]), known), location)  # fmt: skip
    if problem["type"] == "value_error":  # raised by a validator of a form, with the remedy in the second line
        message, _, remedy = problem["msg"].removeprefix("Value error, ").partition("\n")
        return document.wrong(message, remedy, location)
    message, remedy = _words(problem)
    return document.wrong(f"{_noun(location)}: {message}" if location else message, remedy, location)


def _noun(location: Sequence[str | int]) -> str:
    """Return the last name in a location, for a message; the rest follows from the place in the error."""
    names = [part for part in location if isinstance(part, str) and part.isidentifier()]
    return names[-1] if names else "value"


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "finite_number": "a finite number",
}


def _words(problem: Any) -> tuple[str, str]:
    """Return the message for one of pydantic's errors, and a remedy or an empty text."""
    kind, found = problem["type"], problem["input"]
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {_found(found)}", ""
    if kind in ("string_too_short", "too_short"):
        return "is empty", "Fill it in, or remove it."
    if kind == "string_pattern_mismatch":
        return f"expected one line of text that is not blank, found {shown(found)}", ""
    words = problem["msg"].removeprefix("Input ")
    return f"{words}, found {shown(found)}", ""


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return shown(value)


def _form_at(form: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """Return the form of the mapping at a location."""
    current: type[BaseModel] = form
    for part in location:
        for name, info in current.model_fields.items():
            if part == (info.alias or name):
                current = _model_in(info.annotation) or current
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
