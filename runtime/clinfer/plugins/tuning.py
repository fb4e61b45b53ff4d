"""Tuning data as cache entries: which candidate of each kernel was the fastest on a device.

An entry is for a set of problems (`clinfer.lowering.choose`), whatever the model that has them:
retrained weights keep their tuning. Its container is of kind 'tuning', with one section:

    timings    JSON: {"problems": [the fields of `Timing`, ...]}

`seconds` has the time of every candidate that was measured, null for the others. The choices decide
which programs a model has; they come from a file, and so are checked like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.errors import BlobError
from clinfer.sha256 import sha256

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.cache.stats import Miss
    from clinfer.device.lock import Described

TUNING_FORMAT = 1
KIND = "tuning"

Look = Callable[[KeyRecord], "Entry | None"]
"""Gives the entry of a key where there is one."""


class Timing(NamedTuple):
    """What was measured of one problem: seconds per inference for each candidate, and the choice.

    `candidates` and `seconds` are in the family's order; `default` is the one in use untuned.
    """

    digest: str
    name: str
    default: int
    chosen: int
    candidates: tuple[str, ...]
    seconds: tuple[float | None, ...]


class Peekable(Protocol):
    """A store, a pack or a layer."""

    def peek(self, record: KeyRecord) -> Entry | Miss:
        """The entry of that key, checked, or why there is none."""


def look_in(sources: Sequence[Peekable]) -> Look:
    """Looks into stores and packs, in order."""
    from clinfer.cache.stats import Miss

    def look(record: KeyRecord) -> Entry | None:
        found = (source.peek(record) for source in sources)
        return next((entry for entry in found if not isinstance(entry, Miss)), None)

    return look


def tuning_record(
    problems: Iterable[str], device: Described, fields: Mapping[str, FieldValue]
) -> KeyRecord:
    """The key of the tuning data for these problems; `fields` name the device and its driver."""
    named = sha256("\n".join(sorted(set(problems))).encode()).hexdigest()
    units = device.target.compute_units
    values: dict[str, FieldValue] = {"format": TUNING_FORMAT, "problems": named, "units": units}
    return KeyRecord.make(KIND, [*values.items(), *fields.items()])


def sections(timings: Sequence[Timing]) -> dict[str, bytes]:
    """An entry's content."""
    document = {"problems": [timing._asdict() for timing in timings]}
    return {"timings": json.dumps(document, separators=(",", ":")).encode()}


def timings(entry: Entry) -> list[Timing]:
    """What an entry holds. Raises `BlobError` where it is not of the form `sections` gives."""
    try:
        found = json.loads(bytes(entry.section("timings")))["problems"]
        return [_timing(item) for item in found]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BlobError(f"the tuning data are not readable: {error!r}") from error


def choices(entry: Entry | None) -> dict[str, int]:
    """The index of the candidate to use per problem; none of an entry that cannot be read."""
    if entry is None:
        return {}
    try:
        return {timing.digest: timing.chosen for timing in timings(entry)}
    except BlobError:
        return {}


def _timing(item: Any) -> Timing:
    default, chosen = item["default"], item["chosen"]
    seconds = tuple(None if s is None else float(s) for s in item["seconds"])
    candidates = tuple(str(c) for c in item["candidates"])
    for index in (default, chosen):
        if type(index) is not int or not 0 <= index < len(candidates) == len(seconds):
            raise ValueError(f"no candidate {index!r} of {len(candidates)}")
    return Timing(str(item["digest"]), str(item["name"]), default, chosen, candidates, seconds)
