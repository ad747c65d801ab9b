"""`harness export`: from a run's variant to folders that are whole, whatever happened while they were made."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import pytest
from safetensors import safe_open

from harness.cli import main
from harness.core.errors import ModelError, StoreError, UsageError
from harness.core.export import MergeMode, TensorSpec
from harness.core.settings import Settings, Variant
from harness.export import shards
from harness.export.config_files import config_of, generation_config_of, plain_files
from harness.export.output_folders import staging
from harness.export.source import find, pick, saved_base
from harness.export.targets.adapter import to_adapter
from harness.export.targets.merged import MergeRequest, to_merged
from harness.models.resolving import POCKET
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore
from tests.support.trained_run import cache_of, inside, source_of


@dataclass(frozen=True)
class Made:
    """Three tensors whose bytes say which they are; may end in the middle of one, as a process does or a disk."""

    stop: str = ""
    error: type[BaseException] | OSError = KeyboardInterrupt
    untied: bool = False

    @property
    def specs(self) -> Sequence[TensorSpec]:
        return tuple(TensorSpec(name, "float16", (4, 8)) for name in ("first", "second", "third"))

    def chunks(self, spec: TensorSpec) -> Iterator[memoryview]:
        half = memoryview(bytes([ord(spec.name[0])] * 32))
        yield half
        if spec.name == self.stop:
            raise self.error
        yield half


class Many:
    """One tensor in 200 parts, which are counted; `most` of them were held at once."""

    specs = (TensorSpec("many", "float32", (200, 1 << 16)),)

    def __init__(self) -> None:
        self.most = 0
        self.made: list[ReferenceType[Any]] = []

    def chunks(self, spec: TensorSpec) -> Iterator[memoryview]:
        for number in range(200):
            part = np.full(1 << 16, number, np.float32)
            self.made.append(ref(part))
            self.most = max(self.most, sum(made() is not None for made in self.made))
            yield part.view(np.uint8).data


def written(folder: Path, made: Made, limit: int = 64) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    return dict(shards.write(folder, made, shards.split(made.specs, limit), "inputs"))


def merge_of(made: Made) -> Any:
    return lambda *given, **named: made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- files of tensors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "count"), [(1 << 20, 1), (128, 2), (1, 3)])
def test_files_are_what_safetensors_reads(limit: int, count: int, tmp_path: Path) -> None:
    """However the tensors are spread, each is found with its dtype, shape and bytes, and the index names its file."""
    done = written(tmp_path, Made(), limit)
    assert len(done) == count
    index = json.loads((tmp_path / shards.INDEX).read_text()) if count > 1 else None
    for name in done:
        with safe_open(str(tmp_path / name), framework="np") as file:
            for tensor in file.keys():  # noqa: SIM118
                value = file.get_tensor(tensor)
                assert (value.dtype.name, value.shape) == ("float16", (4, 8))
                assert set(value.tobytes()) == {ord(tensor[0])}
                assert index is None or index["weight_map"][tensor] == name


def test_what_was_stopped_goes_on_with_the_next_file(tmp_path: Path) -> None:
    """Files that were whole stay untouched, the one in the making is made again, and all are as if never stopped."""
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "stopped", Made(stop="second"))
    first = tmp_path / "stopped" / "model-00001-of-00003.safetensors"
    assert [path.name for path in first.parent.glob("model-*")] == [first.name]
    before = first.stat().st_mtime_ns
    again, alone = written(tmp_path / "stopped", Made()), written(tmp_path / "alone", Made())
    assert first.stat().st_mtime_ns == before
    assert again == alone
    assert all((tmp_path / "stopped" / n).read_bytes() == (tmp_path / "alone" / n).read_bytes() for n in alone)


def test_a_kept_file_that_was_damaged_meanwhile_is_made_again(tmp_path: Path) -> None:
    """What is kept is what was written, by its digest."""
    expected = written(tmp_path, Made())
    path = tmp_path / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert written(tmp_path, Made()) == expected
    assert path.read_bytes()[-1:] == b"s"


def test_other_inputs_keep_nothing(tmp_path: Path) -> None:
    """Files of another adapter, or in another split, are not taken for these."""
    written(tmp_path, Made())
    parts = shards.split(Made().specs, 64)
    assert len(shards.completed(tmp_path, parts, "inputs")) == 3
    assert shards.completed(tmp_path, parts, "others") == {}
    assert shards.completed(tmp_path, shards.split(Made().specs, 128), "inputs") == {}


def test_a_full_disk_ends_in_one_error(tmp_path: Path) -> None:
    """It says so, and no file that looks whole is left."""
    with pytest.raises(StoreError, match="the disk is full: could not write"):
        written(tmp_path, Made(stop="first", error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("made", [Made(), Many()], ids=["few parts", "many parts"])
def test_a_disk_that_fills_up_behind_the_tensors_ends_in_the_same_error(made: Made | Many, tmp_path: Path) -> None:
    """They are written while others are made: what the writing meets is said, and no file looks whole."""
    (tmp_path / ".partial-model.safetensors").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"the disk is full: could not write .*model\.safetensors"):
        list(shards.write(tmp_path, made, shards.split(made.specs, 1 << 30), "inputs"))
    assert not (tmp_path / "model.safetensors").exists()
    assert not isinstance(made, Many) or len(made.made) < 100


def test_few_parts_wait_to_be_written(tmp_path: Path) -> None:
    """However much quicker they are made: memory holds a few, and they arrive in their order."""
    many = Many()
    list(shards.write(tmp_path, many, shards.split(many.specs, 1 << 30), "inputs"))
    assert len(many.made) == 200
    assert many.most <= shards.MAX_WAITING + 4
    with safe_open(str(tmp_path / "model.safetensors"), framework="np") as file:
        found = file.get_tensor("many")
    assert (found == np.arange(200, dtype=np.float32)[:, None]).all()


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_merged_folder_appears_whole(trained_run: RunStore, tmp_path: Path) -> None:
    """Until everything is in it there is no folder of its name, nor a config.json in the one that is being made."""
    source, request = source_of(trained_run), MergeRequest(tmp_path / "made", shard_size=64)
    with pytest.raises(KeyboardInterrupt):
        to_merged(source, tmp_path, request, merge=merge_of(Made(stop="third")), tell=lambda text: None)
    assert not (tmp_path / "made").exists()
    assert not (staging(tmp_path / "made") / "config.json").exists()
    said: list[str] = []
    made = to_merged(source, tmp_path, request, merge=merge_of(Made()), tell=said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert not [name for name in files(made) if "partial" in name or name == shards.PROGRESS]
    verify_manifest(made)
    assert said[-1] == "3 of 3 files: model-00003-of-00003.safetensors"


def test_what_another_attempt_left_goes_nowhere(trained_run: RunStore, tmp_path: Path) -> None:
    """A merge that was stopped leaves none of the base's weights in an adapter, nor in a merge with another dtype."""
    source, place = source_of(trained_run), tmp_path / "made"
    for request in (MergeRequest(place, shard_size=64), MergeRequest(place, shard_size=128)):
        with pytest.raises(KeyboardInterrupt):
            to_merged(source, tmp_path, request, merge=merge_of(Made(stop="third")), tell=lambda text: None)
    made = to_merged(source, tmp_path, MergeRequest(place), merge=merge_of(Made()), tell=lambda text: None)
    assert [name for name in files(made) if name.startswith("model")] == ["model.safetensors"]
    shutil.rmtree(made)
    with pytest.raises(KeyboardInterrupt):
        to_merged(source, tmp_path, request, merge=merge_of(Made(stop="third")), tell=lambda text: None)
    adapter = to_adapter(source, tmp_path, output=place, check=lambda model, adapter: None)
    assert set(files(adapter)) == {"MANIFEST.sha256", "adapter_config.json", "adapter_model.safetensors", "export.json"}


