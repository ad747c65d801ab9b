"""Tests of adapters that were trained elsewhere: reading them, refusing them, evaluating and reporting them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import report
from harness.analysis.aggregate import assemble
from harness.core.engines import Engine
from harness.core.errors import HarnessError, ModelError, UsageError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.model import AdapterRef, ModelRef
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Decoding, Role, Split
from harness.core.training_outcome import Status
from harness.engine.adapters import save_adapter
from harness.engine.loading import Base
from harness.engine.worker import work
from harness.models.foreign_adapters import copy, find, notices
from harness.models.resolving import resolve
from harness.runner.executors.inline import Inline
from harness.runner.jobs import import_adapter
from harness.runner.sweep import Sweep
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from tests.support.closeness import assert_same_answers
from tests.support.short_trainings import QUESTIONS, SHORT, SUITE, one_core, prompts, training
from tests.support.synthetic_runs import case, manifest, record, results, score, suite, variants

POCKET = resolve("pocket")
LLAMA = ModelRef("meta-llama/Llama-2-7b-chat-hf", "/somewhere/snapshots/abc", "0")
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "", "r": 4, "target_modules": ["q_proj", "v_proj"]}


def adapter(folder: Path, *, weights: bytes | None = b"", **config: Any) -> Path:
    """Write an adapter into a folder as PEFT does, with one tensor of two by three elements."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    if weights is not None:
        header = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
        whole = struct.pack("<Q", len(header)) + header + bytes(24)
        (folder / "adapter_model.safetensors").write_bytes(weights or whole)
    return folder


def refused(folder: Path, model: ModelRef = POCKET) -> str:
    with pytest.raises(HarnessError) as caught:
        find([folder], model)
    assert str(folder) in str(caught.value), "the message names the folder"
    assert "\n" in str(caught.value), "and says what to do"
    return str(caught.value)


# --- adapters that are accepted and refused --------------------------------------------------------------------------


def test_the_record_of_an_adapter(tmp_path: Path) -> None:
    """An adapter is named after its folder, and has its rank, target modules, size, and a digest of its two files."""
    [found] = find([adapter(tmp_path / "mine")], POCKET)
    assert (found.name, found.rank, found.target_modules, found.trainable_parameters) == (
        "mine", 4, ("q_proj", "v_proj"), 6,
    )  # fmt: skip
    [same] = find([adapter(tmp_path / "copy" / "mine")], POCKET)
    [other] = find([adapter(tmp_path / "other" / "mine", r=8)], POCKET)
    assert found.digest == same.digest != other.digest


def test_only_two_files_are_copied(tmp_path: Path) -> None:
    """Only an adapter's configuration and weights are copied; if they changed during the run, an error says so."""
    folder = adapter(tmp_path / "mine")
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    [found] = find([folder], POCKET)
    (tmp_path / "to").mkdir()
    copy(found, tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    adapter(tmp_path / "another", r=8)
    (folder / "adapter_config.json").write_text((tmp_path / "another" / "adapter_config.json").read_text())
    with pytest.raises(ModelError, match="changed during the run"):
        copy(found, tmp_path / "to")


@pytest.mark.parametrize(
    ("base", "model", "same"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", LLAMA, True),
        ("mirror/llama-2-7b-chat-hf", LLAMA, True),
        ("unsloth/llama-2-7b-chat-hf-bnb-4bit", LLAMA, True),
        ("unsloth/Llama-2-7b-chat-hf-unsloth-bnb-4bit", LLAMA, True),
        ("", LLAMA, True),
        ("/content/models/llama", LLAMA, False),
        ("../llama", LLAMA, False),
        ("mistralai/Mistral-7B-v0.1", LLAMA, False),
        ("meta-llama/Llama-2-7b-chat-hf", POCKET, False),
        ("pocket", POCKET, True),
        (str(POCKET.path), POCKET, True),
    ],
)
def test_another_name_of_the_base_is_a_notice(tmp_path: Path, base: str, model: ModelRef, same: bool) -> None:
    """If an adapter's configuration names another base model, a notice says so, and the adapter is not refused."""
    found = find([adapter(tmp_path / "mine", base_model_name_or_path=base)], model)
    assert found[0].base == base
    assert [f"names {base} as its base model" in notice for notice in notices(found, model)] == ([] if same else [True])


def test_the_recorded_base_of_an_exported_adapter(tmp_path: Path) -> None:
    """An adapter that the harness exported is refused on a base model of another digest, whatever its name is."""
    folder = adapter(tmp_path / "mine", base_model_name_or_path="another/name")
    (folder / "export.json").write_text(json.dumps({"model": {"name": "pocket", "digest": POCKET.digest}}))
    found = find([folder], POCKET)
    assert notices(found, POCKET) == ()
    changed = replace(POCKET, digest="0" * 16)
    assert "was trained on pocket with other files" in refused(folder, changed)
    (folder / "export.json").unlink()
    assert len(find([folder], changed)) == 1


def spoil(path: str, content: bytes | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        if content is not None:
            (folder / path).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (spoil("adapter_config.json", None), "holds no adapter_config.json"),
        (spoil("adapter_config.json", b"{"), "is damaged"),
        (spoil("adapter_config.json", b"[" * 100_000), "is damaged"),
        (spoil("adapter_config.json", b'{"a": "' + b"x" * (1 << 23) + b'"}'), "is damaged"),
        (spoil("adapter_config.json", b"[]"), "does not hold a JSON object"),
        (spoil("adapter_config.json", b'{"peft_type": "IA3"}'), "'IA3', not LORA"),
        (spoil("adapter_model.safetensors", None), "holds no adapter_model.safetensors"),
        (spoil("adapter_model.safetensors", b"\xff" * 100), "is damaged"),
        (spoil("adapter_model.safetensors", b""), "is damaged"),
    ],
)
def test_a_folder_without_an_adapter_is_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    """If a file of an adapter is missing, damaged or not for LoRA, the error says which file and what is wrong."""
    folder = adapter(tmp_path / "mine")
    damage(folder)
    assert words in refused(folder)


