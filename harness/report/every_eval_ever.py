"""A run in the form of Every Eval Ever 0.3.0, a schema that results of many evaluation tools share.

Each model that answered (the base model in each quantisation, each variant, each adapter trained elsewhere) gets two
files: its pass rates by role, and one row per answer. Their paths are those of the project's collection of results:
`data/COLLECTION/DEVELOPER/MODEL/UUID.json` and `UUID_samples.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PureWindowsPath
from typing import Any

import harness
from harness.core.conversations import as_chat, messages_of
from harness.core.measurement import Phase
from harness.core.names import BASE
from harness.core.run_results import Outcome, Results
from harness.core.scores import Sample
from harness.core.suite import Case, Role, Split
from harness.core.trainer_arguments import plain
from harness.report.pass_rates import ScoresByRole, scores_by_role
from harness.report.samples_file import counted, key, perplexity

SCHEMA = "0.3.0"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_LOCAL = "local"
"""The developer in the id of a model that has no name on the Hugging Face Hub, as a tuned model has none."""
Record = dict[str, Any]


def files(results: Results) -> dict[str, str]:
    """Return the content of the files by their path. A model without a pass rate has no files."""
    marks = counted(results)
    found: dict[str, str] = {}
    for model in _models(results):
        rates = [*_rates(results, model), *_judged(results, model)]
        if not rates:
            continue
        rows = [_row(results, model, split, sample, marks.get(key(sample))) for split, sample in model.samples]
        lines = "".join(_json(row) + "\n" for row in rows)
        found[f"{model.path}.json"] = _json(_aggregate(results, model, rates, lines, len(rows)), indent=1) + "\n"
        found[f"{model.path}_samples.jsonl"] = lines
    return found


@dataclass(frozen=True)
class _Model:
    """A model that answered: its outcomes and answers on each split, its id, and the path of its files."""

    name: str
    id: str
    outcomes: Mapping[Split, Outcome]
    samples: Sequence[tuple[Split, Sample]]
    evaluation: str
    path: str

    @property
    def main(self) -> Outcome:
        """The outcome on the main cases."""
        return self.outcomes[Split.MAIN]


def _models(results: Results) -> Iterator[_Model]:
    late = {each.name: each for each in (results.confirmed_base, results.confirmed) if each}
    collection = _portable(f"harness-{results.run.suite.name}")
    for outcome in (*results.every_base, *results.variants):
        name, id = outcome.name, _model_id(results, outcome)
        samples = [(Split.MAIN, one) for one in results.samples if one.variant == name]
        samples += [(Split.CONFIRM, one) for one in results.confirmed_samples if one.variant == name]
        outcomes = {Split.MAIN: outcome} | ({Split.CONFIRM: late[name]} if name in late else {})
        # The same run has the same names, so that writing it again replaces its files.
        content = hashlib.sha256(f"{results.run.digest}/{name}".encode("utf-8", "surrogatepass")).digest()
        place = f"data/{collection}/{id}/{uuid.UUID(bytes=content[:16], version=4)}"
        yield _Model(name, id, outcomes, samples, f"{collection}/{id}/{_seconds(results.finished)}", place)


def _model_id(results: Results, outcome: Outcome) -> str:
    """Return an id in the form of the Hub's names. Names of models that are not on the Hub begin with `local/`."""
    base = results.run.model
    if outcome.untrained:
        on_hub = base.revision and _HUB_NAME.fullmatch(base.name)
        parts = base.name.split("/") if on_hub else (_LOCAL, base.name)
        return "/".join(_portable(part) for part in parts)
    digests = {variant.name: variant.id for variant in results.run.plan.variants}
    digests |= {adapter.name: adapter.digest[:12] for adapter in results.run.adapters}
    return f"{_LOCAL}/{_portable(f'{base.name}-{outcome.name}-{digests.get(outcome.name, _LOCAL)}')}"


