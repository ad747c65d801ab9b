"""The provenance section: what is needed to repeat a run."""

from __future__ import annotations

from harness.core import wording
from harness.core.claims import machine_claim
from harness.core.quantities import gib
from harness.core.rehearsal import Rehearsal
from harness.core.run_results import Results
from harness.core.suite import Suite
from harness.report import formatting

NO_SYSTEM_PROMPT = "none of the suite's; the chat template may add one"


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    """Return the name and value of each fact about the run."""
    run = results.run
    facts, machine = run.provenance, run.provenance.machine
    cap = f", memory capped at {gib(machine.memory_cap)}" if machine.memory_cap else ""
    threads = f", {wording.plural(machine.threads, 'thread')}" if machine.threads else ""
    return (
        ("Base model", f"{run.model.name} {run.model.revision}".strip()),
        *([("Weights of the base model", run.model.weights)] if run.model.weights else []),
        ("Model digest", run.model.digest),
        *[(f"Base model that the adapter {each.name} names", each.base or "none") for each in run.adapters],
        ("Suite and grid", f"{run.suite.name}, {run.plan.grid}"),
        ("Run digest", run.digest),
        ("Seeds", wording.listed(run.plan.seeds)),
        ("Confirmation seeds", wording.listed(run.confirm_seeds)),
        ("Engine", run.engine),
        ("Device", f"{machine.device} ({machine.kind}), compute data type {machine.compute_dtype}{threads}{cap}"),
        ("Basis of all figures", machine_claim(machine)),
        ("Git commit of harness", formatting.commit(facts.git_commit, changed=facts.git_dirty)),
        ("Python", f"{facts.python}, {facts.platform}"),
        ("Started", formatting.moment(facts.started)),
        ("Finished", formatting.moment(results.finished)),
        *([("Scored again", formatting.moment(results.rescored))] if results.rescored else []),
        ("Decoding", _decoding(run.suite)),
        ("System prompt", run.suite.system_prompt or NO_SYSTEM_PROMPT),
        *([("Rehearsal", _rehearsal(run.rehearsal))] if run.rehearsal else []),
    )


def _rehearsal(rehearsal: Rehearsal) -> str:
    """Say how many answers of the base model became rehearsal rows, and why the others did not."""
    near = f"{wording.plural(rehearsal.near, 'prompt')} not asked, in or near a case or training row"
    several = len(rehearsal.answers) > 1
    found = [f"{each.words} (base in {each.quantization})" if several else each.words for each in rehearsal.answers]
    return "; ".join([*found, *([near] if rehearsal.near else [])]) or "the base model has not answered yet"


def _decoding(suite: Suite) -> str:
    decoding = suite.decoding
    how = f"sampled at temperature {decoding.temperature:g}" if decoding.temperature else "greedy"
    often = f", {suite.repeats} repeats per case, reduced by {suite.reducer}" if suite.repeats > 1 else ""
    stop = f", stopped at {wording.listed(map(repr, decoding.stop))}" if decoding.stop else ""
    return f"{how}{often}, at most {decoding.max_new_tokens} tokens{stop}"
