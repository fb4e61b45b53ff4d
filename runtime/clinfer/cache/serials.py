"""The serial numbers of packs that were accepted here, so that an older one cannot come back.

A signature stays valid for ever: whoever can put a file where a pack is expected could put an old
one there, with programs whose faults have long been mended. So a reader keeps the highest serial it
has accepted for each pack's name and key, as The Update Framework does (its specification, section
5.3, 'rollback attack'), and of equal serials takes only the same index.

    {"format":1,"packs":[[NAME, PUBLIC KEY, SERIAL, SHA-256 OF THE INDEX], ...]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from clinfer import config
from clinfer.cache.files import LoadError, load, write_atomic
from clinfer.cache.index import MAX_SERIAL
from clinfer.cache.locks import build_lock
from clinfer.cache.signing import PublicKey
from clinfer.cache.stats import Reason
from clinfer.errors import CacheError, UntrustedError

_FORMAT = 1
_MOST_BYTES = 4 * 2**20

Known = dict[tuple[str, str], tuple[int, str]]


def default_file() -> Path:
    """Where serials are remembered: CLINFER_TRUST_FILE, else in the user's state folder."""
    named = config.TRUST_FILE.get()
    if named is not None:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("clinfer", appauthor=False)) / "serials.json"


def check(path: Path, name: str, serial: int, digest: str, keys: Iterable[PublicKey]) -> None:
    """Raises UntrustedError where a later pack of that name and key was accepted before.

    `digest` is the index's. Raises CacheError where the file cannot be understood.
    """
    known = _read(path)
    for key in keys:
        seen = known.get((name, key.raw.hex()))
        if seen is None:
            continue
        if serial < seen[0]:
            raise UntrustedError(
                f"the pack '{name}' has serial {serial}, but {seen[0]} was accepted here before: "
                "it is out of date. --allow-older takes it all the same"
            )
        if serial == seen[0] and digest != seen[1]:
            raise UntrustedError(
                f"the pack '{name}' has serial {serial} like one accepted here before, but another "
                "content: one of them is not what it seems. Sign it again with a higher serial, "
                "or --allow-older"
            )


def remember(path: Path, name: str, serial: int, digest: str, keys: Iterable[PublicKey]) -> None:
    """Notes an accepted pack. Raises CacheError where that cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with build_lock(path.with_name(f"{path.name}.lock")):
            known = _read(path)
            for key in keys:
                place = (name, key.raw.hex())
                known[place] = max(known.get(place, (-1, "")), (serial, digest))
            rows = [[*place, *seen] for place, seen in sorted(known.items())]
            text = json.dumps({"format": _FORMAT, "packs": rows}, separators=(",", ":"))
            write_atomic(path, path.parent, [memoryview(text.encode("ascii"))])
    except OSError as error:
        raise CacheError(
            f"the pack's serial number cannot be remembered in '{path}' ({error.strerror}): set "
            "CLINFER_TRUST_FILE to a file that can be written, or use --allow-older"
        ) from None


def _read(path: Path) -> Known:
    try:
        loaded = load(path, allow_shared=False, most=_MOST_BYTES)
    except LoadError as fault:
        if fault.reason is Reason.ABSENT:
            return {}
        raise CacheError(f"the remembered serial numbers, '{path}': {fault}") from None
    try:
        document = json.loads(bytes(loaded.view))
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']}")
        rows = [_row(*row) for row in document["packs"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CacheError(
            f"the remembered serial numbers, '{path}', cannot be understood ({error!r}): remove "
            "the file to start anew"
        ) from None
    return dict(rows)


def _row(
    name: object, key: object, serial: object, digest: object
) -> tuple[tuple[str, str], tuple[int, str]]:
    if not (isinstance(name, str) and isinstance(key, str) and isinstance(digest, str)):
        raise TypeError("a name, key or digest that is not text")
    if type(serial) is not int or not 0 <= serial <= MAX_SERIAL:
        raise ValueError(f"serial {serial!r}")
    return (name, key), (serial, digest)
