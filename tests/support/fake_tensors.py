"""Tensors that tests export instead of a model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.core.export import TensorSpec


@dataclass(frozen=True)
class FakeTensors:
    """Three named tensors, each filled with the first letter of its name.

    After half of the tensor that `stop` names, `error` is raised.
    """

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
