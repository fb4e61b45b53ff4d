"""What only moves elements goes to the integers between a pair of Q and D.

    Q(move(D(x))) = move(x)    views, MaxPool, Concat, Resize to nearest neighbours
    Q(D(x))       = x

Where scales or zero points differ, a table takes the codes of the one to those of the other: behind
what is moved, of Concat before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clinfer.graph.ir import Node, Value
from clinfer.passes.quantise.encoded import Encoded, encoded, encoding
from clinfer.passes.quantise.tables import lookup, recoded
from clinfer.passes.query import scalar
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

# Operators that give elements of their first input (of all: Concat) and nothing else.
_MOVES = (
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
_BYTES = ("uint8", "int8")
_OF_BYTES = {"MaxPool": 12}  # the first operator set in which bytes are taken, where not always


def move(rw: Rewriter, node: Node) -> Outcome:
    """Q(move(D(x))) = move(x), and Q(D(x)) = x."""
    wanted = encoding(node)
    if wanted is None or node.output.dtype not in _BYTES:
        return None
    same = encoded(node.required(0))
    if same is not None:
        return None if same.axis is not None else _coded(rw, same, node)
    maker = node.required(0).producer
    if maker is None or maker.kind not in _MOVES:
        return None
    if maker.op != "Split" and len(_read(maker.outputs)) != 1:
        return None
    if maker.op != "Split" and not node.required(0).users.are(node):
        return None
    if rw.graph.is_output(node.required(0)):
        return None
    count = len(maker.inputs) if maker.op == "Concat" else 1
    parts = [encoded(value) for value in maker.inputs[:count]]
    if any(p is None or p.axis is not None for p in parts):
        return None
    known = [p for p in parts if p is not None]
    if maker.op == "Concat":
        return _emit(rw, maker, [_coded(rw, p, node) for p in known], node.output.dtype, 0)
    (x,) = known
    if maker.op == "Resize" and not _is_nearest(maker):
        return Refusal("what is between neighbours is no code")
    if maker.op == "MaxPool" and x.is_like != wanted:
        return Refusal("a maximum of other codes than are asked for")
    rest = list(maker.inputs[count:])
    if maker.op == "Pad" and maker.attrs.get("mode", "constant") == "constant":
        value = 0.0 if maker.input(2) is None else scalar(maker.input(2))
        if value != 0:
            return Refusal("padding of another value than 0")
        rest[1:2] = [rw.constant(np.array(x.is_like[2], str(x.data.dtype)))]
    place = next(i for i, v in enumerate(maker.outputs) if v is node.required(0))
    moved = _emit(rw, maker, [x.data, *rest], x.data.dtype, place)
    return _coded(rw, Encoded(moved, x.scale, x.zero, None), node)


def _emit(
    rw: Rewriter, maker: Node, inputs: Sequence[Value | None], dtype: str | None, place: int
) -> Value:
    """`maker` on other inputs; its result number `place`."""
    version = max(maker.version, _OF_BYTES.get(maker.op, 0))
    if len(maker.outputs) == 1:
        shape = maker.output.shape
        return rw.emit(maker.op, inputs, dtype, shape, attrs=maker.attrs, version=version)
    outputs = [
        None if v is None else Value(rw.graph.fresh(v.name.split("~")[0]), dtype, v.shape)
        for v in maker.outputs
    ]
    made = Node(maker.op, list(inputs), outputs, dict(maker.attrs), maker.name, "", version)
    rw.insert(made)
    found = outputs[place]
    assert found is not None
    return found


def _coded(rw: Rewriter, x: Encoded, node: Node) -> Value:
    """x's integers in the codes of QuantizeLinear `node`."""
    if x.is_like == encoding(node):
        return x.data
    return lookup(rw, x.data, recoded(x, node), str(node.output.dtype))


def _is_nearest(node: Node) -> bool:
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if node.attrs.get("mode", "nearest") != "nearest" or mode == "tf_crop_and_resize":
        return False
    return not node.attrs.get("antialias", 0)


def _read(values: Sequence[Value | None]) -> list[Value]:
    return [value for value in values if value is not None and value.users]


RULES = (Rule("move-pair", ("QuantizeLinear",), move),)
