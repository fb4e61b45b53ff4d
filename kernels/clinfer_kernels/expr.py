"""Scalar expressions: what a pointwise kernel computes, and every family's prologue and epilogue.

An `Expr` is a straight-line program over numbered values: operands first, then one value a line.

    operands  %0: float32, %1: float32
    %2 = add %0, %1          Expr(inputs=("float32", "float32"),
    %3 = const 0.0                lines=(Line("add", (0, 1), "float32"),
    %4 = max %2, %3                      Line("const", (), "float32", (0.0,)),
    outputs %4                           Line("max", (2, 3), "float32")),
                                  outputs=(4,))

Scalar operations are listed in `scalar_ops.SCALAR_OPS`; ONNX operators become expressions through
`onnx_pointwise.POINTWISE`. `clinfer_kernels.render` turns an expression into OpenCL C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Line(NamedTuple):
    """One operation: its name in the table, value numbers, result dtype, baked constants."""

    op: str
    args: tuple[int, ...]
    dtype: str
    attrs: tuple[float | int | str, ...] = ()


@dataclass(frozen=True)
class Expr:
    """A straight-line scalar program; see the module's text."""

    inputs: tuple[str, ...]
    lines: tuple[Line, ...]
    outputs: tuple[int, ...]

    def dtype(self, value: int) -> str:
        """The dtype of value number `value`."""
        if value < len(self.inputs):
            return self.inputs[value]
        return self.lines[value - len(self.inputs)].dtype

    @property
    def output_dtypes(self) -> tuple[str, ...]:
        return tuple(self.dtype(v) for v in self.outputs)

    @property
    def is_identity(self) -> bool:
        """Whether the only output is the only operand."""
        return self.outputs == (0,) and len(self.inputs) == 1


def identity(dtype: str) -> Expr:
    """The expression that returns its operand."""
    return Expr((dtype,), (), (0,))


class Builder:
    """Builds an `Expr` a line at a time; equal lines are kept once."""

    def __init__(self, inputs: Sequence[str] = ()) -> None:
        self._inputs: list[str] = list(inputs)
        self._lines: list[Line] = []
        self._known: dict[object, int] = {}

    def dtype(self, value: int) -> str:
        """The dtype of value number `value`."""
        count = len(self._inputs)
        return self._inputs[value] if value < count else self._lines[value - count].dtype

    def op(
        self,
        name: str,
        *args: int,
        dtype: str | None = None,
        attrs: Sequence[float | int | str] = (),
    ) -> int:
        """Appends an operation; its dtype is the first operand's unless given."""
        line = Line(name, args, dtype or self.dtype(args[0]), tuple(attrs))
        key = (line, repr(attrs)) if attrs else line  # 0.0 and -0.0 are equal, but not one
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self._inputs) + len(self._lines)
            self._lines.append(line)
        return number

    def const(self, value: float | int, dtype: str) -> int:
        """A constant baked into the text."""
        return self.op("const", dtype=dtype, attrs=(value,))

    def inline(self, expr: Expr, operands: Sequence[int]) -> tuple[int, ...]:
        """Appends `expr`'s lines with its operands bound to values of this program."""
        numbers = list(operands)
        for line in expr.lines:
            args = tuple(numbers[a] for a in line.args)
            numbers.append(self.op(line.op, *args, dtype=line.dtype, attrs=line.attrs))
        return tuple(numbers[v] for v in expr.outputs)

    def build(self, *outputs: int) -> Expr:
        """The finished expression without lines no output needs."""
        return prune(Expr(tuple(self._inputs), tuple(self._lines), outputs))


def prune(expr: Expr) -> Expr:
    """`expr` without the lines that no output depends on; operands all stay."""
    count = len(expr.inputs)
    needed = bytearray(count + len(expr.lines))
    for value in expr.outputs:
        needed[value] = 1
    for index in range(len(expr.lines) - 1, -1, -1):  # a line reads what stands before it
        if needed[index + count]:
            for value in expr.lines[index].args:
                needed[value] = 1
    if needed.count(1, count) == len(expr.lines):
        return expr
    numbers: dict[int, int] = {i: i for i in range(count)}
    lines: list[Line] = []
    for index, line in enumerate(expr.lines):
        if needed[index + count]:
            numbers[index + count] = count + len(lines)
            args = tuple(numbers[a] for a in line.args)
            lines.append(Line(line.op, args, line.dtype, line.attrs))
    return Expr(expr.inputs, tuple(lines), tuple(numbers[v] for v in expr.outputs))


def to_json(expr: Expr) -> Mapping[str, object]:
    """Plain data for plans and reports."""
    return {
        "inputs": list(expr.inputs),
        "lines": [[x.op, list(x.args), x.dtype, list(x.attrs)] for x in expr.lines],
        "outputs": list(expr.outputs),
    }
