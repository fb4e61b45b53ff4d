"""Batches of the three kinds that Ray, Dask and pyarrow hand out, seen as columns of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.errors import InputError

Values = Sequence[Any]


class Kind(NamedTuple):
    """What a row has of an output: the element type and the shape, 0 for an open size."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """How many dimensions."""
        return len(self.shape)


class Table(ABC):
    """Columns by name, each a sequence with a value per row; and more columns made of them."""

    names: list[str]
    count: int

    @staticmethod
    def of(batch: Any) -> Table:
        """Raises `InputError` for what is no batch of rows."""
        if isinstance(batch, Mapping):
            return _Arrays(batch)
        if hasattr(batch, "column_names"):
            return ArrowTable(batch)
        if hasattr(batch, "columns") and hasattr(batch, "assign"):
            return _Frame(batch)
        raise InputError(
            "a batch is a dict of arrays, a pyarrow.Table or a pandas DataFrame; found "
            f"{type(batch).__name__}"
        )

    @abstractmethod
    def column(self, name: str) -> Values:
        """The values of a column, a row each."""

    @abstractmethod
    def with_columns(
        self,
        results: Mapping[str, Values],
        types: Mapping[str, Kind],
        text: Mapping[str, Sequence[str]],
        keep: bool,
    ) -> Any:
        """The batch with more columns (without its own unless `keep`): results, None where a row
        has none, of the element `types`, and text.
        """


class _Arrays(Table):
    """Ray's format: a row is an element along the first axis; results of one shape are an array."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch
        self.names = list(batch)
        lone = [name for name, values in batch.items() if not hasattr(values, "__len__")]
        if lone:
            raise InputError(f"a batch's columns are arrays; '{lone[0]}' is {batch[lone[0]]!r}")
        lengths = {len(values) for values in batch.values()}
        if len(lengths) > 1:
            raise InputError(f"a batch's columns have one length; found {sorted(lengths)}")
        self.count = lengths.pop() if lengths else 0

    def column(self, name: str) -> Values:
        values: Values = self._batch[name]
        return values

    def with_columns(
        self,
        results: Mapping[str, Values],
        types: Mapping[str, Kind],
        text: Mapping[str, Sequence[str]],
        keep: bool,
    ) -> Any:
        made = {name: _stacked(values, types[name]) for name, values in results.items()}
        words = {name: np.array(list(values), dtype=object) for name, values in text.items()}
        return {**(self._batch if keep else {}), **made, **words}


def _stacked(values: Values, of: Kind) -> Any:
    """One array where the shapes are one, with nothing (NaN, 0) for a row without a result."""
    shapes = {np.shape(value) for value in values if value is not None}
    if len(shapes) > 1:
        ragged = np.empty(len(values), dtype=object)
        ragged[:] = list(values)
        return ragged
    kind = dtypes.to_numpy(of.dtype)
    shape = shapes.pop() if shapes else of.shape
    none = np.full(shape, np.nan if kind.kind == "f" else "" if kind.hasobject else 0, kind)
    if not len(values):
        return np.empty((0, *shape), kind)
    # Strings stay objects: NumPy's own type of them drops NULs at the end.
    given = object if kind.hasobject else None
    return np.stack([none if v is None else np.asarray(v, given) for v in values])


class ArrowTable(Table):
    """A table of Arrow: results are lists (of lists), null where there is none."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names = list(batch.column_names)
        self.count = batch.num_rows

    def column(self, name: str) -> Values:
        values = self._batch.column(name).combine_chunks()
        dense = _dense(values)
        found: Values = values.to_pylist() if dense is None else dense
        return found

    def with_columns(
        self,
        results: Mapping[str, Values],
        types: Mapping[str, Kind],
        text: Mapping[str, Sequence[str]],
        keep: bool,
    ) -> Any:
        import pyarrow

        made = self._batch if keep else self._batch.select([])
        columns = {name: arrow_column(values, types[name]) for name, values in results.items()}
        columns |= {name: pyarrow.array(list(v), pyarrow.string()) for name, v in text.items()}
        if not keep:
            return pyarrow.table(columns)
        for name, column in columns.items():
            if name in made.column_names:
                made = made.drop_columns([name])
            made = made.append_column(name, column)
        return made


def _dense(values: Any) -> Any:
    """Arrow's values as one array, where all rows are numbers or tensors of one shape; or None."""
    import pyarrow

    kind = values.type
    if values.null_count:
        return None
    if isinstance(values, pyarrow.FixedShapeTensorArray):
        return values.to_numpy_ndarray()
    if pyarrow.types.is_fixed_size_list(kind) or isinstance(values, _lists()):
        lengths = (
            {kind.list_size}
            if pyarrow.types.is_fixed_size_list(kind)
            else set(values.value_lengths().unique().to_pylist())
        )
        inner = _dense(values.flatten()) if len(lengths) == 1 else None
        return None if inner is None else inner.reshape(len(values), *lengths, *inner.shape[1:])
    is_number = pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)
    if is_number or pyarrow.types.is_boolean(kind):
        return values.to_numpy(zero_copy_only=False)
    return None


