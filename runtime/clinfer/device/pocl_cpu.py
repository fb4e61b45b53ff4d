"""The processor PoCL compiles for, corrected where its LLVM does not know the machine's.

PoCL asks LLVM for the host's name and gives it to clang as the target, while it picks its library
of built-in functions by the host's features. An LLVM older than the processor fails in two ways:

- the name is 'generic', which clang refuses on x86-64: nothing can be built;
- the name is that of an AVX2 processor ('znver3' on a Zen 4), the library is the one for AVX-512:
  half of the registers' width is not used, and no built-in function is inlined, because its
  features are not the caller's.

Debian's PoCL names one processor for each of its libraries of built-in functions, in memory that
cannot be written: 'skylake-avx512' for the one for AVX-512. That needs no correction.

No setting changes the name. `name_a_known_processor` finds it in the device's structure and writes
the name of an older processor with the same instructions over it.
"""

from __future__ import annotations

import ctypes
import sys
from bisect import bisect_right
from collections.abc import Set
from pathlib import Path
from platform import machine

from clinfer.device import processor
from clinfer.device.driver import loaded_libraries, memory_map
from clinfer.errors import DeviceError
from clinfer.log import Log

_LOG = Log("clinfer.device")
_names: list[ctypes.Array[ctypes.c_char]] = []  # that device structures point to
_STRUCTURE_BYTES = 4096
_LONGEST_NAME = 64
# The names that are corrected. All are as long as what may be written over them at least.
_UNKNOWN = b"generic"
_TAKEN_FOR_AVX2 = (b"znver1", b"znver2", b"znver3")
# LLVM's short name of skylake-avx512.
_AVX512 = b"skx"
# By what the processor must have; LLVM 12 and later know the names.
_REPLACEMENTS = (
    (frozenset({"avx2", "fma", "bmi2", "vaes", "sha_ni"}), b"znver3"),
    (frozenset({"avx2", "fma", "bmi2"}), b"haswell"),
    (frozenset({"sse4_2"}), b"nehalem"),
)
_WITH_AVX512 = frozenset(
    [
        "skx",
        "skylake-avx512",
        "cascadelake",
        "cooperlake",
        "cannonlake",
        "icelake-client",
        "icelake-server",
        "tigerlake",
        "rocketlake",
        "sapphirerapids",
        "graniterapids",
        "emeraldrapids",
        "znver4",
        "znver5",
    ]
)


def name_a_known_processor(structure: int) -> str | None:
    """Corrects the processor's name in the device structure at that address.

    Returns the name PoCL compiles for from now on; None where that cannot be told.
    """
    if not sys.platform.startswith("linux") or machine() != "x86_64":
        return None
    host = _llvm_host() or _UNKNOWN
    known = {host, *(name for _, name in _REPLACEMENTS), *(n.encode() for n in _WITH_AVX512)}
    ranges = _Ranges()
    place = _find(structure, known, ranges)
    if place is None:
        return None
    name = ctypes.string_at(place)
    better = _replacement(name)
    if better is None or len(better) > len(name) or not ranges.allow(place, len(name) + 1, "rw"):
        return name.decode()
    ctypes.memmove(place, better + b"\0", len(better) + 1)
    _LOG.info("PoCL's LLVM takes this processor for %r; it compiles for %r", name, better)
    return better.decode()


def compile_for(structure: int, name: str) -> None:
    """Lets PoCL compile for the processor that LLVM calls so, in place of the one it has found.

    Of this process, before its first build: LLVM's code generator is made once for a device. Raises
    `DeviceError` where the structure does not hold the name that is expected.
    """
    now = name_a_known_processor(structure)
    ranges = _Ranges()
    place = None if now is None else _find_pointer(structure, {now.encode()}, ranges)
    if place is None or not ranges.allow(place, 8, "rw"):
        raise DeviceError(f"this PoCL cannot be told to compile for {name!r}: CPU_TARGET")
    text = ctypes.create_string_buffer(name.encode())
    _names.append(text)
    ctypes.c_uint64.from_address(place).value = ctypes.addressof(text)


def uses_avx512(name: str) -> bool:
    """Whether LLVM uses 512-bit registers for a processor of that name."""
    return name in _WITH_AVX512


def _replacement(name: bytes) -> bytes | None:
    if name == _UNKNOWN:
        if processor.has_avx512():
            return _AVX512
        found = processor.flags()
        return next((known for needed, known in _REPLACEMENTS if needed <= found), None)
    if name in _TAKEN_FOR_AVX2 and processor.has_avx512() and _has_library_for_avx512():
        return _AVX512
    return None


def _has_library_for_avx512() -> bool:
    """Whether this PoCL has libraries by features, not one that is named after the processor."""
    beside = ("../share/pocl", "../../pocl_binary_distribution/.libs/share/pocl")
    folders = [path.parent / place for path in loaded_libraries("libpocl") for place in beside]
    folders.append(Path("/usr/share/pocl"))
    return any(True for folder in folders for _ in folder.glob("kernel-x86_64-*-avx512.bc"))


def _llvm_host() -> bytes | None:
    """What PoCL's LLVM calls this processor; None where the library cannot be asked."""
    for path in loaded_libraries("libpocl"):
        try:
            ask = ctypes.CDLL(str(path)).pocl_get_llvm_cpu_name
        except (OSError, AttributeError):
            continue
        ask.restype = ctypes.c_char_p
        name: bytes | None = ask()
        return name
    return None


def _find(structure: int, names: Set[bytes], ranges: _Ranges) -> int | None:
    """The address of a string, pointed to from the structure, that is one of the names."""
    place = _find_pointer(structure, names, ranges)
    return None if place is None else int(ctypes.c_uint64.from_address(place).value)


def _find_pointer(structure: int, names: Set[bytes], ranges: _Ranges) -> int | None:
    """The address in the structure of the pointer to such a string."""
    for address in range(structure, structure + _STRUCTURE_BYTES, 8):
        if not ranges.allow(address, 8, "r"):
            break
        text = ctypes.c_uint64.from_address(address).value
        if ranges.allow(text, _LONGEST_NAME, "r"):
            found = ctypes.string_at(text, _LONGEST_NAME).split(b"\0")[0]
            if found in names:
                return address
    return None


class _Ranges:
    """This process's mapped ranges, in order of their addresses."""

    def __init__(self) -> None:
        lines = [line.split(None, 2)[:2] for line in memory_map()]
        spans = [span.split("-") for span, _ in lines]
        self._starts = [int(start, 16) for start, _ in spans]
        self._ends = [int(end, 16) for _, end in spans]
        self._modes = [mode for _, mode in lines]

    def allow(self, start: int, size: int, access: str) -> bool:
        """Whether the bytes are in one range that can be accessed so: "r", "rw"."""
        index = bisect_right(self._starts, start) - 1
        inside = index >= 0 and start + size <= self._ends[index]
        return inside and all(letter in self._modes[index] for letter in access)
