"""`clinfer pack`: entries of caches in one signed file, or as an image for a registry."""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer import config
from clinfer.cli import common, pictures, shapes
from clinfer.cli.output import emit_json, size_text
from clinfer.errors import CacheError, PropertyError

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.cache.index import Index
    from clinfer.cache.packfile import Loaders
    from clinfer.cache.record import KeyRecord
    from clinfer.cache.signing import SigningKey
    from clinfer.cache.store import Store
    from clinfer.lowering.plan import Program


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... -o FILE --oci DIR --cache-dir --key --name --serial ..., or --new-key FILE."""
    parser.add_argument(
        "model", nargs="*", metavar="MODEL", type=Path, help="pack only what these models need"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write a pack file")
    parser.add_argument("--oci", type=Path, metavar="DIR", help="write an OCI image layout")
    parser.add_argument("--store", metavar="URL", help="push each entry to this remote store")
    parser.add_argument(
        "--cache-dir",
        action="append",
        metavar="DIR",
        help="a cache to take entries from, repeatable; default: CLINFER_CACHE_DIR",
    )
    parser.add_argument(
        "--key",
        action="append",
        type=Path,
        metavar="FILE",
        help="sign with this private key, repeatable; default: CLINFER_SIGN_KEY",
    )
    parser.add_argument("--name", help="the pack's name; default: that of the file")
    parser.add_argument(
        "--serial",
        type=int,
        metavar="N",
        help="the pack's number, higher than the last one's; default: seconds since 1970",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="with MODEL: also the programs it needs on this device, also @FILE of a lock file",
    )
    parser.add_argument(
        "--device-lock",
        type=Path,
        metavar="FILE",
        help="the file of 'clinfer devices --lock' in which --device is looked up",
    )
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    parser.add_argument("--sources", action="store_true", help="add the programs' OpenCL C")
    parser.add_argument(
        "--driver-caches",
        action="store_true",
        help="add what the drivers of Intel's GPUs and Mesa keep in the caches' folder drivers/",
    )
    parser.add_argument("--compress", action="store_true", help="compress where that pays")
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help="with --oci: platforms to offer the image for; default: this machine's",
    )
    parser.add_argument(
        "--new-key", type=Path, metavar="FILE", help="make a key pair, FILE and FILE.pub, and stop"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the pack; each entry is read and checked before."""
    if options.new_key is not None:
        return _new_key(options)
    if options.output is None and options.oci is None and options.store is None:
        raise PropertyError(
            "nothing to write: give -o FILE, --oci DIR, --store URL or --new-key FILE"
        )
    loaders = _loaders(options)
    if not loaders:
        raise CacheError("there is nothing to pack: the caches hold nothing of it")
    keys = _keys(options)
    target = options.output or options.oci or Path("pack")
    settings: dict[str, Any] = {
        "name": options.name or _name_of(target),
        "serial": int(time.time()) if options.serial is None else options.serial,
        "keys": keys,
    }
    if options.store is not None:
        index = _push(options.store, loaders, settings)
    if options.output is not None:
        from clinfer.cache.packfile import write_pack

        index = write_pack(options.output, loaders, compress=options.compress, **settings)
    if options.oci is not None:
        from clinfer.cache.oci import write_layout

        index = write_layout(options.oci, loaders, platforms=options.platform, **settings)
    _report(options, index, keys)
    return 0


def _push(url: str, loaders: Loaders, settings: dict[str, Any]) -> Index:
    """Pushes each entry to a remote store, signed with the first key; the index of all.

    Raises CacheError for the first that is not taken.
    """
    from clinfer.cache.index import IndexEntry, index_of
    from clinfer.cache.remote import RemoteStore

    keys = settings["keys"]
    remote = RemoteStore(url, key=keys[0] if keys else None)
    remote.connect()
    rows = []
    for load in loaders.values():
        container = load()
        entry = container.entry
        fault = remote.push(entry.record, bytes(container.data))
        if fault is not None:
            raise CacheError(f"{entry.record.digest[:12]} is not stored: {fault.detail}")
        rows.append(IndexEntry(entry.record, entry.content, entry.nbytes))
    return index_of(settings["name"], settings["serial"], rows)


def _new_key(options: argparse.Namespace) -> int:
    from clinfer.cache.signing import SigningKey

    key = SigningKey.generate()
    public = key.save(options.new_key)
    if options.json:
        emit_json({"key": key.public.id, "private": str(options.new_key), "public": str(public)})
    else:
        print(f"key {key.public.id}: keep {options.new_key} to yourself, hand out {public}")
    return 0


def _keys(options: argparse.Namespace) -> list[SigningKey]:
    named = config.SIGN_KEY.get()
    paths = options.key or ([] if named is None else [named])
    if not paths:
        return []
    from clinfer.cache.signing import SigningKey

    return [SigningKey.load(path) for path in paths]


