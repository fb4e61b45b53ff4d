"""Whether a model computes each sample of a batch by itself, so that requests may share a run.

The batch is a symbol, and the first size of every input. It is followed through the graph: what is
computed from samples must have the batch as its first size, and nowhere else, and its operator must
be known not to look along that axis. An operator that is not in the table is refused: that a size
comes out right does not say that no sample has seen another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Graph, Node, Value
from clinfer.operators import elementwise
from clinfer.passes.query import integers, normal_axis
from clinfer_kernels.dims import Dim, symbols

_ANY = frozenset(range(64))


class _Rule(NamedTuple):
    """`data`: operands that may hold samples; `sizes`: that may hold sizes made of the batch's.

    `keeps`: whether a node, of which the operands with samples are given, leaves them apart.
    """

    data: frozenset[int] = frozenset({0})
    sizes: frozenset[int] = frozenset()
    keeps: Callable[[Node, frozenset[int]], bool] = lambda node, samples: True


def require_samples(graph: Graph, batch: Dim) -> None:
    """Raises `UnsupportedError` naming the first node, input or output that is no sample's own."""
    _Check(graph, batch).run()


class _Check:
    def __init__(self, graph: Graph, batch: Dim) -> None:
        self._graph = graph
        self._batch = batch
        self._names = symbols(batch)
        self._samples = set(graph.inputs)

    def run(self) -> None:
        for value in self._graph.inputs:
            if not self._is_apart(value):
                raise self._refused(f"input '{value.name}'", "its first size alone is the batch's")
        for node in self._graph.nodes:
            self._node(node)
        for left, right, message, relation in self._graph.constraints:
            if relation == "equal" and (symbols(left) | symbols(right)) & self._names:
                raise self._refused(message, "nothing that holds for some batches only")
        for name, value in zip(self._graph.output_names, self._graph.outputs, strict=True):
            if value not in self._samples:
                raise self._refused(f"output '{name}'", "it has a part for each sample")

    def _node(self, node: Node) -> None:
        made = [value for value in node.outputs if value is not None]
        if all(value.const is not None or value.symbolic is not None for value in made):
            return  # known from sizes
        inputs = enumerate(node.inputs)
        samples = frozenset(i for i, v in inputs if v in self._samples)
        sizes = frozenset(i for i, v in enumerate(node.inputs) if v and self._has_batch(v))
        if not samples and not sizes:
            return
        rule = _RULES.get(node.kind)
        if rule is None or not samples <= rule.data or not sizes <= rule.sizes:
            raise self._refused(node.describe(), "an operator that keeps samples apart")
        if not rule.keeps(node, samples):
            raise self._refused(node.describe(), "nothing that looks along the batch")
        if not all(map(self._is_apart, made)):
            raise self._refused(node.describe(), "the batch as the first size of its result")
        self._samples.update(made)

    def _is_apart(self, value: Value) -> bool:
        shape = value.shape
        if not shape or shape[0] != self._batch:
            return False
        return not any(symbols(size) & self._names for size in shape[1:])

    def _has_batch(self, value: Value) -> bool:
        content = () if value.symbolic is None else value.symbolic.reshape(-1).tolist()
        return any(symbols(size) & self._names for size in content)

    def _refused(self, where: str, expected: str) -> UnsupportedError:
        return UnsupportedError(
            f"BATCH: {where}: expected {expected}, because requests that run as one must not see "
            "each other; compile the model for the device itself, without BATCH"
        )


def _rank(node: Node, index: int = 0) -> int:
    value = node.input(index)
    return 0 if value is None or value.shape is None else len(value.shape)


def _axis(default: int) -> Callable[[Node, frozenset[int]], bool]:
    """The attribute 'axis' is not the first one."""

    def keeps(node: Node, samples: frozenset[int]) -> bool:
        return normal_axis(int(node.attrs.get("axis", default)), _rank(node)) > 0

    return keeps


