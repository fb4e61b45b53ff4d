"""The tensors of a request that somebody has asked for, or has set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinfer import dtypes, feeds
from clinfer.api.tensor import Tensor
from clinfer.errors import InputError, ShapeError
from clinfer.ports import Port


class RequestTensors:
    """Input tensors are what runs read where they are given nothing else; output tensors get a copy
    of each run's results. They keep their memory from run to run, as OpenVINO's do.
    """

    def __init__(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._ports = (inputs, outputs)
        self._inputs: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._remote: dict[int, Any] = {}  # buffers of OpenCL that results are written to
        self._given: set[int] = set()  # output tensors that the user has given
        self._own: set[int] = set()  # input tensors that are the request's, not the user's

    def input(self, index: int, arrays: dict[int, Any], ran: Sequence[Any]) -> Tensor:
        """An input's tensor: as it was set (`arrays`), as the last run had it, or new zeros."""
        if index not in self._inputs:
            if index in arrays:
                self._inputs[index] = Tensor(arrays.pop(index), shared_memory=True)
            else:
                port = self._ports[0][index]
                _require_tensor(port)
                self._inputs[index] = Tensor(ran[index]) if ran else _new(port)
                self._own.add(index)
        return self._inputs[index]

    def set_input(self, index: int, tensor: Tensor) -> None:
        """Makes a user's tensor the one that runs read. Raises `InputError` where it is unfit."""
        port = self._ports[0][index]
        _check_type(port, tensor)
        feeds.checked(port, tensor.data)
        self._inputs[index] = tensor
        self._own.discard(index)

    def forget_input(self, index: int) -> None:
        """Another value was set."""
        self._inputs.pop(index, None)
        self._own.discard(index)

    def output(self, index: int, result: Any) -> Tensor:
        """An output's tensor, with the last run's result (None where there is none)."""
        if index in self._remote:
            given: Tensor = self._remote[index].given
            return given
        if index not in self._outputs:
            port = self._ports[1][index]
            _require_tensor(port)
            self._outputs[index] = _new(port) if result is None else Tensor(result)
        return self._outputs[index]

    def set_output(self, index: int, tensor: Tensor) -> None:
        """Makes runs write a result into a user's tensor. Raises `InputError` where it is unfit."""
        port = self._ports[1][index]
        if hasattr(tensor, "int_ptr") or hasattr(tensor, "base_data"):
            self._remote[index] = feeds.target(port, tensor)
            self._outputs.pop(index, None)
            self._given.discard(index)
            return
        _check_type(port, tensor)
        if not tensor.data.flags.writeable:
            raise InputError(f"output '{port.name}': the tensor cannot be written to")
        self._remote.pop(index, None)
        fixed = port.shape is not None and all(isinstance(size, int) for size in port.shape)
        if fixed and tensor.shape != port.shape:
            raise InputError(
                f"output '{port.name}' has shape {list(port.shape or ())}, the tensor "
                f"{list(tensor.shape)}"
            )
        given = {n: self._outputs[n].data for n in self._given if n != index}
        feeds.require_apart(self._ports[1], {**given, index: tensor.data})
        self._outputs[index] = tensor
        self._given.add(index)

    def targets(self, into: Mapping[int, Any] | None) -> dict[int, Any] | None:
        """Where runs write results themselves: what a run is given, and tensors of the user's."""
        if not self._given and not self._remote:
            return dict(into) if into else None
        own = {index: self._outputs[index].data for index in self._given}
        return {**self._remote, **own, **(into or {})}

    def put_into(self, values: list[Any]) -> None:
        """Puts what runs read of inputs that have a tensor at their places."""
        for index, tensor in self._inputs.items():
            values[index] = tensor.data

    def values(self) -> dict[int, Any]:
        """What runs read, by the positions of inputs."""
        ports = self._ports[0]
        return {i: feeds.checked(ports[i], tensor.data) for i, tensor in self._inputs.items()}

    def mirror(self, given: Mapping[int, Any]) -> None:
        """Input tensors of the request show what a run is given, also to later runs."""
        for index in self._own & given.keys():
            if isinstance(given[index], np.ndarray):
                self._inputs[index].copy_from(given[index])
            else:  # a buffer of OpenCL, which no tensor of the host shows
                self.forget_input(index)

    def deliver(self, results: Sequence[Any]) -> None:
        """Output tensors get a run's results. Raises `ShapeError` where one does not fit."""
        for index, tensor in self._outputs.items():
            result, array = results[index], tensor.data
            if result is array:
                continue
            if (
                type(result) is np.ndarray
                and result.shape == array.shape
                and (result.dtype == array.dtype)
            ):
                array[...] = result
                continue
            try:
                tensor.copy_from(result)
            except ShapeError as error:
                port = self._ports[1][index]
                raise ShapeError(f"{port.kind} '{port.name}': {error}") from None


def _new(port: Port) -> Tensor:
    """A tensor of zeros; a size that is not known is 0."""
    sizes = [size if isinstance(size, int) else 0 for size in port.shape or (0,)]
    array = np.zeros(sizes if port.shape is not None else [0], dtypes.to_numpy(port.dtype))
    tensor = Tensor(array, shared_memory=True)
    tensor._shared = False
    return tensor


def _require_tensor(port: Port) -> None:
    if port.dtype not in dtypes.BY_NAME:
        raise InputError(f"{port.kind} '{port.name}' is a {port.dtype}, no tensor: use results")


def _check_type(port: Port, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"{port.kind} '{port.name}': expected a Tensor; found {tensor!r}")
    _require_tensor(port)
    if tensor.data.dtype != dtypes.to_numpy(port.dtype):
        raise InputError(
            f"{port.kind} '{port.name}' has {port.dtype} elements, the tensor {tensor.data.dtype}"
        )
