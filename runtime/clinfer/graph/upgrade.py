"""Old forms of operators as their newest ones, so that everything after the reader knows one form.

A table: operator -> version from which the new form is in force, and a rule. A rule changes its
node in place and may put nodes around it. Types of the node's inputs are known when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinfer.boundary import during
from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import UnsupportedError
from clinfer.graph import contrib, experimental
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.shapes import infer_node
from clinfer.graph.split import split


@dataclass(frozen=True)
class Upgrade:
    """`rule` applies below version `below`; what it makes is of version `to`, by default that."""

    below: int
    rule: Callable[[Change], None]
    to: int = 0


class Change:
    """One node being upgraded. `made` lists what replaces it, in order."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node
        self.made: list[Node] = [node]

    def constant(self, content: Any, dtype: str = "int64") -> Value:
        """A constant input."""
        return self.graph.constant(np.array(content, to_numpy(dtype)), self.node.name or "const")

    def before(
        self, op: str, inputs: Sequence[Value | None], into: Value | None = None, **attrs: Any
    ) -> Value:
        """A new node before this one; its output, `into` where that is given."""
        outputs = None if into is None else [into]
        made = self.graph.node(
            op, inputs, outputs=outputs, attrs=attrs, before=self.node, name=self.node.name
        )
        self.made.insert(self.made.index(self.node), made)
        return made.output

    def set_inputs(self, inputs: Sequence[Value | None]) -> None:
        """Replaces all inputs; absent ones at the end are dropped."""
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        for index in range(len(self.node.inputs)):
            self.graph.set_input(self.node, index, None)
        self.node.inputs.clear()
        for value in kept:
            self.node.inputs.append(value)
            if value is not None:
                value.users.append(self.node)


def upgrade_node(graph: Graph, node: Node) -> list[Node]:
    """The nodes that stand for `node` in the newest form; often itself alone."""
    if node.kind in graph.custom:
        return [node]
    if node.domain == contrib.DOMAIN:
        ranks = contrib.RANKS.get(node.op, {})
        return contrib.rewritten(Change(graph, node), contrib.RULES[node.op], ranks)
    entry = UPGRADES.get(node.kind)
    node.attrs.pop("consumed_inputs", None)
    if entry is None or node.version >= entry.below:
        return [node]
    change = Change(graph, node)
    entry.rule(change)
    node.version = max(node.version, entry.to or entry.below)
    return change.made


