"""Reads what other models said about answers, so that stored answers are scored again without asking."""

from __future__ import annotations

from pathlib import Path

from harness.core.judges import embedder
from harness.core.suite import Suite
from harness.scoring import Need, Opinions, Scoring, needs
from harness.storage.verdicts import VerdictStore, source_of


def known_opinions(suite: Suite, run: Path | None, cache: Path | None = None) -> Opinions:
    """Return what is stored in a run directory and in a cache.

    These are the replies of the suite's judge, and similarities by its embedding model.
    """
    own = suite.judge if suite.judge and suite.judge.model else None
    found = Opinions(named=own is not None)
    if own and any(needs(case.assertions, Need.JUDGE) for case in suite.cases):
        found.replies = VerdictStore(source_of(own), cache, run).known()
    if any(needs(case.assertions, Need.EMBEDDINGS) for case in suite.cases):
        stored = VerdictStore(source_of(embedder(suite)), cache, run).known()
        found.similarities = {key: float(reply.text) for key, reply in stored.items()}
    return found


def scoring_of(suite: Suite, opinions: Opinions, *, allow_code: bool = False) -> Scoring:
    """Return the options with which the answers to a suite's cases are scored."""
    decides = suite.judge is not None and suite.judge.decides
    return Scoring(Path(suite.folder), allow_code, opinions, decides=decides)
