"""Tests of GGUF files that share a folder: one of the base model, and one for the adapter of each variant."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core.errors import ExportError, StoreError
from harness.core.export import ExportKind, GgufType, MergeMode
from harness.engine.merging import merge
from harness.export import llama_cpp
from harness.export.export_record import record_of
from harness.export.output_folders import RECORD
from harness.export.protocol import EngineFunctions, ExportRequest
from harness.export.source import Source
from harness.export.targets.gguf import GgufOptions, GgufRequest, base_to_gguf, export_base
from harness.export.targets.gguf_lora import base_of, check_base_file, instructions, to_gguf_lora
from harness.export.targets.merged import MergeRequest, merge_of, to_merged
from harness.storage.manifest import MANIFEST, verify_manifest
from harness.storage.records import write_record
from harness.storage.runs import RunStore
from tests.support.trained_run import inside, source_of


class Converter:
    """A fake of llama.cpp's converters, which keeps the adapter's configuration that it was given."""

    def __init__(self) -> None:
        self.configurations: list[dict[str, Any]] = []

    def __call__(self, words: Sequence[str]) -> None:
        folder = Path(words[-1])
        if (folder / "adapter_config.json").is_file():
            assert (Path(words[words.index("--base") + 1]) / "config.json").is_file()
            assert (folder / "adapter_model.safetensors").is_file()
            self.configurations.append(json.loads((folder / "adapter_config.json").read_text()))
        Path(words[words.index("--outfile") + 1]).write_bytes(b"GGUF")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with the names of llama.cpp's converters."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    for name in (llama_cpp.CONVERTER, llama_cpp.LORA_CONVERTER):
        (folder / name).touch()
    return folder


def with_config(source: Source, folder: Path, **changes: Any) -> Source:
    """Return the source with a copy of its adapter, whose configuration has these changes."""
    copy = replace(source, cache=replace(source.cache, root=folder / "cache"))
    copy.adapter.mkdir(parents=True)
    for path in source.adapter.iterdir():
        (copy.adapter / path.name).write_bytes(path.read_bytes())
    file = copy.adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return copy


def lora_of(source: Source, folder: Path, tools: Path, run: llama_cpp.Run) -> Path:
    return to_gguf_lora(source, folder, llama_cpp=tools, check=lambda model, adapter: None, run=run)


def test_a_base_and_its_adapters_share_a_folder(trained_run: RunStore, tmp_path: Path, tools: Path) -> None:
    """One folder holds the file of the base model and of each adapter, each with a record, and one manifest of all."""
    source, run = source_of(trained_run), Converter()
    merged = to_merged(source.bare, tmp_path, MergeRequest(), merge=merge, show_progress=lambda text: None)
    base = base_to_gguf(source.bare, merged, tmp_path, GgufRequest(GgufType.F16, llama_cpp=tools), run=run)
    other = replace(source, variant=replace(source.variant, name="other"))
    files = [lora_of(each, tmp_path, tools, run) for each in (source, other)]
    assert {path.parent for path in (base, *files)} == {tmp_path / "gguf-lora"}
    verify_manifest(base.parent)
    assert base.name == base_of(source) == "pocket-base-nf4-f16.gguf"
    records = [json.loads(path.with_name(f"{path.name}.json").read_text()) for path in (base, *files)]
    assert [(each["variant"], each["evaluated"]) for each in records] == [
        *(("base", True), (source.variant.name, True), ("other", True))
    ]
    assert base.name in records[1]["note"]
    assert lora_of(source, tmp_path, tools, lambda words: pytest.fail("converted again")) == files[0]
    changed = replace(source, run=replace(source.run, model=replace(source.model, digest="x")))
    with pytest.raises(StoreError, match="is of another export"):
        lora_of(changed, tmp_path, tools, run)


def test_a_base_file_is_used_again(trained_run: RunStore, tmp_path: Path, tools: Path) -> None:
    """A base file serves runs of every suite and is neither merged nor converted again, unless the weights differ."""
    source, shared = source_of(trained_run), tmp_path / "shared"
    merged = to_merged(source.bare, tmp_path, MergeRequest(), merge=merge, show_progress=lambda text: None)
    wanted = GgufRequest(GgufType.F16, shared, tools)
    base = base_to_gguf(source.bare, merged, tmp_path, wanted, run=Converter())

    def merge_again(*given: Any, **more: Any) -> Any:
        pytest.fail("merged again")

    def again(source: Source) -> Path:
        engine = EngineFunctions(merge_again, lambda model, adapter: None)
        request = ExportRequest(Path("run"), trained_run, source, shared, engine, lambda text: None)
        return export_base(request, GgufOptions(quant=GgufType.F16))

    other = replace(source, run=replace(source.run, suite=replace(source.run.suite, name="other")))
    assert again(other) == again(source) == base
    changed = replace(source, run=replace(source.run, model=replace(source.model, digest="x")))
    with pytest.raises(StoreError, match="is of another export"):
        again(changed)
    base.write_bytes(b"changed")
    with pytest.raises(StoreError, match=f"{base.name} is missing, or has changed"):
        again(source)


def test_an_interrupted_conversion_is_repeated(trained_run: RunStore, tmp_path: Path, tools: Path) -> None:
    """If a conversion is killed, whatever it left, the same command completes the file, its record and the manifest."""
    source, folder = source_of(trained_run), tmp_path / "gguf-lora"

    def killed(words: Sequence[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lora_of(source, tmp_path, tools, killed)
    (partial,) = folder.iterdir()
    assert partial.name.startswith(".partial-")
    (partial / "left").mkdir()
    file = lora_of(source, tmp_path, tools, Converter())
    verify_manifest(folder)
    (folder / MANIFEST).unlink()
    assert lora_of(source, tmp_path, tools, killed) == file
    verify_manifest(folder)


def test_the_bare_base_has_the_evaluated_weights(trained_run: RunStore) -> None:
    """The base without an adapter has the weights that the merged model has where the adapter changes nothing."""
    source = source_of(trained_run)
    bare, merged = (merge_of(each, MergeRequest(), merge=merge) for each in (source.bare, source))
    assert bare.specs == merged.specs
    record = record_of(source.bare, ExportKind.MERGED, MergeMode.NF4_EXACT, "float16", True, "")
    assert record.settings is None  # the defaults of a training that never was would be invented
    changed = {spec.name for spec in bare.specs if b"".join(bare.chunks(spec)) != b"".join(merged.chunks(spec))}
    assert changed == merged.updates.keys()  # type: ignore[attr-defined]
    plain = merge_of(source.bare, MergeRequest(mode=MergeMode.FP16_BASE), merge=merge)
    assert any(b"".join(bare.chunks(spec)) != b"".join(plain.chunks(spec)) for spec in bare.specs)


def test_the_scaling_of_rslora_is_kept(trained_run: RunStore, tmp_path: Path, tools: Path) -> None:
    """The alpha in the file, which llama.cpp divides by the rank, gives the adapter's scaling, also that of rsLoRA."""
    source, run = source_of(trained_run), Converter()
    lora_of(source, tmp_path, tools, run)
    lora_of(with_config(source, tmp_path, use_rslora=True), tmp_path / "rs", tools, run)
    plain, rslora = run.configurations
    assert plain["lora_alpha"] == source.settings.alpha
    assert rslora["lora_alpha"] / rslora["r"] == pytest.approx(source.settings.alpha / math.sqrt(rslora["r"]))


