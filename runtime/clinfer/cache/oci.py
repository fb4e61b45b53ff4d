"""Packs as OCI image layouts: directories that registry tools push and Kubernetes mounts.

    oci-layout               {"imageLayoutVersion":"1.0.0"}
    index.json               names the manifest, or an image index where there are several platforms
    blobs/sha256/DIGEST...   manifest, configuration, layer; each named by its SHA-256

(OCI image specification 1.1, image-layout.md, manifest.md, config.md.) The image has one layer, an
uncompressed archive (`clinfer.cache.layer_tar`), so that an unpacked image is a cache directory and
a layout can be read where it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

from clinfer.cache import layer_tar
from clinfer.cache.entry import Container, read_container
from clinfer.cache.files import LoadError, load
from clinfer.cache.folder import TAG
from clinfer.cache.header import EntryError
from clinfer.cache.index import LIMITS, Index, IndexEntry, Limits, index_of
from clinfer.cache.packfile import Loaders, Reader, checked, open_file
from clinfer.cache.sealed import INDEX_FILE, Sealed, read_sealed, seal
from clinfer.cache.signing import SigningKey
from clinfer.cache.stats import Reason
from clinfer.errors import CacheError

LAYOUT_FILE = "oci-layout"
_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_MOST_JSON = 4 * 2**20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PLATFORM = re.compile(r"([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?")
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

Json = dict[str, Any]


class Layout:
    """An open layout: its sealed index, and entries read from its layer."""

    def __init__(self, file: FileIO, limits: Limits) -> None:
        self._reader = Reader(file)
        self._members = layer_tar.walk(file, limits)
        self._members.pop(layer_tar.TAG_FILE, None)
        place = self._members.pop(INDEX_FILE, None)
        if place is None:
            raise CacheError(f"the layer has no '{INDEX_FILE}'")
        if place.size > limits.index + 2**16:
            raise CacheError(f"the layer's index of {place.size} bytes is longer than allowed")
        data = bytearray(place.size)
        self._reader.fill(place.offset, memoryview(data))
        self.sealed: Sealed = read_sealed(BytesIO(data), limits)
        if self.sealed.nbytes != place.size:
            raise CacheError("bytes follow the layer's sealed index")

    def match(self, index: Index) -> None:
        """Raises CacheError unless the layer holds the index's entries and no other."""
        held = {digest: member.size for digest, member in self._members.items()}
        named = {entry.digest: entry.size for entry in index.entries}
        if held != named:
            raise CacheError(
                f"the layer's {len(held)} entries are not the {len(named)} of its index"
            )

    def container(self, entry: IndexEntry) -> Container:
        """The entry in memory, page-aligned and checked. Raises EntryError."""
        member = self._members[entry.digest]
        try:
            memory = self._reader.memory(member.offset, entry.size)
        except (OSError, MemoryError, OverflowError, ValueError) as error:
            raise EntryError(Reason.UNREADABLE, f"cannot be read from the layer: {error}") from None
        return checked(read_container(memory, expect_record=entry.record), entry)

    def close(self) -> None:
        """Closes the layer."""
        self._reader.close()


def open_layout(path: Path, limits: Limits = LIMITS) -> Layout:
    """The layout in a directory. Raises CacheError where it is not one that holds a pack."""
    if _document(path / LAYOUT_FILE) != _LAYOUT:
        raise CacheError(f"'{LAYOUT_FILE}' is not of version {_LAYOUT['imageLayoutVersion']}")
    described = _first(_document(path / "index.json"), "manifests")
    if described.get("mediaType") == _INDEX_TYPE:
        described = _first(_blob(path, described), "manifests")
    manifest = _blob(path, described)
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) != 1:
        raise CacheError("the image has not one layer: it holds no pack")
    layer = _first(manifest, "layers")
    if layer.get("mediaType") != _LAYER_TYPE:
        raise CacheError(
            f"the layer is of type {layer.get('mediaType')!r}, only {_LAYER_TYPE} is read in place"
        )
    file = open_file(_blob_path(path, layer), follow=False)
    try:
        return Layout(file, limits)
    except OSError as error:
        file.close()
        raise CacheError(f"the layer cannot be read: {error}") from None
    except BaseException:
        file.close()
        raise