def _axis_operand(index: int) -> Callable[[Node, frozenset[int]], bool]:
    """The axes that an operand names are known, and none is the first."""

    def keeps(node: Node, samples: frozenset[int]) -> bool:
        axes = integers(node.input(index))
        return bool(axes) and all(normal_axis(a, _rank(node)) > 0 for a in axes or ())

    return keeps


def _aligned(node: Node, samples: frozenset[int]) -> bool:
    """Broadcasting puts the first axis of samples on the first of the result."""
    rank = len(node.output.shape or ())
    return all(_rank(node, index) == rank for index in samples)


def _rows(node: Node, samples: frozenset[int]) -> bool:
    """Samples are matrices of a stack, or rows of the left matrix."""
    return _aligned(node, samples) and (1 not in samples or _rank(node, 1) > 2)


def _gather(node: Node, samples: frozenset[int]) -> bool:
    """Positions of samples in a table, or fixed positions within each sample."""
    axis = normal_axis(int(node.attrs.get("axis", 0)), _rank(node))
    return len(samples) == 1 and (axis == 0) == (1 in samples)


def _planes(node: Node, samples: frozenset[int]) -> bool:
    """Positions of maxima, MaxPool's second result, count from the first sample on."""
    return _rank(node) > 2 and all(value is None for value in node.outputs[1:])


def _pad(node: Node, samples: frozenset[int]) -> bool:
    if node.input(3) is not None:
        return _axis_operand(3)(node, samples)
    pads = integers(node.input(1))
    return bool(pads) and pads is not None and pads[0] == pads[len(pads) // 2] == 0


def _inference(node: Node, samples: frozenset[int]) -> bool:
    return not node.attrs.get("training_mode") and _rank(node) > 1


def _named(kinds: str, rule: _Rule) -> dict[str, _Rule]:
    return dict.fromkeys(kinds.split(), rule)


# Where the first axis of the result is the batch, these have moved, joined or reduced others only:
# the check of shapes says all. Reshapes are of rows one after the other.
_BY_SHAPE = """Transpose Reshape Flatten Squeeze Unsqueeze Concat Split Tile ReduceMax ReduceMin
    ReduceMean ReduceSum ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare
    ArgMax ArgMin OneHot"""
_WINDOWS = """Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool
    GlobalLpPool InstanceNormalization GroupNormalization LRN DepthToSpace SpaceToDepth"""

_RULES: Mapping[str, _Rule] = {
    **{record.kind: _Rule(_ANY, keeps=_aligned) for record in elementwise.OPERATORS},
    **_named(_BY_SHAPE, _Rule(sizes=frozenset({1}))),
    **_named(_WINDOWS, _Rule(keeps=_planes)),
    "Concat": _Rule(_ANY),
    "BatchNormalization": _Rule(keeps=_inference),
    "MatMul": _Rule(frozenset({0, 1}), keeps=_rows),
    "Gemm": _Rule(frozenset({0, 2}), keeps=_aligned),
    **_named("Softmax LogSoftmax Hardmax LayerNormalization", _Rule(keeps=_axis(-1))),
    **_named("RMSNormalization LpNormalization", _Rule(keeps=_axis(-1))),
    "TopK": _Rule(keeps=_axis(-1)),
    "CumSum": _Rule(keeps=_axis_operand(1)),
    "Slice": _Rule(sizes=frozenset({1, 2}), keeps=_axis_operand(3)),
    "Gather": _Rule(frozenset({0, 1}), keeps=_gather),
    "GatherElements": _Rule(frozenset({0, 1}), keeps=_axis(0)),
    "Pad": _Rule(keeps=_pad),
    "Expand": _Rule(sizes=frozenset({1})),
    "ConstantOfShape": _Rule(frozenset(), sizes=frozenset({0})),
    "Resize": _Rule(sizes=frozenset({3}), keeps=_planes),
    **_named("QuantizeLinear DequantizeLinear", _Rule()),
}
