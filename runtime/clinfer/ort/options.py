"""`SessionOptions` and `RunOptions`: ONNX Runtime's attributes, checked when they are set."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from clinfer.ort import errors
from clinfer.ort.enums import ExecutionMode, ExecutionOrder, GraphOptimizationLevel
from clinfer.ort.errors import BadDataError, BadTypeError, InvalidArgument
from clinfer.ort.values import OrtValue


class _Options:
    """Attributes with defaults: those of the class. No others can be set, nor other types."""

    def __init__(self) -> None:
        object.__setattr__(self, "_entries", {})

    def __setattr__(self, name: str, value: Any) -> None:
        default = getattr(type(self), name, None)
        if name.startswith("_") or default is None or callable(default):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        object.__setattr__(self, name, _checked(f"{type(self).__name__}.{name}", value, default))

    def _add(self, key: str, value: str) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            raise BadTypeError(f"a configuration entry is two texts, found {key!r}, {value!r}")
        self._entries[key] = value

    def _entry(self, key: str) -> str:
        if key not in self._entries:
            raise BadDataError(f"{type(self).__name__} does not have configuration with key: {key}")
        return self._entries[key]

    _entries: dict[str, str]


class SessionOptions(_Options):
    """How a session is made. docs/onnxruntime.md says which options have an effect here."""

    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_profiling: bool = False
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    execution_order: ExecutionOrder = ExecutionOrder.DEFAULT
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    inter_op_num_threads: int = 0
    intra_op_num_threads: int = 0
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    optimized_model_filepath: str = ""
    profile_file_prefix: str = "onnxruntime_profile_"
    use_deterministic_compute: bool = False
    use_per_session_threads: bool = True

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "_names", {})
        object.__setattr__(self, "_denotations", {})
        object.__setattr__(self, "_values", {})

    _names: dict[str, int]
    _denotations: dict[str, int]
    _values: dict[str, np.ndarray[Any, Any]]

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Keeps an entry; none has an effect here."""
        self._add(key, value)

    def get_session_config_entry(self, key: str) -> str:
        """An entry. Raises an error where there is none."""
        return self._entry(key)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Fixes the dimension of that name in all inputs."""
        self._names[name] = _size(size)

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        """Fixes the dimensions of that meaning ('DATA_BATCH') in all inputs."""
        self._denotations[denotation] = _size(size)

    def add_initializer(self, name: str, value: OrtValue) -> None:
        """Gives an initialiser another value."""
        if not isinstance(value, OrtValue):
            raise BadTypeError(f"the value of an initialiser is an OrtValue, found {type(value)}")
        self._values[name] = value.numpy()

    def add_external_initializers(self, names: Sequence[str], values: Sequence[OrtValue]) -> None:
        """Gives several initialisers other values."""
        if len(names) != len(values):
            raise InvalidArgument(f"{len(names)} names of initialisers, {len(values)} values")
        for name, value in zip(names, values, strict=True):
            self.add_initializer(name, value)

    def register_custom_ops_library(self, path: str | os.PathLike[str]) -> None:
        """Raises `NotImplemented`: kernels made for ONNX Runtime cannot run here."""
        raise errors.NotImplemented(
            f"'{os.fspath(path)}': a library of ONNX Runtime's custom operators cannot be used: "
            "clinfer runs operators as OpenCL kernels; write the operator as an ONNX function in "
            "the model"
        )


class RunOptions(_Options):
    """How one run is made; setting `terminate` makes the runs that begin with it fail."""

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    only_execute_path_to_fetches: bool = False
    terminate: bool = False

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Keeps an entry; none has an effect here."""
        self._add(key, value)

    def get_run_config_entry(self, key: str) -> str:
        """An entry. Raises an error where there is none."""
        return self._entry(key)


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value as the default's type. Raises `BadTypeError`."""
    try:
        if isinstance(default, IntEnum):
            return type(default)(value)
        if isinstance(default, str):
            return os.fspath(value)
        if isinstance(default, bool) and not isinstance(value, (bool, int, np.bool_)):
            raise TypeError
        return bool(value) if isinstance(default, bool) else operator.index(value)
    except (TypeError, ValueError):
        kind = type(default).__name__
        raise BadTypeError(f"{name}: a value of {kind} expected, found {value!r}") from None


def _size(size: int) -> int:
    try:
        found = operator.index(size)
    except TypeError:
        raise BadTypeError(f"a dimension's size is a number, found {size!r}") from None
    if found < 0:
        raise InvalidArgument(f"a dimension's size is 0 or more, found {found}")
    return found
