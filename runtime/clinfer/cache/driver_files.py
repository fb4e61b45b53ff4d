"""What GPU drivers keep of their own, as entries of packs.

A driver's cache travels where it is a folder of files that stand for themselves: each named by the
driver after its content's key, written once, checked by the driver when it is read. So Intel's and
Mesa's do; NVIDIA's, which has an index over its files, does not: it is copied as a whole or not at
all. In a pack such a file is an entry of its own kind,

    kind 'driver-file', format, driver ('intel'), file (its name below DIRECTORY/drivers/intel)

and `unpack` writes it back to where the driver looks, under a name of the form that the driver
gives, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from clinfer.cache.entry import Container, read_container, to_bytes
from clinfer.cache.files import LoadError, load, write_atomic, write_fault
from clinfer.cache.folder import DRIVERS, UntrustedDirectoryError
from clinfer.cache.packfile import Loaders
from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.cache.stats import Miss, Reason
from clinfer.cache.store import Store
from clinfer.errors import CacheError

KIND = "driver-file"
_FORMAT = 1
_SECTION = "file"
# The names that a driver gives to files that stand for themselves, relative to its folder.
_NAMES = {
    "intel": re.compile(r"[0-9A-Za-z_]{1,96}\.(cl|l0)_cache", re.ASCII),
    "mesa": re.compile(r"mesa_shader_cache/[0-9a-f]{2}/[0-9a-f]{38}", re.ASCII),
}


def collect(stores: Iterable[Store]) -> Loaders:
    """The files of drivers in caches' directories that can travel; of equal names the first."""
    found: dict[str, Callable[[], Container]] = {}
    for store in stores:
        for driver, name, path in _files(store):
            record = _record(driver, name)
            found.setdefault(record.digest, partial(_load, path, record, store.allow_shared))
    return found


def place(container: Container, store: Store) -> Miss | None:
    """Writes a file back below a store's directory; None, or why not.

    Raises `CacheError` for an entry that names no such file.
    """
    record = container.entry.record
    driver, name = str(record.get("driver")), str(record.get("file"))
    form = _NAMES.get(driver)
    if form is None or form.fullmatch(name) is None or record != _record(driver, name):
        raise CacheError(f"an entry of the pack is no file of a driver: {driver!r}, {name!r}")
    path = store.directory / DRIVERS / driver / name
    try:
        temporary = store.folder.prepare(path)
        content = memoryview(container.entry.section(_SECTION))
        write_atomic(path, temporary, [content], readable=store.folder.readable)
    except UntrustedDirectoryError as error:
        return Miss(Reason.REFUSED, str(error))
    except OSError as error:
        return Miss(write_fault(error), f"{path} cannot be written: {error}")
    return None


def is_there(record: KeyRecord, store: Store) -> bool:
    """Whether the driver has a file of that name in the store's directory: then it stays."""
    return any(_record(driver, name) == record for driver, name, _ in _files(store))


def _files(store: Store) -> Iterator[tuple[str, str, Path]]:
    for driver, form in _NAMES.items():
        folder = store.directory / DRIVERS / driver
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if form.fullmatch(name) is not None and path.is_file():
                yield driver, name, path


def _record(driver: str, name: str) -> KeyRecord:
    fields: dict[str, FieldValue] = {"format": _FORMAT, "driver": driver, "file": name}
    return KeyRecord.make(KIND, fields.items())


def _load(path: Path, record: KeyRecord, allow_shared: bool) -> Container:
    """Raises `CacheError` where the driver's file cannot be read or is not to be believed."""
    try:
        content = load(path, allow_shared=allow_shared).view
    except LoadError as error:
        raise CacheError(f"the driver's file '{path}' cannot be packed: {error}") from None
    return read_container(to_bytes(record, {_SECTION: content}))
