"""What a session says of its model: `NodeArg` and `ModelMetadata`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinfer.dtypes import BY_NAME
from clinfer.graph.signature import Argument, Signature, tensor_type
from clinfer.ports import Port


class NodeArg:
    """An input, output or initialiser: `name`, `type` ('tensor(float)') and `shape`.

    A dimension is a size, a name, or None.
    """

    def __init__(self, name: str, type: str, shape: Sequence[int | str | None]) -> None:
        self.name = name
        self.type = type
        self.shape = list(shape)

    def __str__(self) -> str:
        return f"NodeArg(name='{self.name}', type='{self.type}', shape={self.shape})"

    __repr__ = __str__


class ModelMetadata:
    """What the model's file says of itself."""

    def __init__(self, signature: Signature) -> None:
        self.custom_metadata_map = dict(signature.custom)
        self.description = signature.texts["description"]
        self.domain = signature.texts["domain"]
        self.graph_description = signature.texts["graph_description"]
        self.graph_name = signature.texts["graph_name"]
        self.producer_name = signature.texts["producer_name"]
        self.version = signature.version


def is_plain(port: Port, is_input: bool) -> bool:
    """Whether the file says no more of it than the port.

    That is a tensor whose sizes are all fixed; an input's may also have names, which are the
    file's, while an output's may be computed ones.
    """
    fixed = (int, str) if is_input else int
    known = port.shape is not None and all(isinstance(dim, fixed) for dim in port.shape)
    return known and port.dtype in BY_NAME


def as_written(ports: Sequence[Port]) -> list[Argument]:
    """Plain ports as they are in the file."""
    return [
        Argument(port.name, tensor_type(BY_NAME[port.dtype].onnx), port.shape) for port in ports
    ]


def node_args(
    arguments: Sequence[Argument],
    ports: Mapping[str, Port],
    fixed: Mapping[str, int],
) -> list[NodeArg]:
    """The arguments as a file has them, with what is known of the compiled model's `ports`.

    `fixed` are sizes that the session's options give to named dimensions.
    """
    return [_node_arg(argument, ports.get(argument.name), fixed) for argument in arguments]


def _node_arg(argument: Argument, port: Port | None, fixed: Mapping[str, int]) -> NodeArg:
    kind = argument.type
    if not kind and port is not None and port.dtype in BY_NAME:
        kind = tensor_type(BY_NAME[port.dtype].onnx)
    known = None if port is None else port.shape
    if argument.shape is None:
        return NodeArg(argument.name, kind, known or ())
    declared = [fixed.get(d, d) if isinstance(d, str) else d for d in argument.shape]
    if known is None or len(known) != len(declared):
        return NodeArg(argument.name, kind, known if known is not None else declared)
    # A size that was computed counts, then what the file says, then a computed name.
    pairs = zip(known, declared, strict=True)
    shape = [k if isinstance(k, int) or d is None else d for k, d in pairs]
    return NodeArg(argument.name, kind, shape)
