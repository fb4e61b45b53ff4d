"""Softmax and the normalisation operators: clinfer.Softmax, clinfer.Norm and pointwise factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Array, Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import number
from clinfer.passes.query import normal_axis
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import floordiv, product


def softmax(rw: Rewriter, node: Node) -> Outcome:
    """Softmax along one axis, which is moved to the end first."""
    x = node.required(0)
    rank = len(x.known_shape)
    log = node.op == "LogSoftmax"
    if rank == 0:
        return emit_softmax(rw, x, 0, log)
    axis = normal_axis(node.attrs.get("axis", -1), rank)
    if all(d == 1 for d in x.known_shape[axis + 1 :]):
        return emit_softmax(rw, x, rank - axis, log)
    swap = list(range(rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return rw.transpose(emit_softmax(rw, rw.transpose(x, swap), 1, log), swap)


def emit_softmax(rw: Rewriter, x: Value, axes: int, log: bool = False) -> Value:
    """clinfer.Softmax over the last `axes` dimensions."""
    attrs = {"axes": axes, "log": log}
    return rw.emit("Softmax", [x], x.dtype, x.shape, attrs=attrs, domain="clinfer")


def emit_norm(rw: Rewriter, x: Value, axes: int, eps: float, rms: bool = False) -> Value:
    """clinfer.Norm over the last `axes` dimensions."""
    attrs = {"axes": axes, "eps": float(eps), "rms": rms}
    return rw.emit("Norm", [x], x.dtype, x.shape, attrs=attrs, domain="clinfer")


def scale_and_shift(rw: Rewriter, x: Value, scale: Value | None, bias: Value | None) -> Value:
    """x * scale + bias, both broadcast to x's shape; factors of one and shifts of zero are none.

    PyTorch writes a group norm as an instance norm with such, between two Reshapes.
    """
    for op, operand, neutral in (("Mul", scale, 1), ("Add", bias, 0)):
        if operand is not None and not _is_all(operand, neutral):
            x = rw.emit(op, [x, operand], x.dtype, x.shape)
    return x


def _is_all(value: Value, number: int) -> bool:
    return value.const is not None and bool(np.all(value.const == number))


def layer_norm(rw: Rewriter, node: Node) -> Outcome:
    """LayerNormalization = clinfer.Norm, Mul, Add; its statistics, where read, by themselves."""
    x = node.required(0)
    axis = normal_axis(node.attrs.get("axis", -1), len(x.known_shape))
    eps = node.attrs.get("epsilon", 1e-5)
    statistics: list[Value] = []
    if _statistics_read(rw, node):
        if any(v is not None and v.dtype != x.dtype for v in node.outputs):
            return Refusal("its statistics are read in another dtype")
        center, variance = moments(rw, x, range(axis, len(x.known_shape)))
        statistics = [center, inverse_deviation(rw, variance, eps)]
    normal = emit_norm(rw, x, len(x.known_shape) - axis, eps)
    return [scale_and_shift(rw, normal, node.required(1), node.input(2)), *statistics]


def mean(rw: Rewriter, x: Value, axes: Sequence[int]) -> Value:
    """The mean over the axes, which stay with size 1."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.known_shape))
    attrs = {"axes": list(axes), "keepdims": 1}
    return rw.emit("ReduceMean", [x], x.dtype, shape, attrs=attrs, version=ATTRIBUTE_FORM)


