"""What a search found out about settings: the sentence in reports and in the summary of a run."""

from __future__ import annotations

from harness.core.run_results import Results
from harness.core.settings import AXES
from harness.core.wording import listed, plural


def search(results: Results) -> str:
    """Return how a search chose its variants and which settings mattered; empty if the grid has no search."""
    plan = results.run.plan
    if plan.search is None:
        return ""
    role = results.choice.objective
    count = plural(len(plan.variants), "variant")
    made = f"Search: Optuna's Gaussian process chose {count} by their results on {role} cases."
    if not results.importance:
        return f"{made} Which settings mattered is not known: too few variants, or no Optuna on this machine."
    found = sorted(results.importance.items(), key=lambda item: -item[1])
    shares = listed(f"{AXES[name].title} {100 * share:.0f}%" for name, share in found)
    return f"{made} How much each setting mattered for good results (PED-ANOVA): {shares}."
