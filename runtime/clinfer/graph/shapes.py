"""Types of every value: element types, symbolic shapes, and the content of tensors made of sizes.

A table of rules (`shape_rules`) covers the operators that matter; for the others ONNX's own type
inference is asked node by node, with dynamic dimensions under stand-in names. What nobody can know
before a run becomes a symbol named after the value ('nonzero.1'), bound when the host step that
makes the value has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from clinfer.boundary import during
from clinfer.dtypes import BY_NAME
from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.bounds import lower_bound
from clinfer.graph.ir import MOST_ELEMENTS, OWN_DOMAIN, Declared, Graph, Node, Shape, Value
from clinfer.graph.node_checks import check_types
from clinfer.graph.node_protos import infer_types
from clinfer.graph.shape_call import Call, Type, UnknownShape
from clinfer.graph.shape_rules import rules
from clinfer.graph.symbolic import propagate
from clinfer.operators import Relation, table
from clinfer_kernels.dims import Dim, Expr, product, sym

_LONG = 32


def infer(graph: Graph) -> None:
    """Sets dtype, shape and known content of every node's outputs, in order.

    Raises `ShapeError` naming the node where shapes contradict each other.
    """
    for node in graph.nodes:
        infer_node(graph, node)


def infer_node(graph: Graph, node: Node) -> None:
    """The same for one node, whose inputs have their types.

    They are checked against the operator's schema and record; what passes made is theirs to know.
    """
    with during("the inference of its type", node.describe):
        _infer(Call(graph, node))


def _infer(call: Call) -> None:
    graph, node = call.graph, call.node
    record = table().get(node.kind)
    custom = graph.custom.get(node.kind)
    if node.domain != OWN_DOMAIN and custom is None:
        check_types(node)
    for relation in () if record is None else record.relations:
        _relate(call, relation)
    rule = rules().get(node.kind)
    types: Sequence[tuple[str | None, Shape | None]] | None = None
    if custom is not None:
        types = custom.types(call)
    elif rule is not None:
        with suppress(UnknownShape):
            types = rule(call)
    if types is None:
        types = _by_onnx(call)
    for index, value in enumerate(node.outputs):
        if value is None:
            continue
        if index < len(types):
            value.dtype, value.shape = types[index]
        if value.name in graph.declared:
            _complete(graph, value, graph.declared[value.name])
        value.const = value.symbolic = value.rational = None
        _check_length(value)
        if value.shape is not None:
            _check_sizes(call, index, value.shape, 0 if record is None else record.least)
    propagate(call)


def _check_length(value: Value) -> None:
    """Strides and counts are products of the sizes: they must be expressions of some length too."""
    if any(isinstance(d, Expr) and d.weight > _LONG for d in value.shape or ()):
        product(value.known_shape)


def _relate(call: Call, relation: Relation) -> None:
    try:
        relation(call)
    except UnknownShape:
        return


def _check_sizes(call: Call, index: int, shape: Shape, least: int) -> None:
    """No size of a result is negative, in any run; none is beyond what memories hold.

    `least`: that of the spatial axes, from number 2 on.
    """
    total = 1
    for axis, size in enumerate(shape):
        wanted = least if axis > 1 else 0
        if isinstance(size, int):
            total *= size or 1  # a size is no less absurd beside one of 0
        elif _is_never_below(size, wanted) or _is_an_inputs(call, size):
            continue
        call.at_most(wanted, size, f"{wanted}, the least size, and axis {axis} of result {index}")
    if total > MOST_ELEMENTS:
        raise call.error(f"at most {MOST_ELEMENTS} elements expected in result {index}, of {shape}")


def _is_never_below(size: Dim, least: int) -> bool:
    known = lower_bound(size)
    return known is not None and known >= least


def _is_an_inputs(call: Call, size: Dim) -> bool:
    """Whether an input has that size, which has been looked at where it was made."""
    return any(v is not None and size in (v.shape or ()) for v in call.node.inputs)


def _by_onnx(call: Call) -> list[Type]:
    """Types from ONNX's inference; symbols travel through it under stand-in names."""
    stand_ins: dict[str, Dim] = {}
    dims: dict[int, list[int | str]] = {}
    for index, value in enumerate(call.node.inputs):
        if value is None or value.shape is None:
            continue
        dims[index] = [d if isinstance(d, int) else f"dim{_key(d)}" for d in value.shape]
        stand_ins.update((f"dim{_key(d)}", d) for d in value.shape if not isinstance(d, int))
    try:
        found = infer_types(call.node, call.graph.opsets, dims)
    except UnsupportedError as error:
        raise ModelError(str(error)) from error
    types: list[Type] = []
    for index, (dtype, shape, encoded) in enumerate(found):
        value = call.node.outputs[index]
        if value is not None and encoded is not None:
            value.type_proto = encoded
        if shape is None:
            types.append(Type(dtype, None))
            continue
        known = [stand_ins.get(d) if isinstance(d, str) else d for d in shape]
        sizes = tuple(call.fresh(index, a) if d is None else d for a, d in enumerate(known))
        types.append(Type(dtype, sizes))
    return types


def _key(dim: Dim) -> str:
    return f"<{dim}>"


def _complete(graph: Graph, value: Value, declared: Declared) -> None:
    """Fills in element type and rank from the declared type.

    Not sizes: exporters declare those they have seen where only a run can tell. Not the rank of
    what is only returned: nothing needs it before the run, and it may be wrong.
    """
    value.dtype = value.dtype or declared.dtype
    if value.shape is not None or declared.shape is None or value.dtype not in BY_NAME:
        return
    if value.users or not graph.is_output(value):
        value.shape = tuple(sym(f"{value.name}.{axis}") for axis in range(len(declared.shape)))
