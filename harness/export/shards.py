"""Tensors to safetensors files of bounded size, written as they come, so that a killed export goes on where it was.

The format is the one that huggingface/safetensors documents: 8 bytes with the header's length, a JSON header with each
tensor's dtype, shape and place, the bytes. All of it is known before the first tensor is made, so nothing is held.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from harness.records import TensorSpec
from harness.store import file_digest, read_record, write_record, write_text, writing

SIZES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
PROGRESS = "progress.json"
INDEX = "model.safetensors.index.json"


class Tensors(Protocol):
    """What is to be written; a tensor's bytes are made when they are asked for, always the same."""

    @property
    def specs(self) -> Sequence[TensorSpec]: ...

    def chunks(self, spec: TensorSpec) -> Iterable[memoryview]: ...


@dataclass(frozen=True)
class Shard:
    """One file: its name and the tensors that it holds, in their order."""

    name: str
    specs: tuple[TensorSpec, ...]

    @property
    def header(self) -> bytes:
        places: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for spec in self.specs:
            end = at + bytes_of(spec)
            places[spec.name] = {"dtype": SIZES[spec.dtype][0], "shape": list(spec.shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(places, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % 8)

    @property
    def size(self) -> int:
        return 8 + len(self.header) + sum(map(bytes_of, self.specs))


@dataclass(frozen=True)
class Progress:
    """Which files are whole: name to sha256."""

    inputs: str
    """A digest over all that determines them."""
    done: dict[str, str]


def bytes_of(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * SIZES[spec.dtype][1]


def split(specs: Sequence[TensorSpec], limit: int) -> tuple[Shard, ...]:
    """Files of at most `limit` bytes of tensors, save where one tensor is larger."""
    groups: list[list[TensorSpec]] = [[]]
    held = 0
    for spec in specs:
        if groups[-1] and held + bytes_of(spec) > limit:
            groups.append([])
            held = 0
        groups[-1].append(spec)
        held += bytes_of(spec)
    if len(groups) == 1:
        return (Shard("model.safetensors", tuple(groups[0])),)
    names = (f"model-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1))
    return tuple(Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True))


def kept(folder: Path, shards: Sequence[Shard], inputs: str) -> dict[str, str]:
    """What an earlier attempt at the same finished: the files that are there as they were written, with digests."""
    if not (folder / PROGRESS).is_file():
        return {}
    found = read_record(folder / PROGRESS, Progress)
    known = {shard.name: found.done.get(shard.name) for shard in shards if found.inputs == inputs}
    whole = (name for name, sha in known.items() if sha and _is(folder / name, sha))
    return {name: str(known[name]) for name in whole}


def _is(path: Path, sha: str) -> bool:
    return path.is_file() and file_digest(path) == sha


def write(folder: Path, tensors: Tensors, shards: Sequence[Shard], inputs: str) -> Iterator[tuple[str, str]]:
    """Write what is missing and the index; yields each file's name and sha256 when it is whole.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    done = kept(folder, shards, inputs)
    yield from done.items()
    for shard in shards:
        if shard.name not in done:
            done[shard.name] = _write_shard(folder / shard.name, shard, tensors)
            write_record(folder / PROGRESS, Progress(inputs, done))
            yield shard.name, done[shard.name]
    if len(shards) > 1:
        write_text(folder / INDEX, json.dumps(_index(shards), indent=2, sort_keys=True) + "\n")


def _index(shards: Sequence[Shard]) -> dict[str, object]:
    total = sum(bytes_of(spec) for shard in shards for spec in shard.specs)
    where: Mapping[str, str] = {spec.name: shard.name for shard in shards for spec in shard.specs}
    return {"metadata": {"total_size": total}, "weight_map": where}


def _write_shard(path: Path, shard: Shard, tensors: Tensors) -> str:
    """Under another name until every byte is on the disk."""
    partial, sha = path.with_name(f".partial-{path.name}"), hashlib.sha256()
    with writing(path), partial.open("wb", buffering=0) as file:
        header = shard.header
        _put(file, memoryview(len(header).to_bytes(8, "little") + header), sha)
        for spec in shard.specs:
            for chunk in tensors.chunks(spec):
                _put(file, chunk, sha)
        if file.tell() != shard.size:
            raise RuntimeError(f"{path.name} should take {shard.size} bytes and takes {file.tell()}")
        os.fsync(file.fileno())
        os.replace(partial, path)
    return sha.hexdigest()


def _put(file: BinaryIO, chunk: memoryview, sha: hashlib._Hash) -> None:
    sha.update(chunk)
    while chunk:  # the system may take a part of it
        chunk = chunk[file.write(chunk) :]
