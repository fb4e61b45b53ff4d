"""Products and reductions: one form for each, with attributes instead of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.maker import count, number
from clinfer.passes.query import integers, normal_axis, scalar
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim

# The newest operator set in which every reduction has its axes as an attribute.
ATTRIBUTE_FORM = 12

REDUCTIONS = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
_ELEMENT_STEPS = {
    "ReduceSumSquare": "Mul",
    "ReduceL1": "Abs",
    "ReduceL2": "Abs",
    "ReduceLogSum": "Log",
}
_GLOBAL_POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
_WHOLE_POOLS = {"AveragePool": "ReduceMean", "MaxPool": "ReduceMax"}
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def gemm_to_matmul(rw: Rewriter, node: Node) -> Outcome:
    """alpha * A' @ B' + beta * C as MatMul, Mul, Add, where A' and B' are transposed views."""
    a, b, c = node.required(0), node.required(1), node.input(2)
    alpha = node.attrs.get("alpha", 1.0)
    beta = node.attrs.get("beta", 1.0)
    if a.dtype not in _FLOATS and (alpha, beta) != (1.0, 1.0):
        return Refusal("integer matrices with factors")
    left = rw.transpose(a, (1, 0)) if node.attrs.get("transA", 0) else a
    right = rw.transpose(b, (1, 0)) if node.attrs.get("transB", 0) else b
    shape = node.output.known_shape
    result = rw.emit("MatMul", [left, right], a.dtype, shape)
    if alpha != 1.0:
        result = rw.emit("Mul", [result, number(rw, alpha, a.dtype)], a.dtype, shape)
    if c is None or beta == 0.0:
        return result
    if beta != 1.0:
        c = rw.emit("Mul", [c, number(rw, beta, a.dtype)], c.dtype, c.shape)
    return rw.emit("Add", [result, c], a.dtype, shape)


def matmul_ranks(rw: Rewriter, node: Node) -> Outcome:
    """1-d operands of MatMul become a row on the left, a column on the right."""
    a, b = node.required(0), node.required(1)
    if len(a.known_shape) > 1 and len(b.known_shape) > 1:
        return None
    shape: list[Dim] = list(node.output.known_shape)
    if len(b.known_shape) == 1:
        b = rw.reshape(b, (*b.known_shape, 1))
        shape.append(1)
    if len(a.known_shape) == 1:
        a = rw.reshape(a, (1, *a.known_shape))
        shape.insert(len(shape) - 1, 1)
    result = rw.emit("MatMul", [a, b], node.output.dtype, tuple(shape))
    return rw.reshape(result, node.output.known_shape)


def reduce_axes(rw: Rewriter, node: Node) -> Outcome:
    """Reduce*(x) has `axes` (sorted, non-negative) and `keepdims`."""
    x = node.required(0)
    rank = len(x.known_shape)
    given = node.attrs.get("axes")
    if given is not None and "own" in node.attrs:
        return None
    if given is None and node.input(1) is not None:
        given = integers(node.input(1))
        if given is None:
            return Refusal("its axes are computed from data")
    if not given:
        if node.attrs.get("noop_with_empty_axes", 0):
            return _reduce_nothing(rw, node, x)
        given = list(range(rank))
    axes = sorted({normal_axis(a, rank) for a in given})
    attrs = {"axes": axes, "keepdims": node.attrs.get("keepdims", 1)}
    if node.attrs == attrs and len(node.inputs) == 1:
        return None
    return rw.emit(
        node.op, [x], node.output.dtype, node.output.shape, attrs=attrs, version=ATTRIBUTE_FORM
    )


def _reduce_nothing(rw: Rewriter, node: Node, x: Value) -> Value:
    """A reduction over no axes still does what it does to each element."""
    step = _ELEMENT_STEPS.get(node.op)
    if step is None:
        return x
    operands = [x, x] if step == "Mul" else [x]
    return rw.emit(step, operands, x.dtype, x.shape)


def arg_axes(rw: Rewriter, node: Node) -> Outcome:
    """ArgMax and ArgMin have all three attributes."""
    x = node.required(0)
    attrs = {
        "axis": normal_axis(node.attrs.get("axis", 0), len(x.known_shape)),
        "keepdims": node.attrs.get("keepdims", 1),
        "select_last_index": node.attrs.get("select_last_index", 0),
    }
    if node.attrs == attrs:
        return None
    return rw.emit(node.op, [x], node.output.dtype, node.output.shape, attrs=attrs)


def global_pool(rw: Rewriter, node: Node) -> Outcome:
    """Global pools reduce the spatial axes."""
    x = node.required(0)
    op = _GLOBAL_POOLS.get(node.op)
    if node.op == "GlobalLpPool":
        op = {1: "ReduceL1", 2: "ReduceL2"}.get(node.attrs.get("p", 2))
    if op is None:
        return Refusal(f"p = {node.attrs.get('p')}; 1 and 2 are reductions")
    attrs = {"axes": list(range(2, len(x.known_shape))), "keepdims": 1}
    return rw.emit(
        op, [x], node.output.dtype, node.output.shape, attrs=attrs, version=ATTRIBUTE_FORM
    )


def whole_pool(rw: Rewriter, node: Node) -> Outcome:
    """A pool with one window that covers the whole unpadded input is a reduction.

    Elements outside of the input (a window rounded up past its end) count for nothing.
    """
    sizes = node.required(0).known_shape[2:]
    kernel = node.attrs["kernel_shape"]
    if any(d != 1 for d in node.output.known_shape[2:]) or any(node.attrs.get("pads", [0])):
        return None
    if len(node.outputs) > 1 or any(d != 1 for d in node.attrs.get("dilations", [1])):
        return None
    if not all(isinstance(n, int) and n <= k for n, k in zip(sizes, kernel, strict=True)):
        return None
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    attrs = {"axes": list(range(2, 2 + len(kernel))), "keepdims": 1}
    dtype = node.output.dtype
    shape = node.output.known_shape
    return rw.emit(
        _WHOLE_POOLS[node.op], [node.required(0)], dtype, shape, attrs=attrs, version=ATTRIBUTE_FORM
    )


def trilu(rw: Rewriter, node: Node) -> Outcome:
    """Trilu(x) = x where column - row >= k (upper) or <= k (lower), else 0."""
    x = node.required(0)
    shift = integers(node.input(1)) if node.input(1) is not None else [0]
    if shift is None:
        return Refusal("its diagonal is computed from data")
    rows, cols = x.known_shape[-2:]
    upper = node.attrs.get("upper", 1)
    column = count(rw, cols, (1, cols))
    row = count(rw, rows, (rows, 1))
    square = (rows, cols)
    away = rw.emit("Sub", [column, row], "int64", square)
    compare = "GreaterOrEqual" if upper else "LessOrEqual"
    diagonal = rw.constant(np.array(shift[0], dtype=np.int64))
    kept = rw.emit(compare, [away, diagonal], "bool", square)
    zero: Any = np.zeros((), dtype=to_numpy(x.dtype or "float32"))
    return rw.emit("Where", [kept, x, rw.constant(zero)], x.dtype, x.shape)


def simple_power(rw: Rewriter, node: Node) -> Outcome:
    """Pow(x, n) for small n as products, roots and reciprocals, which cost a fraction of it."""
    x = node.required(0)
    exponent = scalar(node.required(1))
    if exponent is None or x.shape != node.output.shape or node.output.dtype != x.dtype:
        return None
    if x.dtype not in _FLOATS and exponent not in (1, 2, 3):
        return None

    def apply(op: str, *operands: Value) -> Value:
        return rw.emit(op, operands, x.dtype, x.shape)

    if exponent == 1:
        return x
    if exponent in (2, 3):
        square = apply("Mul", x, x)
        return square if exponent == 2 else apply("Mul", square, x)
    if exponent == 0.5:
        return apply("Sqrt", x)
    if exponent == 0.75:
        root = apply("Sqrt", x)
        return apply("Mul", root, apply("Sqrt", root))
    if exponent == -0.5:
        return apply("Reciprocal", apply("Sqrt", x))
    return apply("Reciprocal", x) if exponent == -1 else None


RULES = (
    Rule("gemm-to-matmul", ("Gemm",), gemm_to_matmul),
    Rule("matmul-ranks", ("MatMul",), matmul_ranks),
    Rule("reduce-axes", REDUCTIONS, reduce_axes),
    Rule("arg-axes", ("ArgMax", "ArgMin"), arg_axes),
    Rule("global-pool", ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    Rule("whole-pool", tuple(_WHOLE_POOLS), whole_pool),
    Rule("simple-power", ("Pow",), simple_power),
    Rule("trilu-to-where", ("Trilu",), trilu),
)
