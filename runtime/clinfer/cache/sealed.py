"""A sealed index: the index of a pack with its signatures, as a pack file begins and as the file
`pack.index` of a directory.

    offset 0    8   magic 89 'CLPAK' CR LF
           8    4   format version (1)
          12    4   number of signatures, at most 16
          16    8   bytes of the index
          24    index, see `clinfer.cache.index`
                signatures, 96 bytes each: public key, Ed25519 signature of the index
                32  SHA-256 of everything above

Integers are little-endian. The SHA-256 finds damage; the signatures, made over a line that names
their purpose followed by the index, find malice. They are checked before the index is parsed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from clinfer.cache.index import LIMITS, Index, Limits
from clinfer.cache.signing import INDEX_PURPOSE, SIGNED_BYTES, Signature, SigningKey
from clinfer.errors import CacheError

MAGIC = b"\x89CLPAK\r\n"
FORMAT_VERSION = 1
INDEX_FILE = "pack.index"
"""The name of a sealed index in a directory."""
_MOST_SIGNATURES = 16
_HEAD = struct.Struct("<8sIIQ")
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Sealed:
    """An index as bytes, not parsed yet, its signatures, not checked yet, and the seal's size."""

    index: bytes
    signatures: tuple[Signature, ...]
    nbytes: int

    @property
    def digest(self) -> str:
        """SHA-256 of the index, in hexadecimal."""
        return hashlib.sha256(self.index).hexdigest()


def seal(index: Index, keys: Iterable[SigningKey] = ()) -> bytes:
    """The sealed form of an index, signed with each key. Raises CacheError for one too long."""
    encoded = index.encode()
    if len(encoded) > LIMITS.index or len(index.entries) > LIMITS.entries:
        raise CacheError(
            f"{len(index.entries)} entries ({len(encoded)} bytes of index) are too many for one "
            f"pack, which takes {LIMITS.entries}: make several"
        )
    signatures = [key.sign(INDEX_PURPOSE, encoded) for key in keys]
    if len(signatures) > _MOST_SIGNATURES:
        raise CacheError(f"{len(signatures)} keys, at most {_MOST_SIGNATURES} sign one pack")
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, len(signatures), len(encoded))
    body = head + encoded + b"".join(signature.encode() for signature in signatures)
    return body + hashlib.sha256(body).digest()


def read_sealed(file: BinaryIO, limits: Limits = LIMITS) -> Sealed:
    """The sealed index at a file's position. Raises CacheError where it is damaged or too long."""
    head = read_exactly(file, _HEAD.size)
    magic, version, count, index_bytes = _HEAD.unpack(head)
    if magic != MAGIC:
        raise CacheError("not a pack: its first bytes differ")
    if version != FORMAT_VERSION:
        raise CacheError(f"a pack of format {version}, this release reads {FORMAT_VERSION}")
    if count > _MOST_SIGNATURES:
        raise CacheError(f"a pack claims {count} signatures, at most {_MOST_SIGNATURES} are read")
    if index_bytes > limits.index:
        raise CacheError(
            f"a pack claims an index of {index_bytes} bytes, at most {limits.index} are read"
        )
    index = read_exactly(file, index_bytes)
    signed = read_exactly(file, count * SIGNED_BYTES)
    digest = hashlib.sha256(head + index + signed).digest()
    if read_exactly(file, _DIGEST_BYTES) != digest:
        raise CacheError("a pack's index is damaged: its digest does not match")
    signatures = tuple(
        Signature.decode(signed[start : start + SIGNED_BYTES])
        for start in range(0, len(signed), SIGNED_BYTES)
    )
    nbytes = len(head) + len(index) + len(signed) + _DIGEST_BYTES
    return Sealed(index, signatures, nbytes)


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """`count` bytes. Raises CacheError where the file ends earlier or cannot be read."""
    parts = []
    missing = count
    while missing:
        try:
            part = file.read(missing)
        except OSError as error:
            raise CacheError(f"a pack cannot be read: {error}") from None
        if not part:
            raise CacheError(f"a pack ends {missing} bytes too early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
