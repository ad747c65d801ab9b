"""Tests of the report's section on provenance."""

from __future__ import annotations

from dataclasses import replace

from harness.core.model import AdapterRef
from harness.report import formatting
from harness.report.provenance import facts
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import results

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_provenance() -> None:
    """The section on provenance gives the run's command, versions, digests, git commit, seeds and device."""
    made, page = run_and_page()
    said = page.id("provenance").text
    facts = made.run.provenance
    for part in (
        facts.command,
        facts.git_commit,
        made.run.digest,
        made.run.model.digest,
        facts.machine.device,
        "2.13.0",
        "0 and 1",
    ):
        assert part in said


def test_a_harness_without_a_commit() -> None:
    """A harness that is not run from a git checkout is said to have no commit, without "uncommitted changes"."""
    assert formatting.commit("", changed=False) == "none (not run from a git checkout)"


def test_what_the_weights_have_been_through() -> None:
    """Of a base model from a GGUF file, the facts say what its weights have been through; of others, nothing."""
    plain = results(2, 2, toy=False)
    changed = replace(plain.run.model, weights="Q4_1, dequantised")
    dequantised = replace(plain, run=replace(plain.run, model=changed))
    assert dict(facts(dequantised))["Weights of the base model"] == "Q4_1, dequantised"
    assert "Weights of the base model" not in dict(facts(plain))


def test_the_base_model_that_an_adapter_names() -> None:
    """The facts have the base model that the configuration of each adapter trained elsewhere names."""
    plain = results(2, 2, toy=False)
    adapter = AdapterRef("mine", "/mine", "0", "unsloth/x-bnb-4bit", 4, ("q_proj",), 6)
    found = dict(facts(replace(plain, run=replace(plain.run, adapters=(adapter,)))))
    assert found["Base model that the adapter mine names"] == "unsloth/x-bnb-4bit"
