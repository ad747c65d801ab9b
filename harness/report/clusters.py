"""How many independent clusters the cases of a suite form, for the sentences about intervals."""

from __future__ import annotations

from harness.core import wording
from harness.core.suite import Role, Split, Suite


def clustered(suite: Suite) -> str:
    """Say how cases that share a `group` count in the intervals; empty if no two main cases of a role share one.

    A group is one cluster, and so is each case without a group.
    """
    counts = {role: _counts(suite, role) for role in Role}
    parts = [f"{cases} {role} cases form {wording.plural(found, 'cluster')}" for role, (cases, found) in counts.items()
             if found < cases]  # fmt: skip
    if not parts:
        return ""
    return (
        f"All intervals are clustered by group, because cases of one group often pass or fail together: "
        f"the {wording.listed(parts)}."
    )


def _counts(suite: Suite, role: Role) -> tuple[int, int]:
    """Return the number of main cases of a role, and of their clusters."""
    cases = [case for case in suite.of(Split.MAIN) if case.role is role]
    return len(cases), len({case.group or (case.id,) for case in cases})
