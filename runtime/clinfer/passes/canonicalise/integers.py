"""Products and convolutions of 8-bit integers, which kernels sum in int32.

    (a - p) (b - q)  =  a b  -  p sum_k b  -  q (sum_k a - K p)

with a, b as they lie in memory: MatMul of uint8 or int8 with int8 gives int32. b is made int8, and
its zero point 0 where the values allow it. Of a convolution the zero point of x is the attribute
`zero`, which it takes off itself: padding stands for 0. Where its weights without their zero points
are no int8, these are taken off the result:

    conv(x, w - q)  =  conv(x, w)  -  q conv(sum_c x, 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clinfer.graph.ir import Array, Node, Shape, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.canonicalise.maker import Maker, cast, number
from clinfer.passes.query import broadcast
from clinfer.passes.rewrite import Rewriter
from clinfer.passes.window import window_pads

BYTES = frozenset({"uint8", "int8"})
_MIDDLE = 128  # between the numbers of uint8 and of int8


def is_zero(value: Value | None) -> bool:
    """Whether a zero point is absent, or known to be 0."""
    return value is None or (value.const is not None and not value.const.any())


def integer_product(
    rw: Rewriter, a: Value, a_zero: Value | None, b: Value, b_zero: Value | None, shape: Shape
) -> Value:
    """The int32 product without the zero points; a's are of the tensor or of rows [M, 1]."""
    if not {a.dtype, b.dtype} <= BYTES or min(len(a.known_shape), len(b.known_shape)) < 2:
        left, right = _difference(rw, a, a_zero), _difference(rw, b, b_zero)
        return rw.emit("MatMul", [left, right], "int32", shape)
    right, right_zero = _signed(rw, b, b_zero)
    total = rw.emit("MatMul", [a, right], "int32", shape)
    shift = None if a_zero is None or is_zero(a_zero) else cast(rw, a_zero, "int32")
    if shift is not None:
        total = _minus(rw, total, _times(rw, shift, _sums(rw, right, -2)))
    if right_zero is not None:
        rows = _sums(rw, a, -1)
        if shift is not None:
            rows = _minus(rw, rows, _times(rw, shift, _length(rw, a)))
        total = _minus(rw, total, _times(rw, rows, right_zero))
    return total


def integer_convolution(
    rw: Rewriter, node: Node, x: Value, x_zero: Value | None, w: Value, w_zero: Value | None
) -> Value:
    """The int32 convolution with the window of `node`, no bias; w's zero points [M, 1, ...]."""
    weights, left = _weights(w, w_zero), None
    if weights is None and node.attrs.get("group", 1) == 1:
        weights, left = _moved(w, w_zero)
    zero = 0 if x_zero is None else None
    if x_zero is not None and x_zero.const is not None and x_zero.const.size == 1:
        zero = int(x_zero.const.reshape(-1)[0])
    if weights is None or x.dtype not in BYTES or not _has_kernel(node, x):
        inputs = [_difference(rw, x, x_zero), _difference(rw, w, w_zero)]
        return rw.emit("Conv", inputs, "int32", node.output.shape, attrs=node.attrs, version=11)
    attrs = {**node.attrs, "zero": zero or 0}
    if zero is None and x_zero is not None:
        x, attrs["pads"] = _padded(rw, node, x, x_zero, weights)
        attrs["auto_pad"] = "NOTSET"
    inputs = [x, rw.constant(weights)]
    total = rw.emit("Conv", inputs, "int32", node.output.shape, attrs=attrs, version=11)
    if zero is None and x_zero is not None:
        axes = tuple(range(1, weights.ndim))
        sums = weights.sum(axes, dtype=np.int32).reshape(-1, *([1] * (weights.ndim - 2)))
        shift = rw.reshape(cast(rw, x_zero, "int32"), ())
        total = _minus(rw, total, _times(rw, shift, rw.constant(sums)))
    if left is not None:
        window = _windows(rw, node, x, x_zero, weights.shape[1:], attrs)
        total = _minus(rw, total, _times(rw, window, rw.constant(left)))
    return total


def _windows(
    rw: Rewriter,
    node: Node,
    x: Value,
    zero: Value | None,
    window: tuple[int, ...],
    attrs: Mapping[str, Any],
) -> Value:
    """The sums of x - zero over each window of that many channels and pixels: [N, 1, ...]."""
    channels, *pixels = window
    plane = _sums(rw, x, 1 - len(x.known_shape))
    if zero is not None and not is_zero(zero):
        each = rw.reshape(cast(rw, zero, "int32"), ())
        plane = _minus(rw, plane, _times(rw, each, number(rw, channels, "int32")))
    ones = rw.constant(np.ones((1, 1, *pixels), np.int32))
    batch, _, *sizes = node.output.known_shape
    plain = {name: value for name, value in attrs.items() if name != "zero"}
    return rw.emit("Conv", [plane, ones], "int32", (batch, 1, *sizes), attrs=plain, version=11)


