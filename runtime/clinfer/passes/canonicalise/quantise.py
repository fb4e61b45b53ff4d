"""Quantised operators as arithmetic on floats and integers that other kernels fuse.

QuantizeLinear(x, s, z)   = cast(clip(round(x / s) + z))
DequantizeLinear(x, s, z) = (float(x) - z) * s
MatMulInteger, ConvInteger: the int32 product of what is left without the zero points
QLinearMatMul, QLinearConv: that, times a * b / y, rounded and clipped as above
"""

from __future__ import annotations

from collections.abc import Callable

from clinfer.dtypes import BY_NAME, BY_ONNX
from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.integers import integer_convolution, integer_product, is_zero
from clinfer.passes.canonicalise.maker import cast, number
from clinfer.passes.query import broadcast, normal_axis, scalar
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule

_RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "uint4": (0, 15),
    "int4": (-8, 7),
    "uint2": (0, 3),
    "int2": (-2, 1),
}
_FLOATS = ("float32", "float16", "bfloat16")


class _UnfitError(Exception):
    """A quantisation that does not fit the tensor, in a way no kernel is for."""


def quantize(rw: Rewriter, node: Node) -> Outcome:
    """QuantizeLinear to integers and to floats of few bits."""
    x, result = node.required(0), str(node.output.dtype)
    dtype = _precision(node, x, node.required(1))
    if dtype not in _FLOATS:
        return Refusal(f"kernels do not quantise in {dtype}")
    try:
        x, join = _in_blocks(rw, node, x)
        scale, zero = (_spread(rw, node, node.input(i), x) for i in (1, 2))
    except _UnfitError as error:
        return Refusal(str(error))
    assert scale is not None
    ratio = cast(rw, x, dtype)
    if scalar(scale) != 1:
        ratio = rw.emit("Div", [ratio, cast(rw, scale, dtype)], dtype, x.shape)
    if result not in _RANGES:  # their zero point is 0
        attrs = {"to": BY_NAME[result].onnx, "saturate": node.attrs.get("saturate", 1)}
        return join(rw.emit("Cast", [ratio], result, x.shape, attrs=attrs, version=19))
    return join(_rounded(rw, cast(rw, ratio, "float32"), zero, result))


def dequantize(rw: Rewriter, node: Node) -> Outcome:
    """DequantizeLinear; the difference and the product are taken in float32."""
    x, result = node.required(0), str(node.output.dtype)
    if result not in _FLOATS:
        return Refusal(f"kernels do not dequantise {x.dtype} to {result}")
    try:
        x, join = _in_blocks(rw, node, x)
        scale, zero = (_spread(rw, node, node.input(i), x) for i in (1, 2))
    except _UnfitError as error:
        return Refusal(str(error))
    assert scale is not None
    numbers = _shifted(rw, x, zero, "float32")
    if scalar(scale) != 1:
        numbers = rw.emit("Mul", [numbers, cast(rw, scale, "float32")], "float32", x.shape)
    return join(cast(rw, numbers, result))


def matmul_integer(rw: Rewriter, node: Node) -> Outcome:
    """MatMulInteger(a, b, a_zero, b_zero): the zero points are of the tensor, rows or columns."""
    operands = node.required(0), _of_rows(rw, node.input(2)), node.required(1), node.input(3)
    return integer_product(rw, *operands, node.output.known_shape)


