"""The scalar operations of expressions, each with its text in OpenCL C.

A template names its operands {0}, {1}, {2}; {a0}, {a1} are baked constants (`Line.attrs`);
{T} is the operands' C type ("float8"); {condition} is operand 0, a bool, as a condition on lanes as
wide as the result. A template is right for scalars and for vectors of any width, and a kind of
dtypes may have its own:

    f    every float            d    float64, where it differs from float32
    i    signed integers        u    unsigned integers (where absent: `i`)
    b    bool
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ScalarOp:
    """`arity` operands; texts by kind of the first operand's dtype ('where': the second's).

    `compares`: the text is a comparison, whose lanes are as wide as the operands'.
    """

    arity: int
    f: str | None = None
    i: str | None = None
    u: str | None = None
    d: str | None = None
    b: str | None = None
    compares: bool = False

    def template(self, kind: str, double: bool) -> str | None:
        """The text for operands of `kind`; None where the operation has no such form."""
        if kind == "f":
            return self.d if double and self.d is not None else self.f
        if kind == "u":
            return self.u if self.u is not None else self.i
        return self.i if kind == "i" else self.b


def _all(arity: int, text: str) -> ScalarOp:
    return ScalarOp(arity, f=text, i=text, b=text)


def _numeric(arity: int, text: str) -> ScalarOp:
    return ScalarOp(arity, f=text, i=text)


def _float(text: str, arity: int = 1) -> ScalarOp:
    return ScalarOp(arity, f=text)


def _integer(text: str, arity: int = 2) -> ScalarOp:
    return ScalarOp(arity, i=text)


def _bool(text: str, arity: int = 2) -> ScalarOp:
    return ScalarOp(arity, b=text)


def _compare(sign: str) -> ScalarOp:
    return replace(_all(2, f"{{0}} {sign} {{1}}"), compares=True)


def _shift(sign: str, signed_rest: str = "({T})(0)") -> ScalarOp:
    """{a0}: the type's bits; shifting by as many, by more or by less than none leaves the rest."""
    shifted = f"({{T}})({{0}} {sign} ({{1}} & ({{T}})({{a0}} - 1)))"
    inside = "{1} < ({T})({a0})"
    return ScalarOp(
        2,
        i=f"{{1}} >= ({{T}})(0) && {inside} ? {shifted} : ({signed_rest})",
        u=f"{inside} ? {shifted} : ({{T}})(0)",
    )