def _has_kernel(node: Node, x: Value) -> bool:
    """Whether the window has a kernel for sure: nothing else computes such a convolution."""
    attrs, rank = node.attrs, len(x.known_shape)
    explicit = attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    sized = all(isinstance(n, int) for n in x.known_shape[2:])
    return 3 <= rank <= 5 and (explicit or sized) and min(attrs.get("pads", [0])) >= 0


def _padded(
    rw: Rewriter, node: Node, x: Value, zero: Value, weights: Array
) -> tuple[Value, list[int]]:
    """x with the window's padding, of a zero point that only a run knows; no padding is left."""
    spatial = len(x.known_shape) - 2
    pads = window_pads(node, weights.shape[2:])
    none = [0] * (2 * spatial)
    if not any(pads):
        return x, none
    begins, ends = [0, 0, *pads[:spatial]], [0, 0, *pads[spatial:]]
    shape = tuple(n + p + q for n, p, q in zip(x.known_shape, begins, ends, strict=True))
    amounts = rw.constant(np.array([*begins, *ends], np.int64))
    inputs = [x, amounts, rw.reshape(zero, ())]
    return rw.emit("Pad", inputs, x.dtype, shape, attrs={"mode": "constant"}, version=13), none


def _weights(w: Value, zero: Value | None) -> Array | None:
    """Constant weights of int8 that are w - zero; None where there are none."""
    if w.const is None or w.dtype not in BYTES or (zero is not None and zero.const is None):
        return None
    if zero is None or zero.const is None:
        return _narrow(w.const, 0)
    return _narrow(w.const, zero.const)


def _moved(w: Value, zero: Value | None) -> tuple[Array | None, Array | None]:
    """Constant weights of uint8 as int8, and their zero points [M, 1, ...], moved as far."""
    if w.const is None or w.dtype != "uint8" or zero is None or zero.const is None:
        return None, None
    moved = _below(w.const)
    zeros = zero.const.astype(np.int32) - _MIDDLE
    return moved, zeros.reshape(-1, *([1] * (moved.ndim - 2)))


def _narrow(content: Array, zero: Array | int) -> Array | None:
    """content - zero as int8; None where that does not hold it."""
    if content.dtype == np.int8 and not np.any(zero):
        return content
    wide = content.astype(np.int16) - np.asarray(zero).astype(np.int16)
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        return None
    return wide.astype(np.int8)


def _below(content: Array) -> Array:
    """Numbers of uint8 less 128, as int8."""
    return (content.astype(np.int16) - _MIDDLE).astype(np.int8)


def _signed(rw: Rewriter, b: Value, zero: Value | None) -> tuple[Value, Value | None]:
    """b as int8, and its zero point as int32 or None for 0."""
    if b.const is not None and (zero is None or zero.const is not None):
        exact = _narrow(b.const, 0 if zero is None or zero.const is None else zero.const)
        if exact is not None:
            return (b if exact is b.const else rw.constant(exact)), None
    if b.dtype == "int8":
        return b, None if zero is None or is_zero(zero) else cast(rw, zero, "int32")
    middle = number(rw, _MIDDLE, "int32")
    if b.const is not None:
        made = rw.constant(_below(b.const))
    else:
        made = cast(rw, _minus(rw, cast(rw, b, "int32"), middle), "int8")
    if zero is None:
        return made, number(rw, -_MIDDLE, "int32")
    moved = _minus(rw, cast(rw, zero, "int32"), middle)
    return made, None if is_zero(moved) else moved


def _difference(rw: Rewriter, x: Value, zero: Value | None) -> Value:
    wide = cast(rw, x, "int32")
    return wide if zero is None or is_zero(zero) else _minus(rw, wide, cast(rw, zero, "int32"))


def _sums(rw: Rewriter, x: Value, axis: int) -> Value:
    """The sums along an axis, which is kept, in int32."""
    if x.const is not None:
        return rw.constant(x.const.sum(axis, dtype=np.int32, keepdims=True))
    place = len(x.known_shape) + axis
    shape = tuple(1 if i == place else n for i, n in enumerate(x.known_shape))
    attrs = {"axes": [place], "keepdims": 1}
    wide = cast(rw, x, "int32")
    return rw.emit("ReduceSum", [wide], "int32", shape, attrs=attrs, version=ATTRIBUTE_FORM)


def _length(rw: Rewriter, a: Value) -> Value:
    return cast(rw, Maker(rw).size(a.known_shape[-1]), "int32")


def _minus(rw: Rewriter, x: Value, y: Value) -> Value:
    return _pointwise(rw, "Sub", x, y)


def _times(rw: Rewriter, x: Value, y: Value) -> Value:
    return _pointwise(rw, "Mul", x, y)


def _pointwise(rw: Rewriter, op: str, x: Value, y: Value) -> Value:
    if x.const is not None and y.const is not None:
        function = np.subtract if op == "Sub" else np.multiply
        return rw.constant(np.asarray(function(x.const, y.const)))
    shape = broadcast([x.known_shape, y.known_shape])
    return rw.emit(op, [x, y], "int32", x.known_shape if shape is None else shape)
