"""`Port`: an input or output of a model, compiled or not; `Node`: what makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer.errors import InputError, listed
from clinfer.sizes import Bounds, PortShape, Shape
from clinfer.synonyms import with_synonyms

if TYPE_CHECKING:
    from clinfer.api.shapes import PartialShape
    from clinfer.api.types import Type


@with_synonyms
class Port:
    """An input or output of a model.

    `shape` holds a size, the name of a dynamic dimension, or None for one without a name; it is
    None where the model does not even fix the rank. `dtype` is an element type's name ('float32').
    `index` is its position among the model's inputs, or outputs. Ports of two models differ.
    """

    __slots__ = ("_bounds", "_owner", "dtype", "index", "kind", "name", "shape")

    def __init__(
        self,
        name: str,
        shape: PortShape | None,
        dtype: str,
        index: int = 0,
        kind: str = "input",
        bounds: Mapping[int, Bounds] | None = None,
        owner: object = None,
    ) -> None:
        self.name = name
        self.shape = None if shape is None else Shape(shape)
        self.dtype = dtype
        self.index = index
        self.kind = kind
        self._bounds = bounds or {}
        self._owner = owner

    @property
    def names(self) -> set[str]:
        """The names of the tensor: this one."""
        return {self.name}

    @property
    def bounds(self) -> Mapping[int, Bounds]:
        """The limits of dynamic dimensions, by their positions; without those that have none."""
        return dict(self._bounds)

    @property
    def partial_shape(self) -> PartialShape:
        """The shape in OpenVINO's words: each dimension has a least and a greatest size."""
        from clinfer.api.shapes import PartialShape

        return PartialShape.of_port(self)

    @property
    def element_type(self) -> Type:
        """The element type in OpenVINO's words: `Type.f32`."""
        from clinfer.api.types import Type

        return Type.named(self.dtype)

    @property
    def node(self) -> Node:
        """The parameter or result that the port belongs to."""
        return Node.of_port(self)

    @property
    def tensor(self) -> Port:
        """What describes the tensor: names, element type and shape, which are the port's own."""
        return self

    @property
    def rt_info(self) -> dict[str, Any]:
        """What is noted about the port: nothing."""
        return {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Port) and (
            self is other
            or (
                self._owner is other._owner
                and (self.kind, self.index, self.name) == (other.kind, other.index, other.name)
                and (self.shape, self.dtype) == (other.shape, other.dtype)
            )
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.index, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.name, self.shape and tuple(self.shape), self.dtype, self.index, self.kind)
        return Port, (*fields, dict(self._bounds))

    def __repr__(self) -> str:
        shape = "[...]" if self.shape is None else self.shape.to_string()
        return f"<Port: names[{self.name}] shape{shape} type: {self.dtype}>"


class WithOutputs:
    """What can be asked of the outputs of a model, and of a node, by their positions."""

    __slots__ = ()

    def output(self, index: int = 0) -> Port:
        """An output. Raises `InputError` where there is none."""
        raise NotImplementedError

    def get_output_shape(self, index: int) -> PortShape | None:
        """The shape of an output."""
        return self.output(index).shape

    def get_output_partial_shape(self, index: int) -> PartialShape:
        """The shape of an output, open sizes with their limits."""
        return self.output(index).partial_shape

    def get_output_element_type(self, index: int) -> Type:
        """The element type of an output."""
        return self.output(index).element_type


class Node(WithOutputs):
    """One node of a graph. `get_type_name()` is ONNX's, 'Parameter' or 'Result'."""

    __slots__ = ("_attributes", "_info", "_inputs", "_outputs", "_type", "friendly_name")

    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Port] = (),
        outputs: Sequence[Port] = (),
        attributes: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self._type = kind
        self.friendly_name = name
        self._inputs = list(inputs)
        self._outputs = list(outputs)
        self._attributes = dict(attributes or {})
        self._info = dict(info or {})

    @classmethod
    def of_port(cls, port: Port) -> Node:
        """The parameter or result that a model's port belongs to."""
        if port.kind == "input":
            return cls("Parameter", port.name, (), [port])
        return cls("Result", port.name, [port], [port])

    @property
    def name(self) -> str:
        """As `friendly_name`."""
        return self.friendly_name

    def get_name(self) -> str:
        """As `friendly_name`."""
        return self.friendly_name

    def get_friendly_name(self) -> str:
        """As `friendly_name`."""
        return self.friendly_name

    def get_type_name(self) -> str:
        """The operator: 'Conv', 'Parameter', 'com.microsoft.Gelu'."""
        return self._type

    def get_attributes(self) -> dict[str, Any]:
        """The operator's attributes."""
        return dict(self._attributes)

    @property
    def rt_info(self) -> dict[str, Any]:
        """What is known of how it runs, of a compiled model's node."""
        return dict(self._info)

    def get_rt_info(self) -> dict[str, Any]:
        """As `rt_info`."""
        return self.rt_info

    def inputs(self) -> list[Port]:
        """The tensors that it reads."""
        return list(self._inputs)

    def outputs(self) -> list[Port]:
        """The tensors that it makes."""
        return list(self._outputs)

    def input(self, index: int) -> Port:
        """A tensor that it reads. Raises `InputError` where there is none."""
        return self._inputs[index_of(self._inputs, index, "input")]

    def output(self, index: int = 0) -> Port:
        """A tensor that it makes. Raises `InputError` where there is none."""
        return self._outputs[index_of(self._outputs, index, "output")]

    def get_input_size(self) -> int:
        """How many tensors it reads."""
        return len(self._inputs)

    def get_output_size(self) -> int:
        """How many tensors it makes."""
        return len(self._outputs)

    def get_element_type(self) -> Type:
        """The element type of the only tensor that it makes. Raises `InputError` for several."""
        return self._only().element_type

    @property
    def shape(self) -> PortShape | None:
        """The shape of the only tensor that it makes. Raises `InputError` for several."""
        return self._only().shape

    def _only(self) -> Port:
        if len(self._outputs) != 1:
            raise InputError(f"{self!r} makes {len(self._outputs)} tensors: use output(index)")
        return self._outputs[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self._type, self.friendly_name))

    def _key(self) -> tuple[Any, ...]:
        return self._type, self.friendly_name, self._inputs, self._outputs

    def __repr__(self) -> str:
        shapes = ", ".join(str(port.partial_shape) for port in self._outputs)
        return f"<{self._type}: '{self.friendly_name}' ({shapes})>"


def index_of(ports: Sequence[Port], key: Any, what: str) -> int:
    """The position of a port given by name, number or itself. Raises `InputError`."""
    name = key.name if isinstance(key, Port) else key
    if isinstance(name, str):
        for index, port in enumerate(ports):
            if port.name == name:
                return index
    elif not isinstance(name, type) and hasattr(name, "__index__") and not getattr(name, "ndim", 0):
        index = int(name)
        if -len(ports) <= index < len(ports):
            return index % len(ports)
    raise InputError(f"the model has no {what} {name!r}; it has {named(ports)}")


def named(ports: Sequence[Port]) -> str:
    """The ports' names, for messages."""
    return listed(repr(port.name) for port in ports)
