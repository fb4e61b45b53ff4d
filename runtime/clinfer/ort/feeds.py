"""What ONNX Runtime's users feed a session, checked in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import ClinferError, listed
from clinfer.ort.errors import InvalidArgument, MissingInputError
from clinfer.ort.values import OrtValue, data_type
from clinfer.ports import Port

Feeds = dict[str, Any]


class Checks:
    """The inputs of one compiled model: names, dtypes, what may be left out."""

    def __init__(self, ports: Sequence[Port], types: Mapping[str, str]) -> None:
        """`types` has those of inputs that are no tensors, in ONNX Runtime's words."""
        self._types = types
        self._ports = {port.name: port for port in ports}
        self._dtypes = {p.name: to_numpy(p.dtype) for p in ports if p.dtype in BY_NAME}
        self._optional = {p.name: None for p in ports if p.dtype == "optional"}
        self._required = [p.name for p in ports if p.dtype != "optional"]

    def __contains__(self, name: object) -> bool:
        return name in self._ports

    def checked(self, feeds: Mapping[str, Any]) -> Feeds:
        """The feeds as the compiled model takes them.

        Raises `MissingInputError`, and `InvalidArgument` for a name or dtype that does not fit.
        """
        self.require(feeds)
        found: Feeds = dict(self._optional)
        for name, value in feeds.items():
            if name not in self._ports:
                raise InvalidArgument(
                    f"Invalid input name: {name}; the model has {listed(map(repr, self._ports))}"
                )
            plain = value._value if isinstance(value, OrtValue) else value
            found[name] = self._value(name, plain)
        return found

    def require(self, names: Mapping[str, Any]) -> None:
        """Raises `MissingInputError` where a required input is not among the names."""
        missing = [name for name in self._required if name not in names]
        if missing:
            raise MissingInputError(
                f"Required inputs ({missing}) are missing from input feed ({list(names)})."
            )

    def _value(self, name: str, value: Any) -> Any:
        expected = self._dtypes.get(name)
        if expected is None:
            _require_type(name, value, self._types.get(name, ""))
            return value
        if value is None:
            raise InvalidArgument(f"Missing Input: {name} is None, {self._named(name)} expected")
        if expected.hasobject:
            return _texts(value)
        if isinstance(value, np.ndarray) and value.dtype.newbyteorder("=") != expected:
            raise InvalidArgument(
                f"Unexpected input data type. Actual: ({_actual(value)}) , expected: "
                f"({self._named(name)}); convert input '{name}' with .astype('{expected}')"
            )
        return value

    def _named(self, name: str) -> str:
        return data_type(np.empty(0, self._dtypes[name]))

    def explained(self, feeds: Feeds) -> InvalidArgument | None:
        """The error for a feed whose rank or fixed sizes do not fit, in ONNX Runtime's words."""
        for name, value in feeds.items():
            wanted = self._ports[name].shape
            if wanted is None or name not in self._dtypes:
                continue
            shape = np.shape(value)
            if len(shape) != len(wanted):
                return InvalidArgument(
                    f"Invalid rank for input: {name} Got: {len(shape)} Expected: {len(wanted)} "
                    "Please fix either the inputs/outputs or the model."
                )
            wrong = [
                f" index: {axis} Got: {have} Expected: {want}\n"
                for axis, (have, want) in enumerate(zip(shape, wanted, strict=True))
                if isinstance(want, int) and want != have
            ]
            if wrong:
                return InvalidArgument(
                    f"Got invalid dimensions for input: {name} for the following indices\n"
                    f"{''.join(wrong)} Please fix either the inputs/outputs or the model."
                )
        return None


def _require_type(name: str, value: Any, kind: str) -> None:
    """Raises `InvalidArgument` where a value is not of a type that is no tensor's."""
    if kind.startswith("optional("):
        if value is not None:
            _require_type(name, value, kind[len("optional(") : -1])
        return
    if kind.startswith("seq("):
        if not isinstance(value, (list, tuple)):
            raise InvalidArgument(
                f"input with name: '{name}' expected to be of type: {kind} but received "
                f"{_actual(value)}; give a list"
            )
        for item in value:
            _require_type(name, item, kind[len("seq(") : -1])
    elif kind.startswith("tensor(") and isinstance(value, np.ndarray) and _actual(value) != kind:
        raise InvalidArgument(
            f"Unexpected input data type. Actual: ({_actual(value)}) , expected: ({kind}), in "
            f"input '{name}'"
        )


def _texts(value: Any) -> Any:
    """Texts; other objects in an array of objects become theirs, as in ONNX Runtime."""
    array = np.asarray(value, dtype=object)
    if all(isinstance(item, (str, bytes)) for item in array.flat):
        return array
    texts = [item if isinstance(item, (str, bytes)) else str(item) for item in array.flat]
    return np.array(texts, object).reshape(array.shape)


def _actual(value: Any) -> str:
    try:
        return data_type(value)
    except ClinferError:
        return str(getattr(value, "dtype", type(value).__name__))
