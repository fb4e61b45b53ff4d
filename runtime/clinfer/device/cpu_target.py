"""Processors that code is made for, in place of this machine's: the property CPU_TARGET.

A cache filled for a named target serves every machine that has its instructions, so what keys and
kernels take from the device must be the target's, not that of the machine at hand: `described` puts
a target's facts in place of the processor's name, its cores and its caches.

PoCL compiles for the processor named in its device structure and links the library of built-in
functions that fits the machine's features; a target has a name for the one and a file for the other
(`clinfer.device.pocl_cpu`, `clinfer.device.pocl_view`).
"""

from __future__ import annotations

import re
from collections.abc import Set
from platform import machine
from typing import TYPE_CHECKING, NamedTuple

from clinfer.device import processor
from clinfer.errors import DeviceError

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo

# Work is divided for so many cores, whatever the machine has: parts are taken one by one, so that
# fewer cores only take more of them each, and more than this find nothing to do in small models.
_UNITS = 16
# Bytes. Every processor of level 2 has as much cache per core.
_LOCAL_MEM = 256 << 10
_ADDRESS = re.compile(r"(?<=HSTR: )\S+")


class CpuTarget(NamedTuple):
    """A target: its name, what LLVM and PoCL's library of functions call it, what it needs.

    `lanes` are the float32 lanes of its vector registers; `needs` are features by Linux's names.
    """

    name: str
    compiler: str
    library: str
    lanes: int
    needs: frozenset[str]

    def described(self, info: DeviceInfo) -> DeviceInfo:
        """The facts of a CPU device that compiles for this target."""
        return info._replace(
            full_name=self.name,
            vendor="x86-64",
            device_version=_ADDRESS.sub(self.compiler, info.device_version),
            compute_units=_UNITS,
            local_mem=_LOCAL_MEM,
            vector_width=self.lanes,
            processor=f"{self.compiler}/{self.name}",
            cpu_target=self.name,
        )

    def require_here(self) -> None:
        """Raises `DeviceError` where this machine's processor lacks instructions of the target."""
        lacking = sorted(self.needs - processor.flags())
        if lacking:
            here = processor.instruction_set().partition("+")[0]
            raise DeviceError(
                f"CPU_TARGET={self.name} cannot run on this processor ({here}), which lacks "
                f"{', '.join(lacking)}: set a lower CPU_TARGET; 'clinfer warm --cpu-target' takes "
                "several"
            )


def _made(
    name: str, base: str, compiler: str, library: str, lanes: int, more: Set[str] = frozenset()
) -> CpuTarget:
    return CpuTarget(name, compiler, library, lanes, processor.LEVELS[base] | more)


_LZCNT = frozenset({"abm"})
_ICELAKE = frozenset({"avx512_vnni", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg"}) | {
    "avx512_vpopcntdq",
    "avx512ifma",
    "gfni",
    "vaes",
    "vpclmulqdq",
}
# The levels of the x86-64 psABI, and processors by LLVM's names. The oldest LLVM of a PoCL that is
# supported, 12, knows all of what stands in the column of the compiler.
TARGETS = {
    target.name: target
    for target in (
        _made("x86-64-v2", "x86-64-v2", "nehalem", "sse41", 4),
        _made("x86-64-v3", "x86-64-v3", "haswell", "avx2", 8, _LZCNT),
        _made("x86-64-v4", "x86-64-v4", "skx", "avx512", 16, _LZCNT),
        _made("nehalem", "x86-64-v2", "nehalem", "sse41", 4),
        _made("sandybridge", "x86-64-v2", "sandybridge", "avx", 8, {"avx"}),
        _made("haswell", "x86-64-v3", "haswell", "avx2", 8, _LZCNT),
        _made("broadwell", "x86-64-v3", "broadwell", "avx2", 8, _LZCNT | {"adx"}),
        _made("skylake", "x86-64-v3", "skylake", "avx2", 8, _LZCNT | {"adx", "xsavec"}),
        _made("znver1", "x86-64-v3", "znver1", "avx2", 8, _LZCNT | {"sse4a", "sha_ni"}),
        _made("znver2", "x86-64-v3", "znver2", "avx2", 8, _LZCNT | {"sse4a", "sha_ni", "clwb"}),
        _made("znver3", "x86-64-v3", "znver3", "avx2", 8, _LZCNT | {"sse4a", "vaes"}),
        _made("skylake-avx512", "x86-64-v4", "skx", "avx512", 16, _LZCNT),
        _made("cascadelake", "x86-64-v4", "cascadelake", "avx512", 16, _LZCNT | {"avx512_vnni"}),
        _made("icelake-server", "x86-64-v4", "icelake-server", "avx512", 16, _LZCNT | _ICELAKE),
    )
}


def named(name: str) -> CpuTarget | None:
    """The target of a value of CPU_TARGET; None for '', this machine's processor.

    Raises `DeviceError` on machines other than x86-64, whose PoCL has one library for all.
    """
    if not name:
        return None
    if machine() not in ("x86_64", "AMD64"):
        raise DeviceError(f"CPU_TARGET={name} is for x86-64; this machine is {machine()}")
    return TARGETS[name]
