"""What OpenVINO's scripts ask of a request beyond `set_tensor` and `get_tensor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clinfer.ports import Port

if TYPE_CHECKING:
    from clinfer.api.tensor import Tensor
    from clinfer.compiled import CompiledModel

from clinfer.results import Key


class RequestWords:
    """Base of `InferRequest`: tensors by the position of their port, and state: none."""

    model: CompiledModel

    def set_tensor(self, key: Key, value: Any) -> None:
        """See `InferRequest`."""
        raise NotImplementedError

    def get_tensor(self, key: Key) -> Tensor:
        """See `InferRequest`."""
        raise NotImplementedError

    def set_tensors(self, tensors: Mapping[Key, Any]) -> None:
        """Sets several inputs and outputs, by name or port."""
        for key, value in tensors.items():
            self.set_tensor(key, value)

    def set_input_tensor(self, *arguments: Any, **named: Any) -> None:
        """`set_input_tensor(tensor)` of the first input, or `set_input_tensor(index, tensor)`."""
        index, tensor = _indexed(arguments, named)
        self.set_tensor(self.model.input(index), tensor)

    def set_output_tensor(self, *arguments: Any, **named: Any) -> None:
        """`set_output_tensor(tensor)` of the first output, or `set_output_tensor(index, tensor)`.

        Each run writes its result there.
        """
        index, tensor = _indexed(arguments, named)
        self.set_tensor(self.model.output(index), tensor)

    def set_input_tensors(self, *arguments: Any, **named: Any) -> None:
        """Inputs by index, name or port, or a list in their order."""
        for index, tensor in _several(arguments, named):
            self.set_tensor(self.model.input(index), tensor)

    def set_output_tensors(self, *arguments: Any, **named: Any) -> None:
        """Outputs by index, name or port, or a list in their order."""
        for index, tensor in _several(arguments, named):
            self.set_tensor(self.model.output(index), tensor)

    def get_input_tensor(self, index: Key = 0) -> Tensor:
        """The tensor of an input."""
        return self.get_tensor(self.model.input(index))

    def get_output_tensor(self, index: Key = 0) -> Tensor:
        """The tensor of an output."""
        return self.get_tensor(self.model.output(index))

    @property
    def input_tensors(self) -> list[Tensor]:
        """The tensors of all inputs."""
        return [self.get_tensor(port) for port in self.model.inputs]

    @property
    def output_tensors(self) -> list[Tensor]:
        """The tensors of all outputs."""
        return [self.get_tensor(port) for port in self.model.outputs]

    @property
    def model_inputs(self) -> list[Port]:
        """The model's inputs."""
        return list(self.model.inputs)

    @property
    def model_outputs(self) -> list[Port]:
        """The model's outputs."""
        return list(self.model.outputs)

    def query_state(self) -> list[Any]:
        """State that outlives a run: an ONNX model has none, so the list is empty."""
        return []

    def reset_state(self) -> None:
        """Forgets state from earlier runs, of which an ONNX model has none."""


def _indexed(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, Any]:
    """An index, 0 where it is left out, and a tensor."""
    given = dict(named)
    found = list(arguments)
    tensor = found.pop() if found else given.pop("tensor", None)
    index = found.pop() if found else given.pop("index", 0)
    if found or given or tensor is None:
        raise TypeError("expected (tensor) or (index, tensor)")
    return index, tensor


def _several(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Keys and tensors: from a mapping, from a list, or from an index and a list of one."""
    given = [*arguments, *named.values()]
    if len(given) == 1 and isinstance(given[0], Mapping):
        return list(given[0].items())
    if len(given) == 1 and isinstance(given[0], (list, tuple)):
        return list(enumerate(given[0]))
    if len(given) == 2 and isinstance(given[1], (list, tuple)) and len(given[1]) == 1:
        return [(given[0], given[1][0])]
    raise TypeError("expected tensors in a dict or a list, or an index and a list of one tensor")