def test_what_is_there_already_is_not_made_again(trained_run: RunStore, tmp_path: Path) -> None:
    """The same export again does nothing; another one to the same place is refused and changes nothing."""
    source, request = source_of(trained_run), MergeRequest(tmp_path / "made")
    made = to_merged(source, tmp_path, request, merge=merge_of(Made()), tell=lambda text: None)
    before = files(made)
    to_merged(source, tmp_path, request, merge=merge_of(Made(stop="first")), tell=lambda text: None)
    other = MergeRequest(tmp_path / "made", mode=MergeMode.FP16_BASE)
    with pytest.raises(StoreError, match="exists and contains something else"):
        to_merged(source, tmp_path, other, merge=merge_of(Made()), tell=lambda text: None)
    assert files(made) == before


def test_the_disk_is_asked_first(trained_run: RunStore, tmp_path: Path) -> None:
    """Too little room is an error before a byte is written, with what is needed and what is there."""

    class Huge(Made):
        specs = (TensorSpec("first", "float16", (1 << 40, 1 << 10)),)

    request = MergeRequest(tmp_path / "made")
    with pytest.raises(StoreError, match=r"too little space: .*made needs 2251799\.\d GB"):
        to_merged(source_of(trained_run), tmp_path, request, merge=merge_of(Huge()), tell=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_base_that_changed_is_refused(trained_run: RunStore, tmp_path: Path) -> None:
    """What is merged is what was evaluated: other weights under the same name are not."""
    from dataclasses import replace

    source = source_of(trained_run)
    shutil.copytree(POCKET, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    moved = replace(source, run=replace(source.run, model=replace(source.model, path=str(tmp_path / "base"))))
    with pytest.raises(ModelError, match="are not those that the run was made with"):
        to_merged(moved, tmp_path, MergeRequest(), merge=merge_of(Made()), tell=lambda text: None)


def test_the_saved_base_and_quantising_again_give_the_same_bytes(trained_run: RunStore, tmp_path: Path) -> None:
    """On the machine that quantised it: what the cache holds spares the work and changes nothing."""
    from harness.engine.merging import merge

    source = source_of(trained_run)
    saved = saved_base(source)
    assert saved is not None
    given: dict[str, Any] = {"dtype": "float16", "compute_dtype": "float32", "nf4": True}
    kept = merge(source.model, source.adapter, **given, saved=saved)
    again = merge(source.model, source.adapter, **given)
    assert kept.specs == again.specs
    assert all(b"".join(kept.chunks(spec)) == b"".join(again.chunks(spec)) for spec in kept.specs)


# --- which adapter ------------------------------------------------------------------------------------------------

NAMED = [Variant(str(n), name, Settings()) for n, name in enumerate(("lr=1e-3 r=4", "lr=1e-3 r=16", "lr=1e-3"))]


@pytest.mark.parametrize(("text", "expected"), [("r=16", "lr=1e-3 r=16"), ("lr=1e-3", "lr=1e-3"), ("0", "lr=1e-3 r=4")])
def test_a_variant_is_found_by_any_unique_part(text: str, expected: str) -> None:
    """A whole name or id comes before a part of another one's."""
    assert pick(NAMED, text).name == expected


@pytest.mark.parametrize(("text", "message"), [(" r=", "' r=' names 2 variants"), ("lora", "has no variant 'lora'")])
def test_a_variant_that_is_not_clear_is_asked_for(text: str, message: str) -> None:
    """The names to choose from are listed."""
    with pytest.raises(UsageError, match=message) as refused:
        pick(NAMED, text)
    assert "'lr=1e-3 r=16'" in refused.value.remedy


def test_a_seed_that_was_not_trained_is_refused(trained_run: RunStore) -> None:
    """Those that were are named; without one it is the grid's first."""
    name = trained_run.manifest().plan.variants[0].name
    assert source_of(trained_run).seed == 0
    with pytest.raises(UsageError, match="was not trained under seed 7") as refused:
        find(trained_run, name, 7, cache_of(trained_run))
    assert "--seed 0" in refused.value.remedy


# --- texts --------------------------------------------------------------------------------------------------------


def test_answers_end_where_they_ended_in_the_evaluation(tmp_path: Path) -> None:
    """The tokenizer's end token ends an answer beside the model's own."""
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9], "temperature": 0.6}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<end>", "id": 5}]}))
    assert generation_config_of(tmp_path) == {"eos_token_id": [5, 7, 9], "temperature": 0.6}
    assert config_of(tmp_path, "float16", untied=False) == {"eos_token_id": 7, "dtype": "float16"}


