"""Tests of writing a model as several safetensors files, which can be continued after an interruption."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import pytest
from safetensors import safe_open

from harness.core.errors import StoreError
from harness.core.export import TensorSpec
from harness.export import shards
from tests.support.fake_tensors import FakeTensors


class ManyParts:
    """One tensor, made in 200 parts. `most` is the largest number of parts that were in memory at the same time."""

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


def written(folder: Path, made: FakeTensors, limit: int = 64) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    return dict(shards.write(folder, made, shards.split(made.specs, limit), "inputs"))


@pytest.mark.parametrize(("limit", "count"), [(1 << 20, 1), (128, 2), (1, 3)])
def test_safetensors_reads_the_files(limit: int, count: int, tmp_path: Path) -> None:
    """The safetensors library finds every tensor, with its dtype, shape and bytes, in the file that the index names."""
    done = written(tmp_path, FakeTensors(), limit)
    assert len(done) == count
    index = json.loads((tmp_path / shards.INDEX).read_text()) if count > 1 else None
    for name in done:
        with safe_open(str(tmp_path / name), framework="np") as file:
            for tensor in file.keys():  # noqa: SIM118
                value = file.get_tensor(tensor)
                assert (value.dtype.name, value.shape) == ("float16", (4, 8))
                assert set(value.tobytes()) == {ord(tensor[0])}
                assert index is None or index["weight_map"][tensor] == name


def test_an_interrupted_export_continues_with_the_next_file(tmp_path: Path) -> None:
    """After an interruption, complete files are kept and the others are written; the result has the same bytes."""
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "stopped", FakeTensors(stop="second"))
    first = tmp_path / "stopped" / "model-00001-of-00003.safetensors"
    assert [path.name for path in first.parent.glob("model-*")] == [first.name]
    before = first.stat().st_mtime_ns
    again, alone = written(tmp_path / "stopped", FakeTensors()), written(tmp_path / "alone", FakeTensors())
    assert first.stat().st_mtime_ns == before
    assert again == alone
    assert all((tmp_path / "stopped" / n).read_bytes() == (tmp_path / "alone" / n).read_bytes() for n in alone)


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    """If a file of an earlier attempt is damaged, it is written again."""
    expected = written(tmp_path, FakeTensors())
    path = tmp_path / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert written(tmp_path, FakeTensors()) == expected
    assert path.read_bytes()[-1:] == b"s"


def test_other_inputs_keep_nothing(tmp_path: Path) -> None:
    """If the inputs differ, or tensors are split into files in another way, no file of an earlier attempt is kept."""
    written(tmp_path, FakeTensors())
    parts = shards.split(FakeTensors().specs, 64)
    assert len(shards.completed(tmp_path, parts, "inputs")) == 3
    assert shards.completed(tmp_path, parts, "others") == {}
    assert shards.completed(tmp_path, shards.split(FakeTensors().specs, 128), "inputs") == {}


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    """If the disk is full, the error says so, and no file with its final name is left."""
    with pytest.raises(StoreError, match="the disk is full: could not write"):
        written(tmp_path, FakeTensors(stop="first", error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("made", [FakeTensors(), ManyParts()], ids=["few parts", "many parts"])
def test_an_error_in_the_writing_thread_is_raised(made: FakeTensors | ManyParts, tmp_path: Path) -> None:
    """If the thread that writes the file fails, its error is raised, and no file with its final name is left."""
    (tmp_path / ".partial-model.safetensors").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"the disk is full: could not write .*model\.safetensors"):
        list(shards.write(tmp_path, made, shards.split(made.specs, 1 << 30), "inputs"))
    assert not (tmp_path / "model.safetensors").exists()
    assert not isinstance(made, ManyParts) or len(made.made) < 100


def test_few_parts_wait_to_be_written(tmp_path: Path) -> None:
    """If parts of a tensor are computed faster than written, only few are in memory, and all are written in order."""
    many = ManyParts()
    list(shards.write(tmp_path, many, shards.split(many.specs, 1 << 30), "inputs"))
    assert len(many.made) == 200
    assert many.most <= shards.MAX_WAITING + 4
    with safe_open(str(tmp_path / "model.safetensors"), framework="np") as file:
        found = file.get_tensor("many")
    assert (found == np.arange(200, dtype=np.float32)[:, None]).all()
