"""What is computed of a convolution's input elements as they are read; padding stays 0.

Operands but the first have a value for each channel, or one for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels import memory
from clinfer_kernels.expr import Expr
from clinfer_kernels.nest import stride_kind
from clinfer_kernels.render import render
from clinfer_kernels.signature import Signature
from clinfer_kernels.spec import Tensor
from clinfer_kernels.specs import ConvSpec, PreparedConvSpec
from clinfer_kernels.types import compute, register


@dataclass(frozen=True)
class Prologue:
    """`expr` over the input and `operands`, with their input indices."""

    expr: Expr
    operands: tuple[tuple[int, Tensor], ...]


def prologue_of(spec: ConvSpec) -> Prologue | None:
    """The prologue of a spec that has one."""
    if not isinstance(spec, PreparedConvSpec):
        return None
    first = spec.count
    return Prologue(spec.prologue, tuple(enumerate(spec.ins[first:], start=first)))


def declare(signature: Signature, prologue: Prologue | None) -> None:
    """The operands as p0, p1, ... with their offsets and, unless known, channel strides."""
    for number, (index, tensor) in enumerate(prologue.operands if prologue else ()):
        signature.read("in", index, tensor.dtype, f"p{number}")
        signature.scalar(f"p{number}_o", tensor.offset)
        if stride_kind(tensor.strides[-1]) == "s":
            signature.scalar(f"p{number}_c", tensor.strides[-1])


def prepared(
    prologue: Prologue | None, x: Tensor, loaded: str, channel: str, acc: str
) -> tuple[list[str], str]:
    """Statements, and the input element that was `loaded` in the dtype of the sums."""
    if prologue is None:
        return [], memory.convert(loaded, compute(acc), compute(x.dtype), 1)
    lines = [f"const {register(x.dtype, 1)} x_read = {loaded};"]
    names = ["x_read"]
    for number, (_, tensor) in enumerate(prologue.operands):
        kind = stride_kind(tensor.strides[-1])
        step = {"0": "", "1": f" + ({channel})"}.get(kind, f" + ({channel}) * p{number}_c")
        value = memory.load(tensor.dtype, f"p{number}", f"p{number}_o{step}")
        lines.append(f"const {register(tensor.dtype, 1)} v_p{number} = {value};")
        names.append(f"v_p{number}")
    rendered = render(prologue.expr, names, prefix="q")
    made = prologue.expr.output_dtypes[0]
    value = memory.convert(rendered.results[0], compute(acc), compute(made), 1)
    return [*lines, *rendered.statements], value
