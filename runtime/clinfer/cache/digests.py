"""The tree hashes: SHA-256 that several threads compute together, and XXH3 for local reading.

    data    | chunk 0 (4 MiB) | chunk 1 (4 MiB) | ... | last chunk (1 byte to 4 MiB) |
    leaf i  = SHA-256(0x00 || chunk i)
    root    = SHA-256(0x01 || length of data, 8 bytes little-endian || leaf 0 || leaf 1 || ...)

Empty data has no leaf. The prefixes keep a leaf from passing as a root (RFC 6962, section 2.1); the
length fixes the number of leaves, so that two data never share a list of leaves. Where a chunk ends
depends on offsets alone, never on how the data is split into buffers. hashlib releases the GIL for
long data, so threads scale with the cores; it is loaded where such a digest is asked for.

The check value is a tree of the same form with the 128 bits of XXH3 in place of SHA-256, without
the prefixes. It finds damage as surely, at the speed of memory, and resists no attacker: where
content comes from elsewhere, the digest decides.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence

from clinfer.threads import in_threads

CHUNK = 4 * 2**20
"""Bytes per leaf."""

DIGEST_BYTES = 32
CHECK_BYTES = 16


def tree_digests(groups: Sequence[Sequence[memoryview]]) -> list[bytes]:
    """The root of each group; a group's data is the concatenation of its byte views.

    The leaves of all groups share the threads.
    """
    return _roots(groups, _leaf, _root)


def tree_checks(groups: Sequence[Sequence[memoryview]]) -> list[bytes]:
    """The check value of each group, as `tree_digests`."""
    return _roots(groups, _check_leaf, _check_root)


def _roots(
    groups: Sequence[Sequence[memoryview]],
    leaf: Callable[[Sequence[memoryview]], bytes],
    root: Callable[[Sequence[bytes], int], bytes],
) -> list[bytes]:
    split = [_split(group) for group in groups]
    flat = [chunk for chunks in split for chunk in chunks]
    sizes = [sum(view.nbytes for view in group) for group in groups]
    leaves = in_threads(lambda index: leaf(flat[index]), len(flat), sum(sizes))
    roots = []
    start = 0
    for chunks, size in zip(split, sizes, strict=True):
        end = start + len(chunks)
        roots.append(root(leaves[start:end], size))
        start = end
    return roots


def tree_digest(*views: memoryview) -> bytes:
    """The root of the concatenation of byte views."""
    return tree_digests([views])[0]


def file_tree_digest(descriptor: int, size: int) -> bytes:
    """The root of the first `size` bytes of an open file, read without mapping it.

    Raises OSError where reading fails or the file is shorter.
    """
    turn = threading.Lock()

    def read(offset: int, count: int) -> bytes:
        if sys.platform != "win32":
            return os.pread(descriptor, count, offset)
        with turn:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)

    def leaf(index: int) -> bytes:
        from hashlib import sha256

        offset = index * CHUNK
        end = min(offset + CHUNK, size)
        state = sha256(b"\x00")
        while offset < end:
            data = read(offset, end - offset)
            if not data:
                raise OSError(f"the file ends at byte {offset}, expected {size} bytes")
            state.update(data)
            offset += len(data)
        return state.digest()

    count = -(-size // CHUNK)
    return _root(in_threads(leaf, count, size), size)


def _leaf(views: Sequence[memoryview]) -> bytes:
    from hashlib import sha256

    state = sha256(b"\x00")
    for view in views:
        state.update(view)
    return state.digest()


def _root(leaves: Sequence[bytes], size: int) -> bytes:
    from hashlib import sha256

    return sha256(b"\x01" + size.to_bytes(8, "little") + b"".join(leaves)).digest()


def _check_leaf(views: Sequence[memoryview]) -> bytes:
    import xxhash

    state = xxhash.xxh3_128()
    for view in views:
        state.update(view)
    return state.digest()


def _check_root(leaves: Sequence[bytes], size: int) -> bytes:
    import xxhash

    return xxhash.xxh3_128_digest(size.to_bytes(8, "little") + b"".join(leaves))


def _split(views: Sequence[memoryview]) -> list[list[memoryview]]:
    """Chunks of the concatenation, each a list of views; all but the last hold CHUNK bytes."""
    chunks: list[list[memoryview]] = []
    room = 0
    for view in views:
        offset = 0
        while offset < view.nbytes:
            if room == 0:
                chunks.append([])
                room = CHUNK
            piece = view[offset : offset + room]
            chunks[-1].append(piece)
            offset += piece.nbytes
            room -= piece.nbytes
    return chunks
