"""Kernels of PoCL's binaries as functions of this process.

A binary holds a shared object with the function that runs one work-group
(`clinfer.device.pocl_binary`):

    void _pocl_kernel_NAME_workgroup(void** arguments, struct pocl_context*, size_t x, y, z)

Each argument is the address of its value: of a pointer, or a number. The context begins with three
triples of size_t: the numbers of groups, the global offset, the work-group's size. Both are the
same in PoCL 1.8, 3.0, 3.1, 6.0 and 7.1 (its include/pocl_workgroup_func.h and pocl_context.h);
`Quirks` names these versions, and `pocl_binary.check` refuses binaries of others.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from clinfer import forks
from clinfer.device import pocl_binary, scratch

CONTEXT_WORDS = 16
"""64-bit words that hold a context: 13 are in use."""

_LOADED: dict[tuple[str, bytes], MachineCode] = {}
_LOCK = forks.new_lock()


class MachineCode(NamedTuple):
    """A kernel's function; it stays loaded as long as the process lives."""

    address: int

    def function(self) -> Any:
        """The function for Python; other threads run while it does."""
        word = ctypes.c_size_t
        return ctypes.CFUNCTYPE(None, word, word, word, word, word)(self.address)


def load(binary: bytes, entry: str) -> MachineCode:
    """The function of a kernel in a binary, loaded once for each content.

    Raises `LayoutError` where the binary does not hold it, `OSError` where it cannot be loaded.
    """
    code = _shared_object(binary, entry)
    key = (entry, code)
    with _LOCK:
        if key not in _LOADED:
            _LOADED[key] = MachineCode(_open(code, f"_pocl_kernel_{entry}_workgroup"))
        return _LOADED[key]


USED = (0, 0, 0, 0, 0, 0, 1, 1, 1)
"""Of a context: groups along three axes, where they begin, items of a group."""


def context(groups: tuple[int, int, int]) -> tuple[int, ...]:
    """A context for so many groups of one work-item."""
    used = (*groups, *USED[3:])
    return used + (0,) * (CONTEXT_WORDS - len(used))


def _shared_object(binary: bytes, entry: str) -> bytes:
    for kernel in pocl_binary.parse(binary).kernels:
        if kernel.name == entry and kernel.files:
            return kernel.files[0].content
    raise pocl_binary.LayoutError(f"it has no code for kernel '{entry}'")


def _open(code: bytes, symbol: str) -> int:
    """The symbol's address. A loader takes a path it knows for the object it has loaded from there,
    so every object has a path of its own."""
    path = _folder(os.getpid()) / f"{len(_LOADED)}.so"
    path.write_bytes(code)
    try:
        function = getattr(ctypes.CDLL(str(path)), symbol)
    except AttributeError as error:
        raise pocl_binary.LayoutError(f"its code has no function '{symbol}'") from error
    finally:
        path.unlink()
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


@cache
def _folder(_process: int) -> Path:
    """A folder of this process, not of one that it was forked from."""
    return scratch.new_folder()
