"""A quantised base on disk is loaded bit for bit, and a base that was written only in part is never found."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from harness.core.engines import Engine
from harness.core.errors import EngineError, ModelError, StoreError
from harness.core.formats import FORMAT
from harness.core.machine import Machine
from harness.core.model import SavedBase
from harness.core.settings import Quantization
from harness.core.suite import Suite
from harness.core.units import DeviceKind
from harness.engine.loading import Base, load_base
from harness.engine.quantized_base import open_base, save_base, size_of
from harness.models.resolving import POCKET, resolve
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.records import write_record
from tests.support.jobs import done, job, task
from tests.support.short_trainings import ask, losses, one_core, trained_once

SAVED = SavedBase("key", "pocket", Quantization.NF4, "cpu", "float32")


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(resolve("pocket"), Quantization.NF4, one_core())


@pytest.fixture(scope="module")
def folder(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_base(base.model, folder)
    return folder


@pytest.fixture(scope="module")
def again(folder: Path) -> Base:
    return load_base(resolve("pocket"), Quantization.NF4, one_core(), saved=folder)


def same(one: Any, other: Any) -> bool:
    import torch

    return one.dtype == other.dtype and one.shape == other.shape and bool(torch.equal(one, other))


def test_every_byte_comes_back(base: Base, again: Base) -> None:
    """A base that was saved and loaded has the same packed weights, constants, embeddings and norms."""
    before, after = base.model.state_dict(), again.model.state_dict()
    assert [name for name in before if name.endswith("nested_absmax")]
    assert before.keys() == after.keys()
    assert [name for name in before if not same(before[name], after[name])] == []


def test_answers_and_trainings_are_the_same(base: Base, again: Base) -> None:
    """A base that is loaded from disk answers and trains exactly like the base that was saved."""
    assert ask(base) == ask(again)
    assert losses(trained_once(base)) == losses(trained_once(again))


def test_weights_are_those_of_the_forward_pass(base: Base, folder: Path) -> None:
    """Every weight can be read through `open_base`; 4-bit weights have the values that the forward pass uses."""
    import torch

    saved = open_base(folder)
    named = dict(base.model.named_parameters())
    assert set(saved.names) == named.keys()
    assert saved.packed == {name for name, parameter in named.items() if parameter.dtype is torch.uint8}
    layer = base.model.model.layers[3].mlp.down_proj
    weight = saved.weight("model.layers.3.mlp.down_proj.weight")
    assert (weight.dtype, weight.shape) == (torch.float32, (256, 704))
    with torch.inference_mode():
        inputs = torch.eye(704)
        assert torch.allclose(layer(inputs), inputs @ weight.T, atol=1e-6)
    assert same(saved.weight("model.norm.weight"), named["model.norm.weight"].data)


def test_the_size_on_disk_is_predicted(base: Base, folder: Path) -> None:
    """`size_of` predicts the size of the saved files to within a tenth."""
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert size_of(base.model) == pytest.approx(written, rel=0.1)


def test_a_saved_base_with_missing_weights_is_refused(tmp_path: Path) -> None:
    """A model folder that lacks weights is refused, although transformers would fill them in at random."""
    folder = tmp_path / "renamed"
    shutil.copytree(POCKET, folder)
    tensors = load_file(str(folder / "model.safetensors"))
    other = {name.replace("model.layers.3.", "module.layers.3."): tensor for name, tensor in tensors.items()}
    save_file(other, str(folder / "model.safetensors"), {"format": "pt"})
    for quantization in Quantization:
        with pytest.raises(ModelError, match=r"renamed lacks 9 of its weights, among them model\.layers\.3\."):
            load_base(resolve(str(folder)), quantization, one_core())


def test_a_folder_without_a_base_is_refused(tmp_path: Path) -> None:
    """If a folder has no saved base, `open_base` refuses it."""
    with pytest.raises(EngineError, match="holds no saved base"):
        open_base(tmp_path)


# --- in the cache ------------------------------------------------------------------------------------------------


def commit(cache: Cache, saved: SavedBase = SAVED, size: int = 100) -> None:
    cache.commit_base(saved, size, lambda folder: (folder / "model.safetensors").write_bytes(b"weights") and None)


def test_a_base_is_kept_and_cleared(tmp_path: Path) -> None:
    """A committed base is found in the cache and counts in the cache's size, until the cache is cleared."""
    cache = Cache(tmp_path)
    assert cache.base("key") is None
    commit(cache)
    folder = cache.base("key")
    assert folder is not None
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    (held,) = (part for part in cache.held() if part.kind == "bases")
    assert (held.entries, held.bytes > 7) == (1, True)
    cache.clear()
    assert (cache.base("key"), list(tmp_path.rglob("*.safetensors"))) == (None, [])


