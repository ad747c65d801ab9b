"""A synthetic run with two quantisations, whose base models pass different cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.analysis.aggregate import assemble
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Quantization, Settings, Variant
from harness.core.suite import Role, Split
from tests.support.synthetic_runs import case, manifest, record, score, suite

NONE, NF4 = Quantization.NONE, Quantization.NF4
PLAIN = Variant("plain", "quant=none", Settings(quantization=NONE))
FOUR_BIT = Variant("four", "quant=nf4", Settings(quantization=NF4))
SIZE = 40
"""Number of `generalise` cases, and of `retain` cases."""
CASES = (
    *(case(f"words {n}", Role.GENERALISE, prompt=f"Word {n}?") for n in range(SIZE)),
    *(case(f"keep {n}", Role.RETAIN, prompt=f"Fact {n}?") for n in range(SIZE)),
    *(case(f"late {n}", Role.GENERALISE, Split.CONFIRM, prompt=f"Late word {n}?") for n in range(SIZE)),
    *(case(f"late keep {n}", Role.RETAIN, Split.CONFIRM, prompt=f"Late fact {n}?") for n in range(SIZE)),
)


def answers(words: int, keep: int, split: Split = Split.MAIN) -> dict[str, str]:
    """Return answers that pass the first `words` generalise cases and the first `keep` retain cases."""
    late = "late " if split is Split.CONFIRM else ""
    names = ("late", "late keep") if late else ("words", "keep")
    passed = zip(names, (words, keep), strict=True)
    return {f"{name} {n}": "good" if n < most else "bad" for name, most in passed for n in range(SIZE)}


def base(quantization: Quantization | None, given: Mapping[str, str], split: Split = Split.MAIN) -> TrialRecord:
    """Return the record of a base model; None: as an earlier version wrote it, without its quantisation."""
    made = record(None, given, split=split)
    return replace(made, trial=f"base-{quantization}" if quantization else "base", quantization=quantization)


def assembled(*records: TrialRecord) -> Results:
    """Return the results of a run with the two variants, whose plan has the unquantised one first."""
    return assemble(manifest(suite(CASES, margin=15), [PLAIN, FOUR_BIT], (0,)), records, score, "now")


def two_bases() -> Results:
    """Return a run in which the NF4 base passes less, and the NF4 variant loses none of that and learns most.

    The unquantised base passes 20 generalise and 40 retain cases, and the NF4 base 0 and 20. The unquantised variant
    passes as many as its base. The NF4 variant passes 20 and 20, and in the confirmation 30 and 20.
    """
    return assembled(
        base(NONE, answers(20, 40)),
        base(NF4, answers(0, 20)),
        record(PLAIN, answers(20, 40)),
        record(FOUR_BIT, answers(20, 20)),
        base(NF4, answers(0, 20, Split.CONFIRM), Split.CONFIRM),
        *(record(FOUR_BIT, answers(30, 20, Split.CONFIRM), seed=seed, split=Split.CONFIRM) for seed in (100, 101)),
    )
