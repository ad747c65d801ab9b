"""Tests of `harness export`: output folders are complete or absent, and exported models give the run's answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core.errors import ModelError, StoreError
from harness.core.export import MergeMode, TensorSpec
from harness.export import shards
from harness.export.output_folders import begin, staging
from harness.export.source import saved_base
from harness.export.targets.adapter import to_adapter
from harness.export.targets.merged import MergeRequest, to_merged
from harness.models.resolving import POCKET
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore
from tests.support.fake_tensors import FakeTensors
from tests.support.trained_run import inside, source_of


def merge_of(made: FakeTensors) -> Any:
    return lambda *given, **named: made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_merged_folder_appears_complete(trained_run: RunStore, tmp_path: Path) -> None:
    """Until a merge is complete, its output folder does not exist, and its temporary folder has no config.json."""
    source, request = source_of(trained_run), MergeRequest(tmp_path / "made", shard_size=64)
    with pytest.raises(KeyboardInterrupt):
        to_merged(source, tmp_path, request, merge=merge_of(FakeTensors(stop="third")), show_progress=lambda text: None)
    assert not (tmp_path / "made").exists()
    assert not (staging(tmp_path / "made") / "config.json").exists()
    said: list[str] = []
    made = to_merged(source, tmp_path, request, merge=merge_of(FakeTensors()), show_progress=said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert not [name for name in files(made) if "partial" in name or name == shards.PROGRESS]
    verify_manifest(made)
    assert said[-1] == "3 of 3 files: model-00003-of-00003.safetensors"


def test_files_of_another_attempt_are_deleted(trained_run: RunStore, tmp_path: Path) -> None:
    """If a merge is interrupted, none of its files ends up in a different export to the same folder."""
    source, place = source_of(trained_run), tmp_path / "made"
    for request in (MergeRequest(place, shard_size=64), MergeRequest(place, shard_size=128)):
        with pytest.raises(KeyboardInterrupt):
            to_merged(
                source, tmp_path, request, merge=merge_of(FakeTensors(stop="third")), show_progress=lambda text: None
            )
    made = to_merged(
        source, tmp_path, MergeRequest(place), merge=merge_of(FakeTensors()), show_progress=lambda text: None
    )
    assert [name for name in files(made) if name.startswith("model")] == ["model.safetensors"]
    shutil.rmtree(made)
    with pytest.raises(KeyboardInterrupt):
        to_merged(source, tmp_path, request, merge=merge_of(FakeTensors(stop="third")), show_progress=lambda text: None)
    adapter = to_adapter(source, tmp_path, output=place, check=lambda model, adapter: None)
    assert set(files(adapter)) == {"MANIFEST.sha256", "adapter_config.json", "adapter_model.safetensors", "export.json"}


def test_a_temporary_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """If the run has a link in place of an export's temporary folder, the files that it leads to are not deleted."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").touch()
    staging(tmp_path / "made").symlink_to("precious")
    with pytest.raises(StoreError, match=r"\.partial-made is a link to another folder"):
        begin(tmp_path / "made", 0)
    assert (tmp_path / "precious" / "thesis").exists()


def test_an_existing_export_is_not_written_again(trained_run: RunStore, tmp_path: Path) -> None:
    """If an export is repeated, nothing is written. A different export to the same folder is refused."""
    source, request = source_of(trained_run), MergeRequest(tmp_path / "made")
    made = to_merged(source, tmp_path, request, merge=merge_of(FakeTensors()), show_progress=lambda text: None)
    before = files(made)
    to_merged(source, tmp_path, request, merge=merge_of(FakeTensors(stop="first")), show_progress=lambda text: None)
    other = MergeRequest(tmp_path / "made", mode=MergeMode.FP16_BASE)
    with pytest.raises(StoreError, match="exists and contains something else"):
        to_merged(source, tmp_path, other, merge=merge_of(FakeTensors()), show_progress=lambda text: None)
    assert files(made) == before


def test_a_changed_export_is_not_taken_for_the_model(trained_run: RunStore, tmp_path: Path) -> None:
    """If a file of an earlier export was changed, the same command is refused and names the file."""
    source, request = source_of(trained_run), MergeRequest(tmp_path / "made")
    made = to_merged(source, tmp_path, request, merge=merge_of(FakeTensors()), show_progress=lambda text: None)
    weights = next(made.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=rf"{weights.name} is missing, or has changed") as caught:
        to_merged(source, tmp_path, request, merge=merge_of(FakeTensors()), show_progress=lambda text: None)
    assert str(made) in caught.value.remedy


def test_disk_space_is_checked_first(trained_run: RunStore, tmp_path: Path) -> None:
    """If the disk has too little space for a merge, the error gives the space that it needs, and nothing is written."""

    class Huge(FakeTensors):
        specs = (TensorSpec("first", "float16", (1 << 40, 1 << 10)),)

    request = MergeRequest(tmp_path / "made")
    with pytest.raises(StoreError, match=r"too little space: .*made needs 2251799\.\d GB"):
        to_merged(source_of(trained_run), tmp_path, request, merge=merge_of(Huge()), show_progress=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_base_that_changed_is_refused(trained_run: RunStore, tmp_path: Path) -> None:
    """If the base model's weights have changed since the run, a merge is refused."""
    from dataclasses import replace

    source = source_of(trained_run)
    shutil.copytree(POCKET, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    moved = replace(source, run=replace(source.run, model=replace(source.model, path=str(tmp_path / "base"))))
    with pytest.raises(ModelError, match="have changed since the run"):
        to_merged(moved, tmp_path, MergeRequest(), merge=merge_of(FakeTensors()), show_progress=lambda text: None)


def test_the_saved_base_and_requantising_give_the_same_bytes(trained_run: RunStore, tmp_path: Path) -> None:
    """A merge that uses the cached quantised base has the same bytes as a merge that quantises the base again."""
    from harness.engine.merging import merge

    source = source_of(trained_run)
    saved = saved_base(source)
    assert saved is not None
    given: dict[str, Any] = {"dtype": "float16", "compute_dtype": "float32", "nf4": True}
    kept = merge(source.model, source.adapter, **given, saved=saved)
    again = merge(source.model, source.adapter, **given)
    assert kept.specs == again.specs
    assert all(b"".join(kept.chunks(spec)) == b"".join(again.chunks(spec)) for spec in kept.specs)


# --- the command --------------------------------------------------------------------------------------------------


def test_peft_loads_the_exported_adapter(trained_run: RunStore, capsys: Any) -> None:
    """`harness export --to adapter` prints a folder with the files that PEFT needs, which name the base model."""
    assert main(["export", str(trained_run.root), "1e-2", "--to", "adapter"]) == 2
    assert "there is no variant" in capsys.readouterr().err
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
    """The exported merged model, loaded by transformers, gives the run's answer to every case."""
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