@pytest.mark.parametrize("changes", [{"alpha_pattern": {"q_proj": 3}}, {"use_rslora": True, "rank_pattern": {"q": 2}}])
def test_scalings_that_differ_are_refused(
    changes: dict[str, Any], trained_run: RunStore, tmp_path: Path, tools: Path
) -> None:
    """An adapter whose matrices have different scalings is refused, since a GGUF file has one alpha for all."""
    changed = with_config(source_of(trained_run), tmp_path, **changes)
    with pytest.raises(ExportError, match="one alpha for all") as refused:
        lora_of(changed, tmp_path, tools, Converter())
    assert "--to gguf" in refused.value.remedy
    assert not list(tmp_path.rglob("*.gguf"))


def test_the_instructions_name_the_base(trained_run: RunStore, tmp_path: Path) -> None:
    """The printed instructions say how to make the base model's file, until it is there, and how to chat with both."""
    source, file = source_of(trained_run), tmp_path / "x-lora.gguf"
    told = instructions(Path("run"), source, file)
    assert f"--to gguf --base-only --quant f16 --output {tmp_path}" in told
    assert f"--gguf {tmp_path / base_of(source)} --lora {file}" in told
    assert f"llama-cli -m {base_of(source)} --lora {file.name} --temp 0" in told
    (tmp_path / base_of(source)).touch()
    assert "--base-only" not in instructions(Path("run"), source, file)


def test_adapters_need_a_base_file(trained_run: RunStore, tmp_path: Path, capsys: Any) -> None:
    """`harness chat --lora` without `--gguf` is an error that says what is missing."""
    file = tmp_path / "a.gguf"
    file.touch()
    assert main(["chat", str(trained_run.root), "lr", "--lora", str(file)]) == 2
    assert "--lora needs --gguf FILE" in capsys.readouterr().err


def test_an_adapter_is_not_added_to_a_merged_file(trained_run: RunStore, tmp_path: Path, capsys: Any) -> None:
    """`harness chat --gguf MERGED --lora ADAPTER` is refused, with the command that makes the base model's file."""
    source, file, adapter = source_of(trained_run), tmp_path / "merged.gguf", tmp_path / "a.gguf"
    file.touch()
    adapter.touch()
    write_record(tmp_path / RECORD, record_of(source, ExportKind.GGUF, MergeMode.NF4_EXACT, "f16", True, ""))
    with inside(trained_run.root.parents[2]):
        assert main(["chat", str(trained_run.root), "lr", "--gguf", str(file), "--lora", str(adapter)]) == 2
    told = capsys.readouterr().err
    assert f"merged.gguf has the adapter of {source.variant.name} inside already" in told
    assert "--to gguf --base-only --quant f16` makes it." in told
    write_record(tmp_path / "merged.gguf.json", record_of(source.bare, ExportKind.GGUF, None, "f16", True, ""))
    check_base_file(trained_run.root, source, file)
