"""ONNX's elementwise operators as expressions: one line an operator in `POINTWISE`.

A builder takes (builder, operands, attributes) and returns the result's value number. Operands are
value numbers in ONNX's order, None where an optional input is absent; they are broadcast by whoever
makes the views. Formulas follow the operators' definitions in the ONNX specification; attributes
have its names and defaults. float16 and bfloat16 are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinfer_kernels import narrow
from clinfer_kernels.expr import Builder
from clinfer_kernels.terms import Term
from clinfer_kernels.types import is_float, kind, size_of

Attrs = Mapping[str, Any]
Operands = Sequence[int | None]
Build = Callable[[Builder, Operands, Attrs], int]
ResultDtype = Callable[[Sequence[str], Attrs], str]

# TensorProto's numbers of the element types that kernels compute with.
ONNX_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
}


def _first(dtypes: Sequence[str], attrs: Attrs) -> str:
    return dtypes[0]


def _second(dtypes: Sequence[str], attrs: Attrs) -> str:
    return dtypes[1]


def _bool(dtypes: Sequence[str], attrs: Attrs) -> str:
    return "bool"


def _to(dtypes: Sequence[str], attrs: Attrs) -> str:
    to = attrs["to"]
    if to in ONNX_DTYPES:
        return ONNX_DTYPES[to]
    if to in ONNX_DTYPES.values():
        return str(to)
    raise ValueError(f"kernels do not compute with element type {to}")


@dataclass(frozen=True)
class PointwiseOp:
    """How an ONNX operator becomes lines of an expression, and its result's dtype."""

    build: Build
    dtype: ResultDtype = _first


def result_dtype(op: str, dtypes: Sequence[str], attrs: Attrs) -> str:
    """The result's dtype; `KeyError` for an operator not in the table, `ValueError` for a cast to a
    type that kernels do not compute with."""
    return POINTWISE[op].dtype(dtypes, attrs)


def _unary(formula: Callable[[Term], Term]) -> PointwiseOp:
    return PointwiseOp(lambda b, v, a: formula(_term(b, v, 0)).number)


def _formula(formula: Callable[[Term, Attrs], Term]) -> PointwiseOp:
    return PointwiseOp(lambda b, v, a: formula(_term(b, v, 0), a).number)


def _plain(name: str, operands: int = 1) -> PointwiseOp:
    return PointwiseOp(lambda b, v, a: b.op(name, *_numbers(v[:operands])))


def _compare(name: str) -> PointwiseOp:
    return PointwiseOp(lambda b, v, a: b.op(name, *_numbers(v[:2]), dtype="bool"), _bool)


def _fold(name: str) -> PointwiseOp:
    """A variadic operator: name(name(a, b), c) ..."""

    def build(b: Builder, values: Operands, attrs: Attrs) -> int:
        numbers = _numbers(values)
        result = numbers[0]
        for number in numbers[1:]:
            result = b.op(name, result, number)
        return result

    return PointwiseOp(build)


def _mean(b: Builder, values: Operands, attrs: Attrs) -> int:
    total = Term(b, _fold("add").build(b, values, attrs))
    return (total / len(values)).number


def _cast(b: Builder, values: Operands, attrs: Attrs) -> int:
    return _converted(_term(b, values, 0), _to((), attrs), attrs)


def _converted(x: Term, dtype: str, attrs: Attrs) -> int:
    if dtype not in narrow.FLOATS or x.dtype == dtype:
        return x.cast(dtype).number
    mode = narrow.ROUNDING.index(attrs.get("round_mode", narrow.ROUNDING[0]))
    how = (int(not attrs.get("saturate", 1)), mode)
    return x.builder.op("cast", x.number, dtype=dtype, attrs=how if any(how) else ())


def _cast_like(b: Builder, values: Operands, attrs: Attrs) -> int:
    return _converted(_term(b, values, 0), _term(b, values, 1).dtype, attrs)


