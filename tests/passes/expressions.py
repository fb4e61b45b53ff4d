"""Scalar expressions in NumPy, one function an operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer_kernels.expr import Expr, Line

Array = np.ndarray[Any, Any]


def run_expr(expr: Expr, operands: Sequence[Array]) -> Array:
    """The expression's first output; 16-bit floats are widened and rounded once, at the end."""
    values = [_wide(v) for v in operands]
    for line in expr.lines:
        values.append(_line(line, [values[a] for a in line.args]))
    return values[expr.outputs[0]].astype(to_numpy(expr.output_dtypes[0]))


def _wide(array: Array) -> Array:
    short = array.dtype.name in ("float16", "bfloat16")
    return array.astype(np.float32) if short else array


def _line(line: Line, args: Sequence[Array]) -> Array:
    dtype = _wide(np.empty(0, to_numpy(line.dtype))).dtype
    if line.op == "const":
        return np.array(line.attrs[0], dtype=dtype)
    with np.errstate(all="ignore"):
        if line.op == "cast":
            return np.asarray(args[0]).astype(dtype)
        return np.asarray(_SCALARS[line.op](*args, *line.attrs)).astype(dtype)


@lru_cache(maxsize=1)
def erf() -> Callable[..., Any]:
    return np.vectorize(math.erf, otypes=[np.float64])


def _quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    return np.trunc(a.astype(np.float64) / b)


def _shift_left(a: Array, b: Array, bits: int) -> Array:
    """By the dtype's width or more: 0."""
    return np.where(b < bits, np.left_shift(a, np.minimum(b, bits - 1).astype(b.dtype)), 0)


def _shift_right(a: Array, b: Array, bits: int) -> Array:
    """By the dtype's width or more: 0, or -1 of a negative number."""
    inside = np.right_shift(a, np.minimum(b, bits - 1).astype(b.dtype))
    return np.where(b < bits, inside, np.where(a < 0, -1, 0).astype(a.dtype))


def looked_up(x: Any, table: Any) -> Any:
    """The bytes of a table of 256 at the bits of bytes."""
    content = np.frombuffer(table.tobytes()[:256], x.dtype)
    return content[np.asarray(x).view(np.uint8)]


_TRIGONOMETRY = ("sin", "cos", "tan", "sinh", "cosh", "tanh")
_SCALARS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in _TRIGONOMETRY},
    **{f"a{name}": getattr(np, f"arc{name}") for name in _TRIGONOMETRY},
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "bit_not": np.bitwise_not,
    "shl": _shift_left,
    "shr": _shift_right,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "fmod": np.fmod,
    "mod": np.mod,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "min": np.minimum,
    "max": np.maximum,
    "min_with": lambda a, b: np.where(a < b, a, b),
    "max_with": lambda a, b: np.where(a > b, a, b),
    "clip": lambda x, low, high: np.minimum(np.where(x > low, x, low), high),
    "div_by": lambda x, y, _: x / y,
    "mul_add": lambda x, y, z: x * y + z,
    "lookup": lambda x, table: looked_up(x, table),
    "pow": np.power,
    "sqrt": np.sqrt,
    "reciprocal": lambda a: 1 / a,
    "exp": np.exp,
    "log": np.log,
    "softplus": lambda a: np.logaddexp(a, 0),
    "erf": lambda a: erf()(a),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "round_near": np.rint,
    "round_even": np.rint,
    "near_bits": lambda x: np.rint(x).astype(np.int32) + 0x4B400000,
    "trunc": np.trunc,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "where": np.where,
}
