"""Tests of what must be the same on all nodes of a cluster."""

from __future__ import annotations

import re

import pytest

from harness.core.errors import UsageError
from harness.hardware.gpu import Gpu
from harness.runner.executors.node_facts import check_gpus, check_versions, node_facts


def test_nodes_with_other_versions_are_refused() -> None:
    """If a node has another version of a library, the error names the node, the library and both versions."""
    here = node_facts().versions
    check_versions("ray", here, {"10.0.0.1": dict(here)})
    with pytest.raises(UsageError, match=re.escape(f"10.0.0.2 has torch 1.0, and this machine {here['torch']}")):
        check_versions("ray", here, {"10.0.0.1": dict(here), "10.0.0.2": {**here, "torch": "1.0"}})


def test_nodes_with_different_gpus_are_refused() -> None:
    """If nodes have GPUs of different kinds, the error names each node's GPU."""
    small, large = Gpu("Tesla T4", (7, 5), 2**34), Gpu("NVIDIA H200", (9, 0), 2**37)
    check_gpus("slurm", {"n1": small, "n2": small})
    with pytest.raises(UsageError, match=re.escape("(n1: Tesla T4, n2: NVIDIA H200, n3: none)")):
        check_gpus("slurm", {"n1": small, "n2": large, "n3": None})
