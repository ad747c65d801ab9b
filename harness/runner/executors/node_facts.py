"""What executors for clusters share: what must be the same on all nodes, and how errors of a cluster are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import harness
from harness.core.errors import UsageError
from harness.hardware.environment import stack_versions
from harness.hardware.gpu import Gpu, gpu


@dataclass(frozen=True)
class NodeFacts:
    """The versions of the harness and its libraries on a node, and its first GPU."""

    versions: Mapping[str, str]
    found: Gpu | None


def node_facts() -> NodeFacts:
    """Return the facts of the node that calls this function."""
    return NodeFacts({"qlora-harness": harness.__version__, **stack_versions()}, gpu())


def check_versions(executor: str, here: Mapping[str, str], there: Mapping[str, Mapping[str, str]]) -> None:
    """Check that nodes have the versions of the driver's machine, which are `here`.

    Raises:
        UsageError: a version differs; the message names the node and the library.
    """
    wrong = [
        f"{node} has {name} {versions.get(name, 'none')}, and this machine {version}"
        for node, versions in there.items()
        for name, version in here.items()
        if versions.get(name) != version
    ]
    if wrong:
        remedy = "Install the same versions on all nodes: results of different versions cannot be compared."
        raise UsageError(f"--executor {executor}: {'; '.join(wrong[:4])}", remedy=remedy)


def check_gpus(executor: str, found: Mapping[str, Gpu | None]) -> None:
    """Check that all nodes have the same kind of GPU.

    Raises:
        UsageError: they differ; the message names each node's GPU.
    """
    if len({each and each.name for each in found.values()}) > 1:
        named = ", ".join(f"{node}: {each.name if each else 'none'}" for node, each in found.items())
        raise UsageError(
            f"--executor {executor}: the nodes have different GPUs ({named})", remedy="Use nodes of one kind."
        )


def first_line(error: object) -> str:
    """Return the first line of what a library or a program says about an error."""
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
