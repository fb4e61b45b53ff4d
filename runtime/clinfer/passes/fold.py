"""What depends on constants only is computed when the model is compiled.

Types are inferred on the way, so that a shape computed from constants is known to the nodes after
it. A branch of an If with a constant condition takes the If's place.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from clinfer.dtypes import BY_NAME
from clinfer.errors import UnsupportedError
from clinfer.graph import numpy_ops
from clinfer.graph.branches import inline_branch
from clinfer.graph.ir import Graph, Node
from clinfer.graph.reference import HostOp
from clinfer.graph.shapes import infer_node
from clinfer.mapping import drop_pages
from clinfer_kernels.dims import is_static, product

# Results of up to this many elements are always kept; larger ones if no larger than the inputs ...
SMALL = 65536
# ... or up to this size where a run would compute them. What only repeats elements is a view in a
# run, and masks are found again as positions (`passes.forms`).
LARGE = 1 << 19
_REPEATING = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})
_RANDOM = frozenset(
    [
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
    ]
)


def fold(graph: Graph) -> int:
    """Gives a constant content to every value that has one; returns how many nodes were computed.

    The nodes stay until `dead.detach_known` takes them out. Large results of expanding operators
    (Expand, ConstantOfShape, Tile) are left to run.
    """
    count = 0
    pending = deque(graph.nodes)
    while pending:
        node = pending.popleft()
        infer_node(graph, node)
        if node.kind == "If":
            pending.extendleft(reversed(inline_branch(graph, node) or []))
        if not _is_foldable(node):
            continue
        results = _computed(graph, node)
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


def _computed(graph: Graph, node: Node) -> list[Any] | None:
    inputs = [None if v is None else v.const for v in node.inputs]
    function = numpy_ops.find(node.kind, node.attrs, inputs)
    if function is not None:
        return function(node.attrs, inputs)
    try:
        results = HostOp.from_node(node, graph.opsets).run(inputs)
    except UnsupportedError:
        return None  # stays a node; lowering says why it cannot run
    return results if all(isinstance(r, np.ndarray) for r in results) else None
