"""Reading Intel's program binaries of the format "zebin", as far as they describe themselves.

A zebin is an ELF file (documentation of the zebin format in Intel's graphics compiler): a section
`.text.KERNEL` per kernel, a symbol table, and notes of owner IntelGT; that of type 6 holds the
architecture's version in the same bits as CL_DEVICE_IP_VERSION_INTEL.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

Version = tuple[int, ...]

_ELF64 = b"\x7fELF\x02\x01"
_INTEL_GT = 205
_PRODUCT_CONFIG = 6
_SECTION, _SYMBOL = 64, 24
_SYMBOLS, _NOTES = 2, 7
# Symbols that the driver's loader fills in; any other one without a section is a missing function.
_PATCHED = re.compile(r"_*INTEL_PATCH_|__SubDeviceID|__ImplicitArg")


class Zebin(NamedTuple):
    """Its kernels, the architecture that it is for (() where it does not say), what it lacks."""

    kernels: tuple[str, ...]
    version: Version
    unresolved: tuple[str, ...]


class _Section(NamedTuple):
    name: str
    kind: int
    content: bytes
    link: int


def is_zebin(binary: bytes) -> bool:
    """Whether the file begins as one; the driver's older formats do not."""
    return binary.startswith(_ELF64) and int.from_bytes(binary[18:20], "little") == _INTEL_GT


def described(binary: bytes) -> Zebin:
    """What a zebin says of itself. Raises `ValueError` where it is damaged."""
    try:
        return _described(_sections(binary))
    except (struct.error, IndexError) as error:
        raise ValueError(str(error)) from error


def version_of(number: int) -> Version:
    """10 bits major, 8 minor, 6 revision from bit 0; () where there is no major version.

    Drivers of 2022 have another form, with nothing in the upper bits.
    """
    major, minor, revision = number >> 22, number >> 14 & 0xFF, number & 0x3F
    return (major, minor, revision) if major else ()


def _described(sections: list[_Section]) -> Zebin:
    kernels: list[str] = []
    missing: list[str] = []
    version: Version = ()
    for section in sections:
        if section.name.startswith(".text."):
            kernels.append(section.name[len(".text.") :])
        elif section.kind == _NOTES:
            version = _noted_version(section.content) or version
        elif section.kind == _SYMBOLS:
            missing += _undefined(section.content, sections[section.link].content)
    unresolved = tuple(name for name in missing if not _PATCHED.match(name))
    return Zebin(tuple(kernels), version, unresolved)


def _sections(binary: bytes) -> list[_Section]:
    """Raises `ValueError`, `IndexError` and `struct.error`."""
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    count, names = struct.unpack_from("<HH", binary, 0x3C)
    rows = [struct.unpack_from("<IIQQQQIIQQ", binary, table + i * _SECTION) for i in range(count)]
    parts = [binary[row[4] : row[4] + row[5]] for row in rows]
    if any(len(part) != row[5] for part, row in zip(parts, rows, strict=True)):
        raise ValueError("a section is cut off")
    texts = parts[names]
    return [
        _Section(_text(texts, row[0]), row[1], part, row[6])
        for part, row in zip(parts, rows, strict=True)
    ]


def _text(texts: bytes, start: int) -> str:
    return texts[start : texts.index(b"\0", start)].decode("utf-8", "replace")


def _undefined(symbols: bytes, texts: bytes) -> list[str]:
    """Names of symbols without a section."""
    whole = symbols[: len(symbols) // _SYMBOL * _SYMBOL]
    rows = struct.iter_unpack("<IBBHQQ", whole)
    found = [_text(texts, offset) for offset, _, _, section, _, _ in rows if section == 0]
    return [name for name in found if name]


def _noted_version(notes: bytes) -> Version:
    place = 0
    while place + 12 <= len(notes):
        owner, size, kind = struct.unpack_from("<III", notes, place)
        content = place + 12 + -(-owner // 4) * 4
        if kind == _PRODUCT_CONFIG and size == 4 and content + 4 <= len(notes):
            return version_of(*struct.unpack_from("<I", notes, content))
        place = content + -(-size // 4) * 4
    return ()
