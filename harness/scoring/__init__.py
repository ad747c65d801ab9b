"""Score answers: `registry` holds all assertion types, and `judging` applies them to an answer.

Each family of types is a module with functions and a table `TYPES`: `text`, `structure` (JSON), `similarity`,
`log_probabilities`, `external` (metrics and Python functions), `javascript` and `sets`.
"""

from __future__ import annotations

from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.findings import Evidence, Opinions, Scoring
from harness.scoring.judging import is_only_judged, judge, judged, score, scorer
from harness.scoring.registry import ASSERTION_TYPES, broken_code, code_of, missing_extras, needs, unusable_code

__all__ = [
    "ASSERTION_TYPES",
    "AssertionType",
    "Evidence",
    "Need",
    "Opinions",
    "Scoring",
    "broken_code",
    "code_of",
    "is_only_judged",
    "judge",
    "judged",
    "missing_extras",
    "needs",
    "score",
    "scorer",
    "unusable_code",
]