def _clip(b: Builder, values: Operands, attrs: Attrs) -> int:
    """min(max(x, low), high), bounds as operands or (before opset 11) as attributes."""
    x = _term(b, values, 0)
    low = _bound(b, values, 1, attrs.get("min"))
    high = _bound(b, values, 2, attrs.get("max"))
    if low is not None:
        x = x.at_least(low)
    if high is not None:
        x = x.at_most(high)
    return x.number


def _bound(b: Builder, values: Operands, index: int, attr: float | None) -> Term | float | None:
    if index < len(values) and values[index] is not None:
        return _term(b, values, index)
    return attr


def _pow(b: Builder, values: Operands, attrs: Attrs) -> int:
    """The result has the base's dtype, whatever the exponent's."""
    base = _term(b, values, 0)
    exponent = _term(b, values, 1)
    if is_float(base.dtype) or not is_float(exponent.dtype):
        return base.op("pow", exponent.cast(base.dtype)).number
    power = base.cast(exponent.dtype).op("pow", exponent)
    return power.cast(base.dtype).number


def _mod(b: Builder, values: Operands, attrs: Attrs) -> int:
    return b.op("fmod" if attrs.get("fmod", 0) else "mod", *_numbers(values))


def _bit_shift(b: Builder, values: Operands, attrs: Attrs) -> int:
    name = "shl" if attrs["direction"] == "LEFT" else "shr"
    numbers = _numbers(values)
    return b.op(name, *numbers, attrs=(size_of(b.dtype(numbers[0])) * 8,))


def _is_inf(b: Builder, values: Operands, attrs: Attrs) -> int:
    x = _term(b, values, 0)
    positive = attrs.get("detect_positive", 1)
    negative = attrs.get("detect_negative", 1)
    if positive and negative:
        return x.op("isinf", dtype="bool").number
    if not positive and not negative:
        return b.const(0, "bool")
    return x.op("eq", math.inf if positive else -math.inf, dtype="bool").number


def _where(b: Builder, values: Operands, attrs: Attrs) -> int:
    condition, yes, no = _numbers(values)
    return b.op("where", condition, yes, no, dtype=b.dtype(yes))


def _gelu(x: Term, attrs: Attrs) -> Term:
    if attrs.get("approximate", "none") == "tanh":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)
        return x * 0.5 * (inner.op("tanh") + 1.0)
    return x * 0.5 * ((x * math.sqrt(0.5)).op("erf") + 1.0)


def _hard_sigmoid(x: Term, alpha: float, beta: float) -> Term:
    return (x * alpha + beta).at_least(0.0).at_most(1.0)


def _shrink(x: Term, attrs: Attrs) -> Term:
    bias, limit = float(attrs.get("bias", 0.0)), float(attrs.get("lambd", 0.5))
    wide = x.cast(x.dtype if is_float(x.dtype) else "float32")
    inside = (wide > limit).where(wide - bias, wide.lift(0.0))
    return (wide < -limit).where(wide + bias, inside).cast(x.dtype)


def _prelu(b: Builder, values: Operands, attrs: Attrs) -> int:
    x, slope = _term(b, values, 0), _term(b, values, 1)
    return (x < 0).where(x * slope, x).number


def _selu(x: Term, attrs: Attrs) -> Term:
    alpha = float(attrs.get("alpha", 1.67326319217681884765625))
    gamma = float(attrs.get("gamma", 1.05070102214813232421875))
    return (x > 0.0).where(x, (x.exp() - 1.0) * alpha) * gamma


def _elu(x: Term, attrs: Attrs) -> Term:
    return (x < 0.0).where((x.exp() - 1.0) * float(attrs.get("alpha", 1.0)), x)


def _celu(x: Term, attrs: Attrs) -> Term:
    alpha = float(attrs.get("alpha", 1.0))
    return (x < 0.0).where(((x / alpha).exp() - 1.0) * alpha, x)


def _abs(x: Term) -> Term:
    return x if kind(x.dtype) == "u" else x.op("abs")


