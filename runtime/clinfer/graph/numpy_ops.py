"""Frequent operators on sizes and weights in NumPy, without loading onnx.

Used by host steps and by constant folding. A function takes the node's plain attributes and its
inputs (None where absent) and returns the outputs. Operators are in their newest form (`upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import BY_ONNX, to_numpy
from clinfer.graph import numpy_indexing, numpy_random, numpy_text, numpy_text_casts
from clinfer.graph.ir import Array
from clinfer.graph.numpy_hash import murmur
from clinfer.graph.numpy_layout import max_roi_pool, pad, top_k
from clinfer.graph.numpy_nms import non_max_suppression
from clinfer.graph.numpy_pool import average_pool, lp_pool, max_pool
from clinfer.graph.numpy_quantise import (
    conv_integer,
    dequantize_linear,
    multiply_add,
    quantize_linear,
    quantized_dtype,
)
from clinfer.graph.numpy_recurrent import gru, lstm, rnn
from clinfer.graph.numpy_reduce import REDUCTIONS
from clinfer.graph.numpy_regex import full_match
from clinfer.graph.numpy_regions import roi_align
from clinfer.graph.numpy_resize import resize
from clinfer.graph.numpy_signal import dft, mel_weight_matrix, stft
from clinfer.graph.numpy_tokens import tokenize
from clinfer.graph.numpy_unique import unique
from clinfer.graph.numpy_windows import conv, conv_transpose

Attrs = Mapping[str, Any]
Inputs = Sequence[Any]
Function = Callable[[Attrs, Inputs], "list[Any]"]


def _shape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    window = slice(attrs.get("start", 0), attrs.get("end"))
    return [np.array(inputs[0].shape[window], np.int64)]


def _size(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.array(inputs[0].size, np.int64)]


def _identity(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [inputs[0]]


def _reshape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, wanted = inputs
    sizes = [int(s) for s in wanted]
    if not attrs.get("allowzero", 0):
        sizes = [data.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return [data.reshape(sizes)]


def _flatten(attrs: Attrs, inputs: Inputs) -> list[Any]:
    (data,) = inputs
    axis = attrs.get("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    rows = int(np.prod(data.shape[:axis], dtype=np.int64))
    columns = int(np.prod(data.shape[axis:], dtype=np.int64))
    return [data.reshape(rows, columns)]


def _squeeze(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, axes = inputs[0], inputs[1] if len(inputs) > 1 else None
    named = None if axes is None else tuple({int(a) % max(data.ndim, 1) for a in axes})
    return [np.squeeze(data, named)]


def _unsqueeze(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.expand_dims(inputs[0], tuple(int(a) for a in inputs[1].ravel()))]


def _transpose(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.transpose(inputs[0], attrs.get("perm"))]


def _concat(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.concatenate(inputs, axis=attrs.get("axis", 1))]


def _expand(attrs: Attrs, inputs: Inputs) -> list[Any]:
    data, wanted = inputs
    shape = np.broadcast_shapes(data.shape, tuple(int(s) for s in wanted))
    return [np.broadcast_to(data, shape)]


def _where(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.where(*inputs)]


def _non_zero(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """[rank, count]; of a scalar, as the specification says, [0, 1] or [0, 0]."""
    (x,) = inputs
    count = np.count_nonzero(x)
    return [np.array(np.nonzero(x) if x.ndim else (), np.int64).reshape(x.ndim, count)]


def _range(attrs: Attrs, inputs: Inputs) -> list[Any]:
    start, limit, delta = (v.reshape(()) for v in inputs)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    steps = start + np.arange(count).astype(start.dtype) * delta
    return [steps.astype(start.dtype)]


def _constant_of_shape(attrs: Attrs, inputs: Inputs) -> list[Any]:
    fill = attrs.get("value")
    content = np.zeros(1, np.float32) if fill is None else fill
    shape = tuple(int(s) for s in inputs[0])
    return [np.full(shape, content.ravel()[0], content.dtype)]


_PLAIN = [
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]


_INTEGERS = frozenset(name for name in _PLAIN if "int" in name)
_SMALL_INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
_NARROW_FLOATS = frozenset(["float16", "bfloat16"])


def _cast(attrs: Attrs, inputs: Inputs) -> list[Any]:
    (x,), target = inputs, BY_ONNX[attrs["to"]].name
    if target == "string":
        return [numpy_text_casts.to_text(x)]
    if x.dtype.kind == "O":
        return [numpy_text_casts.from_text(x, target)]
    if target in _SMALL_INTEGERS:
        return [_to_small(x, target)]
    with np.errstate(all="ignore"):
        if target in _INTEGERS and x.dtype.kind not in "iub":
            return [_to_integer(x.astype(np.float64), np.dtype(target))]
        return [x.astype(to_numpy(target))]


def _to_integer(x: Array, dtype: np.dtype[Any]) -> Array:
    """As `clinfer_kernels.casts` has it: what does not fit is the least number, or its low bits."""
    half = 2.0 ** (63 if dtype.itemsize == 8 else 31)
    is_upper = (x >= half) & (dtype.kind == "u" and dtype.itemsize >= 4)
    rest = np.where(is_upper, x - half, x)
    whole = np.where((rest >= -half) & (rest < half), rest, -half).astype(np.int64)
    return (whole ^ np.where(is_upper, np.int64(-half), 0)).astype(dtype)


def _to_small(x: Array, target: str) -> Array:
    """Floats rounded, halves away from zero, as ONNX Runtime has it; then the low bits."""
    if x.dtype.kind not in "iub":
        x = x.astype(np.float64)
        x = np.where(np.isfinite(x), np.trunc(x + np.copysign(0.5, x)), 0)
    bits = _SMALL_INTEGERS[target]
    low = x.astype(np.int64) & ((1 << bits) - 1)
    if not target.startswith("u"):
        low = np.where(low >> (bits - 1), low - (1 << bits), low)
    return low.astype(np.int8).astype(to_numpy(target))


def _can_cast(attrs: Attrs, inputs: Inputs) -> bool:
    """Not to float8 and float4, whose saturation is the reference's."""
    source, target = inputs[0].dtype.name, BY_ONNX[attrs["to"]].name
    if target == "string":
        return source in (*_PLAIN, *_NARROW_FLOATS, "object")
    if target in _SMALL_INTEGERS:
        return source in _PLAIN or source in _NARROW_FLOATS or source in _SMALL_INTEGERS
    return target in (*_PLAIN, *_NARROW_FLOATS) and source != "complex64"


