"""Permission to use the matrix registers of Intel's AMX, which Linux gives to processes that ask.

Kernels that use them end a process that has not asked (Linux, Documentation/arch/x86/xstate.rst).
It holds for all threads and is inherited by processes that are forked.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from platform import machine

_ARCH_PRCTL = 158  # the system call's number on x86-64
_REQUEST = 0x1023  # ARCH_REQ_XCOMP_PERM
_TILE_DATA = 18  # the state's number
NAMES = frozenset({"amx_tile", "amx_int8", "amx_bf16"})
"""The features that need it, as Linux names them."""


@lru_cache(maxsize=1)
def are_allowed() -> bool:
    """Asks, the first time; whether this process may use them."""
    if not sys.platform.startswith("linux") or machine() != "x86_64":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (AttributeError, OSError):
        return False
    call.restype = ctypes.c_long
    asked = (_ARCH_PRCTL, _REQUEST, _TILE_DATA)
    return bool(call(*map(ctypes.c_long, asked)) == 0)