def _portable(name: str) -> str:
    """Return a name as part of a path that every operating system and the collection of results accept."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[-100:].strip("-._") or "unnamed"
    return f"{plain}-" if plain == "data" or PureWindowsPath(plain).is_reserved() else plain


def _rates(results: Results, model: _Model) -> Iterator[Record]:
    for split, samples in ((Split.MAIN, results.samples), (Split.CONFIRM, results.confirmed_samples)):
        outcome = model.outcomes.get(split)
        scores = scores_by_role(results, [one for one in samples if one.variant == model.name]) if outcome else {}
        for role, rate in outcome.rates.items() if outcome else ():
            if rate.value is not None:
                yield _result(results, model, split, role, rate.value, rate.total, scores)


def _judged(results: Results, model: _Model) -> Iterator[Record]:
    """Return what a judge said about the model's answers. It is apart from pass rates, as in the report."""
    found = results.judging
    for rate in found.rates if found else ():
        if found is None or rate.variant != model.name or not rate.total:
            continue
        result = _result(results, model, Split.MAIN, rate.role, rate.passed / rate.total, rate.total, {})
        result |= {
            "evaluation_result_id": f"judged-{rate.role.value}",
            "evaluation_name": f"{results.run.suite.name}: {rate.role.value}, as judged by a model",
        }
        judge = found.judge
        result["metric_config"]["llm_scoring"] = {
            "judges": [
                {
                    "model_info": {
                        "name": judge.model,
                        "id": judge.model,
                        "additional_details": {
                            "deployment_type": "externally_managed" if judge.base_url else "self_deployed",
                            "model_availability": "unknown",
                        },
                    }
                }
            ],
            "input_prompt": "The prompt of the assertion's type, with the criterion of the case and the answer",
        }
        if rate.low is not None and rate.high is not None:
            interval = {"lower": rate.low, "upper": rate.high, "confidence_level": 0.95}
            result["score_details"]["uncertainty"] = {"confidence_interval": interval, "num_samples": rate.total}
        yield result


def _result(
    results: Results, model: _Model, split: Split, role: Role, value: float, total: int, scores: ScoresByRole
) -> Record:
    suite, decoding = results.run.suite, results.run.suite.decoding
    own = scores.get((model.name, role))
    details: Record = {"score": value, "details": {"answers": str(total)}}
    if own and own.span:
        interval: Record = {"lower": own.span.low, "upper": own.span.high, "confidence_level": 0.95}
        interval["method"] = "covers the choice of cases and of training seeds"
        details["uncertainty"] = {"confidence_interval": interval, "num_samples": total}
    return {
        "evaluation_result_id": _result_id(split, role),
        "evaluation_name": f"{suite.name}: {role.value}" + (", held-out cases" if split is Split.CONFIRM else ""),
        "evaluation_timestamp": results.finished,
        "source_data": {"dataset_name": suite.name, "source_type": "other"},
        "metric_config": {
            "evaluation_description": _DESCRIPTIONS[role],
            "metric_id": "pass_rate",
            "metric_name": "Pass rate",
            "metric_kind": "pass_rate",
            "metric_unit": "proportion",
            "metric_parameters": {"repeats": suite.repeats, "reducer": suite.reducer.value},
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": details,
        "generation_config": {
            "generation_args": {
                "temperature": decoding.temperature,
                "max_tokens": decoding.max_new_tokens,
                "execution_command": results.run.provenance.command,
            },
            "additional_details": _texts({"stop": list(decoding.stop), "system_prompt": suite.system_prompt}),
        },
    }


_DESCRIPTIONS = {
    Role.LEARN: "Questions from the training rows",
    Role.GENERALISE: "Questions from the training rows in other words",
    Role.RETAIN: "Abilities of the base model that training must keep",
    Role.AVOID: "Behaviour that training must not cause",
}


def _result_id(split: Split, role: Role) -> str:
    return f"{split.value}-{role.value}"


def _aggregate(results: Results, model: _Model, rates: Sequence[Record], lines: str, count: int) -> Record:
    run = results.run
    facts = {
        "git_commit": run.provenance.git_commit, "engine": run.engine, "machine": run.provenance.machine.device,
        "python": run.provenance.python, "run_digest": run.digest,
        **{f"version_{name}": version for name, version in run.provenance.versions.items()},
    }  # fmt: skip
    own = model.main
    return {
        "schema_version": SCHEMA,
        "evaluation_id": model.evaluation,
        "evaluation_timestamp": results.finished,
        "retrieved_timestamp": _seconds(results.finished),
        "source_metadata": {
            "source_name": "QLoRA harness",
            "source_type": "evaluation_run",
            # The harness does not know who runs it. Whoever publishes the files replaces this.
            "source_organization_name": "unknown",
            "evaluator_relationship": "third_party" if own.untrained or own.elsewhere else "first_party",
        },
        "eval_library": {"name": "qlora-harness", "version": harness.__version__, "additional_details": _texts(facts)},
        "model_info": {
            "name": run.model.name if model.name == BASE else f"{run.model.name} {model.name}",
            "id": model.id,
            "developer": model.id.split("/")[0],
            "inference_engine": {"name": "transformers", "version": run.provenance.versions.get("transformers", "")},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown" if model.id.startswith(f"{_LOCAL}/") else "open_weights",
                **_texts(_model_facts(results, model)),
            },
        },
        "evaluation_results": list(rates),
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": f"{model.path}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(lines.encode()).hexdigest(),
            "total_rows": count,
        },
    }


