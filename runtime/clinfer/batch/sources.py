"""Files as pieces of work: Parquet, Arrow (IPC, Feather), and folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clinfer.batch.tables import ArrowTable, Kind, Table, Values, arrow_column
from clinfer.errors import InputError
from clinfer.names import PICTURES

_PARQUET = frozenset([".parquet", ".pq"])
_ARROW = frozenset([".arrow", ".feather", ".ipc"])
_MOST_BYTES = 2**26  # of rows that are looked at together
_MOST_PICTURES = 32  # each may have 36 MB
_KINDS = {"Parquet": _PARQUET, "Arrow": _ARROW, "pictures": PICTURES}


class Piece(NamedTuple):
    """What one task does: row groups of a Parquet file, a file of Arrow, or some pictures."""

    kind: str
    paths: tuple[str, ...]
    groups: tuple[int, ...] = ()
    rows: int = 0

    def tables(self, rows: int) -> Iterator[Table]:
        """The piece's rows, so many at a time at most. Raises `InputError` for an unfit file."""
        with _readable(self.paths[0]):
            yield from _READERS[self.kind](self, rows)

    @property
    def state(self) -> list[Any]:
        """Tells whether the files are those that another run saw."""
        stats = [Path(path).stat() for path in self.paths]
        return [
            self.kind,
            [[p, s.st_size, s.st_mtime_ns] for p, s in zip(self.paths, stats, strict=True)],
            list(self.groups),
        ]


def pieces(source: str | os.PathLike[str], rows: int) -> list[Piece]:
    """A file's or a folder's pieces, of some `rows` each, in the order of the files' names.

    Raises `InputError` where there is nothing to read, or files of more than one kind.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"'{path}' is no file and no folder: give Parquet, Arrow or pictures")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [p for p in files if not p.name.startswith(("_", "."))]
    found = {
        kind: [p for p in files if p.suffix.lower() in suffixes]
        for kind, suffixes in _KINDS.items()
    }
    kinds = [kind for kind, named in found.items() if named]
    if len(kinds) != 1:
        has = f"has {' and '.join(kinds)}" if kinds else "has no such file"
        wanted = ", ".join(f"{kind} ({' '.join(sorted(s))})" for kind, s in _KINDS.items())
        raise InputError(f"'{path}': expected files of one kind, {wanted}; it {has}")
    kind = kinds[0]
    return list(_SPLITTERS[kind]([str(p) for p in found[kind]], rows))


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Around the reading of a file: whatever its readers raise becomes an `InputError`."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError, KeyError) as error:  # Arrow's own are these
        raise InputError(f"'{path}' cannot be read: {error}") from error


def _parquet_pieces(paths: Sequence[str], rows: int) -> Iterator[Piece]:
    import pyarrow.parquet

    for path in paths:
        with _readable(path):
            meta = pyarrow.parquet.read_metadata(path)
        groups: list[int] = []
        count = 0
        for group in range(meta.num_row_groups):
            groups.append(group)
            count += meta.row_group(group).num_rows
            if count >= rows or group == meta.num_row_groups - 1:
                yield Piece("Parquet", (path,), tuple(groups), count)
                groups, count = [], 0


def _parquet(piece: Piece, rows: int) -> Iterator[Table]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(piece.paths[0]) as file:
        size = sum(file.metadata.row_group(group).total_byte_size for group in piece.groups)
        most = _rows_in_memory(rows, size, piece.rows)
        for batch in file.iter_batches(most, row_groups=list(piece.groups)):
            yield ArrowTable(pyarrow.Table.from_batches([batch]))


def _arrow_pieces(paths: Sequence[str], rows: int) -> Iterator[Piece]:
    import pyarrow.dataset

    for path in paths:
        with _readable(path):
            count = pyarrow.dataset.dataset(path, format="ipc").count_rows()
        yield Piece("Arrow", (path,), (), count)


def _arrow(piece: Piece, rows: int) -> Iterator[Table]:
    import pyarrow.dataset

    for batch in pyarrow.dataset.dataset(piece.paths[0], format="ipc").to_batches(batch_size=rows):
        batch.validate(full=True)  # nothing else has looked at what is mapped
        table = pyarrow.Table.from_batches([batch])
        most = _rows_in_memory(rows, batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, most):
            yield ArrowTable(table.slice(start, most))


def _picture_pieces(paths: Sequence[str], rows: int) -> Iterator[Piece]:
    for start in range(0, len(paths), rows):
        named = tuple(paths[start : start + rows])
        yield Piece("pictures", named, (), len(named))


def _pictures(piece: Piece, rows: int) -> Iterator[Table]:
    most = min(rows, _MOST_PICTURES)
    for start in range(0, len(piece.paths), most):
        yield PictureTable(piece.paths[start : start + most])


def _rows_in_memory(most: int, size: int, count: int) -> int:
    """At most so many rows at a time, where `count` of them take `size` bytes."""
    return max(min(most, _MOST_BYTES * count // max(size, 1)), 1)


_SPLITTERS = {"Parquet": _parquet_pieces, "Arrow": _arrow_pieces, "pictures": _picture_pieces}
_READERS = {"Parquet": _parquet, "Arrow": _arrow, "pictures": _pictures}


class PictureTable(Table):
    """Pictures by `path`; `image` is uint8 of height, width and three channels (RGB)."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self.names = ["path", "image"]
        self.count = len(self._paths)

    def column(self, name: str) -> Values:
        return self._paths if name == "path" else [_Picture(path) for path in self._paths]

    def with_columns(
        self,
        results: Mapping[str, Values],
        types: Mapping[str, Kind],
        text: Mapping[str, Sequence[str]],
        keep: bool,
    ) -> Any:
        """A table of Arrow; the pictures themselves are not in it."""
        import pyarrow

        own = {"path": pyarrow.array(self._paths)}
        made = {name: arrow_column(values, types[name]) for name, values in results.items()}
        words = {name: pyarrow.array(list(v), pyarrow.string()) for name, v in text.items()}
        return pyarrow.table({**own, **made, **words})


class _Picture:
    """A file that becomes an array when it is looked at; then it may turn out to be none."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        from PIL import Image

        try:
            with Image.open(self._path) as picture:
                return np.asarray(picture.convert("RGB"), dtype)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"'{self._path}' is no picture that Pillow reads: {error}") from error
