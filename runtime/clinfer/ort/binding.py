"""`IOBinding`: inputs and outputs bound once, and where results are to be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.ort.errors import BadDataError, BadTypeError, BadValueError
from clinfer.ort.values import Array, OrtValue, array_at, require_cpu

if TYPE_CHECKING:
    from clinfer.ort.session import InferenceSession


class IOBinding:
    """Inputs and outputs of a session's next runs. Memory is the host's, 'cpu'."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, OrtValue] = {}
        self._targets: dict[str, Array | None] = {}  # None: a new array each time
        self._results: list[OrtValue] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """An array, which is read in each run."""
        self._bind(name, OrtValue.ortvalue_from_numpy(np.asarray(arr_on_cpu)))

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Memory at an address, which is read in each run; it must stay there."""
        require_cpu(device_type)
        self._bind(name, OrtValue(array_at(buffer_ptr, shape, element_type)))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """A value, which is read in each run."""
        self._bind(name, _value(ortvalue))

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """An output that is wanted; with `buffer_ptr` it is written to that memory."""
        require_cpu(device_type)
        self._session._output(name)
        if buffer_ptr is None:
            self._targets[name] = None
            return
        if element_type is None or shape is None:
            raise BadValueError(
                "`element_type` and `shape` are to be provided if pre-allocated memory is provided"
            )
        self._targets[name] = array_at(buffer_ptr, shape, element_type)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """An output that is written into a value's memory."""
        self._session._output(name)
        array = _value(ortvalue).numpy()
        if not array.flags.writeable:
            raise BadDataError(f"output '{name}': the array to write to is read-only")
        self._targets[name] = array

    def get_outputs(self) -> list[OrtValue]:
        """The last run's outputs, in the order they were bound."""
        return list(self._results)

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The last run's outputs as arrays of the caller's own."""
        return [_copied(value._value) for value in self._results]

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs, and the last run's results."""
        self._targets.clear()
        self._results = []

    def synchronize_inputs(self) -> None:
        """Bound memory is the host's, and complete at any time."""

    def synchronize_outputs(self) -> None:
        """A run has ended, with all its results, when it returns."""

    def _bind(self, name: str, value: OrtValue) -> None:
        if not self._session._takes(name):
            raise BadDataError(f"Failed to find NodeArg with name: {name} in the def list")
        self._inputs[name] = value

    def _wanted(self) -> list[str]:
        if not self._targets:
            raise BadDataError("Error in execution: At least one output should be requested.")
        return list(self._targets)

    def _take(self, values: Sequence[Any]) -> None:
        """The results of a run, written to where they are bound."""
        results: list[OrtValue] = []
        for (name, target), value in zip(self._targets.items(), values, strict=True):
            if target is not None:
                _write(name, target, value)
            results.append(OrtValue(value if target is None else target))
        self._results = results


def _write(name: str, target: Array, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != target.dtype:
        found = getattr(value, "dtype", type(value).__name__)
        raise BadDataError(
            f"Error in execution: output '{name}' is {found}, bound as {target.dtype}"
        )
    if value.shape != target.shape:
        raise BadDataError(
            f"Error in execution: Got invalid dimensions for output: {name}: {list(value.shape)} "
            f"is computed, {list(target.shape)} is bound. Please fix either the inputs/outputs or "
            "the model."
        )
    target[...] = value


def _value(ortvalue: Any) -> OrtValue:
    if not isinstance(ortvalue, OrtValue):
        raise BadTypeError(f"an OrtValue expected, found {type(ortvalue).__name__}")
    return ortvalue


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