def test_a_missing_folder_and_a_base_model_have_their_own_messages(tmp_path: Path) -> None:
    """If an adapter's folder is missing, or is that of a base model, the error says which of the two is wrong."""
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "name that with --model" in refused(tmp_path / "model")


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    """An adapter that has only pickled weights is refused, and the pickle is not read."""
    folder = adapter(tmp_path / "mine", weights=None)
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch boom'\ntR.")
    assert "pickle (adapter_model.bin)" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 4]]}, {"trainable_token_indices": [1]},
    ],
)  # fmt: skip
def test_an_adapter_that_changes_the_base_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """An adapter that would change the base model is refused, and the error names the setting."""
    assert next(iter(changes)) in refused(adapter(tmp_path / "mine", **changes))


@pytest.mark.parametrize("name", ["base", "base quant=nf4", "lr=1e-3", "mine"])
def test_names_are_unique(tmp_path: Path, name: str) -> None:
    """An adapter whose name is that of a base, of a variant or of another adapter is refused."""
    first, second = adapter(tmp_path / "a" / "mine"), adapter(tmp_path / "b" / name)
    with pytest.raises(UsageError, match="already a variant called"):
        find([first, second], POCKET, ["lr=1e-3"])


# --- evaluation and report -------------------------------------------------------------------------------------------

ONE = variants(1)[0]
CASES = [case("new", Role.GENERALISE), case("kept", Role.RETAIN)]


def test_an_adapter_is_compared_but_not_recommended() -> None:
    """The report compares an adapter trained elsewhere with the base; the recommendation leaves it out and says so."""
    foreign = replace(record(ONE, {"new": "good", "kept": "good"}), variant="mine", settings=None, trial="adapter-1")
    own = record(ONE, {"new": "bad", "kept": "good"})
    before = record(None, {"new": "bad", "kept": "good"})
    found = assemble(manifest(suite(CASES, margin=100), [ONE]), [before, foreign, own], score, "now")
    [grid, mine] = found.variants
    assert (grid.elsewhere, mine.elsewhere, mine.settings, mine.fixed) == (False, True, None, 1)
    assert set(mine.changes) == {Role.GENERALISE, Role.RETAIN}
    assert found.choice.variant is None
    assert any("mine, trained elsewhere" in reason for reason in found.choice.reasons)
    assert "mine" in report.render(found, now="now")


def test_charts_leave_out_an_adapter_without_settings() -> None:
    """A report can be made with an adapter trained elsewhere, whose settings, costs and training are unknown."""
    full = results(8)
    strange = replace(full.variants[0], name="mine", settings=None, elsewhere=True, costs=(), training=(), differs={})
    assert "mine" in report.render(replace(full, variants=(*full.variants, strange)), now="now")


def saved(base: Base, folder: Path, settings: Settings = SHORT) -> Path:
    with training(base, settings) as found:
        folder.mkdir()
        save_adapter(found.model, folder)
    return folder


def sweep(folder: Path, *adapters: AdapterRef) -> Sweep:
    asked = replace(SUITE, cases=SUITE.cases[::8], examples=SUITE.examples[:8], decoding=Decoding(12))
    setup = Setup(asked, POCKET, one_core(), Engine.REFERENCE, {})
    return Sweep(setup, RunStore(folder / "run"), Cache(folder / "cache"), Inline(work), adapters=adapters)


def test_an_imported_adapter_gives_the_same_answers(base: Base, tmp_path: Path) -> None:
    """If a trial's adapter is imported, it gives the same answers as the trial, and the next run reuses them."""
    [found] = find([saved(base, tmp_path / "mine")], POCKET)
    each = sweep(tmp_path, found)
    trials = [Trial("trial", "variant", SHORT, 0)]
    records = {record.variant: record for record in each.run_trials(trials, Split.MAIN, "")}
    answers = {name: [answer for [answer] in record.answers.values()] for name, record in records.items()}
    assert list(records) == ["base", "mine", "variant"]
    assert {record.status for record in records.values()} == {Status.SUCCEEDED}
    # The worker asks the adapter and the trial in different batches, which round differently.
    assert_same_answers(answers["mine"], answers["variant"])
    with pytest.raises(AssertionError):
        assert_same_answers(answers["mine"], answers["base"])
    (tmp_path / "mine" / "adapter_model.safetensors").unlink()
    assert {r.variant: r for r in sweep(tmp_path, found).run_trials(trials, Split.MAIN, "")} == records


def test_an_adapter_with_wrong_shapes_is_refused(base: Base, tmp_path: Path) -> None:
    """If an adapter's tensors do not match its rank, the worker refuses the job and names the adapter's folder."""
    folder = saved(base, tmp_path / "mine")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    [found] = find([folder], POCKET)
    cache = Cache(tmp_path / "cache")
    import_adapter(cache, "it", found)
    job = Job(
        POCKET, one_core(), Quantization.NF4, "reference", str(cache.root), SUITE.examples[:8], Decoding(8),
        (Task("adapter", "it", None, 0, False, prompts(*QUESTIONS[:1]), attach=str(folder)),),
    )  # fmt: skip
    events: list[Event] = []
    assert not work(job, events.append)
    [event] = [each for each in events if each.kind is not EventKind.LOADING]
    assert event.kind is EventKind.REFUSED
    assert f"--adapter {folder}" in event.message
    assert "another shape" in event.message
