"""What users give as inputs, turned into the arrays that a plan takes; errors name the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer import dtypes
from clinfer.errors import InputError
from clinfer.ports import Port

Array = np.ndarray[Any, Any]
Inputs = Mapping[Any, Any] | Sequence[Any] | Array | None


def arranged(ports: Sequence[Port], inputs: Inputs) -> list[Any]:
    """A value for each port, in order. Raises `InputError` for one that is missing or unfit."""
    given = {index_of(ports, key, "input"): value for key, value in pairs(ports, inputs)}
    require_all(ports, given)
    return [checked(port, given[index]) for index, port in enumerate(ports)]


def require_all(ports: Sequence[Port], given: Mapping[int, Any]) -> None:
    """Raises `InputError` naming the ports whose positions are not in `given`."""
    missing = [port.name for index, port in enumerate(ports) if index not in given]
    if missing:
        raise InputError(
            f"no value for input {', '.join(map(repr, missing))}; "
            f"the model has {[port.name for port in ports]}"
        )


def pairs(ports: Sequence[Port], inputs: Inputs) -> Iterable[tuple[Any, Any]]:
    """Keys and values of what a user gives: a mapping, values by position, or the one array."""
    if inputs is None:
        return ()
    if isinstance(inputs, Mapping):
        return inputs.items()
    if isinstance(inputs, (list, tuple)) and not (
        len(ports) == 1 and ports[0].dtype in ("sequence", "optional")
    ):
        if len(inputs) != len(ports):
            raise InputError(
                f"{len(inputs)} inputs given; the model has {len(ports)}: {[p.name for p in ports]}"
            )
        return enumerate(inputs)
    if len(ports) != 1:
        raise InputError(
            f"one array given; the model has {len(ports)} inputs: {[p.name for p in ports]}"
        )
    return [(0, inputs)]


def index_of(ports: Sequence[Port], key: Any, what: str) -> int:
    """The position of a port given by name, number or itself. Raises `InputError`."""
    names = [port.name for port in ports]
    if isinstance(key, Port):
        key = key.name
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, (int, np.integer)) and -len(ports) <= key < len(ports):
        return int(key) % len(ports)
    raise InputError(f"the model has no {what} {key!r}; it has {names}")


def checked(port: Port, value: Any) -> Any:
    """The value as the plan takes it; raises `InputError` for another dtype or rank."""
    if port.dtype not in dtypes.BY_NAME:
        return value
    expected = dtypes.to_numpy(port.dtype)
    if port.dtype == "string":
        array = np.asarray(value, dtype=object)
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype != expected:
            raise InputError(
                f"input '{port.name}' has dtype {array.dtype}, expected {port.dtype}; "
                f"convert it with .astype('{port.dtype}')"
            )
    else:
        array = _converted(port, value, expected)
    _check_shape(port, array)
    return np.ascontiguousarray(array).reshape(array.shape)


def _converted(port: Port, value: Any, expected: np.dtype[Any]) -> Array:
    """Python numbers and lists as an array, where every value stays what it is.

    Fractions may be rounded to the dtype's precision.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise InputError(f"input '{port.name}' is not an array: {error}") from None
    integers = array.dtype.kind in "iu" and expected.kind in "iu"
    if array.size and not integers and not np.can_cast(array.dtype, expected, "same_kind"):
        raise InputError(f"input '{port.name}' holds {array.dtype} values, expected {port.dtype}")
    converted = array.astype(expected)
    if integers and not np.array_equal(converted, array):
        raise InputError(
            f"input '{port.name}' holds values from {array.min()} to {array.max()}, "
            f"which {port.dtype} does not reach"
        )
    return converted


def _check_shape(port: Port, array: Array) -> None:
    if port.shape is None:
        return
    fits = len(array.shape) == len(port.shape) and all(
        not isinstance(want, int) or want == have
        for want, have in zip(port.shape, array.shape, strict=True)
    )
    if not fits:
        shape = "[" + ", ".join("?" if d is None else str(d) for d in port.shape) + "]"
        raise InputError(f"input '{port.name}' has shape {list(array.shape)}, expected {shape}")
