"""Why a look-up or a store failed, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from clinfer import forks
from clinfer.log import Log

_LOG = Log("clinfer.cache")


class Reason(str, Enum):
    """Why an entry was not found, or not stored."""

    ABSENT = "absent"
    """No such entry."""
    DAMAGED = "damaged"
    """The entry's bytes are not the ones written."""
    VERSION = "version"
    """Written in a format this release does not read."""
    FOREIGN = "foreign"
    """An intact entry, but of another key."""
    UNREADABLE = "unreadable"
    """The file system gave an error: no permission, not a file, input/output error ..."""
    REFUSED = "refused"
    """The directory or file can be written by others, or is a link."""
    UNTRUSTED = "untrusted"
    """From elsewhere, and not signed by a trusted key; or not what was signed."""
    REJECTED = "rejected"
    """The entry was intact, but its user (a driver) did not take it."""
    OFF = "off"
    """The cache mode forbids looking or storing."""
    READ_ONLY = "read-only"
    """The store or its file system takes no writes."""
    NO_SPACE = "no-space"
    """The disk, a quota or a file size limit is exhausted."""
    TOO_LARGE = "too-large"
    """The entry alone is above the store's size limit."""
    NO_BINARY = "no-binary"
    """The driver does not give what it has built."""
    UNWRITABLE = "unwritable"
    """Writing failed for another reason."""

    def __str__(self) -> str:
        return self.value


class Miss(NamedTuple):
    """A look-up without result; `detail` is a sentence for the user."""

    reason: Reason
    detail: str


def report(miss: Miss, *, loud: bool) -> None:
    """Logs a fault, as a warning or for debugging."""
    write = _LOG.warning if loud else _LOG.debug
    write("%s: %s", miss.reason, miss.detail)


class Stats(NamedTuple):
    """Counts since the start of this process; sizes in bytes, times in seconds.

    `misses` and `unstored` map a reason to how often it occurred. `seconds_saved` adds up what the
    entries found had once cost to build.
    """

    hits: int
    misses: Mapping[str, int]
    stored: int
    unstored: Mapping[str, int]
    evicted: int
    bytes_read: int
    bytes_written: int
    seconds_saved: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for json.dumps."""
        return {
            "hits": self.hits,
            "misses": dict(self.misses),
            "stored": self.stored,
            "unstored": dict(self.unstored),
            "evicted": self.evicted,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "seconds_saved": self.seconds_saved,
        }


class Counters:
    """The running counts behind `Stats`; any thread may add."""

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._numbers: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._unstored: Counter[str] = Counter()
        self._seconds = 0.0

    def hit(self, size: int, seconds: float) -> None:
        with self._lock:
            self._numbers["hits"] += 1
            self._numbers["read"] += size
            self._seconds += seconds

    def miss(self, reason: Reason) -> None:
        with self._lock:
            self._misses[reason.value] += 1

    def rejected(self, size: int, seconds: float) -> None:
        """Turns an earlier hit of that size and worth into a miss."""
        with self._lock:
            self._numbers["hits"] -= 1
            self._numbers["read"] -= size
            self._seconds -= seconds
            self._misses[Reason.REJECTED.value] += 1

    def stored(self, size: int) -> None:
        with self._lock:
            self._numbers["stored"] += 1
            self._numbers["written"] += size

    def unstored(self, reason: Reason) -> None:
        with self._lock:
            self._unstored[reason.value] += 1

    def evicted(self, count: int) -> None:
        with self._lock:
            self._numbers["evicted"] += count

    def snapshot(self) -> Stats:
        with self._lock:
            return Stats(
                hits=self._numbers["hits"],
                misses=dict(self._misses),
                stored=self._numbers["stored"],
                unstored=dict(self._unstored),
                evicted=self._numbers["evicted"],
                bytes_read=self._numbers["read"],
                bytes_written=self._numbers["written"],
                seconds_saved=self._seconds,
            )
