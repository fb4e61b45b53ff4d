"""Packs, keys and forgeries for the tests of packs."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cache_helpers import noise, program_record

from clinfer.cache import Store
from clinfer.cache.index import Index
from clinfer.cache.oci import write_layout
from clinfer.cache.packfile import write_pack
from clinfer.cache.packing import collect
from clinfer.cache.policy import Trust
from clinfer.cache.sealed import MAGIC
from clinfer.cache.signing import INDEX_PURPOSE, SigningKey

HEAD = struct.Struct("<8sIIQ")
FRAME = struct.Struct("<IIQ")
KEY = SigningKey.generate()
OTHER_KEY = SigningKey.generate()
TRUSTED = Trust((KEY.public,))
WAIVED = Trust.waived()


def filled(directory: Path, count: int = 3, seed: int = 0, **changes: Any) -> Store:
    """A store with entries 0 ... `count` - 1 of a few hundred bytes."""
    store = Store(directory)
    for number in range(count):
        content = noise(200 + 50 * number, seed + number)
        assert store.put(program_record(number, **changes), {"binary": content}, seconds=0.5)
    return store


def make_pack(
    path: Path,
    store: Store,
    *,
    name: str = "test",
    serial: int = 1,
    keys: Iterable[SigningKey] = (KEY,),
    **settings: Any,
) -> Path:
    """A pack of all a store holds; an OCI layout where `path` has no suffix."""
    write = write_pack if path.suffix else write_layout
    write(path, collect([store]), name=name, serial=serial, keys=keys, **settings)
    return path


def sealed(index: bytes | Index, keys: Iterable[SigningKey] = (KEY,)) -> bytes:
    """A sealed index of any bytes, with fitting digest and signatures: what a forger can make."""
    encoded = index if isinstance(index, bytes) else index.encode()
    signatures = [key.sign(INDEX_PURPOSE, encoded).encode() for key in keys]
    body = HEAD.pack(MAGIC, 1, len(signatures), len(encoded)) + encoded + b"".join(signatures)
    return body + hashlib.sha256(body).digest()


def sealed_bytes(data: bytes) -> int:
    """The size of the sealed index a pack begins with."""
    _, _, count, index_bytes = HEAD.unpack_from(data)
    return HEAD.size + int(index_bytes) + 96 * int(count) + 32


def index_document(data: bytes) -> dict[str, Any]:
    """The index of a pack as plain data."""
    _, _, _, size = HEAD.unpack_from(data)
    found: dict[str, Any] = json.loads(data[HEAD.size : HEAD.size + size])
    return found


def canonical(document: Any) -> bytes:
    """Plain data as an index is encoded."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def frames(data: bytes) -> list[bytes]:
    """The frames of a pack, heads included."""
    found = []
    position = sealed_bytes(data)
    while position < len(data):
        end = position + FRAME.size + FRAME.unpack_from(data, position)[2]
        found.append(data[position:end])
        position = end
    return found
