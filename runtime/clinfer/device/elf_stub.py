"""A shared object with one function that nobody calls: what a loader accepts as "already built".

The file, all in one readable segment at address 0 (System V ABI, "Dynamic Linking"):

    ELF header | 3 program headers | dynamic table | hash table | symbol table | names

The third header says that the stack need not be executable: without it the loader of glibc 2.41 and
later refuses the object.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_HEADER = 64
_PROGRAM_HEADER = 56
_SYMBOL = 24
_MACHINE_OFFSET = 18
_SHARED_OBJECT = 3
_LOAD, _DYNAMIC, _GNU_STACK = 1, 2, 0x6474E551
_READ, _READ_WRITE = 4, 6
_PROGRAM_HEADERS = 3
_HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _SYMBOL_SIZE = 4, 5, 6, 10, 11
_GLOBAL_FUNCTION = 0x12
_DYNAMIC_ENTRIES = 6


def shared_object(function: str, machine: bytes | None = None) -> bytes:
    """The bytes of a 64-bit little-endian shared object that defines that one symbol.

    `machine` is the two bytes that name the processor in an ELF header; this process's by default.
    """
    dynamic = _HEADER + _PROGRAM_HEADERS * _PROGRAM_HEADER
    hashes = dynamic + _DYNAMIC_ENTRIES * 16
    symbols = hashes + 5 * 4 + 4  # one bucket, two chains; then aligned to 8
    strings = symbols + 2 * _SYMBOL
    names = b"\0" + function.encode() + b"\0"
    size = strings + len(names)
    table = struct.pack(
        "<12Q",
        *(_HASH, hashes, _SYMBOLS, symbols, _STRINGS, strings),
        *(_STRINGS_SIZE, len(names), _SYMBOL_SIZE, _SYMBOL, 0, 0),
    )
    # One bucket, so every name is looked for in the chain that starts at symbol 1 and ends there.
    lookup = struct.pack("<6I", 1, 2, 1, 0, 0, 0)
    symbol = struct.pack("<IBBHQQ", 1, _GLOBAL_FUNCTION, 0, 1, dynamic, 0)
    header = struct.pack(
        "<16sH2sIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(_SHARED_OBJECT, machine or _this_machine(), 1, 0, _HEADER, 0, 0),
        *(_HEADER, _PROGRAM_HEADER, _PROGRAM_HEADERS, 0, 0, 0),
    )
    segments = struct.pack("<II6Q", _LOAD, _READ, 0, 0, 0, size, size, 4096)
    length = _DYNAMIC_ENTRIES * 16
    segments += struct.pack("<II6Q", _DYNAMIC, _READ, dynamic, dynamic, dynamic, length, length, 8)
    segments += struct.pack("<II6Q", _GNU_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return header + segments + table + lookup + bytes(_SYMBOL) + symbol + names


def _this_machine() -> bytes:
    with Path(sys.executable).open("rb") as file:
        return file.read(_MACHINE_OFFSET + 2)[_MACHINE_OFFSET:]