def typed(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Nodes just added, in order: brought into their newest form, with their types inferred."""
    graph.typed = _typed_body
    made: list[Node] = []
    for built in nodes:
        with during("the update of its form", built.describe):
            upgraded = upgrade_node(graph, built)
        for node in upgraded:
            infer_node(graph, node)
            made.append(node)
    return made


def _typed_body(graph: Graph, nodes: Sequence[Node]) -> None:
    """The same for the nodes of a subgraph, in which an If may decide about ranks behind it."""
    for node in typed(graph, nodes):
        if node.kind == "If" and any(v is not None and v.shape is None for v in node.outputs):
            whole = split(graph, node)
            if whole is not None:
                infer_node(graph, whole)


def _attribute_to_input(
    name: str, index: int, dtype: str = "int64", wrap: bool = False
) -> Callable[[Change], None]:
    """An attribute that became input number `index`."""

    def rule(change: Change) -> None:
        content = change.node.attrs.pop(name, None)
        inputs = [*change.node.inputs[:index]]
        inputs += [None] * (index - len(inputs))
        if content is not None:
            inputs.append(change.constant([content] if wrap else content, dtype))
        change.set_inputs(inputs)

    return rule


def _clip(change: Change) -> None:
    node = change.node
    x = node.required(0)
    bounds = [node.attrs.pop(name, None) for name in ("min", "max")]
    limits = [None if b is None else change.constant(b, x.dtype or "float32") for b in bounds]
    change.set_inputs([x, *limits])


def _slice(change: Change) -> None:
    node = change.node
    fields = [node.attrs.pop(name, None) for name in ("starts", "ends", "axes")]
    values = [None if f is None else change.constant(f) for f in fields]
    change.set_inputs([node.required(0), *values])


def _pad(change: Change) -> None:
    node = change.node
    x = node.required(0)
    pads = node.attrs.pop("pads", None) or node.attrs.pop("paddings", [])
    fill = node.attrs.pop("value", 0.0)
    change.set_inputs([x, change.constant(pads), change.constant(fill, x.dtype or "float32")])


def _flattened(change: Change) -> None:
    """Softmax and its like: the dimensions from `axis` on were taken as one."""
    node = change.node
    x = node.required(0)
    axis = int(node.attrs.get("axis", 1))
    if x.rank is not None and axis in (-1, x.rank - 1):
        node.attrs["axis"] = -1
        return
    sizes = change.before("Shape", [x])
    flat = change.before("Flatten", [x], axis=axis)
    result = node.output
    inner = Value(change.graph.fresh(result.name))
    copy = Node(node.op, [flat], [inner], {"axis": -1}, node.name, version=13)
    change.graph.insert(copy, node)
    change.made.insert(change.made.index(node), copy)
    node.op, node.attrs = "Reshape", {}
    change.set_inputs([inner, sizes])


def _dropout(change: Change) -> None:
    """Inference: the first input comes out; ratio and mode do not matter.

    Before version 10 the mask has the data's type.
    """
    node = change.node
    node.attrs.clear()
    change.set_inputs(node.inputs[:1])
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if node.version >= 10 or mask is None:
        return
    x, kept = node.required(0), Value(change.graph.fresh(mask.name))
    copy = Node("Dropout", [x], [node.outputs[0], kept], {}, node.name, version=13)
    change.graph.insert(copy, node)
    change.made.insert(0, copy)
    node.op, node.outputs[:] = "Cast", [mask]
    node.attrs["to"] = BY_NAME[x.dtype or "float32"].onnx
    change.set_inputs([kept])


def _batch_norm(change: Change) -> None:
    node = change.node
    if node.attrs.pop("spatial", 1) != 1:
        raise UnsupportedError(
            f"{node.describe()}: statistics per element (spatial = 0) are not supported; expected "
            "spatial = 1, statistics per channel"
        )
    node.attrs.pop("is_test", None)
    extra = [v for v in node.outputs[1:] if v is not None]
    if any(v.users or change.graph.is_output(v) for v in extra):
        raise UnsupportedError(
            f"{node.describe()}: its statistics are read, which only training computes; expected "
            "a model exported for inference"
        )
    del node.outputs[1:]


def _upsample(change: Change) -> None:
    node = change.node
    scales = node.attrs.pop("scales", None)
    given = node.input(1) if scales is None else change.constant(scales, "float32")
    node.op = "Resize"
    _asymmetric(change, given)


def _resize(change: Change) -> None:
    node = change.node
    if node.version < 11:
        _asymmetric(change, node.input(1))
        node.attrs["nearest_mode"] = "simple"  # where it shrinks, the next element; else the last
    inputs = [v if v is None or v.shape != (0,) else None for v in node.inputs]
    change.set_inputs(inputs)


def _asymmetric(change: Change, scales: Value | None) -> None:
    """The fixed coordinate rule of Upsample and the first Resize."""
    node = change.node
    mode = node.attrs.get("mode", "nearest")
    node.attrs = {
        "mode": "linear" if mode == "bilinear" else mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    change.set_inputs([node.required(0), None, scales])


def _scatter(change: Change) -> None:
    change.node.op = "ScatterElements"


def _roi_align(change: Change) -> None:
    change.node.attrs.setdefault("coordinate_transformation_mode", "output_half_pixel")


def _grid_sample(change: Change) -> None:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = change.node.attrs.get("mode", "bilinear")
    change.node.attrs["mode"] = names.get(mode, mode)


def _dft(change: Change) -> None:
    axis = change.node.attrs.pop("axis", 1)
    node = change.node
    change.set_inputs([node.required(0), node.input(1), change.constant(axis)])


def _group_norm(change: Change) -> None:
    """Scale and bias per group become per channel: each is repeated channels / groups times."""
    node = change.node
    x = node.required(0)
    channels = None if x.shape is None else x.shape[1]
    groups = int(node.attrs["num_groups"])
    if not isinstance(channels, int):
        raise UnsupportedError(
            f"{node.describe()}: a fixed number of channels expected, found {x!r}; fix it with "
            "Model.reshape"
        )
    column, wide = change.constant([groups, 1]), change.constant([groups, channels // groups])
    flat = change.constant([channels])
    values: list[Value | None] = [x]
    for index in (1, 2):
        as_column = change.before("Reshape", [node.required(index), column])
        repeated = change.before("Expand", [as_column, wide])
        values.append(change.before("Reshape", [repeated, flat]))
    change.set_inputs(values)


def _old_broadcast(change: Change) -> None:
    """Before version 7 the second operand was aligned at `axis` of the first."""
    node = change.node
    axis = node.attrs.pop("axis", None)
    node.attrs.pop("broadcast", None)
    if axis is None:
        return
    a, b = node.required(0), node.required(1)
    if a.rank is None or b.rank is None:
        raise UnsupportedError(
            f"{node.describe()}: the ranks of both inputs must be known to broadcast at axis {axis}"
        )
    start = axis + a.rank if axis < 0 else axis
    behind = a.rank - start - b.rank
    if behind > 0:
        axes = change.constant(list(range(b.rank, b.rank + behind)))
        change.graph.set_input(node, 1, change.before("Unsqueeze", [b, axes]))


def _gemm(change: Change) -> None:
    change.node.attrs.pop("broadcast", None)


def _prelu(change: Change) -> None:
    """Before version 7 a slope vector belonged to the channels, axis 1."""
    node = change.node
    x, slope = node.required(0), node.required(1)
    if slope.rank == 1 and slope.shape != (1,) and x.rank is not None and x.rank > 2:
        axes = change.constant(list(range(1, x.rank - 1)))
        change.graph.set_input(node, 1, change.before("Unsqueeze", [slope, axes]))


_EVER = 1 << 30  # empty tensors for absent inputs are still legal
_EXPERIMENTAL_AS = 23
_ALIGNED = "Add Sub Mul Div Pow And Or Xor Equal Greater Less"
_REDUCED = "Mean Max Min Prod SumSquare L1 L2 LogSum LogSumExp"

UPGRADES: dict[str, Upgrade] = {
    **dict.fromkeys(_ALIGNED.split(), Upgrade(7, _old_broadcast)),
    **{f"Reduce{n}": Upgrade(18, _attribute_to_input("axes", 1)) for n in _REDUCED.split()},
    "ReduceSum": Upgrade(13, _attribute_to_input("axes", 1)),
    "Squeeze": Upgrade(13, _attribute_to_input("axes", 1)),
    "Unsqueeze": Upgrade(13, _attribute_to_input("axes", 1)),
    "Split": Upgrade(13, _attribute_to_input("split", 1)),
    "TopK": Upgrade(10, _attribute_to_input("k", 1, wrap=True)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), Upgrade(13, _flattened)),
    "Clip": Upgrade(11, _clip),
    "Slice": Upgrade(10, _slice),
    "Pad": Upgrade(11, _pad),
    "Dropout": Upgrade(12, _dropout),
    "BatchNormalization": Upgrade(14, _batch_norm),
    "Upsample": Upgrade(13, _upsample),
    "Resize": Upgrade(_EVER, _resize, to=13),
    "Scatter": Upgrade(13, _scatter),
    "RoiAlign": Upgrade(16, _roi_align),
    "GridSample": Upgrade(20, _grid_sample),
    "DFT": Upgrade(20, _dft),
    "GroupNormalization": Upgrade(21, _group_norm),
    "Gemm": Upgrade(7, _gemm),
    "DequantizeLinear": Upgrade(19, lambda change: None),
    "PRelu": Upgrade(7, _prelu),
    **{
        name: Upgrade(_EVER if op.below is None else op.below, op.rule, to=_EXPERIMENTAL_AS)
        for name, op in experimental.OPERATORS.items()
    },
}
