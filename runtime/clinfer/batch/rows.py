"""Rows of a table as a model's inputs: what is like the others goes together, what is bad alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.errors import ClinferError, InputError, listed
from clinfer.feeds import converted
from clinfer.ports import Port

Array = np.ndarray[Any, Any]


class Group(NamedTuple):
    """Rows of like shapes, by their numbers, and their values by input: a row each."""

    rows: Sequence[int]
    values: dict[str, Any]  # lists of arrays, or one array

    def stacked(self, more: int) -> dict[str, Array]:
        """One array an input, filled up with so many more of the last row."""
        return {
            name: values
            if isinstance(values, np.ndarray) and not more
            else np.stack([*values, *[values[-1]] * more])
            for name, values in self.values.items()
        }


def columns_of(
    ports: Sequence[Port], given: Mapping[str, str], names: Sequence[str]
) -> dict[str, str]:
    """The column for each input: as given, of its name, or the only one for the only input.

    Raises `InputError` for an input without one, and for names that are none.
    """
    known = {port.name for port in ports}
    strange = [name for name in given if name not in known]
    if strange:
        raise InputError(
            f"columns: the model has no input {listed(map(repr, strange))}; it has "
            f"{listed(map(repr, sorted(known)))}"
        )
    found = {port.name: given.get(port.name, port.name) for port in ports}
    lacking = {name: column for name, column in found.items() if column not in names}
    if len(ports) == len(names) == 1 and not given:
        return {ports[0].name: names[0]}
    twice = [column for column in found.values() if list(names).count(column) > 1]
    if twice:
        raise InputError(f"the table has more than one column '{twice[0]}'; rename the others")
    if lacking:
        name, column = next(iter(lacking.items()))
        raise InputError(
            f"no column '{column}' for input '{name}'; the table has "
            f"{listed(map(repr, names)) or 'none'}; give columns={{'{name}': COLUMN}}"
        )
    return found


def takes_rows_together(ports: Sequence[Port], row_ranks: Mapping[str, int]) -> bool:
    """Whether every input has a dimension in front for the rows; else each row is all of it.

    Raises `InputError` where rows are neither.
    """
    known = [port for port in ports if port.shape is not None]
    more = {len(port.shape or ()) - row_ranks[port.name] for port in known}
    if more == {1} and len(known) == len(ports):
        return True
    if more <= {0}:
        return False
    wants = ", ".join(f"'{port.name}' {port.partial_shape}" for port in known)
    has = ", ".join(f"{row_ranks[port.name]} of '{port.name}'" for port in known)
    raise InputError(
        "a row has one dimension less than each input, or as many as each; the inputs are "
        f"{wants}, the row's dimensions {has}"
    )


def row_value(port: Port, value: Any) -> Array:
    """One row's value as the input's type. Raises `InputError` for what is none."""
    if value is None:
        raise InputError(f"input '{port.name}': the value is null")
    dtype = dtypes.to_numpy(port.dtype)
    try:
        value = _unnested(value)
        if dtype.hasobject:
            return _strings(port, value)
        array = np.asarray(value)
        if array.dtype.kind in "OUS":
            return _numbers(port, array, dtype)
        return converted(port, array, dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"input '{port.name}': no array of {port.dtype}: {error}") from error


def _unnested(value: Any) -> Any:
    """Arrays of arrays, as columns of lists of lists come, as lists."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim:
        return [_unnested(item) for item in value]
    return value


def _strings(port: Port, value: Any) -> Array:
    """Text as an array of objects, which keeps NULs at the end; bytes are taken for UTF-8."""
    array = np.array(value, dtype=object)
    found = np.empty(array.shape, object)
    for place, item in enumerate(array.flat):
        _require_value(port, item)
        text = item.decode() if isinstance(item, bytes) else item
        if not isinstance(text, str):
            raise InputError(f"input '{port.name}' holds {type(item).__name__}, expected strings")
        found.flat[place] = text
    return found


def _numbers(port: Port, array: Array, dtype: np.dtype[Any]) -> Array:
    """Python's numbers, as decimals come, where they are the type's too."""
    for item in array.flat:
        _require_value(port, item)
        if isinstance(item, (str, bytes)):
            raise InputError(f"input '{port.name}' holds strings, expected {port.dtype}")
    made = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(made, array):
        raise InputError(f"input '{port.name}' holds values that {port.dtype} does not hold")
    return made


def _require_value(port: Port, item: Any) -> None:
    if item is None:
        raise InputError(f"input '{port.name}': a null is among the values")


def groups(
    ports: Sequence[Port],
    columns: Mapping[str, Sequence[Any]],
    count: int,
    errors: dict[int, str],
) -> list[Group]:
    """Rows of like shapes together, in their order; rows that are no input go to `errors`."""
    dense = _dense(ports, columns)
    if dense is not None:
        return [Group(range(count), dense)] if count else []
    found: dict[tuple[Any, ...], Group] = {}
    for row in range(count):
        try:
            values = {port.name: row_value(port, columns[port.name][row]) for port in ports}
        except ClinferError as error:
            errors[row] = str(error)
            continue
        key = tuple(value.shape for value in values.values())
        group = found.setdefault(key, Group([], {port.name: [] for port in ports}))
        group.rows.append(row)  # type: ignore[attr-defined]  # a list, as made
        for name, value in values.items():
            group.values[name].append(value)
    return list(found.values())


def _dense(ports: Sequence[Port], columns: Mapping[str, Sequence[Any]]) -> dict[str, Any] | None:
    """Columns that are arrays whose values are inputs, all of them; None where a row has to see."""
    kinds = {c.dtype.kind if isinstance(c, np.ndarray) else "O" for c in columns.values()}
    if kinds & {"O", "U", "S"}:
        return None
    try:
        return {port.name: row_value(port, columns[port.name]) for port in ports}
    except InputError:
        return None


def parts(group: Group, most: int) -> Iterator[Group]:
    """At most so many rows at a time."""
    for start in range(0, len(group.rows), most):
        end = start + most
        yield Group(
            group.rows[start:end],
            {name: values[start:end] for name, values in group.values.items()},
        )


def row_names(ports: Sequence[Port]) -> set[str]:
    """The names of the inputs' first dimensions, which are those of the rows."""
    return {port.shape[0] for port in ports if port.shape and isinstance(port.shape[0], str)}


def fixed_rows(ports: Sequence[Port]) -> int:
    """How many rows inputs take at a time, where that is fixed; 0 where it is free."""
    sizes = {port.shape[0] for port in ports if port.shape}
    fixed = [size for size in sizes if isinstance(size, int)]
    return fixed[0] if fixed else 0
