"""What is fuzzed: readers of files that others may have written, each with seeds and a repair.

A reader takes bytes and either accepts them or raises a clinfer error; anything else is a fault.
A repair makes digests and signatures fit again after a mutation, so that the checks behind them are
reached: what a forger could do who has the files but no key, and, for packs, one who has the key.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from clinfer.cache import KeyRecord, Store, read, serials, to_bytes
from clinfer.cache import layer_tar as tar
from clinfer.cache.digests import tree_checks, tree_digest
from clinfer.cache.index import Index, IndexEntry, Limits
from clinfer.cache.oci import write_layout
from clinfer.cache.pack import Pack
from clinfer.cache.packfile import write_pack
from clinfer.cache.packing import collect
from clinfer.cache.policy import Trust
from clinfer.cache.sealed import read_sealed
from clinfer.cache.signing import INDEX_PURPOSE, SigningKey, load_public_keys
from clinfer.lowering.plan import Plan, Program
from clinfer.lowering.plan_dump import dump
from clinfer.lowering.plan_io import load
from clinfer.plugins import plans
from clinfer.plugins.cpu import CpuPlugin

LIMITS = Limits(index=2**20, entries=100, entry=2**24, total=2**26)
"""Small, so that a reader that heeds them stays small too."""

_ENTRY_HEAD = struct.Struct("<8sIIQQII")
_ROW = struct.Struct("<32sIQQ32s16s")
_SEAL_HEAD = struct.Struct("<8sIIQ")


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    repair: Callable[[bytes], bytes] = bytes


# -- seeds -----------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """A private folder, gone when the process ends by itself."""
    made = Path(tempfile.mkdtemp(prefix="clinfer-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def key() -> SigningKey:
    return SigningKey.generate()


@cache
def trust() -> Trust:
    return Trust((key().public,))


def record(number: int = 0) -> KeyRecord:
    return KeyRecord.make("program", [("format", 1), ("source", f"{number:064x}"), ("ok", True)])


@cache
def store() -> Store:
    made = Store(folder() / "store")
    for number in range(3):
        made.put(record(number), {"binary": bytes(range(100 + number)) * 3}, seconds=1.0)
    return made


@cache
def plan(in_file: bool = False) -> tuple[bytes, bytes]:
    """A plan's JSON and its weights, or with these in a file of the model."""
    program = Program("k", "__kernel void k() {}", "-cl-mad-enable", (8,))
    made = Plan((), (), (), (program,), (), (np.arange(8, dtype=np.float32),), (), {"a": "b"})
    text, weights = dump(made, lambda _: (0, 8) if in_file else None)
    return text, b"".join(bytes(array) for array in weights)


def entry_seeds() -> list[bytes]:
    return [
        to_bytes(record(), {"binary": b"x" * 100}),
        to_bytes(record(1), {"plan": b"{}", "weights": bytes(5000), "empty": b""}, seconds=1.5),
        to_bytes(record(2), {}),
    ]


def blob_seeds() -> list[bytes]:
    text, weights = plan()
    sections = {"plan": text, "index": b"[5]", "binaries": b"12345", "weights": weights}
    return [to_bytes(KeyRecord.make("model", [("format", 1)]), sections)]


def plan_entry_seeds() -> list[bytes]:
    text, _ = plan(in_file=True)
    looked = [KeyRecord.make("tuning", [("format", 1)]).to_json(), ""]
    sections = {"plan": text, "tuning": json.dumps(looked).encode(), "weights": b""}
    return [to_bytes(KeyRecord.make("plan", [("format", 1)]), sections)]


def index_seeds() -> list[bytes]:
    rows = tuple(IndexEntry(record(number), f"{number:064x}", 100) for number in range(3))
    return [Index("seed", 7, rows).encode(), Index("empty", 0, ()).encode()]


@cache
def pack_seeds() -> list[bytes]:
    found = []
    for compress in (False, True):
        path = folder() / f"seed{compress}.clpack"
        write_pack(path, collect([store()]), name="x", serial=1, keys=[key()], compress=compress)
        found.append(path.read_bytes())
    return found


@cache
def layout_folder() -> Path:
    path = folder() / "layout"
    write_layout(path, collect([store()]), name="x", serial=1, keys=[key()])
    return path


def layer_file() -> Path:
    blobs = (layout_folder() / "blobs" / "sha256").iterdir()
    return max(blobs, key=lambda blob: blob.stat().st_size)


@cache
def layer_seeds() -> list[bytes]:
    return [layer_file().read_bytes()]


def layout_seeds() -> list[bytes]:
    return [(layout_folder() / "index.json").read_bytes()]


