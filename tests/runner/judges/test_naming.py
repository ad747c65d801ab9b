"""Tests of `--judge`, and of what a suite may name itself."""

from __future__ import annotations

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.core.suite import JudgeRef, Suite
from harness.runner.judges.naming import key_of, notice, with_judge
from harness.suites import parse_suite
from tests.support.suite_texts import refusal

TEXT = "tests: [{prompt: p, assert: [{type: llm-rubric, value: kind}]}]\n"


def suite(judge: str = "") -> Suite:
    def read(_name: str) -> str:
        raise FileNotFoundError

    return parse_suite(TEXT + (f"judge: {judge}\n" if judge else ""), "suite.yaml", read)


def test_a_suite_names_its_judge() -> None:
    """A suite names a model, an address, how often it is asked again, and whether it decides."""
    found = suite("{model: m, base_url: https://h/v1/, repeats: 5, decides: true}").judge
    assert found == JudgeRef("m", "https://h/v1", 5, True)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "https://",
        "https://user:secret@h/v1",
        "https://h/v1?key=1",
        "h/v1",
        "https://h/v 1",
        "https://hö/v1",
    ],
)
def test_a_wrong_address_is_refused(url: str) -> None:
    """An address without a scheme or a host, or with a key in it, is refused, in a suite and in `--judge`."""
    assert "base_url" in refusal(f"{TEXT}judge: {{model: m, base_url: '{url}'}}\n")
    if url.startswith("http"):
        with pytest.raises(UsageError, match="the address"):
            with_judge(suite(), f"m@{url}")


@pytest.mark.parametrize(
    ("named", "model", "base_url"),
    [
        ("smollm2", "smollm2", ""),
        ("owner/name@main", "owner/name@main", ""),
        ("gpt@https://api.openai.com/v1/", "gpt", "https://api.openai.com/v1"),
        ("org/model@http://localhost:8000/v1", "org/model", "http://localhost:8000/v1"),
    ],
)
def test_the_option_replaces_the_suites_judge(named: str, model: str, base_url: str) -> None:
    """`--judge` replaces model and address; whether the verdicts decide stays as the suite says."""
    found = with_judge(suite("{model: m, base_url: https://h/v1, decides: true}"), named).judge
    assert found == JudgeRef(model, base_url, 3, True)


@pytest.mark.parametrize(
    ("named", "remedy"),
    [
        ("gpt@api.openai.com/v1", "Write --judge gpt@https://api.openai.com/v1"),
        ("https://api.openai.com/v1", "Write --judge MODEL@https://api.openai.com/v1"),
        ("qwen@localhost:11434", "Write --judge qwen@http://localhost:11434/v1"),
        ("gpt@htps://host/v1", "Write --judge gpt@https://HOST/v1"),
        ("gpt@https://host/v1/chat/completions", "Write --judge gpt@https://HOST/v1"),
        ("smolm", "Name an endpoint as --judge MODEL@https://HOST/v1, or `pocket`"),
        ("", "Write --judge MODEL, or --judge MODEL@URL."),
    ],
)
def test_a_mistyped_judge_has_a_remedy(named: str, remedy: str) -> None:
    """A value of `--judge` that is neither a model nor an address is refused, with the value to write instead."""
    with pytest.raises(HarnessError) as refused:
        with_judge(suite(), named)
    assert refused.value.remedy.startswith(remedy)


def test_the_suites_endpoint_is_asked_only_with_permission() -> None:
    """An endpoint that only the suite names gets no answers, unless the user passes `--judge suite`."""
    own = suite("{model: m, base_url: https://h/v1}")
    with pytest.raises(UsageError, match="sends answers to a judge, m at h"):
        with_judge(own, None)
    assert with_judge(own, "suite") == own
    with pytest.raises(UsageError, match="names no judge"):
        with_judge(suite(), "suite")


def test_a_key_is_sent_only_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's key is sent to OpenAI only, and no key is sent to another machine without encryption."""
    monkeypatch.delenv("HARNESS_JUDGE_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    assert key_of(JudgeRef("m", "https://api.openai.com/v1")) == "openai"
    assert key_of(JudgeRef("m", "https://api.openai.com.example/v1")) == ""
    monkeypatch.setenv("HARNESS_JUDGE_KEY", "own")
    assert key_of(JudgeRef("m", "https://h/v1")) == "own"
    assert key_of(JudgeRef("m", "http://127.0.0.1:1/v1")) == "own"
    with pytest.raises(UsageError, match="without encryption"):
        key_of(JudgeRef("m", "http://h/v1"))


def test_a_suite_without_a_judge_says_how_to_name_one() -> None:
    """If cases need a judge and none is named, a notice counts them and names the option."""
    assert notice(suite()).startswith("1 case has assertions for a judge, and none is named")
    assert "decide nothing" in notice(suite("{model: m}"))
    assert "decide like other assertions" in notice(suite("{model: m, decides: true}"))


@pytest.mark.parametrize("key", ["first-half\nsecond-half", "schlüssel-geheim", "half\0half"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A key with a line break or a letter outside ASCII is a user's mistake; white space around a key is ignored."""
    monkeypatch.setattr("os.environ", {"HARNESS_JUDGE_KEY": key})
    with pytest.raises(UsageError, match="HARNESS_JUDGE_KEY holds") as refused:
        key_of(JudgeRef("m", "https://h/v1"))
    assert "half" not in str(refused.value)
    assert "geheim" not in str(refused.value)
    monkeypatch.setenv("HARNESS_JUDGE_KEY", " own\n")
    assert key_of(JudgeRef("m", "https://h/v1")) == "own"


def test_an_address_with_a_line_break_is_refused() -> None:
    """An address with a control character is refused, though the standard library would remove it."""
    with pytest.raises(UsageError, match="control character"):
        with_judge(suite(), "m@https://h/v1\n")


@pytest.mark.parametrize("named", ["sk-0123456789@https://h/v1", "sk-0123456789", None])
def test_a_name_that_is_the_key_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    """A key in the place of the model's name is a user's mistake, in the option and in the suite."""
    monkeypatch.setenv("HARNESS_JUDGE_KEY", "sk-0123456789")
    own = suite() if named else suite("{model: sk-0123456789}")
    with pytest.raises(UsageError, match="name of the judge holds the key") as refused:
        with_judge(own, named)
    assert "sk-0123456789" not in f"{refused.value} {refused.value.remedy}"
