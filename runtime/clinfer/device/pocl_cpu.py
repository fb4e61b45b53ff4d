"""PoCL on processors newer than its LLVM.

PoCL asks LLVM for the host's name and gives it to clang as the target. For a processor that LLVM does
not know the name is 'generic', which clang refuses on x86-64 ("unknown target CPU 'generic'"), so
that nothing can be built. No setting of PoCL 3 changes the name. `name_a_known_processor` finds it in
the device's structure and writes the name of an older processor with the same instructions over it.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from platform import machine

_LOG = logging.getLogger("clinfer.device")
_REFUSED = b"generic\0"
_STRUCTURE_BYTES = 4096
_given: list[str] = []  # names written; PoCL's devices share one text
# By what the processor must have; the names are as long as 'generic' at most, and LLVM >= 12 knows
# them. The first that fits is used. 'skx' is Skylake-X: its name goes with PoCL's library of built-in
# functions for AVX-512, which PoCL chooses by the processor's features.
_KNOWN = (
    (frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}), b"skx\0"),
    (frozenset({"avx2", "fma", "bmi2", "vaes", "sha_ni"}), b"znver3\0"),
    (frozenset({"avx2", "fma", "bmi2"}), b"haswell\0"),
    (frozenset({"sse4_2"}), b"nehalem\0"),
)


def name_a_known_processor(structure: int) -> str | None:
    """Corrects the processor's name in the device structure at that address.

    Returns the name it now has, None where there was nothing to correct.
    """
    if not sys.platform.startswith("linux") or machine() != "x86_64":
        return None
    ranges = list(_memory())
    for address in range(structure, structure + _STRUCTURE_BYTES, 8):
        if not _inside(ranges, address, 8, "r"):
            break
        text = ctypes.c_uint64.from_address(address).value
        if not _inside(ranges, text, len(_REFUSED), "rw"):
            continue
        if ctypes.string_at(text, len(_REFUSED)) == _REFUSED:
            name = _known_name()
            if name is None:
                return None
            ctypes.memmove(text, name, len(name))
            _given.append(name[:-1].decode())
            _LOG.info("PoCL's LLVM does not know this processor; it compiles for %s", _given[0])
            return _given[0]
    return None


def compiles_for_avx512() -> bool:
    """Whether a processor's name was corrected to one with 512-bit vectors."""
    return _given[:1] == ["skx"]


def processor_flags() -> frozenset[str]:
    """The processor's features, as Linux names them; none elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _known_name() -> bytes | None:
    flags = processor_flags()
    return next((name for needed, name in _KNOWN if needed <= flags), None)


def _memory() -> Iterator[tuple[int, int, str]]:
    """This process's mapped ranges: start, end, access."""
    with Path("/proc/self/maps").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            span, access = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            yield start, end, access


def _inside(ranges: list[tuple[int, int, str]], start: int, size: int, access: str) -> bool:
    return any(
        low <= start and start + size <= high and all(a in mode for a in access)
        for low, high, mode in ranges
    )
