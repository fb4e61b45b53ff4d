"""What users give as inputs, turned into the arrays that a plan takes; errors name the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from clinfer import dtypes
from clinfer.boundary import during
from clinfer.device.results import own
from clinfer.errors import InputError, ShapeError, listed
from clinfer.ports import Port, index_of, named

Array = np.ndarray[Any, Any]
Inputs = Mapping[Any, Any] | Sequence[Any] | Array | None
_MOST_WORK = 10_000  # of NumPy's search for an element that two arrays share


class Feed:
    """What the runs of a model are given; values like the last ones need no second look."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self.ports = ports
        self._names = tuple(port.name for port in ports)
        self._one = len(ports) == 1
        self._checked = all(p.dtype in dtypes.BY_NAME and p.dtype != "string" for p in ports)
        self._last: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...] | None = None

    def arranged(self, inputs: Inputs) -> list[Any]:
        """A value for each port, in order. Raises `InputError` for one that is missing or unfit."""
        found = self.quick(inputs)
        if found is None:
            found = completed(self.ports, given(self.ports, inputs))
            self.remember(found)
        return found

    def remember(self, values: Sequence[Any]) -> None:
        """Later values like these, which were checked, are as good."""
        if self._checked and all(type(value) is np.ndarray for value in values):
            self._last = tuple([(value.dtype, value.shape) for value in values])

    def quick(self, inputs: Any) -> list[Any] | None:
        """The values in order where all are arrays like the last run's; None: `given` has to see.

        Arrays of a subclass, other dtypes, shapes or keys are not; text and objects never are.
        """
        kind, last = type(inputs), self._last
        if last is None:
            return None
        if kind is dict and len(inputs) == len(last):
            values = [inputs.get(name) for name in self._names]
        elif kind is np.ndarray and self._one:
            values = [inputs]
        elif kind is list and len(inputs) == len(last):
            values = inputs.copy()  # the caller's may change while it is looked at, or during a run
        else:
            return None
        for value, (dtype, shape) in zip(values, last, strict=True):
            if (
                type(value) is not np.ndarray
                or value.dtype is not dtype
                or value.shape != shape
                or not value.flags.c_contiguous
            ):
                return None
        return values


def given(ports: Sequence[Port], inputs: Inputs, copied: bool = False) -> dict[int, Any]:
    """What a user gives, by the position of its port; checked, where the user has it or `copied`.

    Raises `InputError` for an unknown, repeated or unfit one.
    """
    found: dict[int, Any] = {}
    for key, value in pairs(ports, inputs):
        index = index_of(ports, key, "input")
        if index in found:
            raise InputError(f"input '{ports[index].name}' is given twice, once as {key!r}")
        array = checked(ports[index], value)
        found[index] = own(array) if copied else array
    return found


def completed(ports: Sequence[Port], values: Mapping[int, Any]) -> list[Any]:
    """The values in the ports' order. Raises `InputError` naming those that are missing."""
    missing = [port.name for index, port in enumerate(ports) if index not in values]
    if missing:
        raise InputError(
            f"no value for input {listed(map(repr, missing))}; the model has {named(ports)}"
        )
    return [values[index] for index in range(len(ports))]


def pairs(ports: Sequence[Port], inputs: Inputs, kind: str = "input") -> Iterable[tuple[Any, Any]]:
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
                f"{len(inputs)} {kind}s given; the model has {len(ports)}: {named(ports)}"
            )
        return enumerate(inputs)
    if len(ports) != 1:
        raise InputError(f"one array given; the model has {len(ports)} {kind}s: {named(ports)}")
    return [(0, inputs)]


def targets(ports: Sequence[Port], outputs: Inputs) -> dict[int, Any]:
    """The arrays that results are to be written to, by the position of their port.

    Raises `InputError` for what is no output, or no array that its results fit into.
    """
    found: dict[int, Any] = {}
    for key, value in pairs(ports, outputs, "output"):
        index = index_of(ports, key, "output")
        if value is None:
            continue
        if index in found:
            raise InputError(f"output '{ports[index].name}' is given twice, once as {key!r}")
        found[index] = target(ports[index], value)
    require_apart(ports, found)
    return found


def require_apart(ports: Sequence[Port], into: Mapping[int, Any]) -> None:
    """Raises `InputError` where results are to be written to memory that they would share."""
    arrays = [(_begin(a), n) for n, a in into.items() if isinstance(a, np.ndarray) and a.size]
    for (_, one), (_, other) in pairwise(sorted(arrays)):
        if np.may_share_memory(into[one], into[other]) and _overlap(into[one], into[other]):
            raise InputError(
                f"outputs '{ports[one].name}' and '{ports[other].name}' are to be written to the "
                "same memory: give each an array of its own"
            )


def _begin(array: Array) -> int:
    below = sum(
        (n - 1) * step for n, step in zip(array.shape, array.strides, strict=True) if step < 0
    )
    return int(array.ctypes.data + below)


def _overlap(one: Array, other: Array) -> bool:
    try:
        return np.shares_memory(one, other, max_work=_MOST_WORK)  # type: ignore[arg-type]
    except RuntimeError:  # too hard to say
        return False


