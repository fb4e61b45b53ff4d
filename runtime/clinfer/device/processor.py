"""The host's processor: its instruction sets, as far as compiled kernels depend on them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from platform import machine

from clinfer.device import matrix_registers

# Levels of the x86-64 psABI, best first, by Linux's names of what they add.
_V2 = frozenset({"cx16", "popcnt", "ssse3", "sse4_1", "sse4_2"})
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}
"""Features that a level has, best first."""
# Beyond the levels: what compilers of kernels use where it is there.
_ADDED = [
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx512vbmi",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimdhp",
    "asimddp",
    "sve",
    "sve2",
    "i8mm",
    "bf16",
]


@lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """The processor's features, as Linux names them; none on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def has_avx512() -> bool:
    """Whether the processor has all of what compilers call AVX-512 (level 4)."""
    return flags() >= _V4


def float_lanes() -> int:
    """float32 lanes of a vector register."""
    if has_avx512():
        return 16
    return 8 if "avx" in flags() else 4


def instruction_set() -> str:
    """What machine code made for this processor needs: 'x86-64-v4+avx512_vnni+avx512_bf16'.

    Matrix registers are among it where the system lets this process use them.
    """
    found = flags()
    if found & matrix_registers.NAMES and not matrix_registers.are_allowed():
        found -= matrix_registers.NAMES
    level = next((name for name, needed in LEVELS.items() if needed <= found), machine().lower())
    return "+".join([level, *(name for name in _ADDED if name in found)])