def _optional(attrs: Attrs, inputs: Inputs) -> list[Any]:
    """An optional is its content, or None."""
    return [inputs[0] if inputs else None]


def _has_element(attrs: Attrs, inputs: Inputs) -> list[Any]:
    return [np.array(bool(inputs) and inputs[0] is not None)]


TABLE: dict[str, Function] = {
    **numpy_indexing.TABLE,
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Expand": _expand,
    "Where": _where,
    "NonZero": _non_zero,
    "NonMaxSuppression": non_max_suppression,
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "clinfer.Decode": dequantize_linear,
    "clinfer.MulAdd": multiply_add,
    "clinfer.Random": numpy_random.random,
    "clinfer.Seed": numpy_random.seed,
    "MaxRoiPool": max_roi_pool,
    "Pad": pad,
    "Resize": resize,
    "TopK": top_k,
    "DFT": dft,
    "STFT": stft,
    "LSTM": lstm,
    "GRU": gru,
    "RNN": rnn,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "RoiAlign": roi_align,
    "Unique": unique,
    "RegexFullMatch": full_match,
    "MelWeightMatrix": mel_weight_matrix,
    "TfIdfVectorizer": numpy_text.tf_idf,
    "Equal": numpy_text.equal,
    "StringConcat": numpy_text.concat,
    "StringNormalizer": numpy_text.normalized,
    "StringSplit": numpy_text.split,
    "clinfer.Tokenize": tokenize,
    "clinfer.Hash": murmur,
    **REDUCTIONS,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _has_element,
}
_OF_OBJECTS = frozenset({"Identity", "Optional", "OptionalGetElement", "OptionalHasElement"})


def find(kind: str, attrs: Attrs, inputs: Inputs) -> Function | None:
    """The function for an operator on these inputs; None where onnx must run it."""
    function = TABLE.get(kind)
    if function is None or kind in _OF_OBJECTS:
        return function
    if not all(v is None or isinstance(v, np.ndarray) for v in inputs):
        return None
    if kind == "Cast" and not _can_cast(attrs, inputs):
        return None
    if kind == "QuantizeLinear" and quantized_dtype(attrs, inputs) is None:
        return None
    if kind == "Split" and (len(inputs) < 2 or inputs[1] is None):
        return None
    return function


def contiguous(result: Any) -> Any:
    """An array that owns its layout, for results that may be views."""
    if not isinstance(result, np.ndarray):
        return result
    made: Array = np.ascontiguousarray(result).reshape(result.shape)
    return made
