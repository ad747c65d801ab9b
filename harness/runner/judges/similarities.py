"""Measures the similarity of texts with an embedding model, in a child process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.core.judges import DEFAULT_EMBEDDER, Reply
from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused
from harness.scoring.findings import Pair, pair_key

CHILD = "harness.engine.embedding_process"
LIMITS = Limits(seconds=600.0, memory=-1, file=-1)
"""Loading a model may download it, and takes its time; it is the user's choice, unlike code of a suite."""
REMEDY = (
    "Connect to the Hugging Face Hub (unset HF_HUB_OFFLINE), so that the model is downloaded, and run the same command "
    f"again. Without the Hub, run `hf download {DEFAULT_EMBEDDER} --local-dir FOLDER` on a machine that has it, "
    "copy FOLDER to this machine, and write `embedder: FOLDER` with its whole path in suite.yaml."
)
"""What the user must do if the embedding model cannot be used."""
_SHORT_REMEDY = "download it, or name its folder with `embedder:` in suite.yaml, and run `harness score RUN`"
GROUP = 256
"""Number of pairs that are compared at once, after which the similarities are stored."""


def measure(model: str, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Reply | str]]:
    """Yield each pair with its similarity, as the text of a reply, or with the reason why it has none."""
    child = LimitedProcess(CHILD, LIMITS)
    try:
        for start in range(0, len(pairs), GROUP):
            group = pairs[start : start + GROUP]
            try:
                (found,) = child.work(model, [group])
            except LimitReachedError as reached:
                found = Refused(f"it {reached}")
            if isinstance(found, Refused):
                reason = f"the embedding model {model} cannot be used: {found.reason}; {_SHORT_REMEDY}"
                yield from ((pair, reason) for pair in pairs)  # those before have their similarities by now
                return
            yield from ((pair, Reply(pair_key(pair), repr(value))) for pair, value in zip(group, found, strict=True))
    finally:
        child.close()
