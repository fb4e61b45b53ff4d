"""Devices written down: what a cache's keys and a kernel's target take from a device, as a file.

A lock file holds the `DeviceInfo` of one or several devices as JSON. With it a machine without the
device knows what would be compiled for it and under which keys; building takes the device itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints

from clinfer.device.asked import is_named
from clinfer.device.discover import DeviceInfo
from clinfer.device.quirks import quirks_of
from clinfer.device.target import at_precision, derive_target
from clinfer.errors import DeviceError
from clinfer_kernels.spec import Target

PREFIX = "@"
"""A device's name that starts so is the path of a lock file."""

_FORMAT = 1
_PLAIN = Target(cls="gpu")
Locked = TypeVar("Locked", bound="LockedDevice")
_MOST_BYTES = 1 << 20
# Facts that no program depends on: some change from start to start, and a GPU is compiled for alike
# where it is simulated.
_FREE = ("name", "global_mem", "max_alloc", "is_simulated", "ip_version")


class Described(Protocol):
    """A device as far as it is described: opened here, or from a lock file."""

    @property
    def info(self) -> DeviceInfo:
        """What its driver says."""

    @property
    def target(self) -> Target:
        """What kernels are generated for."""


@dataclass(frozen=True)
class LockedDevice:
    """A device that need not be in this machine."""

    info: DeviceInfo
    precision: str = _PLAIN.precision

    @cached_property
    def target(self) -> Target:
        """The target, derived as for an opened device."""
        quirks = quirks_of(self.info.platform, self.info.platform_version)
        return derive_target(self.info, quirks)._replace(precision=self.precision)

    def at_precision(self: Locked, hint: str) -> Locked:
        """The device multiplying with that precision (`target.at_precision`)."""
        found = at_precision(self.target, hint, self.info.name)
        return replace(self, precision=found.precision)


def write_lock(path: Path, devices: Sequence[DeviceInfo]) -> None:
    """Writes a lock file, the same bytes at each start. Raises `DeviceError` where it cannot."""
    document = {"format": _FORMAT, "devices": [_plain(info) for info in devices]}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DeviceError(f"the lock file '{path}' cannot be written: {error}") from error


def read_lock(path: Path) -> tuple[LockedDevice, ...]:
    """The devices of a lock file. Raises `DeviceError` saying what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DeviceError(f"the lock file '{path}' cannot be read: {error}") from error
    if len(data) > _MOST_BYTES:
        raise DeviceError(f"the lock file '{path}' is longer than {_MOST_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"the lock file '{path}' is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DeviceError(f"'{path}' is no lock file of format {_FORMAT}; 'clinfer devices --lock'")
    rows = document.get("devices")
    if not isinstance(rows, list) or not rows:
        raise DeviceError(f"the lock file '{path}' names no device")
    return tuple(LockedDevice(_info(row, path)) for row in rows)


def locked_device(path: Path, name: str = "AUTO") -> LockedDevice:
    """The device of that name in a lock file; AUTO is the first GPU, else the CPU.

    Raises `DeviceError` naming the devices there are.
    """
    devices = read_lock(path)
    wanted = name.upper()
    if wanted == "AUTO":
        return min(devices, key=lambda device: not device.info.name.startswith("GPU"))
    for device in devices:
        if is_named(device.info.name, wanted):
            return device
    names = ", ".join(device.info.name for device in devices)
    raise DeviceError(f"there is no device {name!r} in '{path}', only {names}")


def differences(locked: DeviceInfo, found: DeviceInfo) -> dict[str, tuple[Any, Any]]:
    """The facts in which a device differs from the locked one: name -> (locked, found).

    Our name for it, the size of its memory and whether it is simulated may differ.
    """
    pairs = {
        name: (getattr(locked, name), getattr(found, name))
        for name in DeviceInfo._fields
        if name not in _FREE
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _plain(info: DeviceInfo) -> dict[str, Any]:
    """An info as JSON holds it: sets in order.

    Without sizes of memory, which differ from start to start: the file's digest is to be a name for
    what is compiled for its devices.
    """
    values = info._replace(global_mem=0, max_alloc=0)._asdict().items()
    return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in values}


def _info(row: Any, path: Path) -> DeviceInfo:
    if not isinstance(row, dict):
        raise DeviceError(f"the lock file '{path}': a device is an object, found {row!r}")
    known = get_type_hints(DeviceInfo)
    if row.keys() != known.keys():
        wrong = ", ".join(sorted(row.keys() ^ known.keys()))
        raise DeviceError(
            f"the lock file '{path}' is of another release of clinfer (these facts are missing or "
            f"unknown: {wrong}); write it again with 'clinfer devices --lock'"
        )
    try:
        return DeviceInfo(**{name: _READERS[kind](row[name]) for name, kind in known.items()})
    except TypeError as error:
        raise DeviceError(f"the lock file '{path}': a fact has another type: {error}") from None


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{value!r}, expected {kind.__name__}")
        return value

    return read


def _list_of(kind: type, made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    one = _exactly(kind)

    def read(value: Any) -> Any:
        return made([one(item) for item in _exactly(list)(value)])

    return read


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    str: _exactly(str),
    int: _exactly(int),
    bool: _exactly(bool),
    frozenset[str]: _list_of(str, frozenset),
    tuple[int, ...]: _list_of(int, tuple),
}
