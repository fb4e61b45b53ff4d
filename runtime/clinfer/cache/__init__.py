"""The cache: key records, checked entries, stores and their layers.

`Layers.open()` gives what the plugins use: look an entry up by its `KeyRecord`, build on a miss,
put what was built. docs/cache-format.md describes the files.
`clinfer.cache.inventory` holds the types that listing and checking a store return.
"""

from clinfer.cache.content import ContentDigest, content_digest
from clinfer.cache.entry import Entry, read, read_header, to_bytes, write
from clinfer.cache.folder import Removed
from clinfer.cache.header import EntryError, Header
from clinfer.cache.layers import CacheMode, Layers
from clinfer.cache.locks import build_lock
from clinfer.cache.record import FieldDifference, FieldValue, KeyRecord
from clinfer.cache.stats import Miss, Reason, Stats
from clinfer.cache.store import Store
from clinfer.cache.user import default_directory

__all__ = [
    "CacheMode",
    "ContentDigest",
    "Entry",
    "EntryError",
    "FieldDifference",
    "FieldValue",
    "Header",
    "KeyRecord",
    "Layers",
    "Miss",
    "Reason",
    "Removed",
    "Stats",
    "Store",
    "build_lock",
    "content_digest",
    "default_directory",
    "read",
    "read_header",
    "to_bytes",
    "write",
]