def _loaders(options: argparse.Namespace) -> Loaders:
    """The entries to pack, and their sources where asked for."""
    from clinfer.cache.packing import collect, sources
    from clinfer.cache.store import Store

    named = config.CACHE_DIR.get()
    directories = options.cache_dir or ([] if named is None else [named])
    if not directories:
        raise PropertyError("which caches? give --cache-dir DIR or set CLINFER_CACHE_DIR")
    stores = [Store(directory, readonly=True) for directory in directories]
    programs, wanted = _selection(options, stores)
    found = dict(collect(stores, wanted))
    if options.sources:
        texts = sources(_known_programs(found, programs))
        found.update({digest: load for digest, load in texts.items() if digest not in found})
    if options.driver_caches:
        from clinfer.cache import driver_files

        found.update(driver_files.collect(stores))
    return found


def _selection(
    options: argparse.Namespace, stores: list[Store]
) -> tuple[list[Program], Callable[[KeyRecord], bool]]:
    """The programs the models need on the devices named, and which entries are wanted."""
    if not options.model:
        if options.device or options.device_lock or options.shape:
            raise PropertyError("--device, --device-lock and --shape go with MODEL")
        return [], lambda record: True
    from clinfer.core import Core

    core = Core()
    digests = {_content(core, path) for path in options.model}
    named = options.device or options.device_lock
    programs, names = _programs(core, options, stores) if named else ([], set())
    return programs, lambda record: record.get("model") in digests or record.digest in names


def _content(core: Any, path: Path) -> str:
    from clinfer.cache.content import content_digest
    from clinfer.models import external_names

    return content_digest(path, lambda file: external_names(core.read_model(file))).digest


def _programs(
    core: Any, options: argparse.Namespace, stores: list[Store]
) -> tuple[list[Program], set[str]]:
    """The programs of all models on the device; names of their entries and of tuning data."""
    from clinfer.device.discover import open_device
    from clinfer.plugins.compiler import draft_model, program_record
    from clinfer.plugins.tuning import look_in

    names: set[str] = set()
    search = look_in(stores)

    def look(record: KeyRecord) -> Entry | None:
        names.add(record.digest)
        return search(record)

    options.device = options.device or "AUTO"
    described = common.locked_device(options) or open_device(
        options.device, core.get_property("CPU_TARGET")
    )
    found: list[Program] = []
    for path in options.model:
        model = core.read_model(path)
        shapes.reshape(model, options.shape, pictures.preparation(options))
        found += draft_model(model, described, look).plan.programs
    return found, names | {program_record(program, described).digest for program in found}


def _known_programs(loaders: Loaders, planned: list[Program]) -> list[Program]:
    """The programs whose binaries are packed, with their texts.

    Raises CacheError where a program's text is in no compiled model and follows from no MODEL.
    """
    from clinfer.cache.packing import programs_of

    programs = {program.digest: program for program in planned}
    wanted: dict[str, str] = {}
    for load in loaders.values():
        entry = load().entry
        if entry.record.kind in ("model", "plan"):
            programs.update({program.digest: program for program in programs_of(entry)})
        if entry.record.kind == "program":
            wanted[str(entry.record.get("source"))] = str(entry.record.get("entry"))
    unknown = [name for digest, name in wanted.items() if digest not in programs]
    if unknown:
        raise CacheError(
            f"--sources: the texts of {len(unknown)} programs are not known ({unknown[0]} ...): "
            "name the models they are of, with --device"
        )
    return list(programs.values())


def _name_of(path: Path) -> str:
    """A pack's name from a file's: 'my pack.clpack' -> 'my-pack'."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")
    return text[:64] or "pack"


def _report(options: argparse.Namespace, index: Index, keys: list[SigningKey]) -> None:
    from clinfer.cache.transfer import without_credentials

    targets = (options.output, options.oci, options.store)
    written = [without_credentials(str(target)) for target in targets if target is not None]
    devices = sorted({str(e.record.get("device")) for e in index.entries if e.record.get("device")})
    kinds = Counter(entry.record.kind for entry in index.entries)
    signers = [key.public.id for key in keys]
    if options.json:
        emit_json(
            {
                "files": written,
                "name": index.name,
                "serial": index.serial,
                "entries": len(index.entries),
                "bytes": index.nbytes,
                "kinds": kinds,
                "devices": devices,
                "signed_by": signers,
            }
        )
        return
    counted = ", ".join(f"{count} of kind '{kind}'" for kind, count in sorted(kinds.items()))
    print(f"pack '{index.name}', serial {index.serial}: {counted}; {size_text(index.nbytes)}")
    print(f"devices: {', '.join(devices) or 'none'}")
    print(f"signed by: {', '.join(signers) or 'nobody; unpacking takes --allow-unsigned'}")
    for name in written:
        print(f"wrote {name}")