def _model_facts(results: Results, model: _Model) -> Record:
    """Return what was varied, what it cost, and what the run concluded, without what is unknown."""
    own, base, choice = model.main, results.run.model, results.choice
    chosen = model.name == choice.variant
    cost = own.cost(Phase.TRAIN)
    peak = cost.peak() if cost else None
    kind = own.settings.quantization if own.settings else next(
        (each for each, name in results.run.plan.bases.items() if name == model.name), None
    )  # fmt: skip
    facts = {
        "base_model": base.name, "base_digest": base.digest, "base_revision": base.revision,
        "base_weights": base.weights, "toy_model": "true" if base.toy else "", "quantization": kind,
        "training_seeds": list(own.seeds) if own.settings else None,
        "chosen": chosen if own.settings else None,
        "reasons": list(choice.reasons) if chosen else None,
        "confirmation": choice.confirmation.finding.value if chosen and choice.confirmation else None,
        "net_loss_points": own.loss.points if own.loss else None,
        "net_loss_verdict": own.loss.verdict.value if own.loss else None,
        "trainable_parameters": own.trainable_parameters or None,
        "supervised_tokens": own.supervised_tokens or None,
        "training_seconds": cost.seconds.value if cost else None,
        "training_peak_bytes": peak.value if peak else None,
        "training_cost_basis": cost.seconds.basis.value if cost else None,
        **{f"setting_{name}": plain(value) for name, value in (own.settings.as_dict() if own.settings else {}).items()},
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _row(results: Results, model: _Model, split: Split, sample: Sample, mark: bool | None) -> Record:
    """Return one answer. A row with `evaluation_result_id` counts in that rate: its mean score is the rate.

    An answer without a score, and a repeat that the reducer joins with the first one, counts in none.
    """
    suite = results.run.suite
    case = next(case for case in suite.cases if case.id == sample.case)
    asked = messages_of(suite, case)
    reference = [case.reference] if case.reference is not None else []
    row: Record = {
        "schema_version": SCHEMA,
        "evaluation_id": model.evaluation,
        "model_id": model.id,
        "evaluation_name": f"{suite.name}: {case.role.value}",
        "sample_id": case.id,
        "sample_hash": hashlib.sha256("".join((case.prompt, *reference)).encode("utf-8", "replace")).hexdigest(),
        "input": {"raw": case.prompt, "reference": reference, "choices": list(case.choices) or None},
        **_interaction(case, as_chat(asked), sample.answer.text),
        "evaluation": {"score": float(sample.score.passed if mark is None else mark),
                       "is_correct": sample.score.passed if mark is None else mark},
        "error": sample.score.error or None,
        "metadata": _texts({
            "role": case.role.value, "split": split.value, "seed": sample.seed, "repeat": sample.repeat,
            "passed": sample.score.passed, "weighted_score": sample.score.value, "output_tokens": sample.answer.tokens,
            "truncated": sample.answer.truncated, "perplexity": perplexity(sample.answer.likelihood),
            "checks": [{"assertion": c.assertion, "passed": c.passed, "reason": c.reason} for c in sample.score.checks],
            "system_prompt": next((message.content for message in asked if message.role == "system"), None),
        }),
    }  # fmt: skip
    return row if mark is None else row | {"evaluation_result_id": _result_id(split, case.role)}


def _interaction(case: Case, asked: Sequence[Mapping[str, str]], answer: str) -> Record:
    """Return the answer in the form of a conversation, if there is more than one turn, and else as a single output."""
    several = sum(message.role != "system" for message in case.messages) > 1
    source = f"messages[{len(asked)}].content" if several else "output.raw"
    attribution = {
        "turn_idx": len(asked) if several else 0, "source": source, "extracted_value": answer,
        "extraction_method": "custom", "is_terminal": True,
    }  # fmt: skip
    found: Record = {"answer_attribution": [attribution]}
    if not several:
        return found | {"interaction_type": "single_turn", "output": {"raw": [answer]}, "messages": None}
    turns = [*asked, {"role": "assistant", "content": answer}]
    messages = [{"turn_idx": place, **turn} for place, turn in enumerate(turns)]
    return found | {"interaction_type": "multi_turn", "output": None, "messages": messages}


def _texts(values: Record) -> dict[str, str]:
    """Return values as texts, as the schema requires. Values that are None are left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
        if value is not None
    }  # fmt: skip


def _json(value: Record, indent: int | None = None) -> str:
    """Return a value as JSON in ASCII, with unpaired surrogates replaced, which readers of JSON refuse."""
    return json.dumps(_characters(value), indent=indent, allow_nan=False)


def _characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {name: _characters(each) for name, each in value.items()}
    return [_characters(each) for each in value] if isinstance(value, list) else value


def _seconds(moment: str) -> str:
    """Return a moment as seconds since 1970, which is what the schema asks for."""
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:  # results.json was edited
        return "unknown"
    return f"{(when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp():.0f}"
