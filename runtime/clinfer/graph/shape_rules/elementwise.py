"""Elementwise operators: NumPy broadcasting of all inputs."""

from __future__ import annotations

from clinfer.graph.shape_call import Call, Rule, Type

_TRUTH = "Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsNaN IsInf"  # -> bool
_LIKE_FIRST = (
    "Abs Acos Acosh Add Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor "
    "Ceil Celu Clip Cos Cosh Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Max "
    "Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu"
)


def _shape(call: Call, inputs: int) -> Type:
    shapes = [call.shape(i) for i in range(inputs)]
    return Type(call.dtype(0), call.broadcast(*shapes))


def like_first(call: Call) -> list[Type]:
    """The first input's element type."""
    return [_shape(call, call.count)]


def truth(call: Call) -> list[Type]:
    """Booleans."""
    return [Type("bool", _shape(call, call.count).shape)]


def clip(call: Call) -> list[Type]:
    """Clip: like the first input; the bounds are scalars."""
    return [_shape(call, 1)]


def where(call: Call) -> list[Type]:
    """Where: the element type of the second input."""
    return [Type(call.dtype(1), _shape(call, 3).shape)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_LIKE_FIRST.split(), like_first),
    **dict.fromkeys(_TRUTH.split(), truth),
    "Clip": clip,
    "Where": where,
}
