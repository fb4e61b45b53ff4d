"""Expressions written as formulas: `Term` is a value of a `Builder` with arithmetic operators.

x = Term(builder, 0)
y = x * x.sigmoid()            # appends lines to the builder; y.number is the value
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.expr import Builder

Number = float | int


@dataclass(frozen=True)
class Term:
    """Value `number` of `builder`. Numbers on the other side of an operator become constants."""

    builder: Builder
    number: int

    @property
    def dtype(self) -> str:
        return self.builder.dtype(self.number)

    def op(self, name: str, *others: Term | Number, dtype: str | None = None) -> Term:
        """The operation `name` with this value as its first operand."""
        numbers = [self.lift(other).number for other in others]
        return Term(self.builder, self.builder.op(name, self.number, *numbers, dtype=dtype))

    def lift(self, value: Term | Number) -> Term:
        """A constant of this value's dtype; terms are returned as they are."""
        if isinstance(value, Term):
            return value
        return Term(self.builder, self.builder.const(value, self.dtype))

    def cast(self, dtype: str) -> Term:
        """ONNX Cast; nothing where the dtype is right already."""
        return self if dtype == self.dtype else self.op("cast", dtype=dtype)

    def __add__(self, other: Term | Number) -> Term:
        return self.op("add", other)

    def __sub__(self, other: Term | Number) -> Term:
        return self.op("sub", other)

    def __mul__(self, other: Term | Number) -> Term:
        return self.op("mul", other)

    def __truediv__(self, other: Term | Number) -> Term:
        return self.op("div", other)

    def __neg__(self) -> Term:
        return self.op("neg")

    def __lt__(self, other: Term | Number) -> Term:
        return self.op("lt", other, dtype="bool")

    def __gt__(self, other: Term | Number) -> Term:
        return self.op("gt", other, dtype="bool")

    def where(self, yes: Term | Number, no: Term) -> Term:
        """`yes` where this bool holds, else `no`."""
        return self.op("where", no.lift(yes), no, dtype=no.dtype)

    def at_least(self, bound: Term | Number) -> Term:
        """max(self, bound); NaN stays NaN."""
        return self.lift(bound).op("max_with", self)

    def at_most(self, bound: Term | Number) -> Term:
        """min(self, bound); NaN stays NaN."""
        return self.lift(bound).op("min_with", self)

    def exp(self) -> Term:
        return self.op("exp")

    def sigmoid(self) -> Term:
        """1 / (1 + e^-x)."""
        return ((-self).exp() + 1.0).op("reciprocal")