def target(port: Port, value: Any) -> Any:
    """An array that results of an output can be written to. Raises `InputError`."""
    what = f"output '{port.name}'"
    if port.dtype not in dtypes.BY_NAME or port.dtype == "string":
        raise InputError(f"{what} is {port.dtype}: take it from the results")
    if hasattr(value, "int_ptr") or hasattr(value, "base_data"):
        from clinfer.buffers import require_writable

        remote = _remote(port, value, dtypes.to_numpy(port.dtype))
        if not isinstance(remote, np.ndarray):
            require_writable(remote)
        return remote
    array = value if isinstance(value, np.ndarray) else _array(what, value)
    if not isinstance(value, np.ndarray) and array.base is None:
        raise InputError(f"{what}: {type(value).__name__} has no memory to write to; give an array")
    if array.dtype != dtypes.to_numpy(port.dtype):
        raise InputError(f"{what} has {port.dtype} elements, the array given {array.dtype}")
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{what}: a masked array hides what is written; give its .data")
    if not array.flags.writeable:
        raise InputError(f"{what}: the array given cannot be written to; give one that can")
    _check_shape(port, array)
    return array


def deliver(ports: Sequence[Port], results: list[Any], into: Mapping[int, Any]) -> None:
    """Puts each result that no run could write there into the array meant for it.

    Raises `ShapeError` for an array of another shape than the result has in this run.
    """
    for index, array in into.items():
        result = results[index]
        if result is array or not isinstance(array, np.ndarray):  # a remote one is filled already
            continue
        if result.shape != array.shape:
            raise ShapeError(
                f"output '{ports[index].name}' has the shape {list(result.shape)} in this run, the "
                f"array given {list(array.shape)}"
            )
        np.copyto(array, result)
        results[index] = array


def checked(port: Port, value: Any) -> Any:
    """The value as the plan takes it; raises `InputError` for another dtype or rank."""
    if port.dtype not in dtypes.BY_NAME:
        return value
    expected = dtypes.to_numpy(port.dtype)
    if port.dtype == "string":
        array = _strings(port, value)
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype != expected:
            array = converted(port, array, expected)
    elif hasattr(value, "int_ptr") or hasattr(value, "base_data"):
        return _remote(port, value, expected)
    else:
        array = converted(port, _array(f"{port.kind} '{port.name}'", value), expected)
    _check_shape(port, array)
    if array.flags.c_contiguous:
        return array
    with during("a copy in the order of its elements", lambda: f"{port.kind} '{port.name}'"):
        return array.copy("C")


def _remote(port: Port, value: Any, expected: np.dtype[Any]) -> Any:
    """A buffer of OpenCL, or an array in one, as a run takes it."""
    from clinfer.buffers import remote_array

    shape = port.shape
    fixed = shape is not None and all(isinstance(size, int) for size in shape)
    what = f"{port.kind} '{port.name}'"
    array = remote_array(
        value, what, expected, [int(d or 0) for d in shape or ()] if fixed else None
    )
    _check_shape(port, array)
    return array


def _strings(port: Port, value: Any) -> Array:
    """Text as an array of objects."""
    array = np.asarray(value, dtype=object)
    kinds = {type(item) for item in array.flat}
    wrong = next((kind for kind in kinds if not issubclass(kind, (str, bytes))), None)
    if wrong is not None:
        raise InputError(f"input '{port.name}' holds {wrong.__name__} values, expected strings")
    if not any(issubclass(kind, bytes) for kind in kinds):
        return array
    text = np.empty(array.shape, object)
    try:
        text.reshape(-1)[:] = [x.decode() if isinstance(x, bytes) else x for x in array.flat]
    except UnicodeError as error:
        raise InputError(f"input '{port.name}' holds bytes that are no UTF-8: {error}") from None
    return text


def _array(what: str, value: Any) -> Array:
    from clinfer.arrays import array_of

    return array_of(value, what)


def converted(port: Port, array: Array, expected: np.dtype[Any]) -> Array:
    """Numbers of another dtype, where every value stays what it is.

    Fractions may be rounded to the dtype's precision.
    """
    if array.dtype == expected:
        return array
    if not array.size:
        return np.empty(array.shape, expected)
    if not np.can_cast(array.dtype, expected, "same_kind"):
        integers = array.dtype.kind in "iu" and expected.kind in "iu"
        if not integers:
            raise InputError(
                f"input '{port.name}' has dtype {array.dtype}, expected {port.dtype}; "
                f"convert it with .astype('{port.dtype}')"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(expected)
        if array.dtype.kind in "iu":
            # A sign may come and go with the bits as they are: -5 as uint64.
            lost = not np.array_equal(converted.astype(array.dtype), array) or (
                expected.kind in "iu" and not np.array_equal(converted < 0, array < 0)
            )
        else:
            lost = expected.kind == "f" and bool(np.any(np.isinf(converted) & ~np.isinf(array)))
    if lost:
        raise InputError(
            f"input '{port.name}' holds values from {array.min()} to {array.max()}, "
            f"which {port.dtype} does not {'reach' if expected.kind in 'iu' else 'hold'}"
        )
    return converted


def _check_shape(port: Port, array: Any) -> None:
    if port.shape is None:
        return
    fits = len(array.shape) == len(port.shape) and all(
        not isinstance(want, int) or want == have
        for want, have in zip(port.shape, array.shape, strict=True)
    )
    if not fits:
        shape = "[" + ", ".join("?" if d is None else str(d) for d in port.shape) + "]"
        raise InputError(
            f"{port.kind} '{port.name}' has shape {list(array.shape)}, expected {shape}"
        )