def moments(rw: Rewriter, x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and variance over the axes, which stay with size 1."""
    center = mean(rw, x, axes)
    away = rw.emit("Sub", [x, center], x.dtype, x.shape)
    return center, mean(rw, rw.emit("Mul", [away, away], x.dtype, x.shape), axes)


def inverse_deviation(rw: Rewriter, variance: Value, eps: float) -> Value:
    """1 / sqrt(variance + eps)."""
    dtype, shape = variance.dtype, variance.shape
    spread = rw.emit("Add", [variance, number(rw, eps, dtype)], dtype, shape)
    return rw.emit("Reciprocal", [rw.emit("Sqrt", [spread], dtype, shape)], dtype, shape)


def rms_norm(rw: Rewriter, node: Node) -> Outcome:
    """RMSNormalization = clinfer.Norm (rms), Mul."""
    x = node.required(0)
    axis = normal_axis(node.attrs.get("axis", -1), len(x.known_shape))
    eps = node.attrs.get("epsilon", 1e-5)
    normal = emit_norm(rw, x, len(x.known_shape) - axis, eps, rms=True)
    return [scale_and_shift(rw, normal, node.required(1), None)]


def instance_norm(rw: Rewriter, node: Node) -> Outcome:
    """InstanceNormalization normalises the spatial dimensions, then scales by channel."""
    x = node.required(0)
    spatial = len(x.known_shape) - 2
    normal = emit_norm(rw, x, spatial, node.attrs.get("epsilon", 1e-5))
    scale, bias = (per_channel(rw, node.required(i), spatial) for i in (1, 2))
    return scale_and_shift(rw, normal, scale, bias)


def per_channel(rw: Rewriter, value: Value, spatial: int) -> Value:
    """[C] as [C, 1, ...]."""
    return rw.reshape(value, (*value.known_shape, *([1] * spatial)))


def group_norm(rw: Rewriter, node: Node) -> Outcome:
    """[N, C, ...] as [N, groups, C / groups, ...], normalised over all but the first two."""
    x = node.required(0)
    groups = node.attrs["num_groups"]
    batch, channels, *rest = x.known_shape
    apart = rw.reshape(x, (batch, groups, floordiv(channels, groups), *rest))
    normal = emit_norm(rw, apart, len(x.known_shape) - 1, node.attrs.get("epsilon", 1e-5))
    spatial = len(rest)
    factors = (per_channel(rw, node.required(i), spatial) for i in (1, 2))
    return scale_and_shift(rw, rw.reshape(normal, x.known_shape), *factors)


def mean_variance_norm(rw: Rewriter, node: Node) -> Outcome:
    """(x - mean) / (sqrt(var) + 1e-9): the axes are moved to the end and normalised.

    1e-18 under the root is 1e-9 beside it where the variance is 0, and too small to see elsewhere.
    """
    x = node.required(0)
    rank = len(x.known_shape)
    axes = sorted({normal_axis(a, rank) for a in node.attrs.get("axes", [0, 2, 3])})
    if any(a >= rank for a in axes):
        return Refusal(f"its axes {axes} are not all within rank {rank}")
    perm = [a for a in range(rank) if a not in axes] + axes
    undo = [perm.index(a) for a in range(rank)]
    normal = emit_norm(rw, rw.transpose(x, perm), len(axes), 1e-18)
    return rw.transpose(normal, undo)


def lp_normalization(rw: Rewriter, node: Node) -> Outcome:
    """x / norm(x) along one axis."""
    x = node.required(0)
    op = {1: "ReduceL1", 2: "ReduceL2"}.get(node.attrs.get("p", 2))
    if op is None:
        return Refusal("its power is neither 1 nor 2")
    axis = normal_axis(node.attrs.get("axis", -1), len(x.known_shape))
    reduced = (*x.known_shape[:axis], 1, *x.known_shape[axis + 1 :])
    attrs = {"axes": [axis], "keepdims": 1}
    length = rw.emit(op, [x], x.dtype, reduced, attrs=attrs, version=ATTRIBUTE_FORM)
    # A vector of zeros stays zeros.
    zero = number(rw, 0.0, x.dtype)
    one = number(rw, 1.0, x.dtype)
    is_zero = rw.emit("Equal", [length, zero], "bool", reduced)
    safe = rw.emit("Where", [is_zero, one, length], x.dtype, reduced)
    return rw.emit("Div", [x, safe], x.dtype, x.shape)


def local_response(rw: Rewriter, node: Node) -> Outcome:
    """LRN: x / (bias + alpha * mean of the squares of `size` channels around) ** beta.

    The mean is a pool along the channels; those outside of the tensor count as zeros.
    """
    x = node.required(0)
    if x.dtype not in ("float32", "float64"):
        return Refusal(f"the squares of {x.dtype} may be too large for it")
    batch, channels, *spatial = x.known_shape
    size = int(node.attrs["size"])
    before = (size - 1) // 2
    pixels = product(spatial)
    columns = rw.transpose(rw.reshape(x, (batch, channels, pixels)), (0, 2, 1))
    shape = columns.known_shape
    attrs = {
        "kernel_shape": [size],
        "pads": [before, size - 1 - before],
        "strides": [1],
        "count_include_pad": 1,
    }
    squares = rw.emit("Mul", [columns, columns], x.dtype, shape)
    mean = rw.emit("AveragePool", [squares], x.dtype, shape, attrs=attrs, version=11)
    alpha, beta, bias = (
        number(rw, float(node.attrs.get(name, usual)), x.dtype)
        for name, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    scaled = rw.emit("Mul", [mean, alpha], x.dtype, shape)
    power = rw.emit("Pow", [rw.emit("Add", [scaled, bias], x.dtype, shape), beta], x.dtype, shape)
    back = rw.reshape(rw.transpose(power, (0, 2, 1)), x.known_shape)
    return rw.emit("Div", [x, back], x.dtype, x.shape)


def _statistics_read(rw: Rewriter, node: Node) -> bool:
    rest = [v for v in node.outputs[1:] if v is not None]
    return any(v.users or rw.graph.is_output(v) for v in rest)


def batch_norm(rw: Rewriter, node: Node) -> Outcome:
    """(x - mean) / sqrt(var + eps) * scale + bias as one Mul and one Add by channel."""
    x = node.required(0)
    if node.attrs.get("training_mode", 0) or _statistics_read(rw, node):
        return Refusal("it is in training mode")
    spatial = len(x.known_shape) - 2
    factors = batch_norm_factors(node)
    if factors is not None:
        scale, shift = (_column(rw, f, spatial, x.dtype) for f in factors)
        return [scale_and_shift(rw, x, scale, shift)]
    gamma, beta, mean, var = (per_channel(rw, node.required(i), spatial) for i in (1, 2, 3, 4))
    shape = gamma.known_shape
    eps = number(rw, node.attrs.get("epsilon", 1e-5), var.dtype)
    spread = rw.emit("Sqrt", [rw.emit("Add", [var, eps], var.dtype, shape)], var.dtype, shape)
    factor = rw.emit("Div", [gamma, spread], gamma.dtype, shape)
    away = rw.emit("Sub", [x, mean], x.dtype, x.shape)
    return [scale_and_shift(rw, away, factor, beta)]


def batch_norm_factors(node: Node) -> tuple[Array, Array] | None:
    """(scale, shift) with y = x * scale + shift, float64 by channel; None unless constant."""
    operands = [node.required(i).const for i in (1, 2, 3, 4)]
    known = [c.astype(np.float64) for c in operands if c is not None]
    if len(known) < 4:
        return None
    gamma, beta, mean, var = known
    scale = gamma / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
    return scale, beta - mean * scale


def _column(rw: Rewriter, factor: Array, spatial: int, dtype: str | None) -> Value:
    column = factor.reshape(-1, *([1] * spatial))
    return rw.constant(column.astype(to_numpy(dtype or "float32")))


RULES = (
    Rule("softmax", ("Softmax", "LogSoftmax"), softmax),
    Rule("layer-norm", ("LayerNormalization",), layer_norm),
    Rule("rms-norm", ("RMSNormalization",), rms_norm),
    Rule("instance-norm", ("InstanceNormalization",), instance_norm),
    Rule("group-norm", ("GroupNormalization",), group_norm),
    Rule("mean-variance-norm", ("MeanVarianceNormalization",), mean_variance_norm),
    Rule("local-response-norm", ("LRN",), local_response),
    Rule("lp-norm", ("LpNormalization",), lp_normalization),
    Rule("batch-norm", ("BatchNormalization",), batch_norm),
)
