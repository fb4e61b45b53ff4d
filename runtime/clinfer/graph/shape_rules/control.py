"""If: the types that both of its branches give. Loop and Scan: what the body gives on and adds."""

from __future__ import annotations

from clinfer.dtypes import BY_NAME
from clinfer.graph.ir import Graph, Value
from clinfer.graph.late import bound_by_inputs, mentioned
from clinfer.graph.loops import form_of_body, steps_of
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape
from clinfer.graph.subgraphs import bodies_of
from clinfer_kernels.dims import Dim, sym, symbols


def if_(call: Call) -> list[Type]:
    """If: a size that differs between the branches is known when one has run.

    A branch that no input of these types can take has no say.
    """
    graphs = [body.graph for body in bodies_of(call.graph, call.node).all if body.graph]
    is_made = call.node.proto is None  # by `graph.split`: ONNX does not know it
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


def loop(call: Call) -> list[Type]:
    """Loop, Scan: states are as they may be after any step, what is stacked has an axis more.

    A size that the last step, or none, gives is known when the loop has run.
    """
    body = next(iter(bodies_of(call.graph, call.node).all), None)
    if body is None or body.graph is None:
        raise UnknownShape
    graph = body.graph
    form = form_of_body(call.node, body)
    moving = {(state, axis): sym(name) for name, state, axis in body.sizes}
    types: list[Type] = []
    for number, index in enumerate(form.states):
        first = call.value(index)
        output = call.node.outputs[number]
        if first.shape is None and output is not None:
            output.type_proto = first.type_proto
        shape = before = first.shape
        if number in body.reranked:
            before = graph.outputs[form.given + number].shape
        if before is not None:
            sizes = enumerate(before)
            shape = tuple(moving.get((number, axis), dim) for axis, dim in sizes)
        types.append(Type(first.dtype, shape))
    count = steps_of(call.node, graph, form)
    for number, (axis, _) in enumerate(form.stacked, len(form.states)):
        types.append(_stacked(call, number, graph, form.given, axis, count))
    return types


def _stacked(
    call: Call, number: int, body: Graph, given: int, axis: int, count: Dim | None
) -> Type:
    row = body.outputs[given + number]
    if row.shape is None or row.dtype not in BY_NAME:
        raise UnknownShape
    rank = len(row.shape) + 1
    place = call.normal(axis, rank)
    outside = bound_by_inputs(call.graph) | mentioned(call.node.inputs)
    sizes: list[Dim] = list(row.shape)
    sizes.insert(place, call.fresh(number, place) if count is None else count)
    for other, size in enumerate(sizes):
        if other != place and not symbols(size) <= outside:
            sizes[other] = call.fresh(number, other)
    return Type(row.dtype, tuple(sizes))


RULES: dict[str, Rule] = {"If": if_, "Loop": loop, "Scan": loop}
