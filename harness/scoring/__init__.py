"""Score answers: `registry` holds all assertion types, and `judging` applies them to an answer.

Each family of types is a module with functions and a table `TYPES`: `text`, `structure` (JSON), `similarity`,
`log_probabilities`, `external` (metrics and Python functions) and `sets`.
"""

from __future__ import annotations

from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.findings import Evidence, Scoring
from harness.scoring.judging import judge, score, scorer
from harness.scoring.registry import ASSERTION_TYPES, code_of, needs

__all__ = [
    "ASSERTION_TYPES",
    "AssertionType",
    "Evidence",
    "Need",
    "Scoring",
    "code_of",
    "judge",
    "needs",
    "score",
    "scorer",
]
