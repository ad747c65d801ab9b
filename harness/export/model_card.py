"""Writes the model card of an export: base model, suite results, settings, example answers and usage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.losses import bounded, counts
from harness.analysis.score_table import ScoreTable, score_table
from harness.analysis.statistics import Interval, rate
from harness.core import training_script
from harness.core.conversations import as_chat, with_system_prompt
from harness.core.export import ExportKind, ExportRecord
from harness.core.model import ModelRef
from harness.core.outside_text import fenced, markdown, markdown_code
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Case, Message, Role
from harness.core.trainer_arguments import plain
from harness.export.source import Source
from harness.export.targets.gguf import CHAT_HINT, INSTALL_HINT, llama_cli_command

EXAMPLES = 5


@dataclass(frozen=True)
class Evidence:
    """The run's results for one adapter: pass rates by role, and example answers."""

    rates: dict[Role, Interval]
    examples: tuple[tuple[str, str, str], ...]
    """Triples of prompt, answer of the base model, answer with the adapter."""
    verdict: tuple[str, ...] = ()
    """What the run shows about the adapter's variant, in sentences."""


def evidence(source: Source, results: Results) -> Evidence:
    """Collect the results of the exported adapter: the results of its variant under the seed of its training."""
    own = [s for s in _samples(results) if s.variant == source.variant.name and s.seed == source.seed]
    base = results.base_beside(source.variant.name).name
    # Sampled repeats differ by chance, so the first repeat of both models is compared.
    of_base = {s.case: s.answer.text for s in _samples(results) if s.variant == base and s.repeat == 0}
    cases = {case.id: case for case in results.run.suite.cases}
    table = score_table(own, results.run.suite.reducer)
    by_role = {role: [cases[case] for case in table.cells if cases[case].role is role] for role in Role}
    rates = {role: _rate(table, some, source.seed) for role, some in by_role.items() if some}
    shown = [s for s in own if s.repeat == 0 and s.answer.text != of_base.get(s.case)][:EXAMPLES]
    examples = tuple((cases[s.case].prompt, of_base.get(s.case, ""), s.answer.text) for s in shown)
    return Evidence(rates, examples, tuple(_verdict(results, source.variant.name)))


def _verdict(results: Results, variant: str) -> Iterator[str]:
    """Yield whether the variant keeps what the base model can do, and the verdict of the confirmation, with reasons."""
    outcome = next((each for each in results.variants if each.name == variant), None)
    if outcome and outcome.loss:
        words = bounded(outcome.loss, results.run.suite.margin)
        yield f"Retain and avoid cases, all seeds: {outcome.loss.verdict}. In these, {counts(outcome.loss)}: {words}."
    found = results.choice.confirmation if variant == results.choice.variant else None
    if variant != results.choice.variant:
        yield "Confirmation: not confirmed. The run did not choose this variant."
    elif found is None:
        yield "Confirmation: not confirmed. No fresh seeds and held-out cases have tested it."
    else:
        yield f"Confirmation: {found.finding}. {' '.join(found.reasons)}"


def _rate(table: ScoreTable, cases: Sequence[Case], seed: int) -> Interval:
    """Return the pass rate of these cases under one seed. Its interval counts cases of one group as dependent."""
    return rate(table.scores([case.id for case in cases], [seed]), [case.group for case in cases])


def _samples(results: Results) -> list[Sample]:
    return [*results.samples, *results.confirmed_samples]


def card(source: Source, record: ExportRecord, found: Evidence, repository: str) -> str:
    """Write README.md for the Hub, with its YAML header. Text from suites and models is escaped."""
    import yaml

    head = yaml.safe_dump(_head(source, record, found, repository), sort_keys=False, allow_unicode=True)
    body = [_what(source, record), _table(source, found), _settings(source), _shown(found), _usage(source, repository)]
    return f"---\n{head}---\n\n# {markdown(repository)}\n\n" + "\n\n".join(part for part in body if part) + "\n"


