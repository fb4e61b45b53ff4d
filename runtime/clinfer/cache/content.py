"""The digest of a model's content: the ONNX file and its external data files.

    SHA-256("clinfer content 1\\n" || per file: length, 8 bytes little-endian || tree hash)

The model comes first, its external files follow in the order of their names. Names and places do
not enter (the ONNX file itself names its external files), so a moved or touched model keeps its
digest and any other byte changes it.

Reading gigabytes at each start is saved by a memo in the store: under the model's path it keeps the
digest and, for each file, size, modification and change time in nanoseconds and inode, as git's
index does. While all of them are as they were, the content is. A file changed so recently that
another change could leave the same times is never remembered (git's Documentation/technical/
racy-git.txt), which costs one more reading for a model that was written a moment ago.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from clinfer.cache.digests import file_tree_digest, tree_digests
from clinfer.cache.record import KeyRecord
from clinfer.cache.store import Store
from clinfer.errors import BlobError, ModelError
from clinfer.mapping import MappedFile, open_beside, open_file, stat_beside
from clinfer.sha256 import sha256

RACY_NS = 2 * 10**9
"""Nanoseconds after a change in which another one might leave the same times; FAT counts in 2 s."""

_MEMO_FORMAT = 1


class FileState(NamedTuple):
    """A file as the file system describes it; `name` is relative to the model's folder."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class ContentDigest(NamedTuple):
    """`digest` is 64 hexadecimal digits; `files` starts with the model.

    `remembered` tells that a memo answered and no file was read.
    """

    digest: str
    path: Path
    files: tuple[FileState, ...]
    remembered: bool

    @property
    def external(self) -> tuple[str, ...]:
        """The names of the external data files, relative to the model's folder."""
        return tuple(state.name for state in self.files[1:])

    def opened(self, number: int) -> MappedFile:
        """File `number` of `files`. Raises `ModelError` where it is not as it was digested."""
        expected = self.files[number]
        try:
            descriptor = _open(self.path, expected.name)
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, expected.name, error) from None
        try:
            found = _described(expected.name, os.fstat(descriptor))
            if found == expected:
                own, descriptor = descriptor, -1
                return MappedFile(self.path.parent / expected.name, own)
        except OSError as error:
            raise _unreadable(self.path, expected.name, error) from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        raise _unreadable(self.path, expected.name, "it has changed since it was digested")

    def unchanged(self) -> bool:
        """Whether the files are still those that were digested.

        Ask after reading a model: what was made of it may be stored under `digest` only then.
        """
        try:
            return _states(self.path, self.external) == self.files
        except ModelError:
            return False


def content_digest(
    path: str | Path,
    list_external: Callable[[Path], Iterable[str]],
    memo: Store | None = None,
    seed: Store | None = None,
) -> ContentDigest:
    """The digest of the model at `path` and its external data.

    `list_external` names the external data files, relative to the model's folder; it is called only
    where neither `memo` nor `seed` knows a file of this content, and its errors
    pass through. Raises ModelError for a file that is missing, cannot be read, or changes while it
    is read.
    """
    model = Path(path).absolute()
    record = _memo_record(model)
    known = None if memo is None else _recall(memo, record, model)
    if known is not None:
        return known
    # Whatever changes a file after this moment gives it a change time after this moment.
    before = time.time_ns()
    first = _states(model, ())
    root = file_root(model, first[0])
    external = _recall_external(memo, root)
    if external is None:
        external = _recall_external(seed, root)
    if external is None:
        external = tuple(sorted(set(list_external(model))))
        remember_external(memo, root, external)
    states = _states(model, external)
    if states[:1] != first:
        raise ModelError(f"'{model}' changed while it was read; try again")
    roots = (root, *(file_root(model, state) for state in states[1:]))
    digest = _digest(states, roots)
    found = ContentDigest(digest, model, states, remembered=False)
    if not found.unchanged():
        raise ModelError(f"'{model}' or its external data changed while it was read; try again")
    if memo is not None and not any(_is_racy(state, before) for state in states):
        content = {"digest": digest, "files": states}
        memo.remember(record, {"memo": json.dumps(content).encode("ascii")})
    return found


