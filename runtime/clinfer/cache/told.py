"""What the log tells of look-ups: enough to say from a bug report why something was compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from clinfer.cache.entry import Entry, payload_bytes
from clinfer.cache.stats import Miss
from clinfer.log import Log

if TYPE_CHECKING:
    from clinfer.cache.entry import SectionData
    from clinfer.cache.inventory import Nearest
    from clinfer.cache.record import KeyRecord

LOG = Log("clinfer.cache")


def tell_lookup(
    record: KeyRecord,
    found: Entry | Miss,
    nearest: Callable[[KeyRecord], Nearest | None] | None = None,
) -> None:
    """Logs a look-up for debugging: the key's fields, and why it missed.

    Where `nearest` is given, also how the nearest key there is differs.
    """
    name = _name(record)
    LOG.debug("key of %s: %s", name, ", ".join(f"{n}={v!r}" for n, v in record.fields[1:]))
    if isinstance(found, Entry):
        LOG.debug("%s: found, %d bytes, %.2f s to build", name, found.nbytes, found.build_seconds)
        return
    LOG.debug("%s: miss, %s: %s", name, found.reason, found.detail)
    other = None if nearest is None else nearest(record)
    if other is not None:
        differing = "; ".join(map(str, other.differences))
        LOG.debug("%s: the nearest, %s, differs in %s", name, other.record.digest[:12], differing)


def tell_stored(
    record: KeyRecord, place: object, sections: Mapping[str, SectionData], seconds: float
) -> None:
    """Logs for debugging that an entry was stored."""
    text = "%s: stored in '%s', %d bytes, %.2f s to build"
    LOG.debug(text, _name(record), place, payload_bytes(sections), seconds)


def _name(record: KeyRecord) -> str:
    return f"{record.kind} {record.digest[:12]}"