def _head(source: Source, record: ExportRecord, found: Evidence, repository: str) -> dict[str, Any]:
    adapter, public = record.kind is ExportKind.ADAPTER, bool(source.model.revision)
    of_hub = {"base_model": source.model.name, "base_model_relation": "adapter" if adapter else "finetune"}
    dataset = {"name": f"{source.run.suite.name} (suite of qlora-harness)", "type": source.run.suite.name}
    metrics = [
        {
            "type": "pass_rate",
            "name": f"pass rate, {role.value}",
            "value": round(interval.value, 4),
            "args": {"low_95": round(interval.low, 4), "high_95": round(interval.high, 4), "cases": interval.cases},
        }
        for role, interval in found.rates.items()
    ]
    result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
    return {
        **(of_hub if public else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["qlora", "lora", "qlora-harness"],
        "model-index": [{"name": repository, "results": [result]}],
    }


def _what(source: Source, record: ExportRecord) -> str:
    rows = f"{len(source.run.suite.examples)} conversations of the suite {markdown_code(source.run.suite.name)}"
    if added := source.run.added_rows(source.settings, source.seed):
        rows += f" and on {len(added)} of the base model's own answers to other prompts (rehearsal)"
    licence = (
        "The base model's licence holds for this model too: read it, keep its notices, and name it in this card before "
        "you make this public."
    )
    toy = f"\n\n{markdown(source.model.note)}" if source.model.note else ""
    return f"{markdown(record.note)}\n\nTrained on {rows}.{toy}\n\n{licence}"


def _table(source: Source, found: Evidence) -> str:
    if not found.rates:
        return ""
    rows = [
        f"| {role.value} | {interval.value:.0%} | {interval.low:.0%} to {interval.high:.0%} | {interval.cases:g} |"
        for role, interval in found.rates.items()
    ]
    head = "| Cases | Pass rate | 95% interval | Number |\n|---|---|---|---|\n"
    verdict = "".join(f"\n\n{markdown(sentence)}" for sentence in found.verdict)
    return f"## Suite results\n\nThis adapter, seed {source.seed}.\n\n{head}" + "\n".join(rows) + verdict


def _settings(source: Source) -> str:
    values = source.settings.as_dict()
    rows = "\n".join(f"| {name} | {markdown(str(plain(value)))} |" for name, value in values.items())
    return f"## Settings\n\n| Setting | Value |\n|---|---|\n{rows}"


def _shown(found: Evidence) -> str:
    parts = [
        f"{fenced(prompt)}\n\nBase:\n\n{fenced(before)}\n\nTuned:\n\n{fenced(after)}"
        for prompt, before, after in found.examples
    ]
    return "## Answers that changed\n\n" + "\n\n---\n\n".join(parts) if parts else ""


def _usage(source: Source, repository: str) -> str:
    model: ModelRef = source.model
    asked = as_chat(with_system_prompt(source.run.suite.system_prompt, (Message("user", "Hello"),)))
    turns = source.run.tokens
    ends = "" if turns is None or turns.named else f", eos_token_id={list(turns.ends)}"
    code = (
        "from transformers import pipeline\n\n"
        f'chat = pipeline("text-generation", model="{repository}")\n'
        f"chat({training_script.literal(asked)}{ends})"
    )
    differs = "".join(f"{markdown(sentence)}\n\n" for sentence in turns.deviations) if turns else ""
    return (
        f"## How to use it\n\n{fenced(code, 'python')}\n\n{differs}"
        f"transformers loads an adapter onto {markdown(model.name)} with PEFT, which must be installed.\n\n"
        "With llama.cpp and a GGUF file made by `harness export RUN VARIANT --to gguf` (`--to gguf-lora` converts the "
        "adapter alone, and `--to ollama` writes a Modelfile for Ollama):\n\n"
        f"{fenced(llama_cli_command(source, Path('FILE.gguf')), 'sh')}\n\n"
        f"llama.cpp: {INSTALL_HINT}. {CHAT_HINT}"
    )
