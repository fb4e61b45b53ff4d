"""If: the types that both of its branches give."""

from __future__ import annotations

from clinfer.dtypes import BY_NAME
from clinfer.graph.bodies import bodies_of
from clinfer.graph.ir import Value
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape


def if_(call: Call) -> list[Type]:
    """If: a size that differs between the branches is known when one has run.

    A branch that no input of these types can take has no say.
    """
    graphs = [body.graph for body in bodies_of(call.graph, call.node).all if body.graph]
    is_made = call.node.proto is None  # by `passes.split`: ONNX does not know it
    if not graphs and not is_made:
        raise UnknownShape
    columns = zip(*(graph.outputs for graph in graphs), strict=True)
    return [_common(call, index, list(column)) for index, column in enumerate(columns)]


def _common(call: Call, index: int, values: list[Value]) -> Type:
    first = values[0]
    if any(v.dtype not in BY_NAME or v.dtype != first.dtype for v in values):
        if call.node.proto is None:
            return Type(first.dtype, None)
        raise UnknownShape
    shapes = [v.shape for v in values]
    if any(shape is None or len(shape) != len(shapes[0] or ()) for shape in shapes):
        return Type(first.dtype, None)
    columns = zip(*(v.known_shape for v in values), strict=True)
    return Type(
        first.dtype,
        tuple(
            dims[0] if len(set(dims)) == 1 else call.fresh(index, axis)
            for axis, dims in enumerate(columns)
        ),
    )


RULES: dict[str, Rule] = {"If": if_}
