"""Expressions as OpenCL C: one statement a line, for scalars or for vectors of `width` lanes.

    render(expr, ["x", "y"], 8)     const float8 t0 = x + y;
                                    const float8 t1 = 0.5f;
                                    const float8 t2 = t0 * t1;     results: ("t2",)

Operands are variables (or expressions without side effects) in registers: `memory.load` makes them,
`memory.store` stores results. Helpers the text calls are added by `common.with_helpers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clinfer_kernels import memory
from clinfer_kernels.casts import cast
from clinfer_kernels.expr import Expr, Line
from clinfer_kernels.scalar_ops import SCALAR_OPS
from clinfer_kernels.types import compute, kind, literal, mask_type, register


class Rendered(NamedTuple):
    """C statements, and the C expressions of the results in order."""

    statements: tuple[str, ...]
    results: tuple[str, ...]


def render(expr: Expr, operands: Sequence[str], width: int = 1, prefix: str = "t") -> Rendered:
    """`expr` over `operands`, its values named `prefix` and a number.

    `KeyError` for an unknown operation, `ValueError` for one that a dtype does not have.
    """
    if len(operands) != len(expr.inputs):
        raise ValueError(f"{len(operands)} operands for {len(expr.inputs)} inputs")
    names = list(operands)
    statements: list[str] = []
    for number, line in enumerate(expr.lines):
        ctype = register(line.dtype, width)
        text = _line(expr, line, [names[a] for a in line.args], width)
        names.append(f"{prefix}{number}")
        statements.append(f"const {ctype} {names[-1]} = {text};")
    return Rendered(tuple(statements), tuple(names[v] for v in expr.outputs))


def _line(expr: Expr, line: Line, args: Sequence[str], width: int) -> str:
    if line.op == "const":
        text = literal(line.attrs[0], line.dtype)  # type: ignore[arg-type]
        return f"-{text}" if line.dtype == "bool" and width > 1 else text
    if line.op == "cast":
        return cast(args[0], line.dtype, expr.dtype(line.args[0]), width, line.attrs)
    operation = SCALAR_OPS[line.op]
    dtype = expr.dtype(line.args[1] if line.op == "where" else line.args[0])
    template = operation.template(kind(dtype), compute(dtype) == "double")
    if template is None:
        raise ValueError(f"the operation '{line.op}' does not take {dtype} operands")
    attrs = {f"a{i}": literal(v, dtype) for i, v in enumerate(line.attrs) if not isinstance(v, str)}
    condition = _resized(args[0], mask_type(compute(line.dtype)), "int", width)
    text = template.format(*args, T=register(dtype, width), condition=condition, **attrs)
    return _resized(text, "int", mask_type(compute(dtype)), width) if operation.compares else text


def _resized(mask: str, to: str, source: str, width: int) -> str:
    """A vector mask with lanes of another size; a scalar is one for every size."""
    return mask if width == 1 else memory.convert(mask, to, source, width)