POINTWISE: dict[str, PointwiseOp] = {
    # no operator of ONNX: bytes by their bits in a table (`types.TABLE`), made by passes
    "clinfer.Lookup": _plain("lookup", 2),
    # nor this: x * y + z, rounded once where the device has an instruction for it
    "clinfer.MulAdd": _plain("mul_add", 3),
    # one operation
    "Acos": _plain("acos"),
    "Acosh": _plain("acosh"),
    "Asin": _plain("asin"),
    "Asinh": _plain("asinh"),
    "Atan": _plain("atan"),
    "Atanh": _plain("atanh"),
    "Ceil": _plain("ceil"),
    "Cos": _plain("cos"),
    "Cosh": _plain("cosh"),
    "Erf": _plain("erf"),
    "Exp": _plain("exp"),
    "Floor": _plain("floor"),
    "Log": _plain("log"),
    "Neg": _plain("neg"),
    "Reciprocal": _plain("reciprocal"),
    "Round": _plain("round"),
    "Sign": _plain("sign"),
    "Sin": _plain("sin"),
    "Sinh": _plain("sinh"),
    "Softplus": _plain("softplus"),
    "Sqrt": _plain("sqrt"),
    "Tan": _plain("tan"),
    "Tanh": _plain("tanh"),
    "Add": _plain("add", 2),
    "Sub": _plain("sub", 2),
    "Mul": _plain("mul", 2),
    "Div": _plain("div", 2),
    "Not": _plain("not"),
    "And": _plain("and", 2),
    "Or": _plain("or", 2),
    "Xor": _plain("xor", 2),
    "BitwiseAnd": _plain("bit_and", 2),
    "BitwiseNot": _plain("bit_not"),
    "BitwiseOr": _plain("bit_or", 2),
    "BitwiseXor": _plain("bit_xor", 2),
    # comparisons
    "Equal": _compare("eq"),
    "Greater": _compare("gt"),
    "GreaterOrEqual": _compare("ge"),
    "Less": _compare("lt"),
    "LessOrEqual": _compare("le"),
    "IsNaN": PointwiseOp(lambda b, v, a: b.op("isnan", *_numbers(v), dtype="bool"), _bool),
    "IsInf": PointwiseOp(_is_inf, _bool),
    # any number of operands
    "Max": _fold("max"),
    "Mean": PointwiseOp(_mean),
    "Min": _fold("min"),
    "Sum": _fold("add"),
    # types and choices
    "BitShift": PointwiseOp(_bit_shift),
    "Cast": PointwiseOp(_cast, _to),
    "CastLike": PointwiseOp(_cast_like, _second),
    "Clip": PointwiseOp(_clip),
    "Identity": _unary(lambda x: x),
    "Mod": PointwiseOp(_mod),
    "Pow": PointwiseOp(_pow),
    "PRelu": PointwiseOp(_prelu),
    "Where": PointwiseOp(_where, _second),
    # formulas
    "Abs": _unary(_abs),
    "Celu": _formula(_celu),
    "Elu": _formula(_elu),
    "Gelu": _formula(_gelu),
    "HardSigmoid": _formula(lambda x, a: _hard_sigmoid(x, a.get("alpha", 0.2), a.get("beta", 0.5))),
    "HardSwish": _unary(lambda x: x * _hard_sigmoid(x, 1.0 / 6.0, 0.5)),
    "LeakyRelu": _formula(lambda x, a: (x < 0.0).where(x * a.get("alpha", 0.01), x)),
    "Mish": _unary(lambda x: x * x.op("softplus").op("tanh")),
    "Relu": _unary(lambda x: x.at_least(0)),
    "Selu": _formula(_selu),
    "Shrink": _formula(_shrink),
    "Sigmoid": _unary(lambda x: x.sigmoid()),
    "Softsign": _unary(lambda x: x / (_abs(x) + 1.0)),
    "Swish": _formula(lambda x, a: x * (x * a.get("alpha", 1.0)).sigmoid()),
    "ThresholdedRelu": _formula(lambda x, a: (x > a.get("alpha", 1.0)).where(x, x.lift(0.0))),
}


def _term(b: Builder, values: Operands, index: int) -> Term:
    number = values[index]
    if number is None:
        raise ValueError(f"operand {index} is missing")
    return Term(b, number)


def _numbers(values: Operands) -> list[int]:
    return [v for v in values if v is not None]