def write_layout(
    path: Path,
    loaders: Loaders,
    *,
    name: str,
    serial: int,
    keys: Iterable[SigningKey] = (),
    platforms: Sequence[str] = (),
) -> Index:
    """Writes an image layout of these entries, signed with each key; returns its index.

    `platforms`, say 'linux/amd64', are those the image is offered for (default: this machine's);
    the layer is the same for all. The same entries, name and serial give the same bytes. Raises
    CacheError where the directory is not empty, or where an entry or file fails.
    """
    described = [_platform(text) for text in platforms or (default_platform(),)]
    partial = path.with_name(f".{path.name[:64]}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        blobs = partial / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        with suppress(FileNotFoundError):
            path.rmdir()
        index, layer = _write_layer(blobs, loaders, name, serial, keys)
        notes = {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": str(serial),
        }
        manifests = [_write_manifest(blobs, layer, item, notes) for item in described]
        top = manifests[0]
        if len(manifests) > 1:
            top = _put(blobs, _INDEX_TYPE, _image_index(manifests))
        top = {**top, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        (partial / "index.json").write_bytes(_encode(_image_index([top])))
        (partial / LAYOUT_FILE).write_bytes(_encode(_LAYOUT))
        partial.rename(path)
    except OSError as error:
        raise CacheError(
            f"the image layout '{path}' cannot be written: {error.strerror or error}; "
            "the directory must be new or empty"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return index


def default_platform() -> str:
    """This machine's platform as images name it."""
    machine = platform.machine().lower()
    return f"linux/{_MACHINES.get(machine, machine)}"


def _write_layer(
    blobs: Path, loaders: Loaders, name: str, serial: int, keys: Iterable[SigningKey]
) -> tuple[Index, Json]:
    """Writes the layer; its index, and its descriptor."""
    partial = blobs / "layer"
    digest = hashlib.sha256()
    entries = []
    with partial.open("xb") as file:

        def write(*parts: bytes | memoryview) -> None:
            for part in parts:
                file.write(part)
                digest.update(part)

        def write_file(name: str, data: bytes | memoryview) -> None:
            size = len(data)
            write(layer_tar.header(name, size), data, layer_tar.padding(size))

        write_file(layer_tar.TAG_FILE, TAG)
        folder = "entries/"
        write(layer_tar.header(folder, 0))
        for key, load_entry in sorted(loaders.items()):
            container = load_entry()
            if container.data.nbytes > LIMITS.entry:
                raise CacheError(f"entry {key[:12]} is too long for a pack")
            if folder != f"entries/{key[:2]}/":
                folder = f"entries/{key[:2]}/"
                write(layer_tar.header(folder, 0))
            write_file(f"{folder}{key}", container.data)
            found = container.entry
            entries.append(IndexEntry(found.record, found.content, container.data.nbytes))
        index = index_of(name, serial, entries)
        write_file(INDEX_FILE, seal(index, keys))
        write(layer_tar.end())
        size = file.tell()
    partial.rename(blobs / digest.hexdigest())
    return index, _descriptor(_LAYER_TYPE, digest.hexdigest(), size)


def _write_manifest(blobs: Path, layer: Json, where: Json, notes: Json) -> Json:
    """Writes configuration and manifest for one platform; the manifest's descriptor."""
    config = {
        **where,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _put(blobs, _CONFIG_TYPE, config),
        "layers": [layer],
        "annotations": notes,
    }
    return {**_put(blobs, _MANIFEST_TYPE, manifest), "platform": where}


def _image_index(manifests: list[Json]) -> Json:
    return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}


def _put(blobs: Path, kind: str, document: Json) -> Json:
    """Writes a JSON blob; its descriptor."""
    data = _encode(document)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(kind, digest, len(data))


def _descriptor(kind: str, digest: str, size: int) -> Json:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _platform(text: str) -> Json:
    match = _PLATFORM.fullmatch(text)
    if match is None:
        raise CacheError(f"{text!r} is no platform: expected, say, linux/amd64 or linux/arm64/v8")
    found = {"os": match[1], "architecture": match[2]}
    return found if match[3] is None else {**found, "variant": match[3]}


def _encode(document: Json) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _document(path: Path, digest: str | None = None) -> Json:
    """A JSON object in a file, whose SHA-256 is `digest` where that is known."""
    try:
        loaded = load(path, allow_shared=True, most=_MOST_JSON)
    except LoadError as fault:
        raise CacheError(f"'{path.name}' {fault}") from None
    data = bytes(loaded.view)
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise CacheError(f"the blob {digest[:12]} is damaged: its digest does not match")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CacheError(f"'{path.name}' is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise CacheError(f"'{path.name}' is not a JSON object")
    return document


def _first(document: Json, name: str) -> Json:
    """The first descriptor of a list."""
    listed = document.get(name)
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
        raise CacheError(f"the image's '{name}' is empty or no list of descriptors")
    first: Json = listed[0]
    return first


def _blob(path: Path, described: Json) -> Json:
    place = _blob_path(path, described)
    return _document(place, place.name)


def _blob_path(path: Path, described: Json) -> Path:
    """Where a blob lies; its name is made of hexadecimal digits only."""
    match = _DIGEST.fullmatch(str(described.get("digest")))
    if match is None:
        raise CacheError(f"{described.get('digest')!r} is no digest of a blob")
    return path / "blobs" / "sha256" / match[1]