def _lists() -> tuple[type, ...]:
    import pyarrow

    return pyarrow.ListArray, pyarrow.LargeListArray


def arrow_column(values: Values, kind: Kind) -> Any:
    """Results as lists (of lists) of Arrow's type, null where there is none."""
    import pyarrow

    dtype = dtypes.to_numpy(kind.dtype)
    plain = pyarrow.string() if dtype.hasobject else _arrow_type(dtype)
    if dtype.kind in "fiu":
        found = _alike(values, dtype)
        if found is not None:
            return found
    rank = next((np.ndim(value) for value in values if value is not None), kind.rank)
    for _ in range(rank):
        plain = pyarrow.list_(plain)
    wide = np.float32 if dtype.kind == "V" else None  # ml_dtypes' have no type of Arrow
    lists = [None if value is None else np.asarray(value, wide).tolist() for value in values]
    return pyarrow.array(lists, plain)


def _alike(values: Values, dtype: np.dtype[Any]) -> Any:
    """Arrays of one shape as lists (of lists) without a Python object for each number; or None."""
    import pyarrow

    there = [value for value in values if value is not None]
    shapes = {np.shape(value) for value in there}
    shape = shapes.pop() if len(shapes) == 1 else ()
    if shapes or not shape or 0 in shape:
        return None
    found = pyarrow.array(np.stack(there).astype(dtype, copy=False).reshape(-1))
    if len(found) > np.iinfo(np.int32).max:
        return None
    for size in reversed(shape[1:]):
        offsets = np.arange(0, len(found) + 1, size, dtype=np.int32)
        found = pyarrow.ListArray.from_arrays(offsets, found)
    last = 0
    starts: list[int | None] = []  # null where there is no row
    for value in values:
        starts.append(None if value is None else last)
        last += 0 if value is None else shape[0]
    return pyarrow.ListArray.from_arrays(pyarrow.array([*starts, last], pyarrow.int32()), found)


def _arrow_type(dtype: np.dtype[Any]) -> Any:
    import pyarrow

    try:
        return pyarrow.from_numpy_dtype(dtype)
    except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowInvalid):
        return pyarrow.float32()


class _Frame(Table):
    """A DataFrame: an array is one object in its row."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._labels = {str(label): label for label in batch.columns}  # may be numbers
        self.names = [str(label) for label in batch.columns]
        self.count = len(batch)

    def column(self, name: str) -> Values:
        import pandas

        values = self._batch[self._labels[name]].tolist()
        return [None if value is pandas.NA else value for value in values]

    def with_columns(
        self,
        results: Mapping[str, Values],
        types: Mapping[str, Kind],
        text: Mapping[str, Sequence[str]],
        keep: bool,
    ) -> Any:
        import pandas

        made = self._batch.copy(deep=False) if keep else self._batch[[]].copy()
        for name, values in results.items():
            items = [None if v is None else np.asarray(v).tolist() for v in values]
            made[name] = pandas.Series(items, index=made.index, dtype=pandas_type(types[name]))
        for name, words in text.items():
            made[name] = pandas.Series(list(words), index=made.index, dtype=object)
        return made


def pandas_type(kind: Kind) -> Any:
    """The type of a column with room for rows without a result: NaN, NA, or None as an object."""
    dtype = dtypes.to_numpy(kind.dtype)
    if kind.rank or dtype.kind not in "fiub":
        return object
    if dtype.kind == "f":
        return dtype
    return "boolean" if dtype.kind == "b" else dtype.name.replace("u", "U").replace("i", "I", 1)
