"""The kinds of devices and the units of measurements."""

from __future__ import annotations

from enum import StrEnum


class DeviceKind(StrEnum):
    """A kind of device that trials run on."""

    CPU = "cpu"
    CUDA = "cuda"


class Unit(StrEnum):
    """The unit of a measurement."""

    SECONDS = "s"
    BYTES = "bytes"
