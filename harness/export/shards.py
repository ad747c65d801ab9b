"""Writes a model as several safetensors files ("shards") of limited size, so that a killed export can resume.

A safetensors file (documented by huggingface/safetensors) consists of 8 bytes with the header's length, a JSON header
with the dtype, shape and offsets of each tensor, and the tensors' bytes. The header needs only dtypes and shapes, so
tensors are computed and written one at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from harness.core.export import TensorSpec
from harness.core.hashing import file_digest
from harness.storage.files import write_text, writing
from harness.storage.records import read_record, write_record

SIZES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
PROGRESS = "progress.json"
INDEX = "model.safetensors.index.json"
MAX_WAITING = 16
"""Largest number of computed parts that wait to be written. In a merge to 16 bits they take 32 MiB."""
SYNC = 256 << 20
"""Bytes after which data is flushed to disk. By itself, the system would begin to write only after gigabytes."""


class Tensors(Protocol):
    """The tensors of a model. Their bytes are computed on each read, with the same result."""

    @property
    def specs(self) -> Sequence[TensorSpec]: ...

    def chunks(self, spec: TensorSpec) -> Iterable[memoryview]: ...


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its name and its tensors, in order."""

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
    """The progress of an export, stored beside its files."""

    inputs: str
    """Digest of everything that determines the contents of the files."""
    done: dict[str, str]
    """Name of each complete file, with its sha256."""


def bytes_of(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * SIZES[spec.dtype][1]


def split(specs: Sequence[TensorSpec], limit: int) -> tuple[Shard, ...]:
    """Distribute tensors over files of at most `limit` bytes each. A larger tensor gets a file of its own."""
    groups: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if groups[-1] and size + bytes_of(spec) > limit:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += bytes_of(spec)
    if len(groups) == 1:
        return (Shard("model.safetensors", tuple(groups[0])),)
    names = (f"model-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1))
    return tuple(Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True))


def completed(folder: Path, shards: Sequence[Shard], inputs: str) -> dict[str, str]:
    """Name and sha256 of files that an earlier attempt at the same export completed."""
    if not (folder / PROGRESS).is_file():
        return {}
    found = read_record(folder / PROGRESS, Progress)
    known = {shard.name: found.done.get(shard.name) for shard in shards if found.inputs == inputs}
    whole = (name for name, sha in known.items() if sha and _is(folder / name, sha))
    return {name: str(known[name]) for name in whole}


def _is(path: Path, sha: str) -> bool:
    return path.is_file() and file_digest(path) == sha


def write(folder: Path, tensors: Tensors, shards: Sequence[Shard], inputs: str) -> Iterator[tuple[str, str]]:
    """Write the missing files and the index. Yields the name and sha256 of each safetensors file once it is complete.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    done = completed(folder, shards, inputs)
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
    """Write a file under a temporary name, and rename it when every byte is on disk. Returns its sha256."""
    partial = path.with_name(f".partial-{path.name}")
    with writing(path), partial.open("wb", buffering=0) as file:
        sha = _fill(file, _parts(shard, tensors))
        if file.tell() != shard.size:
            raise RuntimeError(f"{path.name} should take {shard.size} bytes and takes {file.tell()}")
        os.fsync(file.fileno())
        os.replace(partial, path)
    return sha


def _parts(shard: Shard, tensors: Tensors) -> Iterator[memoryview]:
    header = shard.header
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for spec in shard.specs:
        yield from tensors.chunks(spec)


def _fill(file: BinaryIO, parts: Iterable[memoryview]) -> str:
    """Write the parts to a file and return their sha256.

    One thread hashes and writes while this thread computes the next part; another thread flushes to disk. Errors of
    both threads are raised here.
    """
    sha, written = hashlib.sha256(), 0
    waiting, syncs = deque[Future[int]](), list[Future[None]]()
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as syncer:
        for part in parts:
            waiting.append(writer.submit(_put, file, part, sha))
            if len(waiting) > MAX_WAITING:
                written += waiting.popleft().result()
            if written >= SYNC * (len(syncs) + 1):
                syncs.append(syncer.submit(os.fdatasync, file.fileno()))
        for put in waiting:
            put.result()
        for sync in syncs:
            sync.result()
    return sha.hexdigest()


def _put(file: BinaryIO, part: memoryview, sha: hashlib._Hash) -> int:
    sha.update(part)
    left = part
    while left:  # a write may accept only a part of the bytes
        left = left[file.write(left) :]
    return part.nbytes