def serial_seeds() -> list[bytes]:
    row = ["x", key().public.raw.hex(), 3, "0" * 64]
    return [json.dumps({"format": 1, "packs": [row]}, separators=(",", ":")).encode()]


# -- readers ---------------------------------------------------------------------------------------


def in_file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def read_blob(data: bytes) -> None:
    CpuPlugin().flaw(read(data, expect_kind="model"))


def read_plan(data: bytes) -> None:
    load(data, memoryview(plan()[1]))


class ModelFiles:
    """A model of one file, of 64 bytes."""

    def content(self, number: int) -> Any:
        return [np.zeros(64, np.uint8)][number]

    def read(self) -> list[Any]:
        return []


def read_plan_entry(data: bytes) -> None:
    entry = read(data, expect_kind="plan")
    plans.flaw(entry, None)
    plans.load(entry, ModelFiles(), lambda _: None)


def read_pack(data: bytes) -> None:
    with Pack.open(in_file("pack", data), trust(), LIMITS) as pack:
        pack.verify()
        pack.nearest(record(9))


def read_layer(data: bytes) -> None:
    with in_file("layer", data).open("rb", buffering=0) as file:
        tar.walk(file, LIMITS)


def read_layout(data: bytes) -> None:
    path = layout_folder()
    (path / "index.json").write_bytes(data)
    with Pack.open(path, trust(), LIMITS) as pack:
        pack.verify()


def read_serials(data: bytes) -> None:
    serials.check(in_file("serials", data), "x", 3, "0" * 64, [key().public])


def read_keys(data: bytes) -> None:
    load_public_keys([in_file("keys", data)])


# -- repairs ---------------------------------------------------------------------------------------


def repair_entry(data: bytes) -> bytes:
    """Digests of sections and header made to fit, as far as the header makes sense."""
    if len(data) < _ENTRY_HEAD.size:
        return data
    fixed = bytearray(data)
    _, _, header_bytes, _, _, record_bytes, count = _ENTRY_HEAD.unpack_from(fixed)
    struct.pack_into("<Q", fixed, 16, len(fixed))
    if not _ENTRY_HEAD.size + 32 <= header_bytes <= len(fixed):
        return bytes(fixed)
    for number in range(min(count, 256)):
        at = _ENTRY_HEAD.size + record_bytes + number * _ROW.size
        if at + _ROW.size > header_bytes - 32:
            break
        name, alignment, offset, length, _, _ = _ROW.unpack_from(fixed, at)
        if offset + length <= len(fixed):
            content = memoryview(bytes(fixed[offset : offset + length]))
            (check,) = tree_checks([[content]])
            _ROW.pack_into(fixed, at, name, alignment, offset, length, tree_digest(content), check)
    end = header_bytes - 32
    fixed[end:header_bytes] = hashlib.sha256(fixed[:end]).digest()
    return bytes(fixed)


def repair_seal(data: bytes) -> bytes:
    """The index signed again and the seal closed, as somebody with the key could."""
    if len(data) < _SEAL_HEAD.size:
        return data
    magic, version, count, size = _SEAL_HEAD.unpack_from(data)
    start = _SEAL_HEAD.size
    if size > len(data) - start or count > 100:
        return data
    index = data[start : start + size]
    rest = data[start + size + count * 96 + 32 :]
    body = _SEAL_HEAD.pack(magic, version, 1, size) + index
    body += key().sign(INDEX_PURPOSE, index).encode()
    return body + hashlib.sha256(body).digest() + rest


def repair_layer(data: bytes) -> bytes:
    """Every block that looks like a header gets a fitting checksum."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - 511, 512):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + 512])
    return bytes(fixed)


TARGETS = {
    "record": Target(KeyRecord.from_json, lambda: [record().encoded]),
    "entry": Target(read, entry_seeds, repair_entry),
    "blob": Target(read_blob, blob_seeds, repair_entry),
    "plan": Target(read_plan, lambda: [plan()[0]]),
    "plan-entry": Target(read_plan_entry, plan_entry_seeds, repair_entry),
    "index": Target(Index.parse, index_seeds),
    "sealed": Target(lambda data: read_sealed(io.BytesIO(data), LIMITS), pack_seeds, repair_seal),
    "pack": Target(read_pack, pack_seeds, repair_seal),
    "layer": Target(read_layer, layer_seeds, repair_layer),
    "layout": Target(read_layout, layout_seeds),
    "serials": Target(read_serials, serial_seeds),
    "keys": Target(read_keys, lambda: [key().public.pem(), key().public.pem() * 2]),
}
