"""Names of promptfoo's assertion types, so that errors can tell unsupported types from misspelt types."""

from __future__ import annotations

NAMES = frozenset({
    "agent-rubric", "answer-relevance", "assert-set", "bleu", "character-count", "classifier", "contains",
    "contains-all", "contains-any", "contains-html", "contains-json", "contains-sql", "contains-xml",
    "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance", "cost", "ends-with",
    "equals", "f-score", "factuality", "finish-reason", "g-eval", "gleu", "guardrails", "human", "icontains",
    "icontains-all", "icontains-any", "is-html", "is-json", "is-refusal", "is-sql", "is-valid-function-call",
    "is-valid-openai-function-call", "is-valid-openai-tools-call", "is-xml", "javascript", "latency", "levenshtein",
    "llm-rubric", "max-score", "meteor", "model-graded-closedqa", "model-graded-factuality", "moderation",
    "noise-sensitivity", "perplexity", "perplexity-score", "pi", "python", "regex", "research-rubric", "rouge-l",
    "rouge-n", "rouge-s", "ruby", "search-rubric", "select-best", "similar", "skill-used", "starts-with",
    "tokens-used", "tool-call-f1", "trace-error-spans", "trace-span-count", "trace-span-duration", "webhook",
    "word-count",
})  # fmt: skip
FAMILIES = ("similar:", "promptfoo:", "trajectory:")
"""Prefixes of names that end with a variant, such as `similar:cosine`."""


def is_promptfoo(name: str) -> bool:
    """Whether promptfoo has an assertion type with this name (without `not-`)."""
    return name in NAMES or name.startswith(FAMILIES)
