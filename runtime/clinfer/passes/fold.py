"""What depends on constants only is computed when the model is compiled.

Types are inferred on the way, so that a shape computed from constants is known to the nodes after
it. A branch of an If with a constant condition takes the If's place.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from clinfer.dtypes import BY_NAME
from clinfer.errors import InputError, OutOfMemoryError, ShapeError, UnsupportedError
from clinfer.graph import numpy_ops
from clinfer.graph.bodies import LOOPS, Bodies
from clinfer.graph.branches import inline_branch
from clinfer.graph.conditions import condition
from clinfer.graph.ir import Graph, Node
from clinfer.graph.reference import INPUTS_DO_NOT_FIT, HostOp
from clinfer.graph.shapes import infer_node
from clinfer.graph.split import split
from clinfer.graph.subgraphs import bodies_of
from clinfer.graph.unroll import unroll
from clinfer.mapping import drop_pages
from clinfer.passes.squeeze import choose_axes
from clinfer_kernels.dims import is_static, product

# Results of up to this many elements are always kept; larger ones if no larger than the inputs ...
SMALL = 65536
# ... or up to this size where a run would compute them. What only repeats elements is a view in a
# run, and masks are found again as positions (`passes.forms`).
LARGE = 1 << 19
_REPEATING = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})
DECODERS = frozenset({"DequantizeLinear", "clinfer.Decode"})
_ENCODED = frozenset(
    [
        *("int8", "uint8", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    ]
)
_RANDOM = frozenset(
    [
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Seed",
    ]
)


def fold(graph: Graph, *, keeps_encoded: bool = False) -> int:
    """Gives a constant content to every value that has one; returns how many nodes were computed.

    `keeps_encoded`: weights of few bits stay encoded (`passes.quantise`).

    The nodes stay until `dead.detach_known` takes them out. Large results of expanding operators
    (Expand, ConstantOfShape, Tile) are left to run.
    """
    count = 0
    pending = deque(graph.nodes)
    while pending:
        node = pending.popleft()
        infer_node(graph, node)
        chosen = choose_axes(graph, node)
        if chosen is not None:
            node = chosen
            pending = _after(graph, node)
        if node.kind == "If":
            inlined = inline_branch(graph, node)
            pending.extendleft(reversed(inlined or []))
            if inlined is None and _fold_bodies(graph, node):
                left = set(graph.nodes)
                pending = deque(n for n in pending if n in left)
        steps = unroll(graph, node)
        if steps is not None:
            pending.extendleft(reversed(steps))
            continue
        if node.kind in LOOPS:
            _fold_each(bodies_of(graph, node))
            infer_node(graph, node)
        if node.kind == "If" or node.kind in graph.custom or not _is_foldable(node):
            continue
        if keeps_encoded and _is_encoded(node):
            continue
        results = computed(graph, node, [None if v is None else v.const for v in node.inputs])
        for value in node.inputs:
            if value is not None and value.const is not None:
                drop_pages(value.const)
        if results is None:
            continue
        count += 1
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None:
                value.const, value.shape = result, tuple(result.shape)
    return count


def _after(graph: Graph, node: Node) -> deque[Node]:
    """The nodes behind one."""
    place = next(n for n, other in enumerate(graph.nodes) if other is node)
    return deque(graph.nodes[place + 1 :])


def _fold_bodies(graph: Graph, node: Node) -> bool:
    """Folds an If's bodies and takes from them the types of its results.

    Whether it has been replaced, with all that comes after it, by an If that has that inside.
    """
    holds = condition(node.required(0))
    if holds is not None:
        node.attrs["holds"] = holds
    _fold_each(bodies_of(graph, node))
    whole = split(graph, node)
    if whole is not None:
        bodies = bodies_of(graph, whole)
        _fold_each(bodies)
        if graph.depth and not any(body.graph for body in bodies.all):
            raise ShapeError(bodies.all[0].error)  # no sizes at all fit the body that this is in
    infer_node(graph, whole or node)
    return whole is not None


def _fold_each(bodies: Bodies) -> None:
    for body in bodies.all:
        if body.graph is not None:
            try:
                fold(body.graph)
            except ShapeError as error:  # for these shapes it is the branch that is not taken
                body.graph, body.error = None, str(error)


def _is_encoded(node: Node) -> bool:
    """Whether it decodes integers of few bits."""
    return node.kind in DECODERS and node.required(0).dtype in _ENCODED


def _is_foldable(node: Node) -> bool:
    if node.op in _RANDOM or all(v is None or v.const is not None for v in node.outputs):
        return False
    if any(v is not None and v.const is None for v in node.inputs):
        return False
    return all(v is None or v.dtype in BY_NAME for v in node.outputs) and not _is_too_large(node)


def _is_too_large(node: Node) -> bool:
    read = sum(v.const.size for v in node.inputs if v is not None and v.const is not None)
    for value in node.outputs:
        if value is None or value.shape is None or not is_static(value.shape):
            continue
        size = product(value.shape)
        is_cheap = node.op in _REPEATING or value.dtype == "bool"
        if isinstance(size, int) and size > max(SMALL if is_cheap else LARGE, 2 * read):
            return True
    return False


def computed(graph: Graph, node: Node, inputs: list[Any]) -> list[Any] | None:
    """What the node gives for these arrays; None where it cannot be computed now."""
    function = numpy_ops.find(node.kind, node.attrs, inputs)
    try:
        if function is not None:
            results = function(node.attrs, inputs)
            return [np.asarray(r) if isinstance(r, np.generic) else r for r in results]
        results = HostOp.from_node(node, graph.opsets).run(inputs)
    except INPUTS_DO_NOT_FIT:
        return None
    except (InputError, OutOfMemoryError, ShapeError, UnsupportedError):
        return None  # stays a node; lowering or the run says why it cannot be computed
    return results if all(isinstance(r, np.ndarray) for r in results) else None