SCALAR_OPS: dict[str, ScalarOp] = {
    # arithmetic; integers wrap, division by zero gives 0
    "add": _numeric(2, "{0} + {1}"),
    "sub": _numeric(2, "{0} - {1}"),
    "mul": _numeric(2, "{0} * {1}"),
    "div": ScalarOp(2, f="{0} / {1}", i="quotient_{T}({0}, {1})", u="uquotient_{T}({0}, {1})"),
    "fmod": ScalarOp(
        2,
        f="fmod({0}, {1})",
        d="fmod_{T}({0}, {1})",
        i="remainder_{T}({0}, {1})",
        u="uremainder_{T}({0}, {1})",
    ),
    "mod": ScalarOp(
        2,
        f="fmodulo_{T}(fmod({0}, {1}), {1})",
        d="fmodulo_{T}(fmod_{T}({0}, {1}), {1})",
        i="modulo_{T}({0}, {1})",
        u="uremainder_{T}({0}, {1})",
    ),
    "neg": _numeric(1, "-{0}"),
    "abs": ScalarOp(
        1, f="abs_{T}({0})", d="fabs({0})", i="{0} < ({T})(0) ? ({T})(-{0}) : {0}", u="{0}"
    ),
    "sign": ScalarOp(
        1,
        f="{0} > ({T})(0) ? ({T})(1) : ({0} < ({T})(0) ? ({T})(-1) : {0})",
        i="{0} > ({T})(0) ? ({T})(1) : ({0} < ({T})(0) ? ({T})(-1) : {0})",
        u="{0} > ({T})(0) ? ({T})(1) : {0}",
    ),
    "min": ScalarOp(2, f="minnan_{T}({0}, {1})", i="{0} < {1} ? {0} : {1}", b="{0} & {1}"),
    "max": ScalarOp(2, f="maxnan_{T}({0}, {1})", i="{0} > {1} ? {0} : {1}", b="{0} | {1}"),
    # of a bound first: a bound that is no NaN costs one instruction, and NaN in {1} stays
    "min_with": _numeric(2, "{0} < {1} ? {0} : {1}"),
    "max_with": _numeric(2, "{0} > {1} ? {0} : {1}"),
    "clip": ScalarOp(3, f="clip_{T}({0}, {1}, {2})"),  # between two numbers; NaN becomes the lower
    "mul_add": ScalarOp(3, f="{0} * {1} + {2}"),  # rounded once where there is an instruction
    "div_by": ScalarOp(3, f="div_by_{T}({0}, {1}, {2})"),  # {2}: 1 / {1}; quotients below 2^24
    # powers and roots
    "pow": ScalarOp(2, f="pow({0}, {1})", d="pow_{T}({0}, {1})", i="ipow_{T}({0}, {1})"),
    "sqrt": _float("sqrt({0})"),
    "reciprocal": ScalarOp(1, f="1.0f / {0}", d="1.0 / {0}"),
    # exponentials
    "exp": ScalarOp(1, f="exp_{T}({0})", d="exp({0})"),
    "exp_below": ScalarOp(1, f="exp_below_{T}({0})", d="exp({0})"),  # of x <= 0; 0 below -87
    "log": _float("log({0})"),
    "softplus": _float("softplus_{T}({0})"),
    "tanh": ScalarOp(1, f="tanh_{T}({0})", d="tanh({0})"),
    "erf": ScalarOp(1, f="erf_{T}({0})", d="erf({0})"),
    # trigonometry
    "sin": ScalarOp(1, f="sin_{T}({0})", d="sin({0})"),
    "cos": ScalarOp(1, f="cos_{T}({0})", d="cos({0})"),
    "tan": ScalarOp(1, f="tan_{T}({0})", d="tan({0})"),
    "asin": _float("asin({0})"),
    "acos": _float("acos({0})"),
    "atan": _float("atan({0})"),
    "sinh": _float("sinh({0})"),
    "cosh": _float("cosh({0})"),
    "asinh": _float("asinh({0})"),
    "acosh": _float("acosh({0})"),
    "atanh": _float("atanh({0})"),
    # rounding
    "floor": _float("floor({0})"),
    "ceil": _float("ceil({0})"),
    "round": _float("rint({0})"),
    "round_near": ScalarOp(1, f="({0} + 12582912.0f) - 12582912.0f"),  # of less than 2^22
    "round_even": ScalarOp(1, f="even_{T}({0})"),  # the same, by an instruction where there is one
    "near_bits": ScalarOp(1, f="near_bits_{T}({0})"),  # the same as an int32, plus 0x4B400000
    "trunc": _float("trunc({0})"),
    "lookup": ScalarOp(2, i="lookup_{T}({0}, {1})"),  # of a byte, by its bits, in a table
    # comparisons, giving bool
    "eq": _compare("=="),
    "ne": _compare("!="),
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "isnan": ScalarOp(1, f="{0} != {0}", compares=True),
    "isinf": ScalarOp(1, f="({0} == ({T})(INFINITY)) | ({0} == ({T})(-INFINITY))", compares=True),
    # bools
    "and": _bool("{0} & {1}"),
    "or": _bool("{0} | {1}"),
    "xor": _bool("{0} ^ {1}"),
    "not": _bool("!{0}", 1),
    "where": _all(3, "{condition} ? {1} : {2}"),
    # bits
    "bit_and": _integer("{0} & {1}"),
    "bit_or": _integer("{0} | {1}"),
    "bit_xor": _integer("{0} ^ {1}"),
    "bit_not": _integer("~{0}", 1),
    "shl": _shift("<<"),
    "shr": _shift(">>", "{0} < ({T})(0) ? ({T})(-1) : ({T})(0)"),
}

# `const` (attrs: the value) and `cast` (to the line's dtype) are rendered by `render` itself.
SPECIAL_OPS = {"const": 0, "cast": 1}


def arity(name: str) -> int:
    """How many operands the operation takes; `KeyError` for an unknown one."""
    if name in SPECIAL_OPS:
        return SPECIAL_OPS[name]
    return SCALAR_OPS[name].arity
