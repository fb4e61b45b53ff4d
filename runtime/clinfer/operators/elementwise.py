"""Operators on each element by itself. Their operands broadcast, which their shape rule checks."""

from __future__ import annotations

from clinfer.operators import Operator, plain
from clinfer.operators.relations import one
from clinfer.operators.values import DTYPE, SWITCH, words

_ROUNDING = words("up", "down", "nearest")

OPERATORS = (
    *plain(
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor "
        "Ceil Celu Cos Cosh Div Elu Equal Erf Exp Floor Greater GreaterOrEqual HardSigmoid "
        "HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mul Neg "
        "Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
        "Softsign Sqrt Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu Where Xor"
    ),
    Operator("BitShift", {"direction": words("LEFT", "RIGHT")}),
    Operator("Cast", {"to": DTYPE, "round_mode": _ROUNDING}),
    Operator("CastLike", {"round_mode": _ROUNDING}),
    Operator("BitCast", {"to": DTYPE}),
    Operator("Clip", relations=(one(1, 2),)),
    Operator("Dropout", relations=(one(1, 2),)),
    Operator("Gelu", {"approximate": words("none", "tanh")}),
    Operator("Mod", {"fmod": SWITCH}),
)