def test_a_damaged_base_is_forgotten(tmp_path: Path) -> None:
    """If a byte of a cached base has changed, the base is not found, and is deleted."""
    commit(Cache(tmp_path))
    (tmp_path / "bases" / "key" / "model.safetensors").write_bytes(b"weighty")
    assert Cache(tmp_path).base("key") is None
    assert list((tmp_path / "bases").iterdir()) == []


def test_a_partial_base_is_not_found(tmp_path: Path) -> None:
    """If writing a base fails, no folder of the base is left in the cache."""

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"wei")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        Cache(tmp_path).commit_base(SAVED, 100, fail)
    assert list((tmp_path / "bases").iterdir()) == []


def test_a_full_disk_is_seen_before(tmp_path: Path) -> None:
    """If a base needs more than the free disk space, it is refused before it is written, with its size and a remedy."""
    with pytest.raises(StoreError, match=r"needs 1000000\.0 GB") as refused:
        commit(Cache(tmp_path), size=10**15)
    assert "harness clean" in refused.value.remedy
    assert not (tmp_path / "bases").exists()


def test_a_base_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """If a newer version of the harness wrote a cached base, the base is refused, and is not deleted."""
    commit(Cache(tmp_path))
    path = tmp_path / "bases" / "key" / "base.json"
    write_record(path, SAVED)
    path.write_text(path.read_text(encoding="utf-8").replace(f'"format": {FORMAT}', '"format": 99'), encoding="utf-8")
    with pytest.raises(StoreError, match="99"):
        Cache(tmp_path).base("key")
    assert path.is_file()


def test_a_worker_saves_the_base_and_the_next_takes_it(tmp_path: Path) -> None:
    """A second worker loads the base that the first worker saved, and gives the same answers as the first."""
    first = replace(job(tmp_path, task("base", None)), base="key")
    assert done(first)[0]
    cache = Cache(tmp_path)
    assert cache.base("key") is not None
    nowhere = replace(first, model=replace(first.model, path=str(tmp_path), tokenizer=first.model.path))
    (answered,) = cache.answers("training-base")
    cache.forget("training-base")
    assert done(nowhere)[0]
    (repeated,) = cache.answers("training-base")
    assert repeated.answers == answered.answers


def test_a_base_that_cannot_be_saved_does_not_end_the_worker(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If a worker cannot save the base for later workers, it logs this and continues."""
    (tmp_path / "bases").write_text("in the way", encoding="utf-8")
    assert done(replace(job(tmp_path, task("base", None)), base="key"))[0]
    assert "is not saved for later workers" in capfd.readouterr().out


def test_a_base_is_named_by_what_made_it(suite: Suite) -> None:
    """The id of a base depends on model, device kind, dtype, quantisation and library versions, and not on the rows."""
    versions = {"torch": "2.13", "transformers": "5.23", "bitsandbytes": "0.50", "trl": "1.16"}
    one = Setup(suite, resolve("pocket"), Machine(DeviceKind.CPU, "A", "float32"), Engine.REFERENCE, versions)
    others = [
        replace(one, model=replace(one.model, digest="other")),
        replace(one, machine=Machine(DeviceKind.CUDA, "A", "float32")),
        replace(one, machine=Machine(DeviceKind.CPU, "A", "float16")),
        replace(one, versions=versions | {"bitsandbytes": "0.51"}),
    ]
    alike = [
        replace(one, machine=Machine(DeviceKind.CPU, "B", "float32", memory_cap=5)),
        replace(one, versions=versions | {"trl": "1.17"}),
        replace(one, suite=replace(suite, examples=())),
    ]
    names = [setup.saved_base(Quantization.NF4) for setup in (one, *others)]
    assert len({*names, one.saved_base(Quantization.NONE)}) == len(others) + 2
    assert {setup.saved_base(Quantization.NF4) for setup in alike} == {names[0]}


@pytest.fixture
def suite() -> Suite:
    from tests.support.short_trainings import SUITE

    return SUITE
