"""Types of every value: element types, symbolic shapes, and the content of tensors made of sizes.

A table of rules (`shape_rules`) covers the operators that matter; for the others ONNX's own type
inference is asked node by node, with dynamic dimensions under stand-in names. What nobody can know
before a run becomes a symbol named after the value ('nonzero.1'), bound when the host step that
makes the value has run.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.dtypes import BY_NAME
from clinfer.errors import ModelError, UnsupportedError
from clinfer.graph.ir import Declared, Graph, Node, Value
from clinfer.graph.schemas import infer_types
from clinfer.graph.shape_call import Call, Type, UnknownShape
from clinfer.graph.shape_rules import rules
from clinfer.graph.symbolic import propagate
from clinfer_kernels.dims import Dim, sym


def infer(graph: Graph) -> None:
    """Sets dtype, shape and known content of every node's outputs, in order.

    Raises `ShapeError` naming the node where shapes contradict each other.
    """
    for node in graph.nodes:
        infer_node(graph, node)


def infer_node(graph: Graph, node: Node) -> None:
    """The same for one node, whose inputs have their types."""
    call = Call(graph, node)
    rule = rules().get(node.kind)
    types: Sequence[Type] | None = None
    if rule is not None:
        try:
            types = rule(call)
        except UnknownShape:
            types = None
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise call.error(f"its inputs and attributes do not fit it ({error})") from error
    if types is None:
        types = _by_onnx(call)
    for index, value in enumerate(node.outputs):
        if value is None:
            continue
        if index < len(types):
            value.dtype, value.shape = types[index]
        if value.name in graph.declared:
            _complete(value, graph.declared[value.name])
        value.const = value.symbolic = value.rational = None
    propagate(call)


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


def _complete(value: Value, declared: Declared) -> None:
    """Fills in element type and rank from the declared type.

    Not sizes: exporters declare those they have seen where only a run can tell.
    """
    value.dtype = value.dtype or declared.dtype
    if value.shape is None and declared.shape is not None and value.dtype in BY_NAME:
        value.shape = tuple(sym(f"{value.name}.{axis}") for axis in range(len(declared.shape)))
