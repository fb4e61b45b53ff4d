"""Operators that read or make sizes: Shape, Range, ConstantOfShape, Resize."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from clinfer.graph import numbers
from clinfer.graph.bounds import lower_bound
from clinfer.graph.ir import Shape, Value
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape
from clinfer_kernels.dims import Dim, floordiv, maximum


def shape(call: Call) -> list[Type]:
    """Shape: a vector of the sizes from `start` to `end`."""
    rank = call.rank(0)
    return [Type("int64", (len(range(rank)[shape_slice(call)]),))]


def shape_slice(call: Call) -> slice:
    """Which dimensions Shape returns."""
    return slice(int(call.attr("start", 0)), call.attr("end"))


def size(call: Call) -> list[Type]:
    """Size: a scalar."""
    return [Type("int64", ())]


def range_(call: Call) -> list[Type]:
    """Range: max(ceil((limit - start) / delta), 0) elements."""
    if call.count < 3:
        return call.keep()
    return [Type(call.dtype(0), (_range_length(call),))]


def _range_length(call: Call) -> Dim:
    consts = [call.value(i).const for i in range(3)]
    if all(c is not None for c in consts):
        start, limit, delta = (c.item() for c in consts if c is not None)
        if delta == 0 or not np.all(np.isfinite((start, limit, delta))):
            raise call.error(f"a delta other than 0 expected, found {start}, {limit}, {delta}")
        return max(int(np.ceil((limit - start) / delta)), 0)
    length = range_length([call.value(i) for i in range(3)])
    return call.fresh(0, 0) if length is None else length


def range_length(operands: Sequence[Value]) -> Dim | None:
    """How many numbers a Range of that start, limit and delta has, where sizes tell it.

    Narrow floats are left to a run: they do not hold every size.
    """
    if operands[0].dtype in ("float16", "bfloat16"):
        return None
    found = [numbers.content(value) for value in operands]
    if any(x is None or x.size != 1 for x in found):
        return None
    start, limit, delta = (x.item() for x in found if x is not None)
    length: Dim | None
    try:
        span = numbers.subtract(limit, start)
        if isinstance(span, numbers.Rational) or isinstance(delta, numbers.Rational):
            length = numbers.truncate(numbers.ceil(numbers.divide(span, numbers.widen(delta))))
        else:
            length = numbers.ceildiv(span, delta)
    except UnknownShape:
        return None
    if length is None:
        return None
    least = lower_bound(length)
    return length if least is not None and least >= 0 else maximum(length, 0)


def constant_of_shape(call: Call) -> list[Type]:
    """ConstantOfShape: the sizes in input 0, the element type of `value` (float32 without)."""
    value = call.attr("value")
    dtype = "float32" if value is None else value.dtype.name
    wanted = call.content(0)
    if wanted is not None:
        return [Type(dtype, tuple(wanted.ravel()))]
    rank = call.shape(0)[0]
    if not isinstance(rank, int):
        raise UnknownShape
    return [Type(dtype, call.unknown(rank))]


def resize(call: Call) -> list[Type]:
    """Resize: sizes as given, or floor(size * scale)."""
    if call.count < 3:
        return call.keep()
    source = call.shape(0)
    axes = [call.normal(a, len(source)) for a in call.attr("axes") or range(len(source))]
    if call.has(3):
        return [Type(call.dtype(0), _resized_to(call, source, axes))]
    result = list(source)
    scales = call.value(2).const
    for number, axis in enumerate(axes):
        if scales is None:
            result[axis] = call.fresh(0, axis)
        else:
            result[axis] = scaled(source[axis], np.float32(scales.ravel()[number]))
    return [Type(call.dtype(0), tuple(result))]


def _resized_to(call: Call, source: Shape, axes: list[int]) -> Shape:
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    sizes = call.content(3)
    result = list(source)
    if sizes is None:
        for axis in axes:
            result[axis] = call.fresh(0, axis)
        return tuple(result)
    wanted = list(sizes.ravel())
    if policy != "stretch":
        if not all(isinstance(source[a], int) for a in axes):
            raise UnknownShape
        ratios = [int(w) / int(source[a]) for w, a in zip(wanted, axes, strict=True)]  # type: ignore[arg-type]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        wanted = [int(np.floor(ratio * int(source[a]) + 0.5)) for a in axes]  # type: ignore[arg-type]
    for axis, size in zip(axes, wanted, strict=True):
        result[axis] = size
    return tuple(result)


def scaled(size: Dim, scale: np.float32) -> Dim:
    """floor(size * scale): in float32 where the size is known, as ONNX's own inference has it."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * scale))
    exact = Fraction(float(scale))
    return floordiv(size * exact.numerator, exact.denominator)


def eye_like(call: Call) -> list[Type]:
    """EyeLike: the input's shape, `dtype` if given."""
    from clinfer.dtypes import BY_ONNX

    number = call.attr("dtype")
    dtype = call.dtype(0) if number is None else BY_ONNX[number].name
    return [Type(dtype, call.shape(0))]


RULES: dict[str, Rule] = {
    "Shape": shape,
    "Size": size,
    "Range": range_,
    "ConstantOfShape": constant_of_shape,
    "Resize": resize,
    "EyeLike": eye_like,
}
