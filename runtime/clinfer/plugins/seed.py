"""Programs from the seed layer: what an installed package brings need not be compiled.

A seed's programs are compiled for levels of x86-64 (`clinfer.device.cpu_target`), and so are their
keys. A processor uses those of the highest level that it has, where the registers are as wide as
its own compiler would use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.cache import seed
from clinfer.cache.layers import CacheMode, Layers
from clinfer.device import pocl_binary
from clinfer.device.cpu_target import TARGETS, CpuTarget
from clinfer.device.processor import flags
from clinfer.errors import BlobError, BuildError, ModelError
from clinfer.log import Log
from clinfer.plugins.compiler import program_record
from clinfer_kernels.player import ENTRY

if TYPE_CHECKING:
    from clinfer.cache.record import KeyRecord
    from clinfer.device.discover import Device, DeviceInfo
    from clinfer.device.lock import Described
    from clinfer.device.programs import BuiltProgram
    from clinfer.lowering.content import Draft
    from clinfer.lowering.plan import Program
    from clinfer.plugins.base import Request, Source
    from clinfer_kernels.spec import Target

LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
"""The targets that seeds are made for, highest first."""

IR_ENTRY = "nothing"
_IR_TEXT = f"__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void {IR_ENTRY}(void) {{}}\n"
_LOG = Log("clinfer.plugins")


def ir_program() -> Program:
    """The one program that a seed holds with its IR, which PoCL is given for that of the others."""
    from clinfer.lowering.plan import Program

    return Program(IR_ENTRY, _IR_TEXT, "")


class _Aimed(NamedTuple):
    """A device as its programs for a target know it."""

    info: DeviceInfo
    target: Target


def aimed(device: Described, target: CpuTarget) -> _Aimed:
    """A device as the keys of what is made for it and a target have it."""
    return _Aimed(target.described(device.info), device.target)


class Seed:
    """The seed layer for a device: its folder, and the target whose programs the device takes."""

    def __init__(self, folder: Path, device: Described, target: CpuTarget) -> None:
        self.folder = folder
        self.target = target
        self._layers = Layers(readonly=[seed.open_store(folder)], mode=CacheMode.READ_ONLY)
        self._device = device
        self._aimed = aimed(device, target)

    @classmethod
    def of(cls, device: Described, mode: str = "read-write") -> Seed | None:
        """None where no seed is installed, none can fit the device, or the cache's mode forbids it.

        'cache-only' asks what the caches have, and no more.
        """
        target = None if mode in ("off", "cache-only") else level_of(device)
        folder = None if target is None else seed.find()
        return None if target is None or folder is None else cls(folder, device, target)

    def record(self, program: Program) -> KeyRecord:
        """The key that a program has in the seed."""
        return program_record(program, self._aimed)

    def binary(self, program: Program) -> bytes | None:
        """A program's binary as the device's driver takes it; None where it is not there.

        Nothing of it is right but its digest and its key: `load` checks its form.
        """
        entry = self._layers.get(self.record(program))
        if entry is None or self._ir is None:
            return None
        try:
            binary = pocl_binary.with_ir(bytes(entry.section("binary")), self._ir)
            if not self._device.info.cpu_target:
                binary = pocl_binary.addressed(binary, self._device.info.device_version)
        except (BlobError, pocl_binary.LayoutError) as error:
            self._layers.reject(entry, str(error))
            return None
        return binary

    @cached_property
    def _ir(self) -> bytes | None:
        """The binary of `ir_program`."""
        entry = self._layers.get(self.record(ir_program()))
        return None if entry is None else bytes(entry.sections.get("binary", b""))

    def draft(self, source: Source, request: Request) -> Draft | None:
        """The plan of a model as the seed's maker lowered it; None where it is not there."""
        from clinfer.plugins import drafts

        if source.digest is None or source.extensions:
            return None
        entry = self._layers.get(drafts.draft_record(source, self._aimed, request.properties))
        if entry is None:
            return None
        _LOG.debug("the draft of the model is in the seed '%s'", self.folder)
        try:
            return drafts.load(entry, source, request.device, request.look)
        except BlobError as error:
            self._layers.reject(entry, str(error))
            return None
        except ModelError as error:  # of the model's file, which is read again
            _LOG.debug("the draft is not used: %s", error)
            return None

    def load_all(self, programs: Sequence[Program], device: Device) -> list[BuiltProgram | None]:
        """The programs on their device; None for each that the seed has not, or has damaged.

        Of a plan with a player the driver is given the player only.
        """
        played = any(program.entry == ENTRY for program in programs)
        loaded = [self._load(p, device, played and p.entry != ENTRY) for p in programs]
        count = sum(program is not None for program in loaded)
        _LOG.debug("%d of %d programs are in the seed '%s'", count, len(programs), self.folder)
        return loaded

    def _load(self, program: Program, device: Device, lazily: bool) -> BuiltProgram | None:
        from clinfer.device.programs import SourceProgram, load

        binary = self.binary(program)
        if binary is None:
            return None
        source = SourceProgram(program.source, program.options, program.entry, program.local_size)
        try:
            return load(device, source, binary, lazily)
        except BuildError as error:
            _LOG.warning("a program of the seed '%s' is not used: %s", self.folder, error)
            return None

    def missing(self, programs: Sequence[Program]) -> list[str]:
        """Why programs are not there, for people; nothing is said of those that are.

        Without the program that has the IR of all, none is.
        """
        shared = self.record(ir_program())
        if not self._layers.holds(shared):
            return [self._layers.explain(shared, "the IR of the programs")] * len(programs)
        found = []
        for program in programs:
            record = self.record(program)
            if not self._layers.holds(record):
                found.append(self._layers.explain(record, f"program '{program.entry}'"))
        return found

    def to_json(self) -> dict[str, Any]:
        """Where it lies, the target whose programs the device takes, and what it says of itself."""
        said = seed.facts(self.folder)
        return {"folder": str(self.folder), "target": self.target.name, **said}


def level_of(device: Described) -> CpuTarget | None:
    """The target whose programs run on a device as well as its own.

    That is the one of CPU_TARGET, else the highest level of this machine's processor with vectors
    as wide as the device's; None for drivers other than the PoCL whose binaries are known.
    """
    info = device.info
    if info.kind != "cpu" or not info.plays:
        return None
    if info.cpu_target:
        return TARGETS[info.cpu_target]
    levels = (TARGETS[name] for name in LEVELS)
    return next((t for t in levels if t.lanes == info.vector_width and t.needs <= flags()), None)