def test_tokenizer_template_and_licence_come_along(tmp_path: Path) -> None:
    """And no weights, pickles or code."""
    for name in ("tokenizer.model", "LICENSE.txt", "tokenizer.bin", "tokenizer_code.py", "model.safetensors"):
        (tmp_path / name).touch()
    assert [path.name for path in plain_files(tmp_path)] == ["LICENSE.txt", "tokenizer.model"]
    assert {"chat_template.jinja", "tokenizer.json"} <= {path.name for path in plain_files(POCKET)}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("adapter", ["--quant", "f16"]), ("adapter", ["--mode", "fp16-base"]), ("merged", ["--public"]),
     ("notebook", ["--llama-cpp", "."]), ("gguf", ["--repo", "me/mine"])],
)  # fmt: skip
def test_an_option_that_would_change_nothing_is_refused(
    trained_run: RunStore, capsys: pytest.CaptureFixture[str], kind: str, options: list[str]
) -> None:
    """It is named, with what it is for."""
    name = trained_run.manifest().plan.variants[0].name
    assert main(["export", str(trained_run.root), name, "--to", kind, *options]) == 2
    assert f"{options[0]} changes nothing with --to {kind}. It is for --to " in capsys.readouterr().err


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_makes_an_adapter_that_peft_loads(trained_run: RunStore, capsys: Any) -> None:
    """It prints the folder, which names its base and says what it is."""
    assert main(["export", str(trained_run.root), "1e-2", "--to", "adapter"]) == 2
    assert "has no variant" in capsys.readouterr().err
    name = trained_run.manifest().plan.variants[0].name
    with inside(trained_run.root.parents[2]):
        assert main(["export", str(trained_run.root), name, "--to", "adapter"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    verify_manifest(folder)
    assert sorted(files(folder)) == [
        "MANIFEST.sha256",
        "adapter_config.json",
        "adapter_model.safetensors",
        "export.json",
    ]
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "pocket"
    shutil.rmtree(folder)


def test_the_merged_model_gives_the_answers_of_the_run(trained_run: RunStore, tmp_path: Path, capsys: Any) -> None:
    """`--to merged`, loaded by transformers from its folder, answers every case as the report has it."""
    from harness.core.conversations import messages_of
    from harness.core.job import Prompt
    from harness.core.settings import Quantization
    from harness.engine.generation.answers import answer
    from harness.models.resolving import resolve
    from tests.studies.merges import loaded

    run, out = trained_run.manifest(), tmp_path / "merged"
    with inside(trained_run.root.parents[2]):
        arguments = ["export", str(trained_run.root), run.plan.variants[0].name, "--to", "merged", "--output", str(out)]
        assert main(arguments) == 0
    said = capsys.readouterr()
    assert (said.out.strip(), said.err.strip()) == (str(out), "1 of 1 files: model.safetensors")
    verify_manifest(out)
    model = loaded(resolve(str(out)), Quantization.NONE)
    record = next(r for r in trained_run.records() if r.settings)
    cases = [case for case in run.suite.cases if case.id in record.answers]
    prompts = [Prompt(case.id, messages_of(run.suite, case)) for case in cases]
    found = answer(model, model.model, prompts, run.suite.decoding, progress=lambda done: None)
    assert {a.key: a.text for a in found} == {id: given[0].text for id, given in record.answers.items()}