def quantized_matmul(rw: Rewriter, node: Node) -> Outcome:
    """QLinearMatMul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = map(node.required, range(8))
    if str(node.output.dtype) not in _RANGES:
        return Refusal(f"kernels do not quantise to {node.output.dtype}")
    a_scale, b_scale, y_scale = (cast(rw, v, "float32") for v in (a_scale, b_scale, y_scale))
    shape = node.output.known_shape
    total = integer_product(rw, a, _of_rows(rw, a_zero), b, b_zero, shape)
    try:
        factor = _factor(rw, _of_rows(rw, a_scale), b_scale, _of_rows(rw, y_scale))
        return _requantized(rw, total, factor, _of_rows(rw, y_zero), str(node.output.dtype))
    except _UnfitError as error:
        return Refusal(str(error))


def conv_integer(rw: Rewriter, node: Node) -> Outcome:
    """ConvInteger(x, w, x_zero, w_zero)."""
    x, w = node.required(0), node.required(1)
    return integer_convolution(rw, node, x, node.input(2), w, _of_channels(rw, node.input(3), w))


def quantized_conv(rw: Rewriter, node: Node) -> Outcome:
    """QLinearConv(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = map(node.required, range(8))
    if x_scale.dtype != "float32" or str(node.output.dtype) not in _RANGES:
        return Refusal(f"kernels do not scale in {x_scale.dtype} to {node.output.dtype}")
    total = integer_convolution(rw, node, x, x_zero, w, _of_channels(rw, w_zero, w))
    bias = node.input(8)
    if bias is not None:
        ones = (1,) * (len(x.known_shape) - 2)
        column = rw.reshape(bias, (*bias.known_shape, *ones))
        total = rw.emit("Add", [total, column], "int32", total.shape)
    by_channel = w_scale
    if w_scale.known_shape and w_scale.known_shape != (1,):
        spatial = len(x.known_shape) - 2
        by_channel = rw.reshape(w_scale, (*w_scale.known_shape, *([1] * spatial)))
    try:
        factor = _factor(rw, x_scale, by_channel, y_scale)
        return _requantized(rw, total, factor, y_zero, str(node.output.dtype))
    except _UnfitError as error:
        return Refusal(str(error))


# -- scales and zero points ----------------------------------------------------------------------


def _precision(node: Node, x: Value, scale: Value) -> str:
    """In what x is divided: as `precision` says, else in the common type of x and the scale."""
    number_of_type = int(node.attrs.get("precision", 0))
    if number_of_type:
        return BY_ONNX[number_of_type].name
    return str(x.dtype if x.dtype == scale.dtype else "float32")


def _in_blocks(rw: Rewriter, node: Node, x: Value) -> tuple[Value, Callable[[Value], Value]]:
    """x with the quantised axis cut into blocks, where there are such, and how to undo that."""
    block = int(node.attrs.get("block_size", 0))
    if not block or node.required(1).shape in ((), (1,)):
        return x, lambda y: y
    shape = x.known_shape
    axis = normal_axis(node.attrs.get("axis", 1), len(shape))
    size = shape[axis]
    if not isinstance(size, int) or size % block:
        raise _UnfitError(f"its {size} elements are not whole blocks of {block}")
    cut = (*shape[:axis], size // block, block, *shape[axis + 1 :])
    return rw.reshape(x, cut), lambda y: rw.reshape(y, shape)


def _spread(rw: Rewriter, node: Node, value: Value | None, x: Value) -> Value | None:
    """A scale or zero point so that it broadcasts to x; None for none."""
    if value is None:
        return None
    shape = value.known_shape
    if shape in ((), (1,)):
        return rw.reshape(value, ())
    rank = len(x.known_shape)
    if int(node.attrs.get("block_size", 0)):
        axis = normal_axis(node.attrs.get("axis", 1), rank - 1)
        return rw.reshape(value, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    if len(shape) != 1:
        raise _UnfitError(f"its scale has {len(shape)} dimensions and no block_size says what for")
    axis = normal_axis(node.attrs.get("axis", 1), rank)
    return rw.reshape(value, (*shape, *([1] * (rank - axis - 1))))


def _of_rows(rw: Rewriter, value: Value | None) -> Value | None:
    """What belongs to a matrix's rows: [M] as [M, 1]; one element as it is."""
    if value is None or len(value.known_shape) != 1 or value.known_shape == (1,):
        return value
    return rw.reshape(value, (*value.known_shape, 1))


def _of_channels(rw: Rewriter, value: Value | None, weights: Value) -> Value | None:
    """What belongs to output channels: [M] as [M, 1, ...]; one element as it is."""
    if value is None or len(value.known_shape) != 1 or value.known_shape == (1,):
        return value
    return rw.reshape(value, (*value.known_shape, *([1] * (len(weights.known_shape) - 1))))


# -- arithmetic ----------------------------------------------------------------------------------


def _shifted(rw: Rewriter, x: Value, zero: Value | None, dtype: str) -> Value:
    """x - zero in that dtype."""
    wide = cast(rw, x, dtype)
    if zero is None or is_zero(zero):
        return wide
    return rw.emit("Sub", [wide, cast(rw, zero, dtype)], dtype, x.shape)


def _rounded(rw: Rewriter, x: Value, zero: Value | None, dtype: str) -> Value:
    """round(x) + zero within the range of that dtype, NaN at its lower end; x is float32."""
    x = rw.emit("Round", [x], "float32", x.shape)
    if zero is not None and not is_zero(zero):
        x = rw.emit("Add", [x, cast(rw, zero, "float32")], "float32", x.shape)
    low, high = (number(rw, bound, "float32") for bound in _RANGES[dtype])
    is_above = rw.emit("Greater", [x, low], "bool", x.shape)
    x = rw.emit("Where", [is_above, x, low], "float32", x.shape)
    return cast(rw, rw.emit("Min", [x, high], "float32", x.shape), dtype)


def _factor(rw: Rewriter, a: Value | None, b: Value, y: Value | None) -> Value:
    """a * b / y."""
    assert a is not None
    assert y is not None
    if a.const is not None and b.const is not None and y.const is not None:
        return rw.constant(a.const * b.const / y.const)
    found = a
    for op, other in (("Mul", b), ("Div", y)):
        shape = broadcast([found.known_shape, other.known_shape])
        if shape is None:
            raise _UnfitError(f"scales of {found.known_shape} and {other.known_shape} do not fit")
        found = rw.emit(op, [found, other], "float32", shape)
    return found


def _requantized(
    rw: Rewriter, total: Value, factor: Value, zero: Value | None, dtype: str
) -> Value:
    """round(total * factor) + zero within the range of that dtype."""
    scaled = rw.emit("Mul", [cast(rw, total, "float32"), factor], "float32", total.shape)
    return _rounded(rw, scaled, zero, dtype)


RULES = (
    Rule("quantize", ("QuantizeLinear",), quantize),
    Rule("dequantize", ("DequantizeLinear",), dequantize),
    Rule("matmul-integer", ("MatMulInteger",), matmul_integer),
    Rule("quantized-matmul", ("QLinearMatMul",), quantized_matmul),
    Rule("conv-integer", ("ConvInteger",), conv_integer),
    Rule("quantized-conv", ("QLinearConv",), quantized_conv),
)