def bytes_digest(data: bytes) -> str:
    """The digest of a model held in memory, the same as that of a file of those bytes alone."""
    root = tree_digests([[memoryview(data)]])[0]
    whole = sha256(b"clinfer content 1\n" + len(data).to_bytes(8, "little") + root)
    return whole.hexdigest()


def file_states(path: str | Path, external: Iterable[str] = ()) -> tuple[FileState, ...]:
    """The model's and its external files' states now, as `ContentDigest.files` lists them.

    Raises ModelError for a file that is missing.
    """
    return _states(Path(path).absolute(), tuple(sorted(set(external))))


def _memo_record(model: Path) -> KeyRecord:
    name = sha256(os.fsencode(model)).hexdigest()
    return KeyRecord.make("content", [("format", _MEMO_FORMAT), ("path", name)])


def _recall(memo: Store, record: KeyRecord, model: Path) -> ContentDigest | None:
    """What the memo knows, if the files are as it describes them."""
    entry = memo.recall(record)
    if entry is None:
        return None
    try:
        content = json.loads(bytes(entry.section("memo")))
        digest = content["digest"]
        files = tuple(FileState(*fields) for fields in content["files"])
        names = [state.name for state in files]
        if len(bytes.fromhex(digest)) != sha256().digest_size:
            return None
        states = _states(model, names[1:])
    except (BlobError, ModelError, ValueError, TypeError, KeyError):
        return None
    return ContentDigest(digest, model, files, remembered=True) if states == files else None


def _states(model: Path, external: Iterable[str]) -> tuple[FileState, ...]:
    return tuple(_state(model, name) for name in (model.name, *external))


def _state(model: Path, name: str) -> FileState:
    try:
        status = model.stat() if name == model.name else stat_beside(model.parent, name)
    except (OSError, ValueError) as error:
        raise _unreadable(model, name, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(model, name, "it is not a file")
    return _described(name, status)


def _described(name: str, status: os.stat_result) -> FileState:
    return FileState(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _open(model: Path, name: str) -> int:
    """A descriptor of the model or of a file beside it."""
    return open_file(model) if name == model.name else open_beside(model.parent, name)


def _recall_external(memo: Store | None, root: bytes) -> tuple[str, ...] | None:
    """The external files an ONNX file of that tree hash names, where that is known.

    They follow from the file's content alone, so this memo holds however the file was changed.
    """
    entry = None if memo is None else memo.recall(_external_record(root))
    if entry is None:
        return None
    try:
        names = json.loads(bytes(entry.section("memo")))
    except (BlobError, ValueError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def remember_external(memo: Store | None, root: bytes, names: Iterable[str]) -> None:
    """Notes the external files that an ONNX file of that tree hash names."""
    if memo is not None:
        memo.remember(_external_record(root), {"memo": json.dumps(list(names)).encode("ascii")})


def _external_record(root: bytes) -> KeyRecord:
    return KeyRecord.make("external", [("format", _MEMO_FORMAT), ("content", root.hex())])


def file_root(model: Path, state: FileState) -> bytes:
    """The tree hash of one file's content."""
    try:
        descriptor = _open(model, state.name)
        try:
            return file_tree_digest(descriptor, state.size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _unreadable(model, state.name, error) from None


def _digest(states: Iterable[FileState], roots: Iterable[bytes]) -> str:
    whole = sha256(b"clinfer content 1\n")
    for state, root in zip(states, roots, strict=True):
        whole.update(state.size.to_bytes(8, "little") + root)
    return whole.hexdigest()


def _is_racy(state: FileState, now_ns: int) -> bool:
    return max(state.mtime_ns, state.ctime_ns) > now_ns - RACY_NS


def _unreadable(model: Path, name: str, why: OSError | ValueError | str) -> ModelError:
    reason = getattr(why, "strerror", None) or str(why)
    if name == model.name:
        return ModelError(f"the model '{model}' cannot be read: {reason}")
    return ModelError(f"the external data '{name}' of '{model}' cannot be read: {reason}")
