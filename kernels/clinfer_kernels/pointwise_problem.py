"""A pointwise spec after merging dimensions: loop sizes, and views with strides along the loops."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer_kernels.dims import Dim, product
from clinfer_kernels.expr import Expr, identity
from clinfer_kernels.nest import (
    Axis,
    View,
    axes_of,
    declare_sizes,
    declare_strides,
    innermost_last,
    merge,
    stride_kind,
    views_of,
)
from clinfer_kernels.signature import Signature
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.types import bits_type


@dataclass(frozen=True)
class Problem:
    """Operands x0, x1, ... and outputs y0, y1, ... over loops n0, n1, ..., outermost first."""

    expr: Expr
    sizes: tuple[Dim, ...]
    ins: tuple[View, ...]
    outs: tuple[View, ...]

    @property
    def rank(self) -> int:
        return len(self.sizes)

    @property
    def total(self) -> Dim:
        return product(self.sizes)

    @property
    def views(self) -> tuple[View, ...]:
        return self.ins + self.outs

    @property
    def columns(self) -> tuple[View, ...]:
        """Operands with unit stride along the last but one dimension, and none along the last."""
        if self.rank < 2:
            return ()
        return tuple(v for v in self.ins if v.inner == "s" and v.strides[-2] == 1)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Every dtype that occurs in registers."""
        lines = tuple(line.dtype for line in self.expr.lines)
        return self.expr.inputs + lines + tuple(v.dtype for v in self.outs)

    def signature(self) -> Signature:
        """Buffers, sizes, then each view's offset and the strides that are not in the text."""
        signature = Signature()
        for view in self.views:
            signature.buffer(view.kind, view.index, view.dtype, view.name)
        declare_sizes(signature, self.sizes)
        for view in self.views:
            count = self.rank - (view.inner != "s")
            numbered = list(enumerate(view.strides))[:count]
            declare_strides(signature, view.name, view.offset, numbered)
        return signature


def problem_of(spec: PointwiseSpec, square: bool = False) -> Problem:
    """Merges dimensions; `square` puts an operand's unit-stride dimension last but one."""
    spec = _as_bits(spec) if spec.expr.is_identity else spec
    tensors = spec.ins + spec.outs
    first_out = len(spec.ins)
    axes = merge(innermost_last(axes_of(tensors), first_out)) if tensors[0].rank else ()
    if not axes or not axes[0].strides:
        axes = (Axis(1, (0,) * len(tensors)),)
    if square:
        axes = _unit_stride_next(axes, len(spec.ins))
    ins = views_of("in", "x", spec.ins, axes, 0)
    outs = views_of("out", "y", spec.outs, axes, first_out)
    return Problem(spec.expr, tuple(a.size for a in axes), ins, outs)


def _as_bits(spec: PointwiseSpec) -> PointwiseSpec:
    """A copy of plain bits: one program for all element types of a size."""
    dtype = bits_type(spec.ins[0].dtype)
    ins = tuple(t._replace(dtype=dtype) for t in spec.ins)
    outs = tuple(t._replace(dtype=dtype) for t in spec.outs)
    return PointwiseSpec(identity(dtype), ins, outs)


def _unit_stride_next(axes: tuple[Axis, ...], operands: int) -> tuple[Axis, ...]:
    """The axes with the unit-stride axis of a strided operand moved next to the innermost."""
    *outer, inner = axes
    for operand in range(operands):
        if stride_kind(inner.strides[operand]) != "s":
            continue
        for axis in outer:
            if axis.strides[operand] == 1:
                return (*(a for a in outer if a is not axis), axis, inner)
    return axes
